//! A day of bike-share station records with the schema and the dirt of the public Vélib' feed.
//!
//! Every five minutes the whole city is asked: one record a station, in an order that changes. What makes the
//! feed hard is kept: `duedate`, the event time, is a station's own last report, which the feed takes over once an
//! hour for all of them, so most polls repeat it; counts change under an unchanged `duedate`; a lagging replica
//! sends a station back in time for some polls (about 6 % of the rows lie behind what was already seen); some
//! stations stopped reporting months or years ago, most in summer time (`+02:00`); and some polls are missing.

use std::io::Write;

use chrono::{DateTime, SecondsFormat};
use chrono_tz::Europe::Paris;
use clap::Args;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Record;
use super::stations::{Station, make_stations};

/// How the records of a day are made.
#[derive(Debug, Clone, Args)]
pub struct VelibOptions {
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of stations
    #[arg(long, default_value_t = 1485)]
    pub stations: usize,
    /// Ask only one station in N of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub every: usize,
    /// Number of polls: each gives a record a station
    #[arg(long, default_value_t = 102)]
    pub polls: usize,
    /// When the first poll is made
    #[arg(long, value_name = "TIME", default_value = "2024-11-09T07:00:01+01:00", value_parser = parse_time)]
    pub start: i64,
}

impl Default for VelibOptions {
    fn default() -> Self {
        let start = parse_time("2024-11-09T07:00:01+01:00").expect("the default is a time");
        Self { seed: 1, stations: 1485, every: 1, polls: 102, start }
    }
}

fn parse_time(text: &str) -> Result<i64, String> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(t) => Ok(t.timestamp_millis()),
        Err(_) => Err("write a time with its offset, such as 2024-11-09T07:00:01+01:00".to_string()),
    }
}

const POLL_SECONDS: i64 = 300;
/// When in an hour all report times are taken over (twelve minutes past, more or less), and how long that is under way.
const REFRESH_SECONDS: std::ops::Range<i64> = 700..820;
const HOUR_SECONDS: i64 = 3600;
const REFRESH_DELAY_SECONDS: i64 = 430;
/// A refresh finds a station's last report this long ago: mostly two minutes, at most ten.
const REPORT_SECONDS_MAX: f64 = 600.0;
const DAY_SECONDS: i64 = 86_400;

/// The records of a day, poll by poll; a record's time is that of its poll.
pub fn velib_records(options: &VelibOptions) -> impl Iterator<Item = Record> + Send + use<> {
    let stations = make_stations(options.seed, options.stations);
    // The stations do not depend on the number of polls, nor the polls on how stations were drawn.
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream(1);
    let start = options.start.div_euclid(1000);
    let refreshed = refresh_before(start - REFRESH_DELAY_SECONDS, &mut rng);
    let feed = stations.iter().step_by(options.every.max(1)).map(|s| Live::new(s, start, refreshed, &mut rng)).collect::<Vec<_>>();
    Day {
        order: (0..feed.len()).collect(),
        next: feed.len(),
        feed,
        rng,
        polls_left: options.polls,
        clock: start,
        now: start,
        next_refresh: refreshed + HOUR_SECONDS,
        fetched: String::new(),
    }
}

/// The day as an iterator.
struct Day {
    rng: ChaCha8Rng,
    feed: Vec<Live>,
    order: Vec<usize>,
    /// Position in `order` of the next record of this poll.
    next: usize,
    polls_left: usize,
    /// When the next poll is due, and when this one was made; seconds.
    clock: i64,
    now: i64,
    /// When all report times are taken over again; seconds.
    next_refresh: i64,
    fetched: String,
}

impl Iterator for Day {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.next == self.feed.len() {
            if self.polls_left == 0 || self.feed.is_empty() {
                return None;
            }
            self.poll();
        }
        let record = self.feed[self.order[self.next]].record(&self.fetched);
        self.next += 1;
        Some((self.now * 1000, record))
    }
}

