//! Who gets room first where there is not enough: what is guaranteed, then what is held, by priority, then by worth.
//!
//! A start within its class's own share takes what others hold beyond theirs: what is idle and worth least first,
//! whatever that is worth, and for a held request also what is in use, which drains. A start beyond its class's share
//! leaves what is another class's own alone, used or not, unless it can be given back within that class's
//! `reclaim_max`. Without guarantees and with one priority all of it is the rule of worth alone.

use crate::canary::Canary;
use crate::classes::{Amount, Basis, Ledger, add, amount};
use crate::core::{Core, Service, State};
use crate::policy::Policy;
use crate::room::Room;
use crate::settle::{AT_ANY_PRICE, BOUND_PRICE};
use forerun_types::{Action, InstanceId, Reason, Resources, ServiceId, ServiceSpec, SiteId, Span, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Instances that one request for room may take.
const EVICTIONS_MAX: usize = 16;
/// Services short of room that one step serves.
const SHORT_PER_STEP: usize = 64;
/// Held requests of one service that room is kept free for at a time.
const CLAIMS_MAX: u32 = 64;

/// What a start is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Planned,
    Bound,
    Held,
}

/// Who goes before whom, worth aside; the larger first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    guaranteed: bool,
    tier: Tier,
    priority: u8,
}

fn tier(price: i64) -> Tier {
    match price {
        AT_ANY_PRICE => Tier::Held,
        BOUND_PRICE => Tier::Bound,
        _ => Tier::Planned,
    }
}

/// The longest until what one of these holds is free again: a drain, an end that is waited for as long, and what else
/// may put it off. That it can be frozen is no help: what is frozen keeps what it has reserved.
fn gives_back(spec: &ServiceSpec) -> Span {
    let busy = if spec.busy.is_some() { spec.busy_max } else { Span::ZERO };
    spec.drain_timeout + spec.drain_timeout + busy
}

/// One who is short of room: nothing is held, its class, since when something is held, less its worth, who.
type Short = (bool, Reverse<(bool, u8)>, Time, i64, ServiceId);

impl<P: Policy> Core<P> {
    /// Gives room that has come to those who wait for it: held requests first, the longest held first.
    pub(crate) fn serve_short(&mut self, actions: &mut Vec<Action>) {
        let freed = std::mem::take(&mut self.room_changed);
        let held_again = std::mem::take(&mut self.held_again);
        if !freed && !held_again {
            return;
        }
        let guaranteed = self.short_within_share();
        let mut order: Vec<Short> = self
            .short
            .iter()
            .filter_map(|&id| {
                let s = self.get(id).filter(|s| freed || s.waiting_since.is_some())?;
                let next = self.count(id).saturating_sub(s.spec.instances_for(s.requests()));
                let worth = match self.count(id) < self.least(s) {
                    true => BOUND_PRICE,
                    false => s.values.get(next as usize).map_or(i64::MIN, |v| v.density),
                };
                let class = Reverse((guaranteed.contains(&id), s.spec.sla.priority));
                let since = s.waiting_since.unwrap_or(Time::NEVER);
                Some((since == Time::NEVER, class, since, -worth.max(-i64::MAX), id))
            })
            .collect();
        order.sort_unstable();
        order.truncate(SHORT_PER_STEP);
        for &(unheld, _, _, _, id) in &order {
            if !unheld {
                self.short.remove(&id);
                self.react(id, actions);
            }
        }
        // What is merely planned comes after all that is held, in order of what the next one is worth.
        order.sort_unstable_by_key(|&(_, class, _, worth, id)| (class, worth, id));
        for (.., id) in order {
            self.short.remove(&id);
            self.settle(id, actions);
        }
        let short: Vec<SiteId> = self.short.iter().map(|id| self.site(*id)).collect();
        self.rooms.served_but_at(&short);
    }

    /// Those that are short of room, and whose next instance is within their class's own share.
    fn short_within_share(&self) -> Vec<ServiceId> {
        if !self.classes.guaranteed() {
            return Vec::new();
        }
        let mut ledgers: BTreeMap<SiteId, Option<Ledger>> = BTreeMap::new();
        let mut within = |id: &ServiceId| {
            let site = self.site(*id);
            let ledger = ledgers.entry(site).or_insert_with(|| self.ledger(site)).as_ref();
            self.get(*id).is_some_and(|s| self.is_within(s, ledger))
        };
        self.short.iter().copied().filter(|id| within(id)).collect()
    }

    fn is_within(&self, s: &Service, ledger: Option<&Ledger>) -> bool {
        let class = self.classes.of(s.spec.id);
        ledger.zip(class).is_some_and(|(ledger, class)| {
            ledger.within(class, Basis::ToCome, &[0; 5], &amount(&s.spec.resources, 1))
        })
    }

