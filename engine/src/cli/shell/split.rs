//! Where statements end in a text that is still being typed.
//!
//! Only quotes, comments and words are looked at: whether a statement is right is the parser's to say. A
//! semicolon ends a statement unless it stands in a statement set, which ends behind its END.

use std::ops::Range;

/// Complete statements of a text, and what lies behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Byte ranges of complete statements, each with its semicolon; those that say nothing are left out.
    pub complete: Vec<Range<usize>>,
    /// Where the unfinished rest starts.
    pub rest: usize,
    /// Whether the rest says anything, comments aside.
    pub rest_says: bool,
}

/// What stands at a place of the text.
enum Token<'a> {
    Word(&'a str),
    Semicolon,
    /// Anything else that is part of a statement.
    Other,
    /// Blanks and comments.
    Nothing,
    /// A quote or a comment that does not end.
    Open,
}

/// Splits `text`.
pub fn split(text: &str) -> Split {
    let (mut complete, mut start, mut at) = (Vec::new(), 0, 0);
    let mut head: Vec<String> = Vec::new();
    // Tokens since the last semicolon, and whether END is the first of them.
    let (mut tokens, mut inner, mut inner_end) = (0_usize, 0_usize, false);
    while at < text.len() {
        let (token, len) = token(&text[at..]);
        at += len;
        match token {
            Token::Nothing => continue,
            Token::Open => {
                tokens += 1;
                break;
            }
            Token::Word(word) => {
                if head.len() < 4 {
                    head.push(word.to_ascii_uppercase());
                }
                inner_end = inner == 0 && word.eq_ignore_ascii_case("END");
            }
            Token::Other => inner_end = false,
            Token::Semicolon => {
                let set = head.windows(2).any(|w| w[0] == "STATEMENT" && w[1] == "SET");
                if set && !(inner_end && inner == 1) {
                    tokens += 1;
                    (inner, inner_end) = (0, false);
                    continue;
                }
                if tokens > 0 {
                    complete.push(start..at);
                }
                start = at;
                head.clear();
                (tokens, inner, inner_end) = (0, 0, false);
                continue;
            }
        }
        tokens += 1;
        inner += 1;
    }
    Split { complete, rest: start, rest_says: tokens > 0 }
}

fn token(text: &str) -> (Token<'_>, usize) {
    let bytes = text.as_bytes();
    let to_end_of_line = || text.find('\n').map_or(text.len(), |i| i + 1);
    match bytes[0] {
        b if b.is_ascii_whitespace() => (Token::Nothing, 1),
        b';' => (Token::Semicolon, 1),
        quote @ (b'\'' | b'"' | b'`') => match closing(bytes, quote) {
            Some(len) => (Token::Other, len),
            None => (Token::Open, text.len()),
        },
        b'-' if bytes.starts_with(b"--") => (Token::Nothing, to_end_of_line()),
        b'/' if bytes.starts_with(b"//") => (Token::Nothing, to_end_of_line()),
        b'/' if bytes.starts_with(b"/*") => match text[2..].find("*/") {
            Some(i) => (Token::Nothing, i + 4),
            None => (Token::Open, text.len()),
        },
        _ => {
            let len = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(text.len());
            if len > 0 {
                return (Token::Word(&text[..len]), len);
            }
            (Token::Other, text.chars().next().map_or(1, char::len_utf8))
        }
    }
}

/// Length of the quoted text at the start; a doubled quote stays inside (two texts side by side read the same).
fn closing(bytes: &[u8], quote: u8) -> Option<usize> {
    bytes[1..].iter().position(|b| *b == quote).map(|i| i + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Vec<&str>, &str, bool) {
        let s = split(text);
        (s.complete.into_iter().map(|r| text[r].trim()).collect(), text[s.rest..].trim(), s.rest_says)
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        let text = "SELECT ';', `a;b`, \"c;\" -- no; no\n /* ; */ FROM t; SELECT 'it''s;'; ; SELECT";
        assert_eq!(parts(text), (vec!["SELECT ';', `a;b`, \"c;\" -- no; no\n /* ; */ FROM t;", "SELECT 'it''s;';"], "SELECT", true));
        assert_eq!(parts("SELECT 1; -- done"), (vec!["SELECT 1;"], "-- done", false));
        assert_eq!(parts("SELECT 'open;"), (vec![], "SELECT 'open;", true));
        assert_eq!(parts("/* open ;"), (vec![], "/* open ;", true));
        assert_eq!(parts(""), (vec![], "", false));
    }

    #[test]
    fn a_statement_set_ends_behind_its_end() {
        let set = "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT CASE WHEN x THEN 1 END; INSERT INTO b SELECT 2; END;";
        assert_eq!(parts(&format!("{set} SELECT 1;")), (vec![set, "SELECT 1;"], "", false));
        assert_eq!(parts(&set[..set.len() - 5]).0.len(), 0, "without its END it goes on");
        let old = "begin statement set; insert into a select 1; end;";
        assert_eq!(parts(old).0, [old]);
        assert_eq!(parts(&format!("EXPLAIN {set}")).0.len(), 1);
        assert_eq!(parts("SET 'a' = 'b'; SELECT 1;").0.len(), 2);
    }
}
