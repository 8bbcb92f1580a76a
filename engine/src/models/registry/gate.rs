//! The gate of a publication: `macro_f1 >= champion - 0.01 and log_loss < 0.9`.
//!
//! A term compares a metric of the new version with a number or with the champion's value of the same metric, plus or
//! minus a number. What must hold: a term about the champion passes where there is none; a metric that cannot be had
//! (absent, NaN) does not pass.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest};

/// Terms that must all hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    text: String,
    terms: Vec<Term>,
}

/// What a gate said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The gate as it was written.
    pub gate: String,
    /// Whether the version became champion.
    pub passed: bool,
    /// Each term with its numbers: `macro_f1 0.81 >= champion (0.84) - 0.01: no`.
    pub terms: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    metric: String,
    comparison: Comparison,
    /// Whether the number is added to the champion's value.
    champion: bool,
    number: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    MoreThan,
    AtMost,
    LessThan,
}

impl Gate {
    /// Reads a gate over the metrics of names `known`.
    ///
    /// # Errors
    /// User: what cannot be read, with what may stand there.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self> {
        let mut words = words(text).into_iter().peekable();
        let mut terms = Vec::new();
        loop {
            let metric = words.next().ok_or_else(|| unclear(text, "a metric is missing at its end"))?;
            if !known.contains(&metric.as_str()) {
                let e = Error::user(format!("'publish.gate': this task has no metric '{metric}'"));
                return Err(match nearest(&metric, known.iter().copied()) {
                    Some(near) => e.help(format!("did you mean '{near}'?")),
                    None => e.help(format!("its metrics: {}", known.join(", "))),
                });
            }
            let comparison = match words.next().as_deref() {
                Some(">=") => Comparison::AtLeast,
                Some(">") => Comparison::MoreThan,
                Some("<=") => Comparison::AtMost,
                Some("<") => Comparison::LessThan,
                Some(word) => return Err(unclear(text, &format!("'{word}' stands where >=, >, <= or < is wanted"))),
                None => return Err(unclear(text, &format!("nothing follows '{metric}'"))),
            };
            let number = |word: Option<String>, after: &str| match word {
                None => Err(unclear(text, &format!("nothing follows '{after}'"))),
                Some(word) => match word.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(number),
                    _ => Err(unclear(
                        text,
                        &format!(
                            "'{word}' stands where a number{} is wanted",
                            if after == "+" || after == "-" { "" } else { " or 'champion'" }
                        ),
                    )),
                },
            };
            let champion = words.peek().is_some_and(|w| w.eq_ignore_ascii_case("champion"));
            let number = if champion {
                words.next();
                match words.peek().map(String::as_str) {
                    Some("+") => number(
                        {
                            words.next();
                            words.next()
                        },
                        "+",
                    )?,
                    Some("-") => -number(
                        {
                            words.next();
                            words.next()
                        },
                        "-",
                    )?,
                    _ => 0.0,
                }
            } else {
                match words.next() {
                    Some(sign) if sign == "-" => -number(words.next(), "-")?,
                    word => number(word, "the comparison")?,
                }
            };
            terms.push(Term { metric, comparison, champion, number });
            match words.next() {
                None => return Ok(Self { text: text.trim().to_string(), terms }),
                Some(word) if word.eq_ignore_ascii_case("and") => {}
                Some(word) => return Err(unclear(text, &format!("'{word}' stands where 'and' or the end is wanted"))),
            }
        }
    }

    /// Whether a version of these metrics may become champion.
    pub fn judge(&self, metrics: &BTreeMap<String, f64>, champion: Option<&BTreeMap<String, f64>>) -> Verdict {
        let mut verdict = Verdict { gate: self.text.clone(), passed: true, terms: Vec::new() };
        for term in &self.terms {
            let mine = metrics.get(&term.metric).copied().unwrap_or(f64::NAN);
            let theirs = if term.champion { champion.map(|c| c.get(&term.metric).copied().unwrap_or(f64::NAN)) } else { Some(0.0) };
            let (shown, passed) = match theirs {
                None => ("no champion".to_string(), true),
                // A champion without the metric cannot hold anyone back.
                Some(theirs) if term.champion && theirs.is_nan() => ("a champion without it".to_string(), !mine.is_nan()),
                Some(theirs) => {
                    let passed = term.comparison.holds(mine, theirs + term.number);
                    (if term.champion { format!("champion ({theirs}){}", offset(term.number)) } else { term.number.to_string() }, passed)
                }
            };
            let answer = if passed { "yes" } else { "no" };
            verdict.terms.push(format!("{} {mine} {} {shown}: {answer}", term.metric, term.comparison));
            verdict.passed &= passed;
        }
        verdict
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Comparison {
    fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Self::AtLeast => a >= b,
            Self::MoreThan => a > b,
            Self::AtMost => a <= b,
            Self::LessThan => a < b,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeast => ">=",
            Self::MoreThan => ">",
            Self::AtMost => "<=",
            Self::LessThan => "<",
        })
    }
}