    /// Whether there is room for one more of a service at a price, beside what is kept for who goes before it.
    pub(crate) fn has_room(&self, id: ServiceId, price: i64) -> bool {
        let Some(s) = self.get(id) else { return false };
        let site = self.site(id);
        let room = self.rooms.at(site);
        if price == AT_ANY_PRICE && !self.classes.differ() {
            return room.fits(&s.spec.resources);
        }
        let ledger = self.ledger(site);
        let class = self.classes.of(id);
        let within = ledger.as_ref().zip(class);
        let guaranteed = within.is_some_and(|(l, class)| {
            l.within(class, Basis::Reserved, &[0; 5], &amount(&s.spec.resources, 1))
        });
        let rank = Rank { guaranteed, tier: tier(price), priority: s.spec.sla.priority };
        self.beside_claims(id, room.clone(), rank, Basis::Reserved, ledger.as_ref()).fits(&s.spec.resources)
    }

    /// A room without what others of the service's site are waiting for and what goes before it, and without what is
    /// other classes' own.
    ///
    /// What goes before a start are the held requests of services that are short of room, and before a plan also what
    /// bounds demand; its equals that are held count too where it is asked what room will come ([`Basis::ToCome`]).
    fn beside_claims(
        &self,
        id: ServiceId,
        room: Room,
        rank: Rank,
        basis: Basis,
        ledger: Option<&Ledger>,
    ) -> Room {
        // Claims go by the same books as the start itself: by different ones, two could each go before the other.
        let strictly = basis == Basis::Reserved;
        let (mut claims, site) = (Vec::new(), self.site(id));
        let kept = self.kept_from(id, rank, ledger);
        let mut beside: BTreeMap<usize, Amount> = BTreeMap::new();
        for &other in self.short.iter().filter(|&&o| o != id && self.site(o) == site) {
            let Some(s) = self.get(other) else { continue };
            // Who cannot start now is not waited for by what is held.
            let idles = self.now < s.backoff_until
                || s.told.down.is_some()
                || !self.acts(other)
                || self.count(other) >= self.most_beside_relatives(other);
            if idles && rank.tier == Tier::Held && strictly {
                continue;
            }
            let class = self.classes.of(other);
            let held = s.spec.instances_for(s.held()).saturating_sub(s.tally.starting);
            let missing = held.max(self.least(s).saturating_sub(self.count(other))).min(CLAIMS_MAX);
            let one = amount(&s.spec.resources, 1);
            for n in 0..missing {
                let mut guaranteed = false;
                if let Some((ledger, class)) = ledger.zip(class) {
                    let beside = beside.entry(class).or_default();
                    guaranteed = ledger.within(class, basis, beside, &one);
                    add(beside, &one);
                }
                let tier = if n < held { Tier::Held } else { Tier::Bound };
                let theirs = Rank { guaranteed, tier, priority: s.spec.sla.priority };
                // What is kept anyhow is not counted twice.
                let is_kept = guaranteed && kept.iter().any(|(of, _)| Some(*of) == class);
                if !is_kept && (theirs > rank || theirs == rank && tier == Tier::Held && !strictly) {
                    claims.push(s.spec.resources);
                }
            }
        }
        let room = room.after(&[], &claims);
        kept.iter().fold(room, |room, (_, unused)| room.without(unused))
    }

    /// What is other classes' own and is not lent to one more of a service.
    fn kept_from(&self, id: ServiceId, rank: Rank, ledger: Option<&Ledger>) -> Vec<(usize, Amount)> {
        let lends = rank.guaranteed || self.is_canary(Canary::LendsOwn);
        let class = ledger.zip(self.classes.of(id)).filter(|_| !lends);
        let Some(((ledger, class), s)) = class.zip(self.get(id)) else { return Vec::new() };
        ledger.kept_from(class, gives_back(&s.spec))
    }

    /// Takes idle instances that are worth less than `price`, and what others hold of what is guaranteed to the
    /// service's class, until what is on its way out suffices.
    pub(crate) fn make_room(&mut self, id: ServiceId, price: i64, actions: &mut Vec<Action>) {
        let site = self.site(id);
        for _ in 0..EVICTIONS_MAX {
            let Some(s) = self.get(id) else { return };
            let wanted = s.spec.resources;
            let ledger = self.ledger(site);
            let guaranteed = self.is_within(s, ledger.as_ref());
            let rank = Rank { guaranteed, tier: tier(price), priority: s.spec.sla.priority };
            let beside = self.at_once(s, rank, ledger.as_ref());
            let room = self.room_to_come(id, rank, ledger.as_ref()).after(&[], &beside);
            if room.fits(&wanted) {
                return;
            }
            let needs = self.barely_met(id);
            // What of a need is frozen beside the one that is up may go.
            let spared = |other, hot| other == id || needs.get(&other).is_some_and(|up| hot || *up == 0);
            let lenders = ledger.as_ref().map(|ledger| self.lenders(id, ledger, &room.lacks(&wanted)));
            let own_class = self.classes.members(id);
            // What a class holds of its own is no other's.
            let may = |other: ServiceId| {
                own_class.contains(&other) || lenders.as_ref().is_none_or(|lent| lent.contains(&other))
            };
            let made = self.evict_one(id, price, |o, hot| !spared(o, hot) && may(o), false, actions)
                || guaranteed && self.take_back(id, rank.tier, &lenders.unwrap_or_default(), spared, actions);
            if !made {
                break;
            }
        }
        if price < BOUND_PRICE {
            self.rooms.at_mut(site).at_the_margin(price);
        }
    }

