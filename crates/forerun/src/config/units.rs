//! Amounts as people write them: `10s`, `512MB`, `500m` cores, `20%`.

use forerun_types::Span;

/// What TOML holds, or a default's text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    Whole(i64),
    Decimal(f64),
    Text(&'a str),
    Bool(bool),
    /// A table, a list, a date: the name of what it is.
    Other(&'static str),
}

impl<'a> Scalar<'a> {
    /// Reads a default of the table of keys.
    pub(crate) fn of_default(text: &'a str) -> Scalar<'a> {
        match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(n), _) => Scalar::Whole(n),
            (_, Ok(x)) => Scalar::Decimal(x),
            _ => text.parse().map_or(Scalar::Text(text), Scalar::Bool),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Scalar::Whole(_) => "a whole number",
            Scalar::Decimal(_) => "a decimal number",
            Scalar::Text(_) => "a text",
            Scalar::Bool(_) => "true or false",
            Scalar::Other(kind) => kind,
        }
    }
}

/// A number with its unit, split: `1.5GB` is `(1.5, "GB")`.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim()))
}

/// A number that is not negative, to the nearest whole; `None` if it is too large to be meant.
fn whole(number: f64) -> Option<u64> {
    (0.0..9.0e18).contains(&number).then(|| number.round() as u64)
}

/// The longest duration that is taken: a hundred years.
const DURATION_MAX: Span = Span::from_secs(100 * 366 * 86_400);

/// `250ms`, `10s`, `1h30m`, or a number of seconds.
pub(crate) fn duration(value: Scalar<'_>) -> Result<Span, String> {
    let mend = "write it as \"250ms\", \"10s\", \"10m\" or \"1h30m\"";
    let micros = match value {
        Scalar::Whole(n) if n >= 0 => whole(n as f64 * 1e6),
        Scalar::Decimal(x) if x >= 0.0 => whole(x * 1e6),
        Scalar::Whole(_) | Scalar::Decimal(_) => {
            return Err("a duration is not negative".to_owned());
        }
        Scalar::Text(text) => {
            duration_micros(text).ok_or_else(|| format!("\"{text}\" is no duration; {mend}"))?
        }
        other => return Err(format!("expected a duration, got {}; {mend}", other.kind())),
    };
    match micros {
        Some(micros) if micros <= DURATION_MAX.0 => Ok(Span(micros)),
        _ => Err("a duration is at most a hundred years".to_owned()),
    }
}

/// Outer `None`: not a duration. Inner `None`: too long.
fn duration_micros(text: &str) -> Option<Option<u64>> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let micros = match &rest[..letters] {
            "us" | "µs" => 1.0,
            "ms" => 1e3,
            "s" | "" => 1e6,
            "m" | "min" => 60e6,
            "h" => 3_600e6,
            "d" => 86_400e6,
            _ => return None,
        };
        total += number * micros;
        rest = rest[letters..].trim_start();
    }
    Some(whole(total))
}

/// `512MB` (10^6), `2GiB` (2^30), or a number of bytes.
pub(crate) fn bytes(value: Scalar<'_>) -> Result<u64, String> {
    let mend = "write it as \"512MB\" or \"2GiB\"";
    match value {
        Scalar::Whole(n) => u64::try_from(n).map_err(|_| "bytes are not negative".to_owned()),
        Scalar::Text(text) => {
            let (number, unit) = split(text).ok_or_else(|| format!("\"{text}\" is no size; {mend}"))?;
            let factor = byte_factor(unit).ok_or_else(|| match unit {
                "m" | "mb" | "Mb" | "M" => format!("\"{unit}\" is no unit of bytes; did you mean \"MB\"?"),
                "g" | "gb" | "Gb" | "G" => format!("\"{unit}\" is no unit of bytes; did you mean \"GB\"?"),
                _ => format!("\"{unit}\" is no unit of bytes; {mend}"),
            })?;
            whole(number * factor).ok_or_else(|| format!("\"{text}\" is more than can be counted"))
        }
        other => Err(format!("expected a size, got {}; {mend}", other.kind())),
    }
}

fn byte_factor(unit: &str) -> Option<f64> {
    Some(match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" | "Ki" => 1024.0,
        "MiB" | "Mi" => 1_048_576.0,
        "GiB" | "Gi" => 1_073_741_824.0,
        "TiB" | "Ti" => 1_099_511_627_776.0,
        _ => return None,
    })
}

/// As [`bytes`], with or without `/s` behind it.
pub(crate) fn bytes_per_second(value: Scalar<'_>) -> Result<u64, String> {
    match value {
        Scalar::Text(text) if text.contains("bit") => {
            Err(format!("\"{text}\" counts bits; write bytes, as \"10MB/s\""))
        }
        Scalar::Text(text) => bytes(Scalar::Text(text.strip_suffix("/s").unwrap_or(text))),
        other => bytes(other),
    }
}

