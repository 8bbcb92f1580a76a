//! From what was seen to a frozen [`FeatureSpec`]: the decisions, each by one rule.
//!
//! - A missing value is taken where training saw one, or the user said how to impute or code it; else it is refused.
//! - Rare categories beyond the limit share the place `(other)`; where there is such a place, unknown ones go there
//!   too unless the user says otherwise. Without it an unknown category is refused.
//! - A column without any value becomes a constant: a small first batch must not stop a training that goes on.

use super::exact::Moments;
use super::observe::{Body, CATEGORIES_SEEN_MAX, Counts, Observer, Seen};
use super::options::{CategoryEncoding, Impute, Kind, Plan, Scaling, Unknown};
use super::time::Part;
use super::{Absent, Column, Encoding, FeatureSpec, Layout, PartForm, Place, Scale, TimePart, Values};
use crate::error::{Error, Result};
use crate::stream::types::SqlType;

/// Categories at most where the user does not say, in a one-hot block.
const ONE_HOT_MAX: usize = 100;
/// The same for ordinal numbers.
const ORDINAL_MAX: usize = 1000;
const OTHER: &str = "(other)";
const MISSING: &str = "(missing)";

impl Observer {
    /// The spec that fits what has been seen, for a tree or for any other algorithm.
    ///
    /// # Errors
    /// User: no rows, a category column that is an identifier, an option that does not fit the values.
    pub fn freeze(&self, tree: bool) -> Result<FeatureSpec> {
        if self.rows == 0 {
            return Err(Error::user(format!("{}: there are no rows to learn features from", self.owner)));
        }
        let column = |(plan, seen): &(Plan, Seen)| {
            let encoding = encoding(plan, seen, tree).map_err(|e| e.context(format_args!("{}: field '{}'", self.owner, plan.name)))?;
            Ok(Column { name: plan.name.clone(), sql_type: plan.sql_type.to_string(), encoding })
        };
        let spec = FeatureSpec { tree, columns: self.columns.iter().map(column).collect::<Result<_>>()? };
        spec.check().map_err(|e| Error::internal(e.to_string()))?;
        Ok(spec)
    }
}

fn encoding(plan: &Plan, seen: &Seen, tree: bool) -> Result<Encoding> {
    // Whether a missing value is anything else than a refusal.
    let asked = !plan.missing.is_empty() || plan.impute.is_some();
    let taken = plan.impute != Some(Impute::None) && (seen.missing > 0 || asked);
    let absent = |fill: f64| match plan.impute {
        _ if !taken => Absent::Refuse,
        Some(Impute::Missing) | None if tree => Absent::Nan,
        _ => Absent::Fill(fill),
    };
    if plan.impute == Some(Impute::Missing) && !tree && !matches!(plan.kind, Kind::Text | Kind::Integer) {
        let e = Error::user("'missing' as its imputation is for trees and categories alone");
        return Err(e.help("write 'mean', 'median', 'mode' or 'constant'"));
    }
    Ok(match &seen.body {
        Body::Number { moments, sketch, coded, coded_nan } => {
            let fill = match plan.impute {
                Some(Impute::Constant) => {
                    constant(plan)?.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| bad_fill("a number"))?
                }
                Some(Impute::Median) => sketch.as_ref().and_then(|s| s.median()).unwrap_or(0.0),
                _ => moments.mean().unwrap_or(0.0),
            };
            let scale = scale(moments, plan, tree);
            Encoding::Number { coded: coded.clone(), coded_nan: *coded_nan, absent: absent(fill), scale }
        }
        Body::Boolean([no, yes]) => {
            let fill = match plan.impute {
                Some(Impute::Constant) => match constant(plan)?.to_lowercase().as_str() {
                    "true" => 1.0,
                    "false" => 0.0,
                    _ => return Err(bad_fill("true or false")),
                },
                _ => f64::from(u8::from(yes > no)),
            };
            let weight = if tree { 1.0 } else { plan.weight };
            Encoding::Boolean { absent: absent(fill), scale: Scale { weight, ..Scale::NONE } }
        }
        Body::Text { counts, coded } => {
            let place = |values: &[String], fill: &str| values.binary_search_by(|v| v.as_str().cmp(fill)).ok();
            category(plan, counts, Values::Text(coded.clone()), tree, taken, Values::Text, Values::HashedText(plan.buckets), place)?
        }
        Body::Integer { counts, coded } => {
            let place = |values: &[i64], fill: &str| fill.parse().ok().and_then(|fill| values.binary_search(&fill).ok());
            category(
                plan,
                counts,
                Values::Integer(coded.clone()),
                tree,
                taken,
                Values::Integer,
                Values::HashedInteger(plan.buckets),
                place,
            )?
        }
        Body::Time(moments) => Encoding::Time { parts: time_parts(plan, moments, tree)?, absent: absent(0.0) },
    })
}

