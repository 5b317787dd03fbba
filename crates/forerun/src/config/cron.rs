//! The five fields of cron, as sets of bits.

use forerun_types::Schedule;

/// One field: its name, what it may hold, and names for its values.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of month", min: 1, max: 31, names: &[] },
    Field { name: "month", min: 1, max: 12, names: MONTHS },
    // 7 is Sunday too.
    Field { name: "day of week", min: 0, max: 7, names: WEEKDAYS },
];

/// The most days that each month can have.
const DAYS_MAX: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Reads the text of a schedule; the caller sets `open_for` and `min`.
///
/// # Errors
/// Says which field is wrong and what it may hold, or that the fields never match together.
pub(crate) fn parse(text: &str) -> Result<Schedule, String> {
    let text = match text.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other if other.starts_with('@') => {
            return Err(format!(
                "\"{other}\" is not known; use @hourly, @daily, @weekly, @monthly or @yearly"
            ));
        }
        other => other,
    };
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "\"{text}\" has {} fields, cron has 5: minute, hour, day of month, month, day of week",
            parts.len()
        ));
    }
    let mut bits = [0u64; 5];
    for ((bits, field), part) in bits.iter_mut().zip(&FIELDS).zip(&parts) {
        *bits = field_bits(field, part)?;
    }
    let [minutes, hours, days, months, weekdays] = bits;
    // Sunday is bit 0, however it was written.
    let weekdays = (weekdays | weekdays >> 7) & 0x7f;
    let schedule = Schedule {
        minutes,
        hours: hours as u32,
        days: days as u32,
        months: months as u16,
        weekdays: weekdays as u8,
        either_day: !parts[2].starts_with('*') && !parts[4].starts_with('*'),
        open_for: forerun_types::Span::ZERO,
        min: 0,
    };
    if !schedule.either_day && !some_month_has_such_a_day(&schedule) {
        return Err(format!("\"{text}\" never comes: no such day in those months"));
    }
    Ok(schedule)
}

fn some_month_has_such_a_day(schedule: &Schedule) -> bool {
    let first_day = schedule.days.trailing_zeros();
    (1..=12u32).any(|month| {
        schedule.months & (1 << month) != 0
            && DAYS_MAX.get(month as usize - 1).is_some_and(|max| first_day <= *max)
    })
}

fn field_bits(field: &Field, text: &str) -> Result<u64, String> {
    let mut bits = 0u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<u32>().ok().filter(|s| (1..=field.max).contains(s));
                (range, step.ok_or_else(|| wrong(field, part))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (field.min, if field.names.len() == 7 { 6 } else { field.max }),
            Some((from, to)) => (value(field, from, part)?, value(field, to, part)?),
            // As in Vixie cron, `5/10` counts from 5 to the end.
            None if part.contains('/') => (value(field, range, part)?, field.max),
            None => {
                let one = value(field, range, part)?;
                (one, one)
            }
        };
        if from > to {
            return Err(format!("{} \"{part}\" runs backwards; write it as two ranges", field.name));
        }
        for n in (from..=to).step_by(step as usize) {
            bits |= 1 << n;
        }
    }
    Ok(bits)
}

fn value(field: &Field, text: &str, part: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = field.names.iter().position(|name| *name == lower) {
        return Ok(at as u32 + if field.names.len() == 12 { 1 } else { 0 });
    }
    // Not `+5`, which `parse` would take.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| text.parse::<u32>().ok()).flatten();
    number.filter(|n| (field.min..=field.max).contains(n)).ok_or_else(|| wrong(field, part))
}

fn wrong(field: &Field, part: &str) -> String {
    let names = match field.names {
        [first, .., last] => format!(", {first} to {last}"),
        _ => String::new(),
    };
    format!(
        "{} \"{part}\" is not understood; it takes {} to {}{names}, lists, ranges and steps",
        field.name, field.min, field.max
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(u64, u32, u32, u16, u8, bool), &str>) {
        let got = parse(text);
        match (&got, expect) {
            (Ok(s), Ok(fields)) => {
                assert_eq!(
                    (s.minutes, s.hours, s.days, s.months, s.weekdays, s.either_day),
                    fields,
                    "{text}"
                );
            }
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (_, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        }
    }

    const ALL_MINUTES: u64 = (1 << 60) - 1;
    const ALL_HOURS: u32 = (1 << 24) - 1;
    const ALL_DAYS: u32 = u32::MAX - 1;
    const ALL_MONTHS: u16 = 0x1ffe;
    const ALL_WEEKDAYS: u8 = 0x7f;

    #[test]
    fn fields_become_bits() {
        check("* * * * *", Ok((ALL_MINUTES, ALL_HOURS, ALL_DAYS, ALL_MONTHS, ALL_WEEKDAYS, false)));
        check("0 8 * * mon-fri", Ok((1, 1 << 8, ALL_DAYS, ALL_MONTHS, 0b011_1110, false)));
        check(
            "*/15 * * * *",
            Ok((1 | 1 << 15 | 1 << 30 | 1 << 45, ALL_HOURS, ALL_DAYS, ALL_MONTHS, ALL_WEEKDAYS, false)),
        );
        check("5/20 0 * * *", Ok((1 << 5 | 1 << 25 | 1 << 45, 1, ALL_DAYS, ALL_MONTHS, ALL_WEEKDAYS, false)));
        check("0 0 13 * fri", Ok((1, 1, 1 << 13, ALL_MONTHS, 1 << 5, true)));
        check("0 0 * JAN,dec 7", Ok((1, 1, ALL_DAYS, 1 << 1 | 1 << 12, 1, false)));
        check("0 0 * * 5-7", Ok((1, 1, ALL_DAYS, ALL_MONTHS, 0b110_0001, false)));
        check(
            "0 0 1-10/3 * *",
            Ok((1, 1, 1 << 1 | 1 << 4 | 1 << 7 | 1 << 10, ALL_MONTHS, ALL_WEEKDAYS, false)),
        );
        check(
            "@daily",
            parse("0 0 * * *")
                .map(|s| (s.minutes, s.hours, s.days, s.months, s.weekdays, false))
                .map_err(|_| ""),
        );
        check("0 0 29 2 *", Ok((1, 1, 1 << 29, 1 << 2, ALL_WEEKDAYS, false)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("* * * *", Err("has 4 fields"));
        check("", Err("has 0 fields"));
        check("60 * * * *", Err("minute \"60\""));
        check("* 24 * * *", Err("hour \"24\""));
        check("* * 0 * *", Err("day of month \"0\""));
        check("* * * foo *", Err("jan to dec"));
        check("* * * * 8", Err("day of week \"8\""));
        check("*/0 * * * *", Err("minute \"*/0\""));
        check("30-10 * * * *", Err("runs backwards"));
        check("1,,2 * * * *", Err("minute \"\""));
        check("+5 * * * *", Err("minute \"+5\""));
        check("0 0 31 feb,apr *", Err("never comes"));
        check("@noon", Err("@hourly"));
    }
}
