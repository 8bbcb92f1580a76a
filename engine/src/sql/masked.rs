//! SQL text without secrets, as a manifest keeps it.

use crate::config::is_secret;

/// `sql` with the value of every `'secret.key' = 'value'` pair replaced by `***`.
///
/// Works on the text, so that it holds for files that do not parse: a quoted word that names a secret, an
/// equals sign, and the quoted word behind it. Doubled quotes stay inside their word.
pub fn masked(sql: &str) -> String {
    replaced(sql, |_| "***".to_string())
}

/// `sql` with a star for every character of a secret, so that places in it stay where they are: for messages.
pub fn hidden(sql: &str) -> String {
    replaced(sql, |secret| secret.chars().map(|c| if c == '\n' { c } else { '*' }).collect())
}

fn replaced(sql: &str, shown: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    let mut secret = false;
    while let Some(start) = rest.find('\'') {
        let (before, quoted) = rest.split_at(start);
        // Between a key and its value stand blanks and an equals sign only.
        secret &= before.trim() == "=";
        out.push_str(before);
        let end = word_end(quoted);
        let word = &quoted[1..end];
        if secret {
            out.push_str(&format!("'{}'", shown(word)));
        } else {
            out.push_str(&quoted[..(end + 1).min(quoted.len())]);
        }
        secret = is_secret(word);
        rest = quoted.get(end + 1..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

/// Index of the quote that ends the word at the start of `quoted`; its length where none does.
fn word_end(quoted: &str) -> usize {
    let mut at = 1;
    while let Some(next) = quoted[at..].find('\'') {
        let quote = at + next;
        if quoted[quote + 1..].starts_with('\'') {
            at = quote + 2;
        } else {
            return quote;
        }
    }
    quoted.len()
}

#[cfg(test)]
mod tests {
    use super::{hidden, masked};

    #[test]
    fn values_of_secret_keys_go_and_nothing_else() {
        let sql = "WITH ('topic' = 'password', 'properties.sasl.password' = 'it''s \n mine', 'format'='json') -- it's";
        assert_eq!(masked(sql), "WITH ('topic' = 'password', 'properties.sasl.password' = '***', 'format'='json') -- it's");
        assert_eq!(masked("SET 'ssl.token'='x"), "SET 'ssl.token'='***'");
        assert_eq!(hidden("SET 'ssl.token'='a\nbc'; SELECT"), "SET 'ssl.token'='*\n**'; SELECT");
    }
}
