//! Whether a service's foresight is worth more than the rule beneath it.
//!
//! Beneath foresight is the reactive rule: nothing is started ahead, and what is idle is kept until that has cost as
//! much as letting it go and starting it again would, which is never worse than twice the best that could have been
//! known (ski rental; Karlin, Manasse, Rudolph, Sleator, *Competitive Snoopy Caching*, 1988). As the truth comes in,
//! both are charged for each gap between uses of a level what it would have cost by them, idling and cold starts, on
//! the service's own stream and whatever was done then. Sums fade, so that a service is judged by its last gaps; it
//! falls back to the reactive rule while foresight has cost more, and comes back by itself.
//!
//! Integers throughout: millionths of a GB-second. Constant time for each gap and each look at a level.

use forerun_types::{ServiceId, Span, Time};
use serde::{Deserialize, Serialize};

/// A gap's cost counts for one part in so many less with each that follows: some dozens of gaps are remembered, fewer
/// would be chance, and more would keep a service from coming back for long.
const FADE: u64 = 64;
/// Foresight is given up only after it was judged by so many gaps,
const GAPS_LEAST: u32 = 24;
/// when it has cost more than so many times what the reactive rule would have. The rule is itself never worse than
/// twice the best; on public traces services within that were chance, and to fall back cost more than it saved.
const WORSE: u64 = 2;
/// Levels that are judged; it is believed of those above.
const LEVELS_MAX: usize = 256;
/// Bytes times microseconds in a millionth of a GB-second.
const BYTE_US: u128 = 1_000_000_000;

/// What things cost a service now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Costs {
    /// Bytes that an idle instance keeps, its idle cores' worth included.
    pub(crate) idle_bytes: u64,
    /// A cold start, with the requests that wait for it.
    pub(crate) cold: u64,
    /// The start itself: its memory until it is ready.
    pub(crate) start: u64,
    pub(crate) takes: Span,
}

impl Costs {
    fn idle(&self, time: Span) -> u64 {
        let cost = u128::from(self.idle_bytes) * u128::from(time.0) / BYTE_US;
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    fn again(&self) -> u64 {
        self.cold.saturating_add(self.start)
    }

    /// How long the reactive rule keeps what is idle.
    fn keep(&self) -> Span {
        let us = u128::from(self.again()) * BYTE_US / u128::from(self.idle_bytes.max(1));
        Span(u64::try_from(us).unwrap_or(u64::MAX))
    }

    /// What a gap of that length costs by the reactive rule, so far or with the need that ends it.
    fn reactive(&self, gap: Span, ended: bool) -> u64 {
        let keep = self.keep();
        let missed = if ended && gap > keep { self.again() } else { 0 };
        self.idle(gap.min(keep)).saturating_add(missed)
    }
}

/// What an instance of a level would be by foresight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Would {
    #[default]
    Gone,
    /// Up and idle from then on, which may be still to come.
    Up(Time),
}

/// A level as it would be if foresight decided.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Level {
    /// `None` while it is in use, and before its first use.
    idle_since: Option<Time>,
    would: Would,
    /// Nobody who was believed has let it go since its last use: the reactive rule starts nothing.
    held: bool,
    /// What the gap has cost by foresight, up to when it was last up.
    cost: u64,
}

impl Level {
    /// What the gap has cost by foresight until now.
    fn so_far(&self, now: Time, costs: &Costs) -> u64 {
        match self.would {
            Would::Up(since) => self.cost.saturating_add(costs.idle(now.since(since))),
            Would::Gone => self.cost,
        }
    }

