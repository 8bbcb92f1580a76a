//! Bids for benchmarks: JSON of a set size, with a set number of keys, fast enough never to be the limit.
//!
//! The event time rises steadily and shakes by up to `disorder_ms`, so that a watermark delay has something to
//! do. Numbers are written by hand and the date is kept as text while its second lasts.

use chrono::DateTime;
use clap::Args;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Record;

/// How the bids are made.
#[derive(Debug, Clone, Args)]
pub struct EventsOptions {
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of records
    #[arg(long, default_value_t = 5_000_000)]
    pub records: u64,
    /// Number of different values of `auction`
    #[arg(long, default_value_t = 300_000)]
    pub keys: u64,
    /// Bytes of a record, filled up by `extra` (never less than its other fields)
    #[arg(long, default_value_t = 200)]
    pub bytes: usize,
    /// Records for one second of event time
    #[arg(long, default_value_t = 10_000)]
    pub per_second: u64,
    /// How far a record may lie behind the time of its place, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    pub disorder_ms: u64,
}

impl Default for EventsOptions {
    fn default() -> Self {
        Self { seed: 1, records: 5_000_000, keys: 300_000, bytes: 200, per_second: 10_000, disorder_ms: 1_000 }
    }
}

/// 2024-01-01 00:00:00 UTC, where event time starts.
const START_MS: i64 = 1_704_067_200_000;
const CHANNELS: [&str; 4] = ["Apple", "Baidu", "Facebook", "Google"];
const FILLER: [u8; 64] = *b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// The bids, in order of arrival; a record's time is its `dateTime`.
pub fn events(options: &EventsOptions) -> impl Iterator<Item = Record> + Send + use<> {
    let rng = ChaCha8Rng::seed_from_u64(options.seed);
    Bids { options: options.clone(), rng, made: 0, second: i64::MIN, second_text: String::new() }
}

struct Bids {
    options: EventsOptions,
    rng: ChaCha8Rng,
    made: u64,
    /// The second whose text is kept.
    second: i64,
    second_text: String,
}

impl Iterator for Bids {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.made == self.options.records {
            return None;
        }
        let steady = self.made as i128 * 1000 / i128::from(self.options.per_second.max(1));
        self.made += 1;
        let (a, b) = (self.rng.next_u64(), self.rng.next_u64());
        let behind = (a >> 32) % (self.options.disorder_ms + 1);
        let time = START_MS + steady as i64 - behind as i64;
        let channel = CHANNELS[(b >> 62) as usize];

        let mut out = Vec::with_capacity(self.options.bytes.max(180));
        out.extend_from_slice(b"{\"auction\":");
        push_number(&mut out, 1000 + scale(a as u32, self.options.keys));
        out.extend_from_slice(b",\"bidder\":");
        push_number(&mut out, 1000 + scale(b as u32, 100_000));
        out.extend_from_slice(b",\"price\":");
        push_number(&mut out, 100 + (b >> 32) % 9_999_900);
        out.extend_from_slice(b",\"channel\":\"");
        out.extend_from_slice(channel.as_bytes());
        out.extend_from_slice(b"\",\"url\":\"https://auction.example/item.htm?query=1&channel_id=");
        push_number(&mut out, (a ^ b) % 1_000_000_000);
        out.extend_from_slice(b"\",\"dateTime\":\"");
        self.push_time(&mut out, time);
        out.extend_from_slice(b"\",\"extra\":\"");
        let mut left = self.options.bytes.saturating_sub(out.len() + 2);
        // Starts anywhere in the alphabet, so that records do not share their end.
        let mut from = (a >> 58) as usize;
        while left > 0 {
            let n = left.min(FILLER.len() - from);
            out.extend_from_slice(&FILLER[from..from + n]);
            left -= n;
            from = 0;
        }
        out.extend_from_slice(b"\"}");
        Some((time, out))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.options.records - self.made).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl Bids {
    /// `2024-01-01 00:00:00.000`
    fn push_time(&mut self, out: &mut Vec<u8>, time_ms: i64) {
        let second = time_ms.div_euclid(1000);
        if second != self.second {
            let utc = DateTime::from_timestamp(second, 0).unwrap_or_default();
            self.second_text = utc.format("%Y-%m-%d %H:%M:%S.").to_string();
            self.second = second;
        }
        out.extend_from_slice(self.second_text.as_bytes());
        let ms = time_ms.rem_euclid(1000) as u32;
        out.extend_from_slice(&[b'0' + (ms / 100) as u8, b'0' + (ms / 10 % 10) as u8, b'0' + (ms % 10) as u8]);
    }
}

/// `random` spread evenly over `0..below`.
fn scale(random: u32, below: u64) -> u64 {
    ((u128::from(random) * u128::from(below.max(1))) >> 32) as u64
}

fn push_number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn records_have_the_size_the_keys_and_the_times_asked_for() {
        let options = EventsOptions { records: 20_000, keys: 100, bytes: 335, per_second: 1000, ..EventsOptions::default() };
        let mut keys = HashSet::new();
        for (i, (time, bytes)) in events(&options).enumerate() {
            assert_eq!(bytes.len(), 335);
            let r: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            keys.insert(r["auction"].as_u64());
            let place = START_MS + i as i64;
            assert!((place - 1000..=place).contains(&time));
            let text = DateTime::from_timestamp_millis(time).expect("in range").format("%Y-%m-%d %H:%M:%S%.3f").to_string();
            assert_eq!(r["dateTime"], text);
        }
        assert_eq!(keys.len(), 100);
    }

    #[test]
    fn a_record_that_cannot_be_so_small_is_whole() {
        let (_, bytes) = events(&EventsOptions { bytes: 10, ..EventsOptions::default() }).next().expect("a record");
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
    }
}
