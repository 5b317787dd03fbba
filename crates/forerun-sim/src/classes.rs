//! SLA classes: which world has them, and what always holds of what is guaranteed to them.

use crate::checks::Checks;
use crate::random::Random;
use crate::rules::elder;
use crate::world::World;
use forerun_engine::invariants::Seen;
use forerun_types::{Event, Mode, ServiceId, ServiceSpec, SiteSpec, SlaClass, Span, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a class lacks of its own is asked back at once; orders and messages take this beside the drain.
const ASKED_WITHIN: Span = Span::from_secs(10);

fn has_classes(seed: u64) -> bool {
    Random::of(seed, "classes").below(4) == 0
}

/// Gives the services of a quarter of all worlds classes: one with a guarantee, and two that may have one.
pub(crate) fn draw(seed: u64, services: &mut [Arc<ServiceSpec>]) {
    if !has_classes(seed) {
        return;
    }
    let mut draw = Random::of(seed, "classes of services");
    let mut class = |name: &str, priority, guarantee_milli| SlaClass {
        name: name.to_owned(),
        priority,
        guarantee_milli,
        reclaim_max: Span::from_secs(draw.between(2, 60)),
        ..SlaClass::default()
    };
    let mut classes = [class("gold", 200, 500), class("silver", 100, 0), class("bronze", 50, 0)];
    classes[0].guarantee_milli = draw.between(200, 700) as u32;
    classes[1].guarantee_milli = draw.below(2) as u32 * 300;
    let mut budgets = Random::of(seed, "budgets");
    for class in &mut classes {
        class.cold_start_budget_ppm = [0, 1_000, 50_000, 500_000][budgets.below(4) as usize];
    }
    for s in services.iter_mut() {
        let sla = classes[draw.below(3) as usize].clone();
        let s = Arc::make_mut(s);
        s.sla = SlaClass { cold_start_milli_gbs: s.sla.cold_start_milli_gbs, ..sla };
    }
}

/// In half of the worlds with classes somebody without a guarantee asks for more than there is room for, for some minutes, and
/// somebody with one comes now and then. Each request by its time, service, and what it takes.
pub(crate) fn flood(seed: u64, services: &[Arc<ServiceSpec>], lasts: Span) -> Vec<(Span, ServiceId, Span)> {
    let mut draw = Random::of(seed, "flood");
    if !has_classes(seed) || draw.below(2) != 0 {
        return Vec::new();
    }
    let acts = |guaranteed: bool| {
        move |s: &&Arc<ServiceSpec>| s.mode == Mode::Act && (s.sla.guarantee_milli > 0) == guaranteed
    };
    let (from, minutes) = (draw.below(lasts.0 / 2), draw.between(5, 15));
    let until = from + Span::from_secs(minutes * 60).0;
    let mut requests = Vec::new();
    let mut every = |service: Option<&Arc<ServiceSpec>>, gap: (u64, u64), takes: (u64, u64)| {
        let Some(service) = service else { return };
        let mut at = from;
        while at < until {
            requests.push((Span(at), service.id, Span::from_millis(draw.between(takes.0, takes.1))));
            at += Span::from_millis(draw.between(gap.0, gap.1)).0;
        }
    };
    every(services.iter().find(acts(false)), (1_000, 4_000), (10_000, 60_000));
    every(services.iter().find(acts(true)), (10_000, 60_000), (500, 5_000));
    requests
}

/// Memory in bytes and instances.
type Amount = [u64; 2];

fn one(spec: &ServiceSpec) -> Amount {
    [spec.resources.memory_bytes, 1]
}

fn limits(site: &SiteSpec) -> Amount {
    [site.capacity.memory_bytes, u64::from(site.instances_max)]
}

/// What is a class's own of each kind that is limited.
fn own(site: &SiteSpec, sla: &SlaClass) -> Amount {
    limits(site).map(|limit| limit * u64::from(sla.guarantee_milli) / 1_000)
}

/// Of what a class's own is, the part that others cannot rely on, over all of some services' classes but one.
pub(crate) fn kept(
    site: &SiteSpec,
    services: &[Arc<ServiceSpec>],
    from: &ServiceSpec,
    held: impl Fn(&str) -> Amount,
) -> Amount {
    let guaranteed = services.iter().filter(|s| s.sla.guarantee_milli > 0);
    let classes: BTreeMap<&str, Amount> =
        guaranteed.map(|s| (s.sla.name.as_str(), own(site, &s.sla))).collect();
    let others = classes.into_iter().filter(|(name, _)| *name != from.sla.name);
    others.fold([0, 0], |sum, (name, own)| {
        let held = held(name);
        [0, 1].map(|kind| sum[kind] + own[kind].saturating_sub(held[kind]))
    })
}

/// Since when a service lacks what is its class's own.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    refused_since: BTreeMap<ServiceId, Time>,
}

