//! A part of a body (RFC 9110, 14).

use std::ops::Range;

/// What a `Range` header asks of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: the header is none, or names parts in the plural, which are answered with the whole.
    Whole,
    One(Range<usize>),
    /// Nothing of what it names is there.
    Nothing,
}

pub(crate) fn part(header: &str, length: usize) -> Part {
    let Some((unit, set)) = header.split_once('=') else { return Part::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Part::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Part::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<usize>().unwrap_or(usize::MAX))
    };
    let range = match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        (Some(first), None) if last.is_empty() => first..length,
        (Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
        _ => return Part::Whole,
    };
    if range.start >= range.end { Part::Nothing } else { Part::One(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_out() {
        for (header, expect) in [
            ("bytes=0-3", Part::One(0..4)),
            ("bytes=2-", Part::One(2..10)),
            ("bytes=-4", Part::One(6..10)),
            ("bytes=-40", Part::One(0..10)),
            ("bytes=9-99999999999999999999999", Part::One(9..10)),
            ("BYTES=0-0", Part::One(0..1)),
            ("bytes=10-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=99999999999999999999999-", Part::Nothing),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(header, 10), expect, "{header}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Nothing);
    }
}
