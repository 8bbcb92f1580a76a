//! Which files a path, folder or glob means, and what to say when there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use globset::{GlobBuilder, GlobMatcher};

use super::options::FileOptions;
use crate::error::{Error, Result, nearest};

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last changed, in ms since 1970.
    pub modified: i64,
}

/// The visible files of the table, in path order; or the files that it is made of, in theirs.
///
/// # Errors
/// User: nothing is there. External: a folder cannot be read.
pub fn list(options: &FileOptions) -> Result<Vec<FileEntry>> {
    if let Some(files) = &options.files {
        let entry = |path: &PathBuf| fs::metadata(path).map(|meta| entry(path.clone(), &meta)).map_err(|e| missing(options, path, e));
        return files.iter().map(entry).collect();
    }
    let pattern = options.path_pattern.as_deref().map(|p| regex(p, &options.owner)).transpose()?;
    let mut found = Vec::new();
    match split_glob(&options.path) {
        None => {
            let meta = fs::metadata(&options.path).map_err(|e| missing(options, &options.path, e))?;
            if meta.is_dir() {
                walk(&options.path, None, &mut found)?;
            } else {
                found.push(entry(options.path.clone(), &meta));
            }
        }
        Some(root) => {
            if !root.exists() {
                let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(missing(options, &root, gone));
            }
            let glob = glob(&options.path.to_string_lossy(), &options.owner)?;
            walk(&root, Some(&glob), &mut found)?;
            if found.is_empty() && options.monitor_interval.is_none() {
                let e = Error::user(format!("{}: no file matches '{}'", options.owner, options.written));
                return Err(e.help(format!("'{}' holds: {}", root.display(), sample(&root))));
            }
        }
    }
    if let Some(pattern) = pattern {
        found.retain(|f| pattern.is_match(&f.path.to_string_lossy()).unwrap_or(false));
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Whether a name in a table's folder is no data.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Whether a path holds glob characters.
pub fn is_glob(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[', '{'])
}

/// The visible files below `root`, unordered; with a glob only what it, or a folder above, matches.
fn walk(root: &Path, glob: Option<&GlobMatcher>, found: &mut Vec<FileEntry>) -> Result<()> {
    let mut folders = vec![(root.to_path_buf(), glob.is_none())];
    while let Some((folder, inside)) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|e| super::failed("cannot be read", &folder, e))?;
        for item in entries {
            let item = item.map_err(|e| super::failed("cannot be read", &folder, e))?;
            if is_hidden(&item.file_name().to_string_lossy()) {
                continue;
            }
            let path = item.path();
            // A file may go between listing and looking (a sink's rename, a clean-up): it is then no file.
            let Ok(meta) = fs::metadata(&path) else { continue };
            let inside = inside || glob.is_some_and(|g| g.is_match(&path));
            if meta.is_dir() {
                folders.push((path, inside));
            } else if inside {
                found.push(entry(path, &meta));
            }
        }
    }
    Ok(())
}

fn entry(path: PathBuf, meta: &fs::Metadata) -> FileEntry {
    let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_millis() as i64);
    FileEntry { path, bytes: meta.len(), modified }
}

/// The folder above the first component with glob characters; `None`: there is no such component.
fn split_glob(path: &Path) -> Option<PathBuf> {
    // A path that exists as written is no glob, whatever its name.
    if !is_glob(path) || path.exists() {
        return None;
    }
    Some(path.components().take_while(|c| !is_glob(Path::new(c.as_os_str()))).collect())
}

fn glob(text: &str, owner: &str) -> Result<GlobMatcher> {
    let built = GlobBuilder::new(text).literal_separator(true).build();
    Ok(built.map_err(|e| Error::user(format!("{owner}: 'path' is no glob that can be read")).caused_by(e))?.compile_matcher())
}

fn regex(text: &str, owner: &str) -> Result<fancy_regex::Regex> {
    fancy_regex::Regex::new(&format!("^(?:{text})$"))
        .map_err(|e| Error::user(format!("{owner}: 'source.path.regex-pattern' is no regular expression")).caused_by(e))
}

/// Says what is missing at `path`, and what is there instead.
fn missing(options: &FileOptions, path: &Path, cause: std::io::Error) -> Error {
    if cause.kind() != std::io::ErrorKind::NotFound {
        return Error::user(format!("{}: '{}' cannot be read", options.owner, path.display())).caused_by(cause);
    }
    let e = Error::user(format!("{}: there is no file or folder '{}'", options.owner, path.display()));
    let mut above = path;
    let mut name = String::new();
    while let Some(parent) = above.parent() {
        name = above.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        above = parent;
        if above.as_os_str().is_empty() || above.exists() {
            break;
        }
    }
    let folder = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let names: Vec<String> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|i| i.file_name().to_string_lossy().into_owned()).collect();
    match nearest(&name, names.iter().map(String::as_str)) {
        Some(near) => e.help(format!("did you mean '{}'?", folder.join(near).display())),
        None => e.help(format!("'{}' holds: {}", folder.display(), sample(folder))),
    }
}

/// A few names in a folder, for a message.
fn sample(folder: &Path) -> String {
    let mut names: Vec<String> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|i| i.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|n| !is_hidden(n));
    names.sort();
    match names.len() {
        0 => "nothing".to_string(),
        1..=8 => names.join(", "),
        more => format!("{}, and {} more", names[..8].join(", "), more - 8),
    }
}
