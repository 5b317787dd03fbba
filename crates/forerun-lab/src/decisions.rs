//! What a policy says, and the file that outside scorers read.

use forerun_trace::csv_cell;
use forerun_types::{ServiceId, Time};
use std::io::{self, Write};

/// From `at` on, so many instances of the service are to exist, busy ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub at: Time,
    pub service: ServiceId,
    pub wanted: u32,
}

/// Writes `time_s,service,instances_wanted`, in order of time, seconds from `zero` with all their digits.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_decisions(
    decisions: &[Decision],
    names: &[&str],
    zero: Time,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "time_s,service,instances_wanted")?;
    for d in decisions {
        let micros = d.at.0.abs_diff(zero.0);
        let sign = if d.at < zero { "-" } else { "" };
        write!(out, "{sign}{}", micros / 1_000_000)?;
        if micros % 1_000_000 > 0 {
            let digits = format!("{:06}", micros % 1_000_000);
            write!(out, ".{}", digits.trim_end_matches('0'))?;
        }
        writeln!(out, ",{},{}", csv_cell(names[d.service.0 as usize]), d.wanted)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_whole() {
        let mut out = Vec::new();
        let rows = [(0, 0), (1_500_000, 2), (61_000_001, 1)];
        let rows = rows.map(|(at, wanted)| Decision { at: Time(at), service: ServiceId(0), wanted });
        write_decisions(&rows, &["a,b"], Time(1_000_000), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "time_s,service,instances_wanted\n-1,\"a,b\",0\n0.5,\"a,b\",2\n60.000001,\"a,b\",1\n"
        );
    }
}