    /// What it has cost once it is needed now.
    fn ended(&self, now: Time, costs: &Costs) -> u64 {
        let missed = match self.would {
            Would::Up(since) if since <= now => 0,
            Would::Up(_) => costs.cold,
            Would::Gone => costs.again(),
        };
        self.so_far(now, costs).saturating_add(missed)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ledger {
    levels: Vec<Level>,
    needed: usize,
    costs: Costs,
    foresight: u64,
    reactive: u64,
    gaps: u32,
    fallen: bool,
}

/// How a service's foresight has done of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Track {
    /// What its last gaps would have cost by foresight and by the reactive rule, in millionths of a GB-second; older
    /// ones count for less.
    pub foresight: u64,
    pub reactive: u64,
    /// Gaps that were ever judged.
    pub gaps: u32,
    /// Foresight is not believed now: the reactive rule decides.
    pub fallen: bool,
}

/// The ledgers of all services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Trust(Vec<Ledger>);

impl Trust {
    fn ledger(&mut self, service: ServiceId) -> &mut Ledger {
        let at = service.0 as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, Ledger::default);
        }
        &mut self.0[at]
    }

    pub(crate) fn gone(&mut self, service: ServiceId) {
        if let Some(ledger) = self.0.get_mut(service.0 as usize) {
            *ledger = Ledger::default();
        }
    }

    pub(crate) fn track(&self, service: ServiceId) -> Track {
        self.0.get(service.0 as usize).map_or_else(Track::default, |l| Track {
            foresight: l.foresight,
            reactive: l.reactive,
            gaps: l.gaps,
            fallen: l.fallen,
        })
    }

    /// At most so many were needed since the last call, and so many are now.
    pub(crate) fn needed(&mut self, now: Time, service: ServiceId, peak: u32, needed: u32) {
        let ledger = self.ledger(service);
        let peak = (peak.max(needed) as usize).min(LEVELS_MAX);
        let after = (needed as usize).min(LEVELS_MAX);
        if ledger.levels.len() < peak {
            ledger.levels.resize_with(peak, Level::default);
        }
        let before = ledger.needed.min(peak);
        for at in before..peak {
            ledger.begin_use(now, at);
        }
        let high = peak.max(ledger.needed).min(ledger.levels.len());
        for level in &mut ledger.levels[after.min(high)..high] {
            *level = Level { idle_since: Some(now), would: Would::Up(now), held: true, cost: 0 };
        }
        ledger.needed = after;
    }

    /// So many were needed in the period that ends now.
    pub(crate) fn period(&mut self, now: Time, service: ServiceId, period: Span, needed: u32) {
        let begins = now.minus(period);
        self.needed(begins, service, needed, needed);
        self.needed(now, service, needed, 0);
    }

    /// Prices as they are now; whether foresight is believed then.
    pub(crate) fn judge(&mut self, now: Time, service: ServiceId, costs: Costs) -> bool {
        let ledger = self.ledger(service);
        ledger.costs = costs;
        ledger.judge(now);
        !ledger.fallen
    }

    /// Nothing can be said of a service as it is now: its levels are judged anew from their next uses on.
    pub(crate) fn skip(&mut self, service: ServiceId) {
        let ledger = self.ledger(service);
        ledger.fallen = false;
        for level in &mut ledger.levels {
            level.idle_since = None;
        }
    }

    /// Whether the reactive rule may keep an idle level: it has not been let go.
    pub(crate) fn is_held(&self, service: ServiceId, level: usize) -> bool {
        let ledger = self.0.get(service.0 as usize);
        ledger.and_then(|l| l.levels.get(level)).is_some_and(|l| l.held)
    }

    /// Whether an instance of a level would be up, or on its way, if foresight had decided so far.
    pub(crate) fn would_be_up(&self, service: ServiceId, level: usize) -> bool {
        let ledger = self.0.get(service.0 as usize);
        ledger.and_then(|l| l.levels.get(level)).is_some_and(|l| l.would != Would::Gone)
    }

    /// Foresight has now decided so of an idle level.
    pub(crate) fn decided(&mut self, now: Time, service: ServiceId, level: usize, wants: bool) {
        let ledger = self.ledger(service);
        let (costs, believed) = (ledger.costs, !ledger.fallen);
        let Some(level) = ledger.levels.get_mut(level).filter(|l| l.idle_since.is_some()) else { return };
        level.held = if believed { wants } else { level.held };
        match (level.would, wants) {
            (Would::Up(_), false) => {
                (level.cost, level.would) = (level.so_far(now, &costs), Would::Gone);
            }
            (Would::Gone, true) => {
                level.cost = level.cost.saturating_add(costs.start);
                level.would = Would::Up(now + costs.takes);
            }
            _ => {}
        }
    }

    /// The lowest level that is not in use.
    pub(crate) fn first_idle(&self, service: ServiceId) -> usize {
        self.0.get(service.0 as usize).map_or(0, |l| l.needed)
    }

    /// When the first idle level is kept no longer, where the reactive rule decides.
    pub(crate) fn next_stop(&self, now: Time, service: ServiceId) -> Option<Time> {
        let ledger = self.0.get(service.0 as usize).filter(|l| l.fallen)?;
        let idle = ledger.levels[ledger.needed.min(ledger.levels.len())..].iter();
        let ends = idle.filter_map(|l| Some(l.idle_since? + ledger.costs.keep()));
        ends.filter(|end| *end > now).min()
    }

    /// Of a level that is idle: for how long, and how long the reactive rule keeps it.
    pub(crate) fn reactive(&self, now: Time, service: ServiceId, level: usize) -> Option<(Span, Span)> {
        let ledger = self.0.get(service.0 as usize)?;
        let idle_since = ledger.levels.get(level)?.idle_since?;
        Some((now.since(idle_since), ledger.costs.keep()))
    }
}

impl Ledger {
    /// A level is needed: its gap is over, and both are charged for it.
    fn begin_use(&mut self, now: Time, at: usize) {
        let level = std::mem::take(&mut self.levels[at]);
        let Some(since) = level.idle_since else { return };
        let (gap, costs) = (now.since(since), self.costs);
        self.charge(level.ended(now, &costs), costs.reactive(gap, true));
    }

    fn charge(&mut self, foresight: u64, reactive: u64) {
        let faded = |sum: u64, cost: u64| (sum - sum.div_ceil(FADE)).saturating_add(cost);
        self.foresight = faded(self.foresight, foresight);
        self.reactive = faded(self.reactive, reactive);
        self.gaps = self.gaps.saturating_add(1);
    }

