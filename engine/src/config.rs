//! Options as users write them: `WITH ('k' = 'v')` and `SET 'k' = 'v'`, taken by name and type.
//!
//! [`Options`] remembers which keys were asked for, so that [`Options::finish`] can refuse what nobody
//! took and suggest the nearest name. What must always hold: a value of a secret key is never printed
//! ([`is_secret`], [`masked`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::{Error, Result, nearest};

/// `key → value` options of one table, with the record of what was taken.
#[derive(Debug, Clone, Default)]
pub struct Options {
    owner: String,
    values: BTreeMap<String, String>,
    known: BTreeSet<String>,
}

impl Options {
    /// The options of `owner` (such as "table 'status'"), for messages.
    pub fn new(owner: impl Into<String>, values: BTreeMap<String, String>) -> Self {
        Self { owner: owner.into(), values, known: BTreeSet::new() }
    }

    /// Whom the options belong to, for messages.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The text of `key`, which is now known.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.known.insert(key.to_string());
        self.values.get(key).cloned()
    }

    /// The text of `key`.
    ///
    /// # Errors
    /// User: the option is missing.
    pub fn required(&mut self, key: &str) -> Result<String> {
        self.text(key).ok_or_else(|| {
            let e = Error::user(format!("{} needs the option '{key}'", self.owner));
            match nearest(key, self.values.keys().filter(|k| !self.known.contains(*k)).map(String::as_str)) {
                Some(typo) => e.help(format!("it has '{typo}': did you mean '{key}'?")),
                None => e.help(format!("add '{key}' = '…' to its WITH clause")),
            }
        })
    }

    /// `true` or `false` in any case.
    ///
    /// # Errors
    /// User: another word.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.text(key) {
            None => Ok(default),
            Some(v) if v.eq_ignore_ascii_case("true") => Ok(true),
            Some(v) if v.eq_ignore_ascii_case("false") => Ok(false),
            Some(v) => Err(self.bad(key, &v, "true or false")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// User: not a number of the type asked for.
    pub fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>> {
        self.text(key).map(|v| v.trim().parse().map_err(|_| self.bad(key, &v, "a number"))).transpose()
    }

    /// A duration as Flink writes it: `5 min`, `250ms`, `1 h`; a bare number is milliseconds.
    ///
    /// # Errors
    /// User: no duration.
    pub fn duration(&mut self, key: &str) -> Result<Option<Duration>> {
        self.text(key)
            .map(|v| parse_duration(&v).ok_or_else(|| self.bad(key, &v, "a duration such as '5 min', '10 s' or '250 ms'")))
            .transpose()
    }

    /// A size in bytes as Flink writes it: `128mb`, `64 kb`; a bare number is bytes.
    ///
    /// # Errors
    /// User: no size.
    pub fn bytes(&mut self, key: &str) -> Result<Option<u64>> {
        self.text(key).map(|v| parse_bytes(&v).ok_or_else(|| self.bad(key, &v, "a size such as '128 mb'"))).transpose()
    }

    /// One of `choices` (compared without case), else `default`.
    ///
    /// # Errors
    /// User: another word, with the nearest choice.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)], default: T) -> Result<T> {
        let Some(v) = self.text(key) else { return Ok(default) };
        match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&v)) {
            Some((_, t)) => Ok(*t),
            None => {
                let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
                Err(self.bad(key, &v, &format!("one of {}", names.join(", "))))
            }
        }
    }

    /// All options whose key starts with `prefix`, with the prefix cut off; all are now known.
    pub fn with_prefix(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let found: Vec<_> = self.values.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect();
        self.known.extend(found.iter().map(|(k, _)| k.clone()));
        found.into_iter().map(|(k, v)| (k[prefix.len()..].to_string(), v)).collect()
    }

    /// Declares keys that exist but that this reader does not need (a sink's options read as a source).
    pub fn declare(&mut self, keys: &[&str]) {
        self.known.extend(keys.iter().map(|k| k.to_string()));
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// User: an option that nobody knows, with the nearest name that somebody does.
    pub fn finish(&self) -> Result<()> {
        for key in self.values.keys() {
            if !self.known.contains(key) {
                let e = Error::user(format!("{} has an unknown option '{key}'", self.owner));
                return Err(match nearest(key, self.known.iter().map(String::as_str)) {
                    Some(n) => e.help(format!("did you mean '{n}'?")),
                    None => e.help(format!("known here: {}", self.known.iter().cloned().collect::<Vec<_>>().join(", "))),
                });
            }
        }
        Ok(())
    }

    /// An error about the value of `key`.
    pub fn bad(&self, key: &str, value: &str, wanted: &str) -> Error {
        let shown = if is_secret(key) { "***" } else { value };
        Error::user(format!("{}: option '{key}' is '{shown}', but must be {wanted}", self.owner))
    }
}

/// Whether the value of an option must never be printed or stored.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let last = key.rsplit('.').next().unwrap_or(&key);
    ["password", "secret", "token", "jaas"].iter().any(|s| key.contains(s))
        || last == "key" && key.contains("ssl")
        || key.ends_with(".pem") && key.contains("key")
}

/// `value`, or `***` where `key` is secret.
pub fn masked<'a>(key: &str, value: &'a str) -> &'a str {
    if is_secret(key) { "***" } else { value }
}

/// A Flink duration: a number and an optional unit (bare: milliseconds).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let nanos_per = match unit.as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        _ => return None,
    };
    Some(Duration::from_nanos(number.checked_mul(nanos_per)?))
}

/// A Flink memory size: a number and an optional unit (bare: bytes).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let per = match unit.as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kibibytes" => 1 << 10,
        "m" | "mb" | "mebibytes" => 1 << 20,
        "g" | "gb" | "gibibytes" => 1 << 30,
        "t" | "tb" | "tebibytes" => 1u64 << 40,
        _ => return None,
    };
    number.checked_mul(per)
}

fn split_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_names_the_nearest() {
        let mut o = Options::new("table 't'", BTreeMap::from([("toppic".into(), "x".into())]));
        assert_eq!(o.text("topic"), None);
        let e = o.finish().expect_err("unknown");
        assert_eq!(e.to_string(), "table 't' has an unknown option 'toppic'\nhelp: did you mean 'topic'?");
    }

    #[test]
    fn durations_and_sizes_read_as_in_flink() {
        assert_eq!(parse_duration("5 min"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1 fortnight"), None);
        assert_eq!(parse_bytes("128 mb"), Some(128 << 20));
    }

    #[test]
    fn secrets_are_masked() {
        assert_eq!(masked("properties.sasl.jaas.config", "x"), "***");
        assert_eq!(masked("properties.ssl.keystore.password", "x"), "***");
        assert_eq!(masked("key.fields", "x"), "x");
    }
}
