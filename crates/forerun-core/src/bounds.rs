//! What bounds the plan: `min`, `max`, a schedule, a person's word.

use forerun_types::{Override, Schedule, ServiceSpec, Span, Time};
use serde::{Deserialize, Serialize};

const MINUTE: u64 = 60;
/// A window may stay open for a week at most; longer ones are refused by the configuration.
const OPEN_MINUTES_MAX: u64 = 7 * 24 * 60;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) order: Option<Override>,
    /// Since when it holds.
    pub(crate) since: Time,
    /// Local time less UTC.
    pub(crate) offset_seconds: i32,
    /// The schedules' least number, and until when it is known to hold.
    scheduled: u32,
    scheduled_until: Time,
}

impl Bounds {
    /// The least that there must be now, whatever that is worth: what no other service's plan may take.
    pub(crate) fn least(&self, now: Time, spec: &ServiceSpec) -> u32 {
        let order = self.order.filter(|order| order.holds_at(now));
        let scheduled = if spec.schedules.is_empty() { 0 } else { self.scheduled };
        order.and_then(|order| order.instances).unwrap_or_else(|| spec.min.max(scheduled).min(spec.max))
    }

    /// The number that a person asked for, while that holds.
    pub(crate) fn word(&self, now: Time) -> Option<u32> {
        self.order.filter(|order| order.holds_at(now)).and_then(|order| order.instances)
    }

    /// Local time is this far ahead of UTC from now on; what the schedules say is asked anew.
    pub(crate) fn zone(&mut self, offset_seconds: i32) {
        self.offset_seconds = offset_seconds;
        self.scheduled_until = Time::default();
    }

    /// The most that there may be now, whatever waits.
    pub(crate) fn most(&self, now: Time, spec: &ServiceSpec) -> u32 {
        let order = self.order.filter(|order| order.holds_at(now));
        order.and_then(|order| order.instances).unwrap_or(spec.max)
    }

    /// The number between all bounds that is nearest to `wanted`, what decided if not the plan, and when to ask again.
    pub(crate) fn apply(
        &mut self,
        now: Time,
        spec: &ServiceSpec,
        wanted: u32,
    ) -> (u32, Option<String>, Time) {
        if let Some(order) = self.order {
            if let Some(instances) = order.instances.filter(|_| order.holds_at(now)) {
                return (instances, Some(format!("a person asked for {instances}")), order.until);
            }
            self.order = None;
        }
        let mut again = Time::NEVER;
        let mut least = spec.min;
        let mut what = "min";
        if !spec.schedules.is_empty() {
            if now >= self.scheduled_until {
                self.scheduled = scheduled_min(&spec.schedules, now, self.offset_seconds);
                self.scheduled_until = next_minute(now);
            }
            again = self.scheduled_until;
            if self.scheduled > least {
                (least, what) = (self.scheduled, "a schedule");
            }
        }
        // max wins over min: it is the promise to the machine.
        let bounded = wanted.max(least).min(spec.max);
        let decided = match bounded.cmp(&wanted) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(format!("{what} keeps {bounded}")),
            std::cmp::Ordering::Less => Some(format!("max allows {bounded} of {wanted}")),
        };
        (bounded, decided, again)
    }
}

fn next_minute(now: Time) -> Time {
    let minute = 60_000_000;
    Time((now.0 / minute + 1) * minute)
}

/// The largest `min` of the windows that are open.
fn scheduled_min(schedules: &[Schedule], now: Time, offset_seconds: i32) -> u32 {
    let local_minute = (now.0 / 1_000_000).saturating_add_signed(i64::from(offset_seconds)) / MINUTE;
    schedules.iter().filter(|s| is_open(s, local_minute)).map(|s| s.min).max().unwrap_or(0)
}

fn is_open(schedule: &Schedule, local_minute: u64) -> bool {
    let minutes = open_minutes(schedule.open_for);
    (0..minutes).any(|back| back <= local_minute && opens(schedule, local_minute - back))
}

fn open_minutes(open_for: Span) -> u64 {
    (open_for.0.div_ceil(60_000_000)).clamp(1, OPEN_MINUTES_MAX)
}