impl Day {
    fn poll(&mut self) {
        self.polls_left -= 1;
        self.now = self.clock + self.rng.random_range(0..2);
        self.fetched = local(self.now);
        let mut refreshed = None;
        while self.next_refresh + REFRESH_DELAY_SECONDS <= self.now {
            refreshed = Some(self.next_refresh);
            self.next_refresh = refresh_before(self.next_refresh + HOUR_SECONDS + REFRESH_SECONDS.end, &mut self.rng);
        }
        for station in &mut self.feed {
            station.advance(refreshed, &mut self.rng);
        }
        self.order.shuffle(&mut self.rng);
        self.next = 0;
        // Now and then the poller was down for a while.
        self.clock += POLL_SECONDS;
        if self.rng.random_bool(0.03) {
            self.clock += POLL_SECONDS * self.rng.random_range(5..20);
        }
    }
}

/// A station as the feed shows it.
struct Live {
    /// The record's parts that never change.
    head: String,
    middle: String,
    tail: String,
    capacity: u32,
    mechanical: u32,
    ebike: u32,
    /// Docks out of order.
    broken: u32,
    /// Stopped reporting: `due` stays.
    silent: bool,
    /// Last report that the feed knows, in seconds.
    due: i64,
    /// Polls for which a lagging replica answers, and how far it lags.
    lagging_polls: u32,
    lag_seconds: i64,
    due_text: String,
}

impl Live {
    fn new(s: &Station, start: i64, refreshed: i64, rng: &mut ChaCha8Rng) -> Self {
        let silent = rng.random_bool(0.028);
        let due = match silent {
            // Three in four stopped this summer, the others in the last six years.
            true if rng.random_bool(0.75) => start - rng.random_range(45 * DAY_SECONDS..130 * DAY_SECONDS),
            true => start - rng.random_range(2 * DAY_SECONDS..2300 * DAY_SECONDS),
            false => refreshed - report_age(rng),
        };
        let (installed, open) = match rng.random_range(0..1000) {
            0..18 => ("NON", "NON"),
            18..34 => ("OUI", "NON"),
            _ => ("OUI", "OUI"),
        };
        let capacity = s.capacity;
        let bikes = if silent { 0 } else { rng.random_range(0..=capacity) };
        let ebike = rng.random_range(0..=bikes);
        let (code, name, commune, insee, lon, lat) = (s.code, &s.name, s.commune, s.insee, s.lon, s.lat);
        Self {
            head: format!(
                r#","stationcode":"{code}","name":"{name}","is_installed":"{installed}","capacity":{capacity},"numdocksavailable":"#
            ),
            middle: format!(r#","is_renting":"{open}","is_returning":"{open}","duedate":""#),
            tail: format!(
                r#"","coordonnees_geo":{{"lon":{lon},"lat":{lat}}},"nom_arrondissement_communes":"{commune}","code_insee_commune":"{insee}"}}"#
            ),
            capacity,
            mechanical: bikes - ebike,
            ebike,
            broken: rng.random_range(0..4_u32).min(capacity - bikes) / 2,
            silent,
            due,
            lagging_polls: 0,
            lag_seconds: 0,
            due_text: local(due),
        }
    }

    fn advance(&mut self, refreshed: Option<i64>, rng: &mut ChaCha8Rng) {
        if self.silent {
            return;
        }
        // Counts move at any time, under whatever report time the station shows.
        if rng.random_bool(0.36) {
            let (docks, change) = (self.capacity - self.broken, rng.random_range(1..=3));
            let kind = if rng.random_bool(0.6) { &mut self.mechanical } else { &mut self.ebike };
            if rng.random_bool(0.5) {
                *kind = kind.saturating_sub(change);
            } else {
                *kind += change;
                // A full station turns riders away.
                let over = (self.mechanical + self.ebike).saturating_sub(docks);
                let from_mechanical = over.min(self.mechanical);
                self.mechanical -= from_mechanical;
                self.ebike -= over - from_mechanical;
            }
        }
        if let Some(time) = refreshed {
            self.due = time - report_age(rng);
        }
        if self.lagging_polls > 0 {
            self.lagging_polls -= 1;
        } else if rng.random_bool(0.034) {
            self.lagging_polls = rng.random_range(1..=4);
            self.lag_seconds = if rng.random_bool(0.8) { rng.random_range(2..60) } else { rng.random_range(60..600) };
        }
        let shown = if self.lagging_polls > 0 { self.due - self.lag_seconds } else { self.due };
        self.due_text = local(shown);
    }

    fn record(&self, fetched: &str) -> Vec<u8> {
        let bikes = self.mechanical + self.ebike;
        let docks = self.capacity.saturating_sub(bikes + self.broken);
        let mut out = Vec::with_capacity(480);
        write!(
            out,
            r#"{{"fetched_at":"{fetched}"{}{docks},"numbikesavailable":{bikes},"mechanical":{},"ebike":{}{}{}{}"#,
            self.head, self.mechanical, self.ebike, self.middle, self.due_text, self.tail
        )
        .expect("memory takes all");
        out
    }
}

/// The refresh of the last hour whose refresh has surely been made by `time`.
fn refresh_before(time: i64, rng: &mut ChaCha8Rng) -> i64 {
    (time - REFRESH_SECONDS.end).div_euclid(HOUR_SECONDS) * HOUR_SECONDS + rng.random_range(REFRESH_SECONDS)
}

/// Squared, so that most reports are young.
fn report_age(rng: &mut ChaCha8Rng) -> i64 {
    let share: f64 = rng.random();
    (share * share * REPORT_SECONDS_MAX) as i64
}

/// Seconds as the feed writes them: local time and its offset.
fn local(seconds: i64) -> String {
    let utc = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    utc.with_timezone(&Paris).to_rfc3339_opts(SecondsFormat::Secs, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_same_seed_gives_the_same_bytes_on_every_machine() {
        let options = VelibOptions { stations: 100, polls: 10, ..VelibOptions::default() };
        let all: Vec<u8> = velib_records(&options).flat_map(|(_, r)| r).collect();
        assert_eq!(format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&all)), "c3adb1dc75feb7f6");
        let other = VelibOptions { seed: 2, ..options };
        assert_ne!(velib_records(&other).flat_map(|(_, r)| r).collect::<Vec<u8>>(), all);
    }

