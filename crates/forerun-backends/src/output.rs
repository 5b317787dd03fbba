//! The end of what an instance printed, for messages: bounded whatever it prints.

use std::collections::VecDeque;

/// Lines that are kept.
const LINES_MAX: usize = 20;
/// Bytes of a line that are kept; what a line has beyond them is dropped, and not searched either.
const LINE_BYTES_MAX: usize = 1024;
/// Bytes of a summary: about what a person reads of a one-line message.
const SUMMARY_BYTES_MAX: usize = 2000;

/// The last lines of an instance's standard output and error, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<Vec<u8>>,
    /// The line that has not ended yet.
    partial: Vec<u8>,
}

impl Tail {
    /// Takes the next bytes, in pieces of any size. Returns whether a line, ended or not, contains `wanted`.
    pub(crate) fn push(&mut self, bytes: &[u8], wanted: Option<&str>) -> bool {
        let mut found = false;
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let mut piece = pieces.next();
        while let Some(text) = piece {
            let room = LINE_BYTES_MAX - self.partial.len();
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            found = found || wanted.is_some_and(|wanted| contains(&self.partial, wanted.as_bytes()));
            piece = pieces.next();
            if piece.is_some() {
                self.end_line();
            }
        }
        found
    }

    fn end_line(&mut self) {
        let reused = if self.lines.len() >= LINES_MAX { self.lines.pop_front() } else { None };
        let mut next = reused.unwrap_or_default();
        next.clear();
        self.lines.push_back(std::mem::replace(&mut self.partial, next));
    }

    /// The last lines on one line, separated by ` | `; empty if nothing was printed.
    pub(crate) fn summary(&self) -> String {
        let lines = self.lines.iter().chain(Some(&self.partial)).map(|line| plain(line));
        let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
        let from = lines.len().saturating_sub(LINES_MAX);
        let text = lines[from..].join(" | ");
        let Some(excess) = text.len().checked_sub(SUMMARY_BYTES_MAX).filter(|excess| *excess > 0) else {
            return text;
        };
        let from = (excess..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        format!("...{}", &text[from..])
    }

    /// A sentence, with the last lines after it.
    pub(crate) fn told(&self, what: String) -> String {
        match self.summary() {
            lines if lines.is_empty() => format!("{what}; it printed nothing"),
            lines => format!("{what}; last lines: {lines}"),
        }
    }

    /// Whether any kept line contains one of these lower-case texts, whatever its case.
    pub(crate) fn mentions(&self, texts: &[&str]) -> bool {
        self.lines.iter().chain(Some(&self.partial)).any(|line| {
            let line = line.to_ascii_lowercase();
            texts.iter().any(|text| contains(&line, text.as_bytes()))
        })
    }
}

/// A line without colours, control characters and blanks at its ends.
fn plain(line: &[u8]) -> String {
    let mut text = String::new();
    let line = String::from_utf8_lossy(line);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            // An escape sequence ends with its first letter: `ESC [ 31 m`.
            '\u{1b}' => while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text.trim().to_owned()
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], summary: &str) {
        let mut tail = Tail::default();
        for piece in pieces {
            tail.push(piece.as_bytes(), None);
        }
        assert_eq!(tail.summary(), summary);
    }

    #[test]
    fn pieces_become_lines() {
        check(&[], "");
        check(&["one"], "one");
        check(&["o", "ne\nt", "wo\n"], "one | two");
        check(&["\n\n", "a\n\nb\n"], "a | b");
        check(&["\u{1b}[31mred\u{1b}[0m\r\nbell\u{7}x"], "red | bell x");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        for n in 0..1000 {
            tail.push(format!("line {n}\n").as_bytes(), None);
        }
        let summary = tail.summary();
        assert!(summary.starts_with("line 980 | ") && summary.ends_with(" | line 999"), "{summary}");
        assert_eq!(tail.lines.len(), LINES_MAX);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(&[b'x'; 4096], None);
        }
        assert_eq!(tail.partial.len(), LINE_BYTES_MAX);
        for _ in 0..30 {
            tail.push("é".repeat(4096).as_bytes(), None);
            tail.push(b"\n", None);
        }
        let summary = tail.summary();
        assert!(summary.len() <= SUMMARY_BYTES_MAX + 3 && summary.starts_with("..."), "{}", summary.len());
    }

    #[test]
    fn a_text_is_found_across_pieces() {
        let mut tail = Tail::default();
        assert!(!tail.push(b"server is re", Some("ready on")));
        assert!(tail.push(b"ady on 80", Some("ready on")));
        assert!(tail.push(b"x\nready on y\nz", Some("ready on")));
        assert!(!tail.push(b"nothing\n", Some("ready on")));
        assert!(tail.mentions(&["ready on y"]) && !tail.mentions(&["in use"]));
    }
}
