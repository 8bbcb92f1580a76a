//! Rows as a table for people: columns as wide as their values, cut to the terminal, numbers to the right.
//!
//! Pure text: the caller says how wide the terminal is ([`terminal_width`] asks). What must always hold: every
//! row is one line, whatever its values contain, and no line is wider than asked for while each column can
//! keep [`NARROWEST`] cells.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Result;

/// No column is cut below this many cells.
const NARROWEST: usize = 6;

/// A table that is filled row by row and drawn once.
#[derive(Debug, Clone, Default)]
pub struct TextTable {
    columns: Vec<Column>,
    rows: usize,
}

#[derive(Debug, Clone)]
struct Column {
    title: String,
    right: bool,
    cells: Vec<String>,
}

impl TextTable {
    /// A table of these columns; `true` sets one to the right, as numbers stand.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        let column = |(title, right): (&str, bool)| Column { title: one_line(title), right, cells: Vec::new() };
        Self { columns: columns.into_iter().map(column).collect(), rows: 0 }
    }

    /// A table of a batch's columns and rows; a NULL reads `NULL`.
    ///
    /// # Errors
    /// A type that cannot be shown.
    pub fn from_batch(batch: &RecordBatch) -> Result<Self> {
        let schema = batch.schema();
        let mut table = Self::new(schema.fields().iter().map(|f| (f.name().as_str(), is_number(f.data_type()))));
        let format = FormatOptions::new().with_null("NULL").with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
        for (column, array) in table.columns.iter_mut().zip(batch.columns()) {
            let cells = ArrayFormatter::try_new(array.as_ref(), &format)?;
            column.cells = (0..batch.num_rows()).map(|i| one_line(&cells.value(i).to_string())).collect();
        }
        table.rows = batch.num_rows();
        Ok(table)
    }

    /// Adds a row; missing cells are empty, surplus ones are left out.
    pub fn push<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            column.cells.push(cells.next().map(|c| one_line(c.as_ref())).unwrap_or_default());
        }
        self.rows += 1;
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The lines: a header, a rule, the rows; none is wider than `width` cells.
    pub fn draw(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let mut out = String::new();
        let titles = self.columns.iter().map(|c| c.title.as_str());
        push_line(&mut out, self.columns.iter().zip(titles), &widths);
        let rule: Vec<String> = widths.iter().map(|w| "─".repeat(*w)).collect();
        out.push_str(&rule.join("  "));
        out.push('\n');
        for row in 0..self.rows {
            push_line(&mut out, self.columns.iter().map(|c| (c, c.cells[row].as_str())), &widths);
        }
        out
    }

    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let widest = |c: &Column| c.cells.iter().map(|s| cells(s)).fold(cells(&c.title).max(1), usize::max);
        let mut widths: Vec<usize> = self.columns.iter().map(widest).collect();
        let Some(width) = width else { return widths };
        let room = width.saturating_sub(2 * widths.len().saturating_sub(1));
        // The widest column gives way first, so that narrow ones (keys, counts) stay whole.
        while widths.iter().sum::<usize>() > room {
            let Some(widest) = widths.iter_mut().max().filter(|w| **w > NARROWEST) else { break };
            *widest -= 1;
        }
        widths
    }
}

/// The width of the terminal behind standard output; `None` where it is no terminal.
pub fn terminal_width() -> Option<usize> {
    use std::io::IsTerminal;
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let asked = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|c| *c > 0);
    asked.or_else(stty_width).or(Some(80))
}

/// Asks the terminal by `stty`, which every Unix has: the system call would need unsafe code.
fn stty_width() -> Option<usize> {
    let out = std::process::Command::new("stty").arg("size").stdin(std::fs::File::open("/dev/tty").ok()?).output().ok()?;
    String::from_utf8(out.stdout).ok()?.split_whitespace().nth(1)?.parse().ok().filter(|c| *c > 0)
}

fn push_line<'a>(out: &mut String, cells_of: impl Iterator<Item = (&'a Column, &'a str)>, widths: &[usize]) {
    let start = out.len();
    for (i, ((column, text), width)) in cells_of.zip(widths).enumerate() {
        if i > 0 {
            out.push_str("  ");
        }
        let text = cut(text, *width);
        let pad = " ".repeat(width.saturating_sub(cells(&text)));
        let (before, after) = if column.right { (pad.as_str(), "") } else { ("", pad.as_str()) };
        out.push_str(before);
        out.push_str(&text);
        out.push_str(after);
    }
    out.truncate(start + out[start..].trim_end().len());
    out.push('\n');
}

/// Line ends and other control characters would break the table, or the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '␣' } else { c }).collect()
}

fn cut(text: &str, width: usize) -> String {
    if cells(text) <= width {
        return text.to_string();
    }
    let mut used = 0;
    let mut out: String = text
        .chars()
        .take_while(|c| {
            used += cell_width(*c);
            used < width
        })
        .collect();
    out.push('…');
    out
}

fn cells(text: &str) -> usize {
    text.chars().map(cell_width).sum()
}

/// Terminal cells of a character: none for combining marks, two for wide East Asian ones and emoji.
fn cell_width(c: char) -> usize {
    match c as u32 {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 => 2,
        0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

fn is_number(t: &DataType) -> bool {
    t.is_numeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut t = TextTable::new([("postcode", false), ("bikes", true), ("name", false)]);
        t.push(["75015", "1204", "Belle Étoile - 東京"]);
        t.push(["75001", "7", "two\nlines"]);
        t
    }

    #[test]
    fn columns_are_as_wide_as_their_values() {
        let expected = "\
postcode  bikes  name
────────  ─────  ───────────────────
75015      1204  Belle Étoile - 東京
75001         7  two␣lines
";
        assert_eq!(table().draw(None), expected);
    }

    #[test]
    fn the_widest_column_gives_way_to_a_narrow_terminal() {
        let expected = "\
postcode  bikes  name
────────  ─────  ──────────
75015      1204  Belle Éto…
75001         7  two␣lines
";
        assert_eq!(table().draw(Some(27)), expected);
        assert!(table().draw(Some(3)).lines().count() == 4, "no terminal is too narrow to answer");
    }
}