    /// The room that there will be when all that is going is gone, beside what is kept for who goes before or is an
    /// equal.
    fn room_to_come(&self, id: ServiceId, rank: Rank, ledger: Option<&Ledger>) -> Room {
        let site = self.site(id);
        let going: Vec<Resources> =
            self.instances.values().filter(|i| i.goes() && i.site == site).map(|i| i.reserved).collect();
        self.beside_claims(id, self.rooms.at(site).after(&going, &[]), rank, Basis::ToCome, ledger)
    }

    /// What a service's other held requests need of its class's own share: it is taken back all at once, or each would
    /// wait for the drain of the one before.
    fn at_once(&self, s: &Service, rank: Rank, ledger: Option<&Ledger>) -> Vec<Resources> {
        let all =
            ledger.zip(self.classes.of(s.spec.id)).filter(|_| rank.guaranteed && rank.tier == Tier::Held);
        let Some((ledger, class)) = all else { return Vec::new() };
        let missing = s.spec.instances_for(s.requests()).saturating_sub(self.count(s.spec.id));
        let missing = missing.min(s.bounds.most(self.now, &s.spec).saturating_sub(self.count(s.spec.id)));
        let one = amount(&s.spec.resources, 1);
        let mut beside = one;
        let mut others = Vec::new();
        for _ in 1..missing.min(EVICTIONS_MAX as u32) {
            if !ledger.within(class, Basis::ToCome, &beside, &one) {
                break;
            }
            add(&mut beside, &one);
            others.push(s.spec.resources);
        }
        others
    }

    /// The services of other classes that hold more than their own of any of these kinds; what a person asked for by
    /// number is left.
    fn lenders(&self, id: ServiceId, ledger: &Ledger, kinds: &[bool; 5]) -> BTreeSet<ServiceId> {
        let own = self.classes.of(id);
        let lends = |s: &&Service| {
            let class = self.classes.of(s.spec.id);
            class != own && class.is_some_and(|class| ledger.holds_lent(class, kinds))
        };
        let asked = |s: &&Service| self.elder(s).bounds.word(self.now).is_none();
        self.services.iter().flatten().filter(lends).filter(asked).map(|s| s.spec.id).collect()
    }

    /// Takes one instance of those who hold what is lent to them, whatever it is worth: an idle one, or for a held
    /// request one in use.
    fn take_back(
        &mut self,
        id: ServiceId,
        tier: Tier,
        lenders: &BTreeSet<ServiceId>,
        spared: impl Fn(ServiceId, bool) -> bool,
        actions: &mut Vec<Action>,
    ) -> bool {
        let site = self.site(id);
        let of = |other: ServiceId, hot: bool| lenders.contains(&other) && !spared(other, hot);
        let idle = self.least_valuable(site, AT_ANY_PRICE, of, true);
        let mut taken = idle.map(|(_, instance, service)| (instance, service));
        if taken.is_none() && tier == Tier::Held && !self.is_canary(Canary::SparesLent) {
            taken = self.least_used(site, |other| lenders.contains(&other) && !spared(other, true));
        }
        let Some((instance, service)) = taken else { return false };
        let holding = |of| self.ledger(site).zip(self.classes.of(of)).map(|(l, class)| l.holding(class));
        let (own, other) = (holding(id).unwrap_or_default(), holding(service).unwrap_or_default());
        let reason = Reason::Preempted { for_service: id, guaranteed: true, what: format!("{own}; {other}") };
        self.take(instance, service, reason, actions)
    }

    /// The instance of some services at a site that has the least to do, of the lowest priority: one that starts, or
    /// serves the fewest requests.
    fn least_used(&self, site: SiteId, of: impl Fn(ServiceId) -> bool) -> Option<(InstanceId, ServiceId)> {
        let may_go = |i: &&InstanceId, s: &Service| {
            self.instances.get(i).is_some_and(|i| {
                let there = matches!(i.state, State::Ready | State::Starting | State::Resuming { .. });
                there && i.site == site && !i.asked.puts_off(self.now) && self.acts(s.spec.id)
            })
        };
        let services = self.services.iter().flatten().filter(|s| of(s.spec.id));
        let all =
            services.flat_map(|s| s.instances.iter().filter(move |i| may_go(i, s)).map(move |i| (s, *i)));
        let least = all.min_by_key(|(s, id)| {
            let of = self.instances.get(id).map(|i| (i.own, i.requests(), i.last_used));
            (s.spec.sla.priority, of, *id)
        });
        least.map(|(s, id)| (id, s.spec.id))
    }
}
