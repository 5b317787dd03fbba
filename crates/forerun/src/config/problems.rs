//! What is wrong with a configuration: all of it, one line each, with the line of the file.

use std::cell::RefCell;
use std::ops::Range;

/// Enough to mend a file in a few rounds, few enough to stay on a screen.
const PROBLEMS_MAX: usize = 20;

/// A configuration that cannot be used. `Display` gives its lines, `FILE:LINE: FIELD: what; the mend`.
#[derive(Debug, thiserror::Error)]
#[error("{}", .lines.join("\n"))]
pub(crate) struct ConfigError {
    pub(crate) lines: Vec<String>,
}

impl ConfigError {
    pub(crate) fn one(line: String) -> Self {
        Self { lines: vec![line] }
    }
}

/// The text of a file and what was found wrong with it.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    name: &'a str,
    /// `None` where there are no lines to name: labels.
    text: Option<&'a str>,
    /// Offset in the text, and the message: sorted by the first when told.
    found: RefCell<Vec<(usize, String)>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text: Some(text), found: RefCell::new(Vec::new()) }
    }

    #[cfg(feature = "docker")]
    /// Something that is told of by its name only, as the labels of a container.
    pub(crate) fn without_lines(name: &'a str) -> Self {
        Self { name, text: None, found: RefCell::new(Vec::new()) }
    }

    /// Notes a problem with `field`; an absent span stands for the top of the file.
    pub(crate) fn problem(&self, span: Option<Range<usize>>, field: &str, what: &str) {
        let offset = span.map_or(0, |s| s.start);
        let text = if field.is_empty() { what.to_owned() } else { format!("{field}: {what}") };
        self.found.borrow_mut().push((offset, text));
    }

    /// The line, counted from 1, on which an offset is.
    pub(crate) fn line(&self, span: Option<Range<usize>>) -> usize {
        let text = self.text.unwrap_or_default();
        let end = span.map_or(0, |s| s.start).min(text.len());
        1 + text.as_bytes()[..end].iter().filter(|b| **b == b'\n').count()
    }

    /// # Errors
    /// Everything that was noted, in order of the file.
    pub(crate) fn finish(self) -> Result<(), ConfigError> {
        let mut found = self.found.take();
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by_key(|(offset, _)| *offset);
        let more = found.len().saturating_sub(PROBLEMS_MAX);
        let mut lines: Vec<String> = found
            .iter()
            .take(PROBLEMS_MAX)
            .map(|(offset, text)| match self.text {
                Some(_) => format!("{}:{}: {text}", self.name, self.line(Some(*offset..*offset))),
                None => format!("{}: {text}", self.name),
            })
            .collect();
        if more > 0 {
            lines.push(format!("{}: and {more} more; mend these first", self.name));
        }
        Err(ConfigError { lines })
    }
}