/// Whether a local minute (since 1970) matches the cron fields.
fn opens(schedule: &Schedule, local_minute: u64) -> bool {
    let days = local_minute / (24 * 60);
    let minute = local_minute % 60;
    let hour = local_minute / 60 % 24;
    let weekday = (days + 4) % 7; // 1970-01-01 was a Thursday
    if schedule.minutes >> minute & 1 == 0 || schedule.hours >> hour & 1 == 0 {
        return false;
    }
    let (month, day) = month_and_day(days);
    let day_matches = schedule.days >> day & 1 == 1;
    let weekday_matches = schedule.weekdays >> weekday & 1 == 1;
    let either =
        if schedule.either_day { day_matches || weekday_matches } else { day_matches && weekday_matches };
    either && schedule.months >> month & 1 == 1
}

/// An instant as a person reads it, to the minute, in a service's local time.
pub(crate) fn clock(at: Time, offset_seconds: i32) -> String {
    let minutes = (at.0 / 1_000_000).saturating_add_signed(i64::from(offset_seconds)) / MINUTE;
    let (year, month, day) = date(minutes / (24 * 60));
    let zone = if offset_seconds == 0 { " UTC" } else { "" };
    format!("{year}-{month:02}-{day:02} {:02}:{:02}{zone}", minutes / 60 % 24, minutes % 60)
}

fn month_and_day(days: u64) -> (u64, u64) {
    let (_, month, day) = date(days);
    (month, day)
}

/// Year, month (1-12) and day (1-31) of a day since 1970 (H. Hinnant, *chrono-Compatible Low-Level Date Algorithms*).
fn date(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    // The years of that calendar begin in March.
    (z / 146_097 * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::ServiceId;

    fn office() -> Schedule {
        // 0 8 * * 1-5, open for ten hours.
        Schedule {
            minutes: 1,
            hours: 1 << 8,
            days: u32::MAX,
            months: u16::MAX,
            weekdays: 0b0011_1110,
            either_day: false,
            open_for: Span::from_secs(10 * 3600),
            min: 2,
        }
    }

    fn at(text_secs: u64) -> Time {
        Time(text_secs * 1_000_000)
    }

    #[test]
    fn dates_are_found() {
        assert_eq!(month_and_day(0), (1, 1));
        assert_eq!(month_and_day(11_016), (2, 29)); // 2000-02-29
        assert_eq!(month_and_day(20_782), (11, 25)); // 2026-11-25
    }

    #[test]
    fn instants_read_like_a_clock() {
        let at_minute = |days: u64, minute: u64, offset| clock(at(days * 86_400 + minute * 60), offset);
        assert_eq!(at_minute(0, 0, 0), "1970-01-01 00:00 UTC");
        assert_eq!(at_minute(11_016, 61, 0), "2000-02-29 01:01 UTC");
        assert_eq!(at_minute(20_782, 23 * 60 + 30, 3_600), "2026-11-26 00:30");
        assert_eq!(at_minute(20_819, 5, 0), "2027-01-01 00:05 UTC");
    }

    #[test]
    fn office_hours_hold_in_local_time() {
        let wednesday = 20_782 * 86_400;
        for (hour, offset, min) in [(7, 0, 0), (8, 0, 2), (17, 0, 2), (18, 0, 0), (7, 3600, 2), (17, 3600, 0)]
        {
            let got = scheduled_min(&[office()], at(wednesday + hour * 3600 + 60), offset);
            assert_eq!(got, min, "hour {hour} offset {offset}");
        }
        let sunday = 20_779 * 86_400;
        assert_eq!(scheduled_min(&[office()], at(sunday + 9 * 3600), 0), 0);
    }

    #[test]
    fn bounds_say_what_decided() {
        let spec = ServiceSpec { min: 1, max: 3, ..ServiceSpec::named(ServiceId(0), "s") };
        let mut bounds = Bounds::default();
        for (wanted, bounded, what) in
            [(0, 1, Some("min keeps 1")), (2, 2, None), (9, 3, Some("max allows 3 of 9"))]
        {
            let (got, decided, _) = bounds.apply(at(5), &spec, wanted);
            assert_eq!((got, decided.as_deref()), (bounded, what));
        }
        bounds.order = Some(Override { instances: Some(5), until: at(10) });
        assert_eq!(bounds.apply(at(5), &spec, 0).0, 5);
        assert_eq!(bounds.apply(at(10), &spec, 0).0, 1);
    }
}
