//! Amounts as people write them.

use super::bad;
use crate::failure::Failure;
use forerun_lab::Capacity;

pub(super) fn not_bytes(option: &str, text: &str) -> String {
    format!("{option}: {text:?} is no size: write 512MB or 1.5GB (10^9 bytes)")
}

/// `512MB`, `1.5GB`, `2GiB`, or a number of bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let factor = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let number: f64 = text[..end].trim().parse().ok()?;
    // 2^53: what a float counts exactly.
    let bytes = number * factor;
    (0.0..=9_007_199_254_740_992.0).contains(&bytes).then(|| bytes.round() as u64)
}

/// A bare number is instances, a number with a unit bytes; 0 is no limit.
pub(super) fn capacity(option: &str, text: &str) -> Result<Capacity, Failure> {
    if let Ok(instances) = text.trim().parse::<u32>() {
        return Ok(if instances == 0 { Capacity::Unlimited } else { Capacity::Instances(instances) });
    }
    match bytes(text) {
        Some(0) => Ok(Capacity::Unlimited),
        Some(bytes) => Ok(Capacity::Bytes(bytes)),
        None => Err(bad(format!("{option}: {text:?} is neither a number of instances nor a size as 64GB"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_capacities() {
        for (text, expect) in [
            ("1GB", Some(1_000_000_000)),
            ("1.5 gb", Some(1_500_000_000)),
            ("2KiB", Some(2048)),
            ("7", Some(7)),
            ("", None),
            ("GB", None),
            ("-1GB", None),
            ("nan", None),
            ("1PB", None),
            ("99999999TB", None),
        ] {
            assert_eq!(bytes(text), expect, "{text}");
        }
        for (text, expect) in [
            ("0", Some(Capacity::Unlimited)),
            ("16", Some(Capacity::Instances(16))),
            ("16GB", Some(Capacity::Bytes(16_000_000_000))),
            ("many", None),
            ("-1", None),
        ] {
            assert_eq!(capacity("--capacity", text).ok(), expect, "{text}");
        }
    }
}