impl Shares {
    pub(crate) fn event(&mut self, event: &Event) {
        if let Event::Began | Event::Service(_) | Event::Override { .. } | Event::ModeTold { .. } = event {
            self.refused_since.clear();
        }
    }
}

impl Checks {
    /// All that instances of a class have reserved.
    pub(crate) fn held_by(&self, class: &str) -> Amount {
        let of = self.orders.instances().filter(|i| i.spec.sla.name == class);
        of.fold([0, 0], |sum, i| [sum[0] + i.reserved.memory_bytes, sum[1] + 1])
    }

    /// Someone else's held request goes before this service's, whose class is not alone.
    pub(crate) fn goes_after(&self, spec: &ServiceSpec, services: &[Arc<ServiceSpec>]) -> bool {
        let before = |s: &Arc<ServiceSpec>| {
            s.sla.name != spec.sla.name && (s.sla.guarantee_milli > 0 || s.sla.priority > spec.sla.priority)
        };
        services.iter().any(|s| before(s) && self.missing(s) > 0)
    }

    /// A held request of a class that is within its own share, and that others' lent room is kept from for longer
    /// than the longest drain.
    fn share_refused(&mut self, now: Time) -> Option<String> {
        let services = self.described();
        let drain = services.iter().map(|s| s.drain_timeout).max().unwrap_or(Span::ZERO);
        for spec in services.iter().filter(|s| s.sla.guarantee_milli > 0) {
            let paused = self.closing || self.pauses(now, spec.id) || self.is_told(now, elder(spec));
            if paused || self.missing(spec) == 0 || !self.is_kept_out(now, spec, &services) {
                self.shares.refused_since.remove(&spec.id);
            } else if now > *self.shares.refused_since.entry(spec.id).or_insert(now) + drain + ASKED_WITHIN {
                let held = self.held_by(&spec.sla.name);
                return Some(format!(
                    "requests wait for {}, whose class {} holds {held:?} of {:?} that are its own, and for {drain} \
                     others have held what is lent to them",
                    spec.name,
                    spec.sla.name,
                    own(&self.site, &spec.sla)
                ));
            }
        }
        None
    }

    /// Whether one more is within its class's share, finds no room, also once all is gone that is going, and would if others gave
    /// back what is lent to them.
    fn is_kept_out(&self, now: Time, spec: &ServiceSpec, services: &[Arc<ServiceSpec>]) -> bool {
        let (limits, own_share) = (limits(&self.site), own(&self.site, &spec.sla));
        let held = self.held_by(&spec.sla.name);
        let limited = |kind: usize| limits[kind] > 0;
        let within =
            (0..2).filter(|k| limited(*k)).all(|kind| held[kind] + one(spec)[kind] <= own_share[kind]);
        let (used, count) = self.reserved();
        let mut used = [used.memory_bytes, u64::from(count)];
        // What is on its way out is in its backend's hands, or within its drain, which other rules see to.
        let goes = |i: &Seen<'_>| i.stopping || i.drained_at.is_some() && !i.paused;
        for i in self.orders.instances().filter(goes) {
            used = [used[0].saturating_sub(i.reserved.memory_bytes), used[1].saturating_sub(1)];
        }
        let fits = |used: &Amount| {
            (0..2).filter(|k| limited(*k)).all(|kind| used[kind] + one(spec)[kind] <= limits[kind])
        };
        if !within || fits(&used) {
            return false;
        }
        let lacks = |used: &Amount, kind: usize| limited(kind) && used[kind] + one(spec)[kind] > limits[kind];
        let needed =
            |s: &ServiceSpec| services.iter().any(|d| d.depends_on.iter().any(|n| n.service == s.name));
        let mut left: BTreeMap<&str, Amount> =
            services.iter().map(|s| (s.sla.name.as_str(), self.held_by(&s.sla.name))).collect();
        for i in self.orders.instances().filter(|i| i.spec.sla.name != spec.sla.name && i.counts) {
            let Some(other) = services.iter().find(|s| s.id == i.spec.id) else { continue };
            let stays = other.busy.is_some()
                || self.levels.mode(other) != Mode::Act
                || self.levels.is_down(other)
                || self.is_told(now, elder(other))
                || needed(other)
                || !i.ready
                || other.sla != i.spec.sla;
            let Some(theirs) = left.get_mut(other.sla.name.as_str()) else { continue };
            let share = own(&self.site, &other.sla);
            if !stays && (0..2).any(|kind| lacks(&used, kind) && theirs[kind] > share[kind]) {
                for (kind, amount) in [i.reserved.memory_bytes, 1].into_iter().enumerate() {
                    theirs[kind] -= amount;
                    used[kind] -= amount;
                }
            }
        }
        fits(&used)
    }
}

impl World {
    pub(crate) fn check_shares(&mut self, now: Time) {
        if let Some(what) = self.checks.share_refused(now) {
            self.fail("share", what);
        }
    }
}