    #[test]
    fn a_day_has_the_dirt_of_the_real_feed() {
        let mut newest: HashMap<String, i64> = HashMap::new();
        let mut counts: HashMap<String, (String, i64)> = HashMap::new();
        let (mut rows, mut behind, mut old, mut summer, mut changed) = (0, 0, 0, 0, 0);
        for (time, bytes) in velib_records(&VelibOptions::default()) {
            let r: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            let text = |k: &str| r[k].as_str().expect(k).to_string();
            let number = |k: &str| r[k].as_i64().expect(k);
            assert_eq!(r.as_object().expect("an object").len(), 15);
            assert_eq!(number("mechanical") + number("ebike"), number("numbikesavailable"));
            assert!(number("numbikesavailable") + number("numdocksavailable") <= number("capacity"));
            let (code, due) = (text("stationcode"), text("duedate"));
            let at = DateTime::parse_from_rfc3339(&due).expect(&due).timestamp_millis();
            rows += 1;
            old += i32::from(at < time - 86_400_000);
            summer += i32::from(due.ends_with("+02:00"));
            let seen = newest.entry(code.clone()).or_insert(at);
            behind += i32::from(at < *seen);
            *seen = at.max(*seen);
            let bikes = number("numbikesavailable");
            changed += i32::from(counts.insert(code, (due.clone(), bikes)).is_some_and(|(d, n)| d == due && n != bikes));
        }
        assert_eq!(rows, 102 * 1485);
        let percent = |n: i32| f64::from(n) * 100.0 / f64::from(rows);
        assert!((4.0..8.0).contains(&percent(behind)), "{}% behind", percent(behind));
        assert!((1.5..4.5).contains(&percent(old)), "{}% old", percent(old));
        assert!((1.0..4.0).contains(&percent(summer)), "{}% in summer time", percent(summer));
        assert!((10.0..50.0).contains(&percent(changed)), "{}% changed under the same duedate", percent(changed));
    }

    #[test]
    fn nothing_to_say_is_no_record() {
        assert_eq!(velib_records(&VelibOptions { stations: 0, ..VelibOptions::default() }).count(), 0);
        assert_eq!(velib_records(&VelibOptions { polls: 0, ..VelibOptions::default() }).count(), 0);
    }
}