fn offset(number: f64) -> String {
    match number {
        0.0 => String::new(),
        n if n < 0.0 => format!(" - {}", -n),
        n => format!(" + {n}"),
    }
}

fn unclear(text: &str, what: &str) -> Error {
    Error::user(format!("'publish.gate' = '{text}': {what}")).help("write such as 'macro_f1 >= champion - 0.01 and accuracy > 0.8'")
}

/// Words, numbers and signs; no space is needed between them.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last = None;
    for c in text.chars() {
        let class = match c {
            c if c.is_whitespace() => 0,
            '<' | '>' | '=' => 1,
            // The sign of an exponent belongs to its number: 1e-3.
            '+' | '-' if !ends_in_exponent(words.last(), last) => 2,
            _ => 3,
        };
        match (class, words.last_mut()) {
            (0, _) => {}
            (1 | 3, Some(word)) if last == Some(class) => word.push(c),
            _ => words.push(c.to_string()),
        }
        last = Some(class);
    }
    words
}

fn ends_in_exponent(word: Option<&String>, last: Option<i32>) -> bool {
    last == Some(3) && word.is_some_and(|w| w.starts_with(|c: char| c.is_ascii_digit() || c == '.') && w.ends_with(['e', 'E']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["macro_f1", "log_loss"];

    fn judged(gate: &str, mine: [f64; 2], champion: Option<[f64; 2]>) -> Verdict {
        let metrics = |v: [f64; 2]| KNOWN.iter().map(|k| k.to_string()).zip(v).collect::<BTreeMap<_, _>>();
        Gate::parse(gate, &KNOWN).expect("reads").judge(&metrics(mine), champion.map(metrics).as_ref())
    }

    #[test]
    fn terms_hold_against_the_champion_and_a_first_model_has_none() {
        let gate = "macro_f1>=champion - 1e-2 AND log_loss < 0.9";
        assert!(judged(gate, [0.5, 0.8], None).passed);
        assert!(!judged(gate, [0.5, 0.95], None).passed, "a plain number counts without a champion");
        assert!(judged(gate, [0.83, 0.8], Some([0.84, 0.1])).passed);
        let verdict = judged(gate, [0.81, 0.8], Some([0.84, 0.1]));
        assert_eq!(verdict.terms, ["macro_f1 0.81 >= champion (0.84) - 0.01: no", "log_loss 0.8 < 0.9: yes"]);
        assert!(!verdict.passed && !judged(gate, [f64::NAN, 0.8], None).terms[0].ends_with("no"));
        assert!(!judged("macro_f1 >= champion", [f64::NAN, 0.0], Some([0.1, 0.0])).passed);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let error = |text: &str| Gate::parse(text, &KNOWN).expect_err("refused").to_string();
        assert!(error("macro_f2 >= 1").ends_with("did you mean 'macro_f1'?"));
        assert!(error("macro_f1 = 1").contains("'=' stands where >="));
        assert!(error("macro_f1 >= best").contains("'best' stands where a number or 'champion' is wanted"));
        assert!(error("macro_f1 >= champion - x").contains("'x' stands where a number is wanted"));
        assert!(error("macro_f1 >= 1 log_loss < 2").contains("'log_loss' stands where 'and' or the end is wanted"));
        assert!(error("").contains("a metric is missing at its end"));
    }
}
