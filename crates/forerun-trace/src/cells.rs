//! One CSV line, cut into cells.

use std::ops::Range;

/// The cells of the last line that was cut. A quoted cell must end on its line: a stray quote would otherwise
/// swallow the file.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    ranges: Vec<Range<usize>>,
    unquoted: Vec<u8>,
    is_quoted: bool,
}

impl Cells {
    /// Cuts `line` at commas, as RFC 4180 has it; a quote inside an unquoted cell is a quote.
    pub(crate) fn cut(&mut self, line: &[u8]) -> Result<(), &'static str> {
        self.ranges.clear();
        self.is_quoted = memchr::memchr(b'"', line).is_some();
        if self.is_quoted {
            return self.cut_quoted(line);
        }
        let mut from = 0;
        for to in memchr::memchr_iter(b',', line) {
            self.ranges.push(from..to);
            from = to + 1;
        }
        self.ranges.push(from..line.len());
        Ok(())
    }

    fn cut_quoted(&mut self, line: &[u8]) -> Result<(), &'static str> {
        self.unquoted.clear();
        let mut rest = line;
        loop {
            let from = self.unquoted.len();
            if let [b'"', inside @ ..] = rest {
                rest = self.take_quoted(inside)?;
            }
            let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
            self.unquoted.extend_from_slice(&rest[..end]);
            self.ranges.push(from..self.unquoted.len());
            match rest.get(end + 1..) {
                Some(next) => rest = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes up to the closing quote; returns what follows it.
    fn take_quoted<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], &'static str> {
        loop {
            let quote = memchr::memchr(b'"', rest).ok_or("a quoted cell does not end on its line")?;
            self.unquoted.extend_from_slice(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest {
                [b'"', tail @ ..] => {
                    self.unquoted.push(b'"');
                    rest = tail;
                }
                _ => return Ok(rest),
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Cell `at` of `line`, which is the line that was cut last; empty past the end.
    pub(crate) fn get<'a>(&'a self, line: &'a [u8], at: usize) -> &'a [u8] {
        let bytes = if self.is_quoted { &self.unquoted } else { line };
        self.ranges.get(at).map_or(&[], |range| &bytes[range.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cells(line: &str) -> Result<Vec<String>, &'static str> {
        let mut cells = Cells::default();
        cells.cut(line.as_bytes())?;
        Ok((0..cells.len())
            .map(|i| String::from_utf8_lossy(cells.get(line.as_bytes(), i)).into_owned())
            .collect())
    }

    #[test]
    fn cells_as_spreadsheets_write_them() {
        let check = |line: &str, expect: &[&str]| assert_eq!(cells(line).unwrap(), expect, "{line}");
        check("", &[""]);
        check("a,b,", &["a", "b", ""]);
        check(r#""a,b",c"#, &["a,b", "c"]);
        check(r#""say ""hi""",c,"""#.trim_end_matches('"'), &["say \"hi\"", "c", ""]);
        check(r#"a"b,"c"d"#, &["a\"b", "cd"]);
        assert!(cells(r#"a,"b"#).is_err());
        assert!(cells(r#"a,"b"",c"#).is_err());
    }

    proptest! {
        #[test]
        fn what_the_writer_quotes_comes_back(texts in prop::collection::vec("[a\",é \r]{0,6}", 1..6)) {
            let line: Vec<String> = texts.iter().map(|t| crate::csv_cell(t).into_owned()).collect();
            prop_assert_eq!(cells(&line.join(",")).unwrap(), texts);
        }
    }
}
