//! A file as JSON records: JSON lines as they are, CSV and Parquet turned into one object a row.
//!
//! What must always hold: a JSON line passes byte for byte, its line end and nothing else taken off; an error
//! names the file and the line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;

use super::csv::CsvRecords;
use super::parquet::ParquetRecords;
use crate::error::{Error, Result, nearest};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// How a CSV file is written.
#[derive(Debug, Clone, Copy)]
pub struct CsvForm {
    /// Whether the first line names the columns.
    pub header: bool,
    /// Between values.
    pub delimiter: u8,
}

/// JSON records, one after the other.
pub trait Records {
    /// Puts the next record into `out`, which it clears; false at the end.
    ///
    /// # Errors
    /// User or Data: the file cannot be read further.
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool>;

    /// Where the last record stands, for messages, such as `line 3`.
    fn place(&self) -> String;
}

/// Opens `file`; `-` is standard input. Without `format` the name says what it holds.
///
/// # Errors
/// User: it cannot be read, or nothing says what it holds.
pub fn open(file: &str, format: Option<FileFormat>, csv: CsvForm) -> Result<Box<dyn Records>> {
    let format = match format {
        Some(format) => format,
        None if file == "-" => FileFormat::Jsonl,
        None => {
            opened(file)?;
            format_of(file)?
        }
    };
    if format == FileFormat::Parquet {
        if file == "-" {
            return Err(Error::user("Parquet cannot be read from standard input").help("give a file"));
        }
        return Ok(Box::new(ParquetRecords::open(file, opened(file)?)?));
    }
    let raw: Box<dyn Read> = if file == "-" { Box::new(std::io::stdin()) } else { Box::new(opened(file)?) };
    let mut reader: Box<dyn BufRead> = Box::new(BufReader::with_capacity(1 << 20, raw));
    let unreadable = |e: std::io::Error| Error::user(format!("cannot read {file}")).caused_by(e);
    // gzip by its magic bytes: names lie.
    if reader.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]) {
        reader = Box::new(BufReader::with_capacity(1 << 20, MultiGzDecoder::new(reader)));
    }
    let head = reader.fill_buf().map_err(unreadable)?;
    if head.starts_with(b"PAR1") {
        return Err(Error::user(format!("{file} is a Parquet file")).help("give --format parquet"));
    }
    match format {
        FileFormat::Csv => Ok(Box::new(CsvRecords::open(file, reader, csv)?)),
        _ => {
            let first = head.iter().find(|b| !b.is_ascii_whitespace()).copied();
            if first == Some(b'[') {
                let e = Error::user(format!("{file} is one JSON array; expected one JSON object a line"));
                return Err(e.help(format!("jq -c '.[]' {file} > lines.jsonl")));
            }
            Ok(Box::new(JsonLines { file: file.to_string(), reader, line: 0 }))
        }
    }
}

fn opened(file: &str) -> Result<File> {
    let path = std::path::Path::new(file);
    let e = match File::open(path) {
        Ok(found) if !path.is_dir() => return Ok(found),
        Ok(_) => return Err(Error::user(format!("{file} is a directory")).help(format!("name a file in it: ls {file}"))),
        Err(e) => e,
    };
    let missing = e.kind() == std::io::ErrorKind::NotFound;
    let error = Error::user(format!("cannot open {file}")).caused_by(e);
    if !missing {
        return Err(error);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Err(error.help(format!("there is no directory {}", folder.display())));
    };
    let names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    let wanted = path.file_name().and_then(|n| n.to_str()).unwrap_or(file);
    Err(match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => error.help(format!("did you mean {}?", folder.join(near).display())),
        None => error.help("give the path of a CSV, JSON lines or Parquet file; velosql generate velib --out FILE makes one"),
    })
}

fn format_of(file: &str) -> Result<FileFormat> {
    let name = file.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.').map(|(_, ext)| ext) {
        Some("jsonl" | "ndjson" | "json") => Ok(FileFormat::Jsonl),
        Some("csv") => Ok(FileFormat::Csv),
        Some("parquet" | "pq") => Ok(FileFormat::Parquet),
        _ => Err(Error::user(format!("cannot tell what {file} holds from its name")).help("give --format jsonl, csv or parquet")),
    }
}

struct JsonLines {
    file: String,
    reader: Box<dyn BufRead>,
    line: u64,
}

impl Records for JsonLines {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        loop {
            out.clear();
            let read = self.reader.read_until(b'\n', out);
            let read = read.map_err(|e| Error::user(format!("{} line {}: cannot be read", self.file, self.line + 1)).caused_by(e))?;
            if read == 0 {
                return Ok(false);
            }
            self.line += 1;
            if out.last() == Some(&b'\n') {
                out.pop();
                if out.last() == Some(&b'\r') {
                    out.pop();
                }
            }
            // An empty line is no record.
            if !out.iter().all(u8::is_ascii_whitespace) {
                return Ok(true);
            }
        }
    }

    fn place(&self) -> String {
        format!("line {}", self.line)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// The records of a file with this name and content.
    pub fn read(name: &str, content: &[u8]) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        let mut records = open(path.to_str().expect("UTF-8"), None, CsvForm { header: true, delimiter: b',' })?;
        let (mut all, mut out) = (Vec::new(), Vec::new());
        while records.next(&mut out)? {
            all.push(String::from_utf8_lossy(&out).into_owned());
        }
        Ok(all)
    }

    #[test]
    fn json_lines_pass_as_they_are_zipped_or_not() {
        let text = b"{\"a\": 1.50 }\r\n\n  {broken\n{\"a\":2}";
        let expected = ["{\"a\": 1.50 }", "  {broken", "{\"a\":2}"];
        assert_eq!(read("x.jsonl", text).expect("lines"), expected);
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(text).expect("memory");
        assert_eq!(read("x.jsonl.gz", &zip.finish().expect("memory")).expect("lines"), expected);
    }

    #[test]
    fn files_that_cannot_be_read_say_what_to_do() {
        let help =
            |name: &str, content: &[u8]| read(name, content).expect_err("refused").help_text().map(str::to_string).unwrap_or_default();
        assert!(help("x.json", b" [{}]").contains("jq -c"));
        assert!(help("x.txt", b"").contains("--format"));
        assert!(help("x.csv", b"PAR1").contains("--format parquet"));
        let e = open(".", Some(FileFormat::Csv), CsvForm { header: true, delimiter: b',' }).err().expect("a directory");
        assert!(e.message().contains("directory"), "{e}");
    }
}
