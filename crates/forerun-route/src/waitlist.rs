//! Room for held requests at a whole router, shared out by SLA class.
//!
//! Each service bounds its own queue; this bounds all of them together. While there is room everyone gets it, whatever
//! the class. Where there is none, each class that holds or wants something has a part of it: nine tenths by
//! guarantee, the rest by priority. Of the classes beyond their part the lowest gives way with the request that came
//! last: it is pushed out for the newcomer, or is the newcomer itself and is refused. What a class does not use is
//! so lent to the highest that wants it, and no class starves: its part is its own, one request always.
//!
//! Plain data. `W` is what the caller finds a held request by.

use crate::hold::{HoldRefusal, Room, RouterFull};
use forerun_types::{ServiceSpec, SlaClass, Time};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one request may push out: a large one among small ones would else empty a class.
const PUSHED_MAX: usize = 16;

/// What all held requests of a router may take up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitlistLimits {
    pub requests_max: u32,
    /// Of heads and what is read ahead of bodies.
    pub bytes_max: u64,
}

impl Default for WaitlistLimits {
    /// Half of the connections that a router accepts by default: who is held keeps one, and the others must get in.
    fn default() -> Self {
        Self { requests_max: 4_096, bytes_max: 256 << 20 }
    }
}

/// A held request's place, to be given back by [`Waitlist::leave`].
#[derive(Clone, Debug)]
pub struct Spot {
    /// Names the class.
    spec: Arc<ServiceSpec>,
    at: Turn,
}

/// When it arrived, and a number that tells apart who arrived together.
type Turn = (Time, u64);

/// A place, and who had to give way for it.
#[derive(Clone, Debug)]
pub struct Joined<W> {
    pub spot: Spot,
    /// They have no place any more. The last come first.
    pub pushed: Vec<(W, HoldRefusal)>,
}

#[derive(Clone, Debug)]
struct Held<W> {
    bytes: u64,
    who: W,
}

#[derive(Clone, Debug)]
struct Class<W> {
    priority: u8,
    guarantee_milli: u32,
    bytes: u64,
    held: BTreeMap<Turn, Held<W>>,
}

/// Who is held at a router, by class.
#[derive(Clone, Debug)]
pub struct Waitlist<W> {
    limits: WaitlistLimits,
    /// By name; none is empty.
    classes: BTreeMap<String, Class<W>>,
    serial: u64,
}

/// A class as it stands in the contest for room, the newcomer counted in.
#[derive(Clone, Copy, Debug)]
struct Contender<'a> {
    name: &'a str,
    priority: u8,
    guarantee_milli: u32,
    requests: u64,
    bytes: u64,
    /// Of its requests, how many are to be pushed out.
    pushed: usize,
}

impl Contender<'_> {
    fn has(&self, room: Room) -> u64 {
        match room {
            Room::Requests => self.requests,
            Room::Bytes => self.bytes,
        }
    }
}

/// How a limit is shared out among those who contend for it.
struct Shares {
    limit: u64,
    guaranteed: u128,
    /// What the guarantees are parts of: a thousand, unless they promise more than there is.
    whole: u128,
    /// A class of priority 0 weighs one.
    weights: u128,
}

impl Shares {
    fn of(limit: u64, contenders: &[Contender<'_>]) -> Self {
        let guaranteed = contenders.iter().map(|c| u128::from(c.guarantee_milli)).sum();
        let weights = contenders.iter().map(|c| u128::from(c.priority) + 1).sum();
        Self { limit, guaranteed, whole: 1_000.max(guaranteed), weights }
    }

    /// The numerator of a class's part of the limit.
    fn numerator(&self, c: &Contender<'_>) -> u128 {
        let weight = u128::from(c.priority) + 1;
        let by_guarantee = 9 * u128::from(c.guarantee_milli) * self.weights;
        by_guarantee + (10 * self.whole - 9 * self.guaranteed) * weight
    }

    fn denominator(&self) -> u128 {
        10 * self.whole * self.weights
    }

    fn part(&self, c: &Contender<'_>) -> u64 {
        (u128::from(self.limit) * self.numerator(c) / self.denominator()) as u64
    }

    /// Whether a class has more than its part. One request is nobody's surplus.
    fn is_over(&self, c: &Contender<'_>, room: Room) -> bool {
        let has = u128::from(c.has(room)).saturating_mul(self.denominator());
        c.requests > 1 && has > u128::from(self.limit).saturating_mul(self.numerator(c))
    }

    /// Who gives way: of those beyond their part the lowest, and among equals who has the most of it.
    fn loser(&self, contenders: &[Contender<'_>], room: Room) -> Option<usize> {
        /// Parts are told apart to a thousandth.
        const GRAIN: u128 = 1_000;
        let over = contenders.iter().enumerate().filter(|(_, c)| self.is_over(c, room));
        let rank = |c: &Contender<'_>| {
            let has = u128::from(c.has(room)).saturating_mul(GRAIN).saturating_mul(self.denominator());
            let all = u128::from(self.limit).saturating_mul(self.numerator(c)).max(1);
            (c.priority, c.guarantee_milli, Reverse(has / all))
        };
        over.min_by_key(|(at, c)| (rank(c), *at)).map(|(at, _)| at)
    }
}

impl<W> Waitlist<W> {
    #[must_use]
    pub fn new(limits: WaitlistLimits) -> Self {
        Self { limits, classes: BTreeMap::new(), serial: 0 }
    }

