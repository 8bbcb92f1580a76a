//! One error type for the whole engine: a kind, a sentence, where it happened, and what caused it.
//!
//! The kind is a decision, not a description: it fixes the exit status and tells who must act (the
//! user, the owner of the data, whoever runs the outside system, or us). Messages name the place and,
//! where there is one, say what to write instead; [`Error::help`] keeps that second half apart so that
//! a terminal can print it on its own line. What must always hold: no message carries a secret.

use std::fmt;

/// What went wrong, as a decision about who acts and how the process exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The SQL file, an option or a file named by the user. Exit status 2.
    User,
    /// A record that the policy `fail` does not let pass. Exit status 3.
    Data,
    /// A broker, disk or service that did not answer after its retries. Exit status 4.
    External,
    /// Saved state that does not fit this job. Exit status 5.
    State,
    /// A broken invariant of the engine: asks to be reported. Exit status 70.
    Internal,
}

impl ErrorKind {
    /// The process exit status of an error of this kind (design, section 8).
    pub fn exit_status(self) -> u8 {
        match self {
            Self::User => 2,
            Self::Data => 3,
            Self::External => 4,
            Self::State => 5,
            Self::Internal => 70,
        }
    }
}

/// A stretch of SQL text: 1-based line and column (in characters) of its start, and its length there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// 1-based line.
    pub line: u32,
    /// 1-based column, counted in characters.
    pub column: u32,
    /// Characters to underline; at least 1.
    pub width: u32,
}

/// The engine's error. Cheap to move: everything sits behind one box.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    span: Option<Span>,
    snippet: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { kind, message, help: None, span: None, snippet: None, source: None }))
    }

    /// The user's SQL, option or file.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, message)
    }

    /// A record that may not pass.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// An outside system.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::External, message)
    }

    /// Saved state that does not fit.
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::State, message)
    }

    /// A broken invariant of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Says what to write or do instead.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Names the place in the SQL text; a place that is already known stays.
    pub fn at(mut self, span: Span) -> Self {
        self.0.span.get_or_insert(span);
        self
    }

    /// Adds what was being done, in front of the message: `context: message`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Keeps the cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Fills in the line of `sql` that the span names, with a caret below it, for printing.
    /// `file` is how the user knows the text (a path, or `<stdin>`).
    pub fn with_sql(mut self, file: &str, sql: &str) -> Self {
        if let (Some(span), None) = (self.0.span, &self.0.snippet) {
            self.0.snippet = Some(snippet(file, sql, span));
        }
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without help, place or cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do instead, where it is known.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The place in the SQL text, where it is known.
    pub fn span(&self) -> Option<Span> {
        self.0.span
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { message, help, snippet, source, kind, .. } = &*self.0;
        write!(f, "{message}")?;
        if let Some(source) = source {
            write!(f, ": {source}")?;
        }
        if let Some(snippet) = snippet {
            write!(f, "\n{snippet}")?;
        }
        if let Some(help) = help {
            write!(f, "\nhelp: {help}")?;
        }
        if *kind == ErrorKind::Internal {
            write!(f, "\nThis is a fault of VeloSQL: please report it with the SQL file.")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::internal("an Arrow kernel failed").caused_by(e)
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(e: datafusion::error::DataFusionError) -> Self {
        // Our own functions report through DataFusion's error: what they said comes back whole.
        match e {
            datafusion::error::DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Self::internal("an expression failed").caused_by(other),
            },
            datafusion::error::DataFusionError::Context(_, inner) => (*inner).into(),
            datafusion::error::DataFusionError::Diagnostic(_, inner) => (*inner).into(),
            datafusion::error::DataFusionError::ArrowError(inner, _) => Self::data(format!("an expression failed: {inner}")),
            datafusion::error::DataFusionError::Execution(message) => Self::data(message),
            other => Self::internal("DataFusion refused").caused_by(other),
        }
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(e: Error) -> Self {
        Self::External(Box::new(e))
    }
}

/// The name in `known` that is nearest to `name`, where one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().max(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

fn snippet(file: &str, sql: &str, span: Span) -> String {
    let line = sql.lines().nth(span.line.saturating_sub(1) as usize).unwrap_or("");
    let number = span.line.to_string();
    let gutter = " ".repeat(number.len());
    // A tab stays a tab in the caret line, so that the caret stands under its column.
    let before = span.column.saturating_sub(1) as usize;
    let pad: String = line.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let left = line.chars().count().saturating_sub(before).max(1);
    let carets = "^".repeat((span.width.max(1) as usize).min(left));
    format!("{gutter}--> {file}:{}:{}\n{gutter} |\n{number} | {line}\n{gutter} | {pad}{carets}", span.line, span.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_its_column() {
        let e = Error::user("no such column").at(Span { line: 2, column: 8, width: 3 }).help("write b");
        let text = e.with_sql("q.sql", "SELECT\n  a, \tfoo\nFROM t").to_string();
        assert_eq!(text, "no such column\n --> q.sql:2:8\n  |\n2 |   a, \tfoo\n  |      \t ^^\nhelp: write b");
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("toppic", ["topic", "format"]), Some("topic"));
        assert_eq!(nearest("zzz", ["topic", "format"]), None);
    }
}