    /// With what the gaps that are not over have cost so far: who is not needed any more ends none.
    fn judge(&mut self, now: Time) {
        if self.gaps < GAPS_LEAST {
            return;
        }
        let (mut foresight, mut reactive) = (u128::from(self.foresight), u128::from(self.reactive));
        for level in &self.levels[self.needed.min(self.levels.len())..] {
            if let Some(since) = level.idle_since {
                foresight += u128::from(level.so_far(now, &self.costs));
                reactive += u128::from(self.costs.reactive(now.since(since), false));
            }
        }
        // While it is not believed it is charged as if it were, and comes back once it costs no more.
        let most = if self.fallen { reactive } else { reactive * u128::from(WORSE) };
        self.fallen = foresight > most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceId = ServiceId(0);
    /// A GB idle costs a GB-second a second; a cold start 80, a start 10, and takes 10 s: kept for 90 s.
    const COSTS: Costs =
        Costs { idle_bytes: 1_000_000_000, cold: 80_000_000, start: 10_000_000, takes: Span::from_secs(10) };

    /// One level that is used for an instant, again and again.
    struct Story {
        trust: Trust,
        now: Time,
    }

    impl Story {
        fn begin() -> Self {
            let mut story = Self { trust: Trust::default(), now: Time(1_000_000) };
            story.used();
            story
        }

        fn used(&mut self) {
            self.trust.needed(self.now, SERVICE, 1, 0);
        }

        fn pass(&mut self, seconds: u64) -> bool {
            self.now += Span::from_secs(seconds);
            self.trust.judge(self.now, SERVICE, COSTS)
        }

        /// Gaps of so many seconds, of which foresight keeps the instance for the first `kept`.
        fn gaps(&mut self, count: u32, seconds: u64, kept: u64) -> bool {
            let mut believed = true;
            for _ in 0..count {
                self.pass(0);
                self.pass(kept);
                self.trust.decided(self.now, SERVICE, 0, kept >= seconds);
                believed = self.pass(seconds - kept);
                self.used();
            }
            believed
        }

        fn sums(&self) -> [u64; 2] {
            let track = self.trust.track(SERVICE);
            [track.foresight / 1_000_000, track.reactive / 1_000_000]
        }
    }

    #[test]
    fn a_gap_is_charged_what_each_rule_would_have_cost() {
        for (seconds, kept, foresight, reactive) in [
            // Kept by both; let go by foresight; by the rule; by both.
            (60, 60, 60, 60),
            (60, 20, 20 + 90, 60),
            (200, 200, 200, 90 + 90),
            (200, 20, 20 + 90, 90 + 90),
        ] {
            let mut story = Story::begin();
            story.gaps(1, seconds, kept);
            assert_eq!(story.sums(), [foresight, reactive], "{seconds} s, kept for {kept}");
        }
    }

    #[test]
    fn a_start_ahead_costs_itself_and_saves_the_cold_one_if_it_is_ready() {
        for (before, foresight) in [(30, 10 + 20), (5, 10 + 80)] {
            let mut story = Story::begin();
            story.pass(0);
            story.trust.decided(story.now, SERVICE, 0, false);
            story.pass(200 - before);
            story.trust.decided(story.now, SERVICE, 0, true);
            story.pass(before);
            story.used();
            assert_eq!(story.sums(), [foresight, 180], "{before} s before the need");
        }
    }

    #[test]
    fn foresight_that_costs_more_than_twice_the_rule_is_not_believed_until_it_costs_no_more() {
        let mut story = Story::begin();
        // A gap of 30 s costs the rule 30, and foresight that lets it go at once 90.
        assert!(story.gaps(GAPS_LEAST, 30, 0), "it is not judged by few gaps");
        assert!(!story.gaps(2, 30, 0));
        assert!(story.trust.is_held(SERVICE, 0), "the rule keeps what it was used for");
        assert_eq!(story.trust.next_stop(story.now, SERVICE), Some(story.now + Span::from_secs(90)));
        // It learns: what it is wrong in no longer fades away.
        assert!(!story.gaps(10, 200, 15), "it is not believed at once");
        assert!(story.gaps(200, 200, 15));
        assert_eq!(story.trust.next_stop(story.now, SERVICE), None);
    }

    #[test]
    fn foresight_that_errs_within_twice_the_rule_is_believed() {
        let mut story = Story::begin();
        assert!(story.gaps(500, 60, 20), "110 against 60");
        assert!(story.gaps(500, 60, 60), "the same");
    }

    #[test]
    fn who_is_not_needed_any_more_is_judged_all_the_same() {
        let mut story = Story::begin();
        story.gaps(30, 10, 10);
        // Foresight keeps it for ever; the rule let it go after 90 s.
        assert!(story.pass(100));
        assert!(!story.pass(100_000));
        story.trust.gone(SERVICE);
        assert_eq!(story.trust.track(SERVICE), Track::default());
    }

    #[test]
    fn what_room_was_short_in_is_no_gap() {
        let mut story = Story::begin();
        story.gaps(5, 30, 0);
        let before = story.trust.track(SERVICE);
        story.pass(10);
        story.trust.skip(SERVICE);
        story.pass(500);
        story.used();
        assert_eq!(story.trust.track(SERVICE), before);
    }
}
