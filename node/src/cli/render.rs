//! What commands print: tables on a terminal, tab-separated lines elsewhere,
//! JSON on demand. Data goes to standard output, everything else to standard
//! error.

use std::io::{self, BufWriter, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use super::error::Outcome;

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// Tab-separated columns for other programs.
    Plain,
    /// JSON with stable names.
    Json,
    /// Only the names.
    Name,
}

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// The form asked for, else what fits standard output.
    pub fn new(asked: Option<Format>) -> Self {
        let fitting = || if io::stdout().is_terminal() { Format::Table } else { Format::Plain };
        Self { format: asked.unwrap_or_else(fitting) }
    }

    /// The form.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether JSON was asked for.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints `record` as JSON, or `rows` in the other forms.
    ///
    /// # Errors
    /// If standard output takes no more.
    pub fn rows<T: Serialize>(self, record: &T, header: &[&str], rows: &[Vec<String>]) -> Outcome {
        match self.format {
            Format::Json => self.json(record),
            Format::Table => line(&table(header, rows)),
            Format::Plain => {
                let mut out = BufWriter::new(io::stdout().lock());
                for row in rows {
                    writeln!(out, "{}", plain(row))?;
                }
                Ok(out.flush()?)
            }
            Format::Name => {
                let mut out = BufWriter::new(io::stdout().lock());
                for name in rows.iter().filter_map(|row| row.first()) {
                    writeln!(out, "{}", printable(name))?;
                }
                Ok(out.flush()?)
            }
        }
    }

    /// Prints a record as JSON.
    ///
    /// # Errors
    /// If standard output takes no more.
    pub fn json<T: Serialize>(self, record: &T) -> Outcome {
        let text = serde_json::to_string_pretty(record).map_err(io::Error::other)?;
        line(&text)
    }

    /// Prints a record as JSON, or one line of text.
    ///
    /// # Errors
    /// If standard output takes no more.
    pub fn record<T: Serialize>(self, record: &T, text: &str) -> Outcome {
        if self.is_json() { self.json(record) } else { line(text) }
    }
}

/// Prints a line of data.
///
/// # Errors
/// If standard output takes no more.
pub fn line(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Tells the user something that is no data.
pub fn tell(text: &str) {
    // Standard error may be closed; then nobody wants to know.
    drop(writeln!(io::stderr(), "{text}"));
}

/// A table as text: fits the terminal, no frames, nothing coloured.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    let text = table.to_string();
    let lines: Vec<&str> =
        text.lines().map(|line| line.trim_end().trim_start_matches(' ')).collect();
    lines.join("\n")
}

fn plain(row: &[String]) -> String {
    row.iter().map(|cell| printable(cell)).collect::<Vec<_>>().join("\t")
}

/// Control characters escaped: a key must not move the cursor or end a line.
pub fn printable(text: &str) -> String {
    if text.contains(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

/// So many of something, as people say it: `1 node`, `2 nodes`.
pub fn count(number: impl TryInto<u64>, of: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

/// Wall milliseconds as people write them, in UTC.
pub fn time(wall_ms: u64) -> String {
    i64::try_from(wall_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A duration in its largest unit, as in `3m`.
pub fn age(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_key_are_escaped() {
        assert_eq!(printable("a\tb\n\u{1b}[2J"), "a\\tb\\n\\u{1b}[2J");
        assert_eq!(printable("näme"), "näme");
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_trailing_space() {
        let rows = [vec!["n1".into(), "up".into()], vec!["n10".into(), "DOWN".into()]];
        let text = table(&["NODE", "STATE"], &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.trim_end() == *line));
        assert_eq!(lines[0].find("STATE"), lines[1].find("up"));
    }

    #[test]
    fn one_is_no_plural() {
        let counts = [0, 1, 2].map(|number| count(number, "node"));
        assert_eq!(counts, ["0 nodes", "1 node", "2 nodes"]);
    }

    #[test]
    fn times_and_ages_read_at_a_glance() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(age(59_999), "59s");
        assert_eq!(age(3_600_000), "1h");
    }
}
