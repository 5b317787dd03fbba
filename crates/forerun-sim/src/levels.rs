//! What services can do beside starting and stopping, and how they lean on each other: drawn from the seed apart from
//! the rest, so that one changes without the other.

use crate::random::Random;
use crate::scenario::key_text;
use forerun_types::{
    Busy, Container, Dependency, DependsUntil, Hook, KeyFrom, Launch, ServiceSpec, Span, Specialise,
};
use std::sync::Arc;

/// How common each is in a world, in percent.
struct Share {
    container: u64,
    own: u64,
    pausable: u64,
    busy: u64,
    depends: u64,
    specialise: u64,
}

/// Gives services their levels; how often people do something past the engine.
pub(crate) fn draw(seed: u64, services: &mut [Arc<ServiceSpec>]) -> u64 {
    let mut draw = Random::of(seed, "levels");
    // A third of all worlds has processes and nothing else.
    if draw.below(3) == 0 {
        return 0;
    }
    let mut some = || [0, 30, 100][draw.below(3) as usize];
    let share = Share {
        container: some(),
        own: some(),
        pausable: some().max(60),
        busy: some(),
        depends: some() / 2,
        specialise: some(),
    };
    for at in 0..services.len() {
        let earlier: Vec<String> = services[..at].iter().map(|s| s.name.clone()).collect();
        level(Arc::make_mut(&mut services[at]), &share, &earlier, &mut draw);
    }
    draw.below(2) * draw.below(16)
}

fn level(spec: &mut ServiceSpec, share: &Share, earlier: &[String], draw: &mut Random) {
    let mut is = |percent: u64| draw.below(100) < percent;
    let (container, own) = (is(share.container), is(share.own));
    let (pausable, busy) = (is(share.pausable), is(share.busy));
    let (depends, specialise) = (is(share.depends), is(share.specialise));
    if container {
        let own = own.then(|| format!("{}-1", spec.name));
        spec.launch = Launch::Container(Container { own, ..Container::default() });
    }
    spec.pausable = pausable;
    if pausable {
        // The dearer a cold start, the longer what is frozen stays so, and the more often it is thawed.
        spec.sla.cold_start_milli_gbs *= [1, 20, 400][draw.below(3) as usize];
    }
    if busy {
        spec.busy = Some(Busy::Command(vec!["busy".to_owned()]));
        spec.busy_max = Span::from_secs(draw.between(5, 300));
    }
    if depends && !earlier.is_empty() {
        let service = earlier[draw.below(earlier.len() as u64) as usize].clone();
        let until = if draw.below(4) == 0 { DependsUntil::Started } else { DependsUntil::Ready };
        spec.depends_on.push(Dependency { service, until });
    }
    if specialise {
        let hook = (draw.below(4) > 0).then(|| Hook::Http { path: "/become".to_owned() });
        // A generic one that is there before a key is met is what becomes a key's: without any, keys are only started.
        if hook.is_some() && draw.below(2) == 0 {
            spec.min = spec.min.max(1);
            spec.max = spec.max.max(spec.min + 1);
        }
        let listed = draw.below(4) == 0;
        let keys = if listed { (0..draw.between(1, 3) as u32).map(key_text).collect() } else { Vec::new() };
        let keys_max = draw.between(1, 5) as u32;
        spec.specialise = Some(Specialise {
            by: KeyFrom::Header("x-key".to_owned()),
            keys,
            keys_max,
            hook,
            ..Specialise::default()
        });
    }
}
