//! What is done to a running instance, and asked of it, on errands: pausing, a key, the question whether it is busy.

use super::{Done, Keeper, Message, NOT_THERE};
use crate::hooks::{self, BusyFound};
use crate::process::beside::Beside;
use crate::process::files;
use crate::process::freeze;
use crate::process::prepare;
use crate::process::run::Phase;
use forerun_types::{Busy, Event, Hook, InstanceId, ServiceSpec, Span};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest that what an instance is to fetch may keep it from being ready.
const PRELOAD_MAX: Duration = Duration::from_secs(60);
const NO_ROOM: &str = "the system has no room for another thread";

type Errand = Box<dyn FnOnce() -> Done + Send>;

impl Keeper {
    /// Does an errand elsewhere; `undone` is what it comes to if there is no room for it.
    pub(super) fn send_out(&mut self, serial: u64, errand: Errand, undone: Done) {
        let mailbox = self.wiring.mailbox.clone();
        let sent = self.wiring.errands.run(move || {
            let errand = errand();
            mailbox.send(Message::Done { serial, errand });
        });
        if !sent {
            self.on_done(serial, undone, Instant::now());
        }
    }

    pub(super) fn not_changed(&self, instance: InstanceId, why: String) {
        (self.wiring.sink)(Event::NotChanged { instance, why });
    }

    /// The run of an instance that can be changed now, or the answer that it cannot.
    fn changeable(&mut self, instance: InstanceId) -> Option<(u64, SocketAddr)> {
        let serial = self.serials.get(&instance).copied();
        let run = serial.and_then(|serial| self.runs.get(&serial));
        let why = match (serial, run) {
            (Some(serial), Some(run)) => match run.phase {
                Phase::Ready { address } if !run.changing => return Some((serial, address)),
                Phase::Ready { .. } => "another change of it is under way",
                // Its end is the answer.
                Phase::Ending { .. } => return None,
                _ => "it is not ready yet",
            },
            _ => NOT_THERE,
        };
        self.not_changed(instance, why.to_owned());
        None
    }

    pub(super) fn pause(&mut self, instance: InstanceId) {
        let Some((serial, _)) = self.changeable(instance) else { return };
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let Some(watched) = run.watched().filter(|_| !run.paused) else {
            return (self.wiring.sink)(Event::Paused { instance });
        };
        run.paused = true;
        run.changing = true;
        let errand = Box::new(move || Done::Paused(freeze::freeze(&watched)));
        self.send_out(serial, errand, Done::Paused(Err(NO_ROOM.to_owned())));
    }

    pub(super) fn resume(&mut self, instance: InstanceId, ordered: Instant) {
        let Some((serial, _)) = self.changeable(instance) else { return };
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let Some(watched) = run.watched().filter(|_| run.paused) else {
            return (self.wiring.sink)(Event::Resumed { instance, took: Span::ZERO });
        };
        run.changing = true;
        let errand =
            Box::new(move || Done::Resumed(freeze::thaw(&watched).map(|()| ordered.elapsed().into())));
        self.send_out(serial, errand, Done::Resumed(Err(NO_ROOM.to_owned())));
    }

    pub(super) fn specialise(&mut self, instance: InstanceId, spec: Arc<ServiceSpec>, ordered: Instant) {
        let Some((serial, address)) = self.changeable(instance) else { return };
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let refused = if run.paused {
            Some("it is paused")
        } else if run.spec.variant.is_some() {
            Some("it is a key's already, for good")
        } else {
            None
        };
        if let Some(why) = refused {
            return self.not_changed(instance, why.to_owned());
        }
        run.changing = true;
        // From here on it has met the key, whatever comes of it.
        run.spec = Arc::clone(&spec);
        let Some(beside) = self.beside(serial, spec) else { return };
        let errand = Box::new(move || {
            Done::Specialised(specialise(&beside, address).map(|()| ordered.elapsed().into()))
        });
        self.send_out(serial, errand, Done::Specialised(Err(NO_ROOM.to_owned())));
    }

    pub(super) fn ask_busy(&mut self, instance: InstanceId, spec: Arc<ServiceSpec>) {
        let told = |found: BusyFound| Event::BusyAnswer { instance, busy: found.busy, why: found.why };
        let run = self.serials.get(&instance).and_then(|serial| Some((*serial, self.runs.get(serial)?)));
        let Some((serial, run)) = run else {
            return (self.wiring.sink)(told(BusyFound::free(NOT_THERE)));
        };
        let found = match (&spec.busy, &run.phase) {
            (None, _) => BusyFound::free("the service has no `busy`"),
            (_, Phase::Ready { .. }) if run.paused => BusyFound::free("it is paused"),
            (Some(Busy::Cpu { milli }), Phase::Ready { .. }) => busy_cpu(run.cpu_milli(), *milli),
            (Some(Busy::Network { .. }), _) => BusyFound::busy(
                "the network of a process cannot be measured: use an HTTP path, a command or a CPU floor for `busy`",
            ),
            (Some(busy), Phase::Ready { address }) => {
                let (busy, address) = (busy.clone(), *address);
                let Some(beside) = self.beside(serial, spec) else { return };
                let errand = Box::new(move || Done::Busy(ask(&busy, &beside, address)));
                return self.send_out(serial, errand, Done::Busy(BusyFound::busy(NO_ROOM)));
            }
            (Some(_), _) => BusyFound::busy("it is not ready yet"),
        };
        (self.wiring.sink)(told(found));
    }