#[expect(clippy::too_many_arguments, reason = "text and integer categories differ in each of them")]
fn category<T: Ord + Clone + ToString>(
    plan: &Plan,
    counts: &Counts<T>,
    coded: Values,
    tree: bool,
    taken: bool,
    of: impl Fn(Vec<T>) -> Values,
    hashed: Values,
    place: impl Fn(&[T], &str) -> Option<usize>,
) -> Result<Encoding> {
    let encoding = plan.encoding.unwrap_or(if tree { CategoryEncoding::Ordinal } else { CategoryEncoding::OneHot });
    // A hash has no list of categories: each place is named by its number, and a missing value gets one of its own.
    let (kept, mut totals, mut names, folded): (Vec<T>, Vec<u64>, Vec<String>, u64) = if encoding == CategoryEncoding::Hash {
        (Vec::new(), Vec::new(), (0..plan.buckets).map(|n| format!("#{n}")).collect(), 0)
    } else {
        let Some(counts) = &counts.0 else {
            let e = Error::user(format!("it has more than {CATEGORIES_SEEN_MAX} distinct values"));
            let (name, skip) = (&plan.name, "an identifier is no feature");
            return Err(e.help(format!("{skip}: write 'features.{name}' = 'skip', or 'features.{name}.encoding' = 'hash'")));
        };
        let limit = plan.categories_max.unwrap_or(if encoding == CategoryEncoding::OneHot { ONE_HOT_MAX } else { ORDINAL_MAX });
        let mut all: Vec<(&T, u64)> = counts.iter().map(|(value, count)| (value, *count)).collect();
        // The most frequent stay; a tie goes to the lesser value, so that the order of rows cannot show.
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let folded: u64 = all.iter().skip(limit).map(|(_, count)| count).sum();
        all.truncate(limit);
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let names = all.iter().map(|(value, _)| value.to_string()).collect();
        (all.iter().map(|(value, _)| (*value).clone()).collect(), all.iter().map(|(_, count)| *count).collect(), names, folded)
    };
    let mut add = |name: &str, count: u64| {
        names.push(name.to_string());
        totals.push(count);
        Place::Slot(names.len() as u32 - 1)
    };
    let unknown = match plan.unknown {
        Some(Unknown::Error) if folded == 0 => None,
        None if folded == 0 => None,
        Some(Unknown::Ignore) if folded == 0 => Some(Place::Nothing),
        Some(Unknown::Error | Unknown::Ignore) => {
            let e = Error::user("it has more categories than 'max_categories', so the rare ones and unknown ones are one place");
            return Err(e.help(format!("raise 'features.{}.max_categories', or write 'unknown' = 'other'", plan.name)));
        }
        Some(Unknown::Other) | None => Some(add(OTHER, folded)),
    };
    let absent = match plan.impute {
        _ if !taken => None,
        Some(Impute::Mode) if !kept.is_empty() => {
            let most = totals[..kept.len()].iter().max().copied().unwrap_or(0);
            totals[..kept.len()].iter().position(|t| *t == most).map(|slot| Place::Slot(slot as u32))
        }
        Some(Impute::Constant) => {
            let fill = constant(plan)?;
            let slot = place(&kept, fill).ok_or_else(|| bad_fill("one of its categories"))?;
            Some(Place::Slot(slot as u32))
        }
        _ if tree && encoding != CategoryEncoding::OneHot => Some(Place::Nothing),
        _ => Some(add(MISSING, 0)),
    };
    let weight = if tree { 1.0 } else { plan.weight };
    let layout = match encoding {
        CategoryEncoding::OneHot => Layout::OneHot { names, weight },
        CategoryEncoding::Hash if !tree => Layout::OneHot { names, weight },
        _ => {
            let mut moments = Moments::default();
            if !tree {
                for (slot, count) in totals.iter().enumerate() {
                    moments.add_times(slot as f64, *count);
                }
            }
            Layout::Ordinal { scale: (!tree).then(|| scale(&moments, plan, tree)), slots: names.len() as u32 }
        }
    };
    let values = if encoding == CategoryEncoding::Hash { hashed } else { of(kept) };
    Ok(Encoding::Category { values, coded, absent, unknown, layout })
}

fn time_parts(plan: &Plan, moments: &[(Part, Moments)], tree: bool) -> Result<Vec<TimePart>> {
    let (date, clock) = (!matches!(plan.sql_type, SqlType::Time(_)), !matches!(plan.sql_type, SqlType::Date));
    let has = |part: Part| if part == Part::Hour { clock } else { date };
    let parts = match &plan.parts {
        Some(parts) => {
            if let Some(part) = parts.iter().find(|p| !has(**p)) {
                return Err(Error::user(format!("a {} has no part '{part}'", plan.sql_type)));
            }
            parts.clone()
        }
        None if tree => [Part::Year, Part::Month, Part::Day, Part::Weekday, Part::Hour].into_iter().filter(|p| has(*p)).collect(),
        None => [Part::Month, Part::Weekday, Part::Hour].into_iter().filter(|p| has(*p)).collect(),
    };
    let cyclic = plan.cyclic.unwrap_or(!tree);
    let form = |part: Part| {
        let seen = moments.iter().find(|(p, _)| *p == part).map(|(_, m)| m.clone()).unwrap_or_default();
        match cyclic && part.goes_round() {
            true => PartForm::Cyclic { weight: if tree { 1.0 } else { plan.weight } },
            false => PartForm::Plain { fill: seen.mean().unwrap_or(0.0), scale: scale(&seen, plan, tree) },
        }
    };
    Ok(parts.into_iter().map(|part| TimePart { part, form: form(part) }).collect())
}

fn scale(moments: &Moments, plan: &Plan, tree: bool) -> Scale {
    if tree {
        return Scale::NONE;
    }
    let (shift, divisor) = match plan.scale {
        Scaling::None => (0.0, 1.0),
        Scaling::Standard => (moments.mean().unwrap_or(0.0), moments.deviation().unwrap_or(1.0)),
        Scaling::MinMax => moments.range().map_or((0.0, 1.0), |(low, high)| (low, high - low)),
    };
    // A constant column stays a constant; so does one whose range is beyond a double.
    let divisor = if divisor > 0.0 && divisor.is_finite() { divisor } else { 1.0 };
    Scale { shift, divisor, weight: plan.weight }
}

fn constant(plan: &Plan) -> Result<&str> {
    plan.fill.as_deref().ok_or_else(|| bad_fill("given"))
}

fn bad_fill(wanted: &str) -> Error {
    Error::user(format!("its option 'fill' must be {wanted}"))
}
