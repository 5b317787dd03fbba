//! How lives of the engine end and begin: killed at any moment, restored from what the disk has.

use crate::faults::Fault;
use crate::ports::{SimBackends, SimClock, SimDisk, SimRouters};
use crate::router::Router;
use crate::world::{Place, What, World};
use forerun_core::{AnyPolicy, Canary, Core};
use forerun_engine::journal::{replay, segment_path};
use forerun_engine::revive::{first_events, policy_name, restored, sizes};
use forerun_engine::shell::{JournalSettings, Ports, Shell};
use forerun_types::{Event, Span, Time};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const LEARNING_BYTES: u64 = 1 << 20;
/// A flush waits for the next pass, which a batch or an order may delay a little.
const FLUSH_LATE: Span = Span::from_millis(300);

/// A folder that is gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn of(disk: &SimDisk) -> std::io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("forerun-sim-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0)?;
        for (number, bytes) in &disk.segments {
            std::fs::write(segment_path(&folder.0, *number), bytes)?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn policy(keep: Option<Span>) -> (&'static str, AnyPolicy) {
    let name = if keep.is_some() { "keep-alive" } else { "forerun" };
    // Both names are known.
    let none = AnyPolicy::KeepAlive(forerun_core::KeepAlive::new(Span::ZERO));
    (name, AnyPolicy::named(name, keep, LEARNING_BYTES).unwrap_or(none))
}

fn users(core: &Core<AnyPolicy>) -> Option<usize> {
    match core.policy() {
        AnyPolicy::Forerun(policy) => Some(policy.profiles().users()),
        AnyPolicy::KeepAlive(_) => None,
    }
}

/// A life begins, with what the disk has.
pub(crate) fn begin(world: &mut World) {
    let Some(mut disk) = world.disk.take().map(SimDisk::next_life) else { return };
    let folder = match Folder::of(&disk) {
        Ok(folder) => folder,
        Err(error) => return world.fail("the world", format!("no temporary folder: {error}")),
    };
    let keep = world.setting.keep;
    let (name, fresh) = policy(keep);
    let name = policy_name(name, keep);
    let canary = world.scenario.canary;
    if world.scenario.tell {
        let path = format!("{}/", folder.0.display());
        let mut tell = |what: String| world.story.line(world.now, || what.replace(&path, ""));
        let _ = forerun_engine::journal::restore(&folder.0, |error| tell(format!("lost: {error}")));
    }
    let (mut core, began_after, last_segment) = restored(&folder.0, &name, None, fresh);
    if canary == Some(Canary::ProfileDropped) {
        core = Core::new(policy(keep).1);
    }
    core.set_canary(canary);
    if replays(canary)
        && let Some(what) = mismatch(&folder.0)
    {
        return world.fail("replays", what);
    }
    check_learned(world, &core);
    // A wall clock that goes back between two lives and a journal that has lost its end, both at once, let generations
    // repeat: a known limit, which is left out here.
    let not_before = began_after.max(world.clock.now(world.now));
    world.clock = SimClock::new(world.now, world.wall_ahead_us, not_before);
    world.life += 1;
    world.orders.borrow_mut().clear();
    let (life, at) = (world.life, world.now);
    world.story.line(at, || format!("life {life} begins"));

    disk.advance(world.now);
    let ports = Ports {
        clock: world.clock.clone(),
        disk,
        backends: SimBackends(world.orders.clone()),
        routers: SimRouters(world.orders.clone()),
    };
    let journal = JournalSettings {
        policy: name,
        first_segment: last_segment + 1,
        existing: sizes(&folder.0),
        segment_bytes_max: world.setting.segment_bytes_max,
        bytes_max: world.setting.segment_bytes_max * world.setting.segments,
        flush_interval: world.setting.flush_interval,
    };
    let mut first = first_events(&core, &world.setting.services, vec![world.setting.site.clone()]);
    for event in &mut first {
        // A service that was out when the journal ended has got another id; here it keeps its own.
        if let Event::Service(spec) = event
            && let Some(own) = world.setting.services.iter().find(|s| s.name == spec.name)
        {
            let described = forerun_types::ServiceSpec { id: own.id, ..(**spec).clone() };
            *spec = std::sync::Arc::new(described);
        }
    }
    let now = world.clock.now(world.now);
    let known: Vec<_> = core.services().collect();
    world.checks.life_begins(&known, now);
    let mut shell = Shell::new(core, ports, journal);
    for event in &first {
        world.checks.event(now, world.now, event);
        world.story.event(world.now, event);
    }
    shell.begin(&first);
    world.engine = Some(shell);
    world.table = std::sync::Arc::default();
    world.carry_out();
    join(world);
}

fn join(world: &mut World) {
    if world.setting.separate_routers == 0 {
        let id = world.sites[0].router.id;
        let site = &mut world.sites[0];
        site.router = Router::new(id, site.router.limits());
        site.up = true;
        site.connected = true;
        site.epoch += 1;
        world.tell(&Event::RouterJoined(id));
        return;
    }
    for at in 0..world.sites.len() {
        let epoch = world.sites[at].epoch;
        world.after(Span::from_millis(10 + 700 * at as u64), What::Connect(at, epoch));
    }
}

/// The process ends at once, and everything that is its child.
pub(crate) fn kill(world: &mut World) {
    let Some(mut engine) = world.engine.take() else { return };
    let mut disk = std::mem::take(&mut engine.ports_mut().disk);
    disk.advance(world.now);
    drop(engine);
    world.story.line(world.now, || "the process is killed".to_owned());
    let lags = disk.lags();
    disk.kill();
    note_kept(world, &disk, lags);
    if world.faults.strikes(Fault::TornWrite) {
        let keep = world.faults.how(Fault::TornWrite).below(1_001);
        disk.cut(keep);
    }
    if world.faults.strikes(Fault::FlippedByte) {
        flip(world, &mut disk);
    }
    let sizes: Vec<String> = disk.segments.iter().map(|(n, b)| format!("{n}: {}", b.len())).collect();
    world.story.line(world.now, || format!("the disk has {}", sizes.join(", ")));
    world.disk = Some(disk);
    let gone = world.backend.life_ends();
    for site in &mut world.sites {
        site.connected = false;
        site.joined = false;
        site.epoch += 1;
    }
    if world.setting.separate_routers == 0 {
        world.sites[0].up = false;
        for request in 0..world.requests.len() as u32 {
            if matches!(world.requests[request as usize].1, Place::Held | Place::Asking | Place::At(_)) {
                world.answer(request, "connection closed");
            }
        }
        world.backend.processes.values_mut().for_each(|p| p.requests.clear());
    }
    for (pid, requests) in gone {
        for request in requests {
            world.reset(request, pid);
        }
    }
    let later = world.faults.how(Fault::Killed).between(100_000, 10_000_000);
    world.after(Span(later), What::Restart);
}

fn flip(world: &mut World, disk: &mut SimDisk) {
    let how = world.faults.how(Fault::FlippedByte);
    let Some(newest) = disk.segments.keys().next_back().copied() else { return };
    let oldest = disk.segments.keys().next().copied().unwrap_or(newest);
    // Mostly where it matters.
    let number = if how.below(4) == 0 { oldest } else { newest };
    if let Some(bytes) = disk.segments.get_mut(&number).filter(|b| !b.is_empty()) {
        let at = how.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << how.below(8);
    }
    // What is behind it is lost, and with it any promise.
    world.checks.users_kept.clear();
    world.checks.users.clear();
}

/// Notes what must have survived, and that the last flush is not too long ago.
fn note_kept(world: &mut World, disk: &SimDisk, lags: bool) {
    if disk.failed {
        world.checks.users_kept.clear();
        return;
    }
    let kept = world.checks.users.iter().filter(|(at, _)| *at < disk.synced_at).map(|u| u.1);
    world.checks.users_kept.extend(kept);
    let since = world.now.since(disk.synced_at);
    let slow = disk.latency_us > 0 || lags;
    let first = world.checks.users.first().is_none_or(|u| world.now.since(u.0) < since);
    if !slow && !first && since > world.setting.flush_interval + FLUSH_LATE && disk.synced_at > Time(0) {
        world.fail("learning-kept", format!("at the kill the last flush was {since} ago"));
    }
}

fn check_learned(world: &mut World, core: &Core<AnyPolicy>) {
    let Some(found) = users(core) else { return };
    let (kept, seen) = (world.checks.users_kept.len(), world.checks.users_seen.len());
    if found < kept {
        world.fail("learning-kept", format!("{kept} users were flushed to the disk, {found} came back"));
    }
    if found > seen {
        world.fail("learning-kept", format!("{found} users came back, and there were only {seen}"));
    }
}

/// A core with a bug built in does not replay as one without.
fn replays(canary: Option<Canary>) -> bool {
    matches!(canary, None | Some(Canary::TornRecordWhole | Canary::ProfileDropped))
}

/// What the disk has replays to the same actions.
pub(crate) fn check_journal(world: &mut World) {
    if !replays(world.scenario.canary) {
        return;
    }
    let mut disk = None;
    world.with_disk(|d| disk = Some(d.clone()));
    let Some(disk) = disk else { return };
    if let Some(what) = Folder::of(&disk).ok().and_then(|folder| mismatch(&folder.0)) {
        world.fail("replays", what);
    }
}

fn mismatch(folder: &Path) -> Option<String> {
    // A segment that a fault has damaged cannot be read; that is said, and is no mismatch.
    let mut reports = sizes(folder).into_iter().filter_map(|(n, _)| replay(&segment_path(folder, n)).ok());
    let report = reports.find(|report| report.mismatches > 0)?;
    Some(format!(
        "{} of {} steps replay otherwise, first {:?}",
        report.mismatches, report.steps, report.first_mismatch
    ))
}