    /// All that are held.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.classes.values().map(|class| class.held.len()).sum()
    }

    /// What they take up.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.classes.values().map(|class| class.bytes).sum()
    }

    /// Classes of which something is held, in order of their names, with requests and bytes.
    pub fn by_class(&self) -> impl Iterator<Item = (&str, u32, u64)> {
        self.classes.iter().map(|(name, class)| (name.as_str(), class.held.len() as u32, class.bytes))
    }

    /// Takes a place for a request of a service that came at `arrived`; of one class, who came last gives way first.
    ///
    /// # Errors
    /// There is no room, and no class has more of it that goes behind this one.
    pub fn join(
        &mut self,
        spec: &Arc<ServiceSpec>,
        bytes: u64,
        arrived: Time,
        who: W,
    ) -> Result<Joined<W>, HoldRefusal> {
        let losers = self.losers(&spec.sla, bytes)?;
        let mut pushed = Vec::new();
        for (name, full) in losers {
            let last = self.classes.get_mut(&name).and_then(|class| {
                let held = class.held.pop_last()?.1;
                class.bytes -= held.bytes;
                Some(held.who)
            });
            pushed.extend(last.map(|who| (who, HoldRefusal::MadeWay(full))));
            self.forget_if_empty(&name);
        }
        self.serial += 1;
        let at = (arrived, self.serial);
        let SlaClass { name, priority, guarantee_milli, .. } = &spec.sla;
        if !self.classes.contains_key(name) {
            let held = BTreeMap::new();
            let class = Class { priority: *priority, guarantee_milli: *guarantee_milli, bytes: 0, held };
            self.classes.insert(name.clone(), class);
        }
        if let Some(class) = self.classes.get_mut(name) {
            // Where services describe one class differently, who came last is right.
            (class.priority, class.guarantee_milli) = (*priority, *guarantee_milli);
            class.bytes += bytes;
            class.held.insert(at, Held { bytes, who });
        }
        Ok(Joined { spot: Spot { spec: Arc::clone(spec), at }, pushed })
    }

    /// Gives a place back; one that was pushed out has none.
    pub fn leave(&mut self, spot: &Spot) {
        let name = &spot.spec.sla.name;
        let Some(class) = self.classes.get_mut(name) else { return };
        if let Some(held) = class.held.remove(&spot.at) {
            class.bytes -= held.bytes;
            self.forget_if_empty(name);
        }
    }

    fn forget_if_empty(&mut self, name: &str) {
        if self.classes.get(name).is_some_and(|class| class.held.is_empty()) {
            self.classes.remove(name);
        }
    }

    /// The classes whose last requests give way to one more of a class, in that order, with what each is told.
    fn losers(&self, sla: &SlaClass, bytes: u64) -> Result<Vec<(String, RouterFull)>, HoldRefusal> {
        let (requests_max, bytes_max) = (u64::from(self.limits.requests_max), self.limits.bytes_max);
        let (mut requests, mut all_bytes) = (self.requests() as u64 + 1, self.bytes().saturating_add(bytes));
        if requests <= requests_max && all_bytes <= bytes_max {
            return Ok(Vec::new());
        }
        let mut contenders = self.contenders(sla, bytes);
        let mut losers = Vec::new();
        loop {
            let (room, limit) = if requests > requests_max {
                (Room::Requests, requests_max)
            } else if all_bytes > bytes_max {
                (Room::Bytes, bytes_max)
            } else {
                return Ok(losers);
            };
            let shares = Shares::of(limit, &contenders);
            let full = |c: &Contender<'_>| RouterFull { room, max: limit, part: shares.part(c) };
            let own = |c: &&Contender<'_>| c.name == sla.name;
            let refusal =
                contenders.iter().find(own).map(full).unwrap_or(RouterFull { room, max: limit, part: 0 });
            let loser =
                shares.loser(&contenders, room).map(|at| (full(&contenders[at]), &mut contenders[at]));
            let loser = loser.filter(|(_, c)| c.name != sla.name && losers.len() < PUSHED_MAX);
            let next = loser.and_then(|(full, c)| {
                let held = self.classes.get(c.name)?.held.values().rev().nth(c.pushed)?;
                c.pushed += 1;
                c.requests -= 1;
                c.bytes -= held.bytes;
                Some((c.name.to_owned(), full, held.bytes))
            });
            let Some((name, full, freed)) = next else { return Err(HoldRefusal::Router(refusal)) };
            requests -= 1;
            all_bytes -= freed;
            losers.push((name, full));
        }
    }

    fn contenders<'a>(&'a self, sla: &'a SlaClass, bytes: u64) -> Vec<Contender<'a>> {
        let mut contenders: Vec<Contender<'_>> = self
            .classes
            .iter()
            .map(|(name, class)| Contender {
                name,
                priority: class.priority,
                guarantee_milli: class.guarantee_milli,
                requests: class.held.len() as u64,
                bytes: class.bytes,
                pushed: 0,
            })
            .collect();
        let (priority, guarantee_milli) = (sla.priority, sla.guarantee_milli);
        match contenders.iter_mut().find(|c| c.name == sla.name) {
            Some(own) => {
                (own.priority, own.guarantee_milli) = (priority, guarantee_milli);
                own.requests += 1;
                own.bytes = own.bytes.saturating_add(bytes);
            }
            None => contenders.push(Contender {
                name: &sla.name,
                priority,
                guarantee_milli,
                requests: 1,
                bytes,
                pushed: 0,
            }),
        }
        contenders
    }
}
