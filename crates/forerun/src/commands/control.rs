//! `forerun wake`, `pause`, `resume`, `scale`, `act`, `advise` and `observe`: a person's word to a running Forerun.

use crate::ask::Asked;
use crate::cli::{ControlArgs, ScaleArgs};
use crate::config::duration_of;
use crate::failure::Failure;
use forerun_api::Told;
use serde_json::json;
use std::io::Write;

/// `wake`, `pause`, `resume`, `act`, `advise` or `observe`.
///
/// # Errors
/// Nobody answers, or no service has that name.
pub(crate) fn run(verb: &str, args: &ControlArgs, out: &mut dyn Write) -> Result<(), Failure> {
    tell(args, verb, "", out)
}

/// # Errors
/// As [`run`], and a `--for` that is no duration.
pub(crate) fn scale(args: &ScaleArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let hold = match &args.hold {
        None => None,
        Some(text) => match duration_of(text).map_err(|what| Failure::Arguments(format!("--for: {what}")))? {
            forerun_types::Span::ZERO => {
                return Err(Failure::Arguments("--for: must be more than nothing".to_owned()));
            }
            hold => Some(hold.as_secs_f64()),
        },
    };
    let body = json!({ "instances": args.instances, "for_seconds": hold });
    tell(&args.control, "scale", &body.to_string(), out)
}

fn tell(args: &ControlArgs, verb: &str, body: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let service: String = percent(&args.service);
    let answer = Asked::of(&args.api)?.post(&format!("/v1/services/{service}/{verb}"), body)?;
    let odd = |e: serde_json::Error| Failure::Running(format!("the api gives no answer to {verb}: {e}"));
    let told: Told = serde_json::from_slice(&answer).map_err(odd)?;
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&told).map_err(odd)?)?);
    }
    Ok(writeln!(out, "{}", told.said)?)
}

/// A segment of a path: whatever a person types must not reach another one.
pub(crate) fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(percent("shop-web_1"), "shop-web_1");
        assert_eq!(percent("a/../b c@ü"), "a%2F..%2Fb%20c%40%C3%BC");
    }
}
