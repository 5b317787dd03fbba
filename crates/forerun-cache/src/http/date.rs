//! HTTP's dates (RFC 9110, 5.6.7).

use forerun_types::{Span, Time};
use http::HeaderMap;
use http::header::AsHeaderName;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn system(at: Time) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(at.0)).unwrap_or(UNIX_EPOCH)
}

/// In whole seconds.
pub(crate) fn text(at: Time) -> String {
    httpdate::fmt_http_date(system(at))
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// One of the three forms of a date; names of days, months and zone in any case. The name of the day decides nothing, and may
/// be another day's. One before 1970 is none.
pub(crate) fn parse(text: &str) -> Option<Time> {
    let read = |text: &str| httpdate::parse_http_date(text).ok();
    let at = read(text).or_else(|| {
        let text = titled(text);
        let rest = text.get(..3).filter(|day| DAYS.contains(day)).map(|_| &text[3..]);
        read(&text).or_else(|| DAYS.iter().find_map(|day| read(&format!("{day}{}", rest?))))
    })?;
    let micros = at.duration_since(UNIX_EPOCH).map(|since| since.as_micros()).unwrap_or_default();
    Some(Time(u64::try_from(micros).unwrap_or(u64::MAX)))
}

/// `MON, 01 JAN` as `Mon, 01 Jan`, and the zone as `GMT`.
fn titled(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        out.push(if inside { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() });
        inside = c.is_ascii_alphabetic();
    }
    match out.strip_suffix("Gmt") {
        Some(rest) => format!("{rest}GMT"),
        None => out,
    }
}

/// The date in the only header of a name; two are none.
pub(crate) fn header(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Time> {
    let mut values = headers.get_all(name).into_iter();
    let (first, second) = (values.next()?, values.next());
    if second.is_some() {
        return None;
    }
    parse(first.to_str().ok()?.trim())
}

pub(crate) fn seconds(span: Span) -> u64 {
    span.0 / 1_000_000
}

pub(crate) fn of_seconds(seconds: u64) -> Span {
    Span(seconds.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_and_nothing_else() {
        let day = Some(Time(784_111_777_000_000));
        for (text, expect) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", day),
            ("Sunday, 06-Nov-94 08:49:37 GMT", day),
            ("Sun Nov  6 08:49:37 1994", day),
            ("sun, 06 nOV 1994 08:49:37 gmt", day),
            ("Mon, 06 Nov 1994 08:49:37 GMT", day),
            ("Tue Nov  6 08:49:37 1994", day),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun 06 Nov 1994 08:49:37 GMT", None),
            ("Xyz, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 06 Nov 1960 08:49:37 GMT", None),
            ("0", None),
            ("", None),
            ("\u{fc}\u{fc}", None),
        ] {
            assert_eq!(parse(text), expect, "{text}");
        }
    }
}
