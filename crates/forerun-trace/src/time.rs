//! Dates, seconds and durations from text, to whole microseconds. Integers throughout: a float holds a date of today
//! only to a quarter of a microsecond, and rounding must not depend on how a file happens to write it.

use forerun_types::Span;

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// Years 1 to 9999, so that every sum below fits.
const SECONDS_MAX: i64 = 253_402_300_800;

/// Microseconds since 1970 UTC from `2015-05-17T10:05:03.5+02:00`, `2015-05-17 10:05:03` (UTC when no zone is given),
/// `2015-05-17`, or seconds since 1970 with decimals.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_instant(text: &[u8]) -> Result<i64, String> {
    let text = text.trim_ascii();
    let looks_like_date = text.len() >= 10 && text[4] == b'-' && text[7] == b'-';
    let parsed = if looks_like_date { date_time(text) } else { seconds(text) };
    parsed.ok_or_else(|| format!("{} is neither a date nor seconds", quoted(text)))
}

/// A duration in microseconds from `10s`, `10m`, `1.5h`, `250ms`, `1d` or bare seconds.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Span, String> {
    let wrong = || format!("{text:?} is no duration: write 10s, 10m, 1h or bare seconds");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let (unit_us, per) = match unit {
        "us" => (1, SECOND_US),
        "ms" => (1, 1_000),
        "" | "s" => (1, 1),
        "m" | "min" => (60, 1),
        "h" => (3_600, 1),
        "d" => (DAY_S, 1),
        _ => return Err(wrong()),
    };
    let micros = seconds(number.as_bytes()).ok_or_else(wrong)?;
    u64::try_from(i128::from(micros) * i128::from(unit_us) / i128::from(per)).map(Span).map_err(|_| wrong())
}

/// Decimal seconds to microseconds, rounded half away from zero; `None` if it is no finite number in range.
pub(crate) fn seconds(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let dot = memchr::memchr(b'.', digits).unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..dot], digits.get(dot + 1..).unwrap_or(&[]));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut secs: i64 = 0;
    for &b in whole {
        if !b.is_ascii_digit() {
            return by_float(text);
        }
        secs = secs * 10 + i64::from(b - b'0');
        if secs > SECONDS_MAX {
            return None;
        }
    }
    let micros = secs * SECOND_US
        + fraction_us(fraction).or_else(|| by_float(text).map(|us| us.abs() - secs * SECOND_US))?;
    Some(if negative { -micros } else { micros })
}

/// For spellings with an exponent.
fn by_float(text: &[u8]) -> Option<i64> {
    if !text.iter().any(|b| matches!(b, b'e' | b'E')) {
        return None;
    }
    let secs: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (secs.abs() <= SECONDS_MAX as f64).then(|| (secs * 1e6).round() as i64)
}

/// Microseconds of the digits after a decimal point.
fn fraction_us(digits: &[u8]) -> Option<i64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut micros = 0;
    for at in 0..6 {
        micros = micros * 10 + digits.get(at).map_or(0, |b| i64::from(b - b'0'));
    }
    let up = digits.get(6).is_some_and(|&b| b >= b'5');
    Some(micros + i64::from(up))
}

fn date_time(text: &[u8]) -> Option<i64> {
    let days = days(number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?)?;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some(days * DAY_S * SECOND_US);
    }
    if !matches!(rest[0], b'T' | b't' | b' ') {
        return None;
    }
    let clock = rest.get(1..9)?;
    if clock[2] != b':' || clock[5] != b':' {
        return None;
    }
    let secs = clock_seconds(number(&clock[..2])?, number(&clock[3..5])?, number(&clock[6..8])?)?;
    let rest = &rest[9..];
    let (fraction, rest) = match rest {
        [b'.' | b',', tail @ ..] => {
            let end = tail.iter().position(|b| !b.is_ascii_digit()).unwrap_or(tail.len());
            (fraction_us(&tail[..end]).filter(|_| end > 0)?, &tail[end..])
        }
        rest => (0, rest),
    };
    let zone = match rest.trim_ascii() {
        b"" | b"Z" | b"z" | b"UTC" => 0,
        zone => zone_seconds(zone)?,
    };
    Some((days * DAY_S + secs - zone) * SECOND_US + fraction)
}

