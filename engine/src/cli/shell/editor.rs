//! What the line editor of the shell knows: when a statement is complete, and what can complete a word.

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::command;
use super::split::split;
use crate::sql::functions::known_functions;
use crate::sql::parser::keywords::RESERVED;

/// Words of statements that are not reserved, and keys of settings are not words.
const MORE_KEYWORDS: &[&str] = &[
    "DESCRIBE",
    "EXECUTE",
    "EXPLAIN",
    "IF",
    "INTERVAL",
    "KEY",
    "RESET",
    "SHOW",
    "STATEMENT",
    "STRING",
    "TABLES",
    "TEMPORARY",
    "VIEW",
    "VIEWS",
    "WATERMARK",
    "TUMBLE",
    "HOP",
    "DESCRIPTOR",
    "BEGIN",
    "ENFORCED",
    "METADATA",
    "VIRTUAL",
    "PARTITIONED",
];

/// Helps the line editor.
#[derive(Default)]
pub struct Editing {
    /// Tables, views and their columns.
    pub names: Vec<String>,
}

/// Words that can complete the one that ends at byte `at` of `line`, and where it starts. A word typed in
/// lower case gets keywords in lower case.
pub fn candidates(line: &str, at: usize, names: &[String]) -> (usize, Vec<String>) {
    let typed = &line[..at];
    let start =
        typed.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + typed[i..].chars().next().map_or(1, char::len_utf8));
    let word = &typed[start..];
    // Behind a dot stand columns only.
    let after_dot = typed[..start].ends_with('.');
    if word.is_empty() && !after_dot {
        return (start, vec![]);
    }
    let fits = |c: &str| c.len() > word.len() && c.is_char_boundary(word.len()) && c[..word.len()].eq_ignore_ascii_case(word);
    let mut found: Vec<String> = names.iter().filter(|n| fits(n)).cloned().collect();
    if !after_dot {
        let lower = !word.chars().any(char::is_uppercase);
        let words = RESERVED.iter().chain(MORE_KEYWORDS).chain(known_functions());
        found.extend(words.filter(|w| fits(w)).map(|w| if lower { w.to_lowercase() } else { w.to_uppercase() }));
    }
    found.sort();
    found.dedup();
    (start, found)
}

impl Completer for Editing {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, found) = candidates(line, pos, &self.names);
        Ok((start, found.into_iter().map(|w| Pair { display: w.clone(), replacement: w }).collect()))
    }
}

impl Validator for Editing {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let complete = command(ctx.input()).is_some() || !split(ctx.input()).rest_says;
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Editing {
    type Hint = String;
}

impl Highlighter for Editing {}

impl Helper for Editing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed_with_what_is_known_in_the_case_that_was_typed() {
        let names = ["status".to_string(), "stationcode".to_string()];
        assert_eq!(candidates("SELECT statio", 13, &names), (7, vec!["stationcode".into()]));
        assert_eq!(candidates("select * wher", 13, &names), (9, vec!["where".into()]));
        assert_eq!(candidates("SELECT * WHER", 13, &names), (9, vec!["WHERE".into()]));
        assert_eq!(candidates("SELECT s.sta", 12, &names).1, ["stationcode", "status"]);
        assert_eq!(candidates("SELECT é, statu", "SELECT é, statu".len(), &names).1, ["status"]);
        assert!(candidates("SELECT ", 7, &names).1.is_empty());
    }
}
