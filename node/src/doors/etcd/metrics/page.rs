//! A page of metrics as Prometheus reads it, family by family.

use std::fmt::{Display, Write};

/// A page under way.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds a family by name and kind, with its labelled values.
    pub(super) fn family<V: Display>(
        &mut self,
        (name, kind): (&str, &str),
        help: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        // Writing into memory does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = if labels.is_empty() {
                writeln!(self.0, "{name} {value}")
            } else {
                writeln!(self.0, "{name}{{{labels}}} {value}")
            };
        }
    }

    /// Adds what counts up.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family((name, "counter"), help, [(String::new(), value)]);
    }

    /// Adds what goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family((name, "gauge"), help, [(String::new(), value)]);
    }

    /// Adds lines as they are.
    pub(super) fn lines(&mut self, lines: &str) {
        self.0.push_str(lines);
    }

    /// What is on it.
    pub(super) fn text(self) -> String {
        self.0
    }
}

/// The lines of a family on another page, under another name.
pub(super) fn renamed(page: &str, from: &str, to: &str) -> String {
    let of_family = |line: &&str| {
        let bare = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        let rest = bare.strip_prefix(from);
        rest.is_some_and(|rest| {
            [" ", "{", "_bucket{", "_sum", "_count"].iter().any(|next| rest.starts_with(next))
        })
    };
    page.lines().filter(of_family).map(|line| line.replacen(from, to, 1) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_takes_its_lines_along_under_another_name() {
        let page = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\n\
                    a_seconds_bucket{le=\"1\"} 2\na_seconds_sum 1.5\na_seconds_count 2\n\
                    # HELP a_seconds_max Another.\na_seconds_max 1\nb 1\n";
        let wanted = "# HELP c_seconds How long.\n# TYPE c_seconds histogram\n\
                      c_seconds_bucket{le=\"1\"} 2\nc_seconds_sum 1.5\nc_seconds_count 2\n";
        assert_eq!(renamed(page, "a_seconds", "c_seconds"), wanted);
    }

    #[test]
    fn values_stand_behind_their_labels() {
        let mut page = Page::default();
        page.gauge("up", "Whether.", 1);
        page.family(("n", "counter"), "How often.", [("of=\"x\"".to_owned(), 3)]);
        let wanted = "# HELP up Whether.\n# TYPE up gauge\nup 1\n\
                      # HELP n How often.\n# TYPE n counter\nn{of=\"x\"} 3\n";
        assert_eq!(page.text(), wanted);
    }
}