/// `17/May/2015:10:05:03 +0000`, as web servers write it.
pub(crate) fn log_date(text: &[u8]) -> Option<i64> {
    let (day, rest) = text.split_at_checked(2)?;
    let day = number(day)?;
    let rest = rest.strip_prefix(b"/")?;
    let month = month(rest.get(..3)?)?;
    let rest = rest[3..].strip_prefix(b"/")?;
    let year = number(rest.get(..4)?)?;
    let clock = rest[4..].strip_prefix(b":")?;
    if clock.len() < 8 || clock[2] != b':' || clock[5] != b':' {
        return None;
    }
    let secs = clock_seconds(number(&clock[..2])?, number(&clock[3..5])?, number(&clock[6..8])?)?;
    let (fraction, zone) = match &clock[8..] {
        [b'.', tail @ ..] => {
            let end = tail.iter().position(|b| !b.is_ascii_digit()).unwrap_or(tail.len());
            (fraction_us(&tail[..end])?, &tail[end..])
        }
        zone => (0, zone),
    };
    let zone = if zone.is_empty() { 0 } else { zone_seconds(zone.trim_ascii())? };
    Some((days(year, month, day)? * DAY_S + secs - zone) * SECOND_US + fraction)
}

fn month(name: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    MONTHS.iter().position(|m| name.eq_ignore_ascii_case(*m)).map(|at| at as i64 + 1)
}

/// `+HH:MM`, `+HHMM` or `+HH`.
fn zone_seconds(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest {
        [a, b] => (number(&[*a, *b])?, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (number(&[*a, *b])?, number(&[*c, *d])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn clock_seconds(hour: i64, minute: i64, second: i64) -> Option<i64> {
    // A leap second is the first one of the next minute.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=in_month).contains(&day) || year < 1 {
        return None;
    }
    // Years that begin in March put the leap day last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    Some(y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 719_469)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

/// A text from a file as a message may show it: short, and safe for a terminal.
pub(crate) fn quoted(text: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 60;
    let cut = &text[..text.len().min(SHOWN_BYTES_MAX)];
    let dots = if text.len() > cut.len() { "..." } else { "" };
    format!("{:?}{dots}", String::from_utf8_lossy(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_to_the_microsecond() {
        let check = |text: &str, expect: Option<i64>| {
            assert_eq!(parse_instant(text.as_bytes()).ok(), expect, "{text}");
        };
        check("1970-01-01T00:00:00Z", Some(0));
        check("1970-01-01 00:00:01.5", Some(1_500_000));
        check("2015-05-17T10:05:03+02:00", Some(1_431_849_903_000_000));
        check("2015-05-17T08:05:03.000001Z", Some(1_431_849_903_000_001));
        check("2000-02-29", Some(951_782_400_000_000));
        check("1900-02-29", None);
        check("2024-13-01 00:00:00", None);
        check("2024-11-15 16:57", None);
        check("1731689870.1234565", Some(1_731_689_870_123_457));
        check("-1.5", Some(-1_500_000));
        check("1e3", Some(1_000_000_000));
        check("1.5e3", Some(1_500_000_000));
        for bad in ["", ".", "-", "nan", "inf", "1e300", "99999999999999999999", "12:30", "0x10", "1.2.3"] {
            check(bad, None);
        }
    }

    #[test]
    fn dates_of_web_servers() {
        assert_eq!(log_date(b"17/May/2015:10:05:03 +0200"), parse_instant(b"2015-05-17T08:05:03Z").ok());
        assert_eq!(log_date(b"01/Jan/1970:00:00:00 +0000"), Some(0));
        for bad in [
            "",
            "1/May/2015:10:05:03 +0000",
            "31/Feb/2015:10:05:03 +0000",
            "17/May/2015",
            "17/May/2015:10:05:03 0",
        ] {
            assert_eq!(log_date(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, micros) in [
            ("10", 10_000_000),
            ("10s", 10_000_000),
            ("10m", 600_000_000),
            ("1.5h", 5_400_000_000),
            ("250ms", 250_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Span(micros)), "{text}");
        }
        for bad in ["", "s", "-1s", "10x", "nan", "1 0"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_last() {
        let mut last = days(1999, 12, 31).unwrap();
        for year in 2000..2400 {
            for month in 1..=12 {
                for day in 1..=31 {
                    let Some(today) = days(year, month, day) else { continue };
                    assert_eq!(today, last + 1, "{year}-{month}-{day}");
                    last = today;
                }
            }
        }
    }
}