/// Cores as thousandths: `0.5`, `2`, or `500m`.
pub(crate) fn cores_milli(value: Scalar<'_>) -> Result<u64, String> {
    let mend = "write cores as 0.5, 2 or \"500m\"";
    let milli = match value {
        Scalar::Whole(n) => n as f64 * 1e3,
        Scalar::Decimal(x) => x * 1e3,
        Scalar::Text(text) => match split(text) {
            Some((number, "m")) => number,
            Some((number, "")) => number * 1e3,
            _ => return Err(format!("\"{text}\" is no number of cores; {mend}")),
        },
        other => return Err(format!("expected cores, got {}; {mend}", other.kind())),
    };
    if !(0.0..=1e9).contains(&milli) {
        return Err(format!("{} cores cannot be; {mend}", milli / 1e3));
    }
    Ok(milli.round() as u64)
}

/// A share as thousandths: `0.2` or `20%`.
pub(crate) fn share_milli(value: Scalar<'_>) -> Result<u32, String> {
    share(value).map(|share| (share * 1e3).round() as u32)
}

/// A share as millionths.
pub(crate) fn share_ppm(value: Scalar<'_>) -> Result<u32, String> {
    share(value).map(|share| (share * 1e6).round() as u32)
}

fn share(value: Scalar<'_>) -> Result<f64, String> {
    let mend = "write a share as 0.2 or \"20%\"";
    let share = match value {
        Scalar::Whole(n) => n as f64,
        Scalar::Decimal(x) => x,
        Scalar::Text(text) => match split(text) {
            Some((number, "%")) => number / 100.0,
            Some((number, "")) => number,
            _ => return Err(format!("\"{text}\" is no share; {mend}")),
        },
        other => return Err(format!("expected a share, got {}; {mend}", other.kind())),
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("a share is from 0 to 1; {mend}"));
    }
    Ok(share)
}

/// A number that is not negative.
pub(crate) fn number(value: Scalar<'_>) -> Result<f64, String> {
    let x = match value {
        Scalar::Whole(n) => n as f64,
        Scalar::Decimal(x) => x,
        other => return Err(format!("expected a number, got {}", other.kind())),
    };
    if (0.0..=1e12).contains(&x) { Ok(x) } else { Err("expected a number from 0 to 10^12".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: std::fmt::Debug + PartialEq>(
        read: impl Fn(Scalar<'_>) -> Result<T, String>,
        value: Scalar<'_>,
        expect: Result<T, &str>,
    ) {
        let got = read(value);
        match (&got, &expect) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "{value:?}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{value:?}: {message}"),
            _ => panic!("{value:?}: got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn durations_are_read() {
        for (value, expect) in [
            (Scalar::Whole(10), Ok(Span::from_secs(10))),
            (Scalar::Decimal(0.25), Ok(Span::from_millis(250))),
            (Scalar::Text("250ms"), Ok(Span::from_millis(250))),
            (Scalar::Text("1h30m"), Ok(Span::from_secs(5_400))),
            (Scalar::Text("10 m"), Ok(Span::from_secs(600))),
            (Scalar::Text("7"), Ok(Span::from_secs(7))),
            (Scalar::Text("10 minutes"), Err("no duration")),
            (Scalar::Text(""), Err("no duration")),
            (Scalar::Text("-5s"), Err("no duration")),
            (Scalar::Text("1.2.3s"), Err("no duration")),
            (Scalar::Text("9999999999999d"), Err("hundred years")),
            (Scalar::Whole(-1), Err("not negative")),
            (Scalar::Decimal(f64::NAN), Err("not negative")),
            (Scalar::Bool(true), Err("expected a duration, got true or false")),
        ] {
            check(duration, value, expect);
        }
    }

    #[test]
    fn sizes_are_read() {
        for (value, expect) in [
            (Scalar::Text("1GB"), Ok(1_000_000_000)),
            (Scalar::Text("1.5 GiB"), Ok(1_610_612_736)),
            (Scalar::Whole(7), Ok(7)),
            (Scalar::Text("12"), Ok(12)),
            (Scalar::Text("512m"), Err("did you mean \"MB\"?")),
            (Scalar::Text("5 apples"), Err("no unit of bytes")),
            (Scalar::Text("99999999TB"), Err("more than can be counted")),
            (Scalar::Whole(-7), Err("not negative")),
            (Scalar::Decimal(1.5), Err("expected a size")),
        ] {
            check(bytes, value, expect);
        }
        check(bytes_per_second, Scalar::Text("10MB/s"), Ok(10_000_000));
        check(bytes_per_second, Scalar::Text("10Mbit/s"), Err("counts bits"));
    }

    #[test]
    fn cores_and_shares_are_read() {
        check(cores_milli, Scalar::Decimal(0.5), Ok(500));
        check(cores_milli, Scalar::Text("250m"), Ok(250));
        check(cores_milli, Scalar::Whole(-2), Err("cannot be"));
        check(cores_milli, Scalar::Text("many"), Err("no number of cores"));
        check(share_milli, Scalar::Text("20%"), Ok(200));
        check(share_milli, Scalar::Decimal(0.2), Ok(200));
        check(share_milli, Scalar::Whole(2), Err("from 0 to 1"));
        check(number, Scalar::Decimal(f64::INFINITY), Err("expected a number"));
    }
}