    fn beside(&self, serial: u64, spec: Arc<ServiceSpec>) -> Option<Beside> {
        let run = self.runs.get(&serial)?;
        Some(Beside {
            instance: run.instance,
            spec,
            port: run.port,
            files: self.wiring.files.folder(run.instance),
            group: run.process.as_ref().and_then(|process| process.group.clone()),
            launcher_command: self.wiring.settings.launcher_command.clone(),
        })
    }

    /// The errand that fetches a key's data before its instance counts as ready, if there is any to fetch. It takes at
    /// most half of what is left for the start, so that it never makes one late.
    pub(super) fn preload(&self, serial: u64, address: SocketAddr, now: Instant) -> Option<Errand> {
        let run = self.runs.get(&serial)?;
        let special = run.spec.specialise.as_ref().filter(|special| !special.preload.is_empty())?;
        let (paths, key) = (special.preload.clone(), run.spec.variant.as_ref()?.key.clone());
        let within = (run.start_deadline().saturating_duration_since(now) / 2).min(PRELOAD_MAX);
        Some(Box::new(move || Done::Preloaded(hooks::preload(address, &paths, &key, within))))
    }

    pub(super) fn on_done(&mut self, serial: u64, errand: Done, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let instance = run.instance;
        if let Done::Busy(found) = errand {
            return (self.wiring.sink)(Event::BusyAnswer { instance, busy: found.busy, why: found.why });
        }
        run.changing = false;
        match (errand, &run.phase) {
            (Done::Preloaded(warnings), Phase::Warming { address, .. }) => {
                let address = *address;
                for what in warnings {
                    tracing::warn!(%instance, service = run.spec.name, "{what}");
                    (self.wiring.sink)(Event::Progress { instance, what });
                }
                self.settle(serial, address, now);
            }
            (Done::Paused(result), Phase::Ready { .. }) => {
                run.paused = result.is_ok();
                match result {
                    Ok(()) => (self.wiring.sink)(Event::Paused { instance }),
                    Err(why) => self.not_changed(instance, why),
                }
            }
            (Done::Resumed(result), Phase::Ready { .. }) => {
                run.paused = result.is_err();
                match result {
                    Ok(took) => (self.wiring.sink)(Event::Resumed { instance, took }),
                    Err(why) => self.not_changed(instance, why),
                }
            }
            (Done::Specialised(result), Phase::Ready { .. }) => match result {
                Ok(took) => (self.wiring.sink)(Event::Specialised { instance, took }),
                Err(why) => self.not_changed(instance, why),
            },
            // It was told to end meanwhile, and must be able to hear that.
            (_, Phase::Ending { .. }) => {
                if let Some(process) = &run.process {
                    freeze::wake(process);
                }
            }
            _ => {}
        }
    }
}

fn busy_cpu(seen_milli: Option<u64>, floor_milli: u64) -> BusyFound {
    match seen_milli {
        Some(milli) => BusyFound {
            busy: milli > floor_milli,
            why: format!("it used {milli} thousandths of a core over the last seconds, of {floor_milli}"),
        },
        None => BusyFound::busy("its CPU has not been measured for long enough yet"),
    }
}

fn ask(busy: &Busy, beside: &Beside, address: SocketAddr) -> BusyFound {
    match busy {
        Busy::Http { path, pointer } => {
            hooks::busy_http(address, path, pointer.as_deref(), hooks::BUSY_WITHIN)
        }
        Busy::Command(command) => match beside.run(command, hooks::BUSY_WITHIN) {
            Ok(waited) => hooks::busy_by_exit(waited.status.map(|status| status.code())),
            Err(why) => BusyFound::busy(why),
        },
        Busy::Cpu { .. } | Busy::Network { .. } => BusyFound::busy("this is not asked of an instance"),
    }
}

/// Makes a generic instance its variant's: its files, its hook, and what it is to fetch.
fn specialise(beside: &Beside, address: SocketAddr) -> Result<(), String> {
    let spec = &beside.spec;
    let key = &spec.variant.as_ref().ok_or("the order names no key")?.key;
    let special = spec.specialise.as_ref().ok_or("the service says nothing of how it specialises")?;
    let hook =
        special.hook.as_ref().ok_or("the service has no hook: only a start makes an instance a key's")?;
    hooks::check_key(key).map_err(|error| error.to_string())?;
    let until = Instant::now() + hooks::SPECIALISE_WITHIN;
    if !special.files.is_empty() {
        files::write(&beside.files, &prepare::files(beside.place(), special, key)?)?;
    }
    match hook {
        Hook::Http { path } => hooks::specialise_http(address, path, key, hooks::SPECIALISE_WITHIN)?,
        Hook::Command(command) => {
            let waited = beside.run(command, hooks::SPECIALISE_WITHIN)?;
            if !waited.status.is_some_and(|status| status.success()) {
                let status = waited.status.map_or_else(String::new, |status| status.to_string());
                return Err(crate::process::why::with_lines(
                    format!("its hook ended with {status}"),
                    &waited.tail,
                ));
            }
        }
    }
    let left = until.saturating_duration_since(Instant::now());
    for what in hooks::preload(address, &special.preload, key, left) {
        tracing::warn!(instance = %beside.instance, service = spec.name, "{what}");
    }
    Ok(())
}
