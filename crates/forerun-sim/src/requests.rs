//! Requests on their way: through routers, to instances, and back; and what routers and engine tell each other.

use crate::backend::{Pid, pid_at};
use crate::faults::Fault;
use crate::router::{Did, Door, KEY_DECIDED_WITHIN, Unserved};
use crate::scenario::key_text;
use crate::world::{Place, What, World};
use forerun_route::Link;
use forerun_types::{Event, InstanceId, RouteTable, ServiceId, Span, UserKey};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// How often a request at something frozen is looked at: it is done when that is thawed, or its client gives up.
const FROZEN_LOOKS: Span = Span::from_millis(500);
/// How long a router waits for an answer: longer than any request here takes.
const ANSWERED_WITHIN: Span = Span::from_secs(100);

/// Requests, and messages between routers and engine.
impl World {
    pub(crate) fn answer(&mut self, request: u32, how: &'static str) {
        let place = &mut self.requests[request as usize].1;
        if let Place::Done(before) = *place {
            return self.fail("one-answer", format!("request {request} is answered twice: {before}, {how}"));
        }
        *place = Place::Done(how);
        let service = self.requests[request as usize].0.service;
        self.story.line(self.now, || format!("request {request} of s{}: {how}", service.0));
        if self.probes.contains(&request) && how != "served" {
            self.fail(
                "recovers",
                format!(
                    "request {request} of s{}, minutes after the last fault, is not served: {how}",
                    service.0
                ),
            );
        }
    }

    pub(crate) fn arrive(&mut self, request: u32) {
        let (what, _) = self.requests[request as usize];
        if !self.sites[what.router].up || self.closing {
            self.requests[request as usize].1 = Place::Done("not accepted");
            return;
        }
        self.story.line(self.now, || format!("request {request} of s{} by u{:x}", what.service.0, what.user));
        self.after(what.patience, What::GiveUp(request));
        let now = self.clock.now(self.now);
        let mut did = Vec::new();
        let router = &mut self.sites[what.router].router;
        if let Some(key) = what.key
            && router.asks(what.service, &key_text(key), now, &mut did)
        {
            self.requests[request as usize].1 = Place::Asking;
            self.after(KEY_DECIDED_WITHIN, What::Decide(request));
            return self.apply(what.router, did);
        }
        self.admit(request, did);
    }

    fn admit(&mut self, request: u32, mut did: Vec<Did>) {
        let (what, _) = self.requests[request as usize];
        let now = self.clock.now(self.now);
        let key = what.key.map(key_text);
        let router = &mut self.sites[what.router].router;
        router.admit(request, (what.service, key.as_deref()), UserKey(what.user), now, &mut did);
        self.apply(what.router, did);
    }

    /// A request has waited for what becomes of its key.
    pub(crate) fn decide(&mut self, request: u32) {
        if self.requests[request as usize].1 == Place::Asking {
            self.admit(request, Vec::new());
        }
    }

    pub(crate) fn give_up(&mut self, request: u32) {
        let (what, place) = self.requests[request as usize];
        let mut did = Vec::new();
        let now = self.clock.now(self.now);
        let router = &mut self.sites[what.router].router;
        match place {
            Place::Held => router.abandon(request, now, &mut did),
            Place::At(pid) => {
                if let Some(process) = self.backend.processes.get_mut(&pid) {
                    process.requests.remove(&request);
                }
                router.release(request, Err(Unserved::ClientLeft), now, &mut did);
            }
            Place::Asking => {}
            Place::Coming | Place::Done(_) => return,
        }
        self.answer(request, "client gone");
        self.apply(what.router, did);
    }

    pub(crate) fn hold_timeout(&mut self, request: u32) {
        let (what, place) = self.requests[request as usize];
        if place != Place::Held {
            return;
        }
        let mut did = Vec::new();
        let now = self.clock.now(self.now);
        self.sites[what.router].router.abandon(request, now, &mut did);
        self.answer(request, "held too long");
        self.apply(what.router, did);
    }

    pub(crate) fn finish(&mut self, request: u32, pid: Pid) {
        let (what, place) = self.requests[request as usize];
        let Some(process) = self.backend.processes.get_mut(&pid) else { return };
        if place != Place::At(pid) || process.hung {
            return;
        }
        if process.paused {
            return self.after(FROZEN_LOOKS, What::Finish(request, pid));
        }
        process.requests.remove(&request);
        self.answer(request, "served");
        let now = self.clock.now(self.now);
        let mut did = Vec::new();
        let router = &mut self.sites[what.router].router;
        router.release(request, Ok(what.takes), now, &mut did);
        self.apply(what.router, did);
    }

    /// A request's time for an answer is over.
    pub(crate) fn no_answer(&mut self, request: u32, pid: Pid) {
        let (what, place) = self.requests[request as usize];
        let Some(process) = self.backend.processes.get_mut(&pid) else { return };
        if place != Place::At(pid) || !process.hung {
            return;
        }
        process.requests.remove(&request);
        self.answer(request, "no answer");
        let now = self.clock.now(self.now);
        let mut did = Vec::new();
        self.sites[what.router].router.release(request, Err(Unserved::NoAnswer), now, &mut did);
        self.apply(what.router, did);
    }

    /// Looks whether an instance that took no connection does by now.
    pub(crate) fn probe(&mut self, site: usize, service: ServiceId, instance: InstanceId, door: Arc<Door>) {
        if !self.sites[site].router.shuns(service, instance, &door) {
            return;
        }
        let mut did = Vec::new();
        let now = self.clock.now(self.now);
        let router = &mut self.sites[site].router;
        if self.backend.processes.get(&pid_at(door.address())).is_some_and(|p| p.accepts) {
            router.welcome(service, instance, &door, now, &mut did);
            self.apply(site, did);
        } else {
            router.dialled_in_vain(service, instance, &door, now, &mut did);
            self.apply(site, did);
            self.after(Span::from_secs(1), What::Probe(site, service, instance, door));
        }
    }

    /// What a router did, and what that leads to at once.
    pub(crate) fn apply(&mut self, site: usize, did: Vec<Did>) {
        let mut open: VecDeque<Did> = did.into();
        while let Some(did) = open.pop_front() {
            match did {
                Did::Told(event) => self.send_up(site, event),
                Did::Refused { request, why } => self.answer(request, why),
                Did::Held { request, patience } => {
                    self.requests[request as usize].1 = Place::Held;
                    self.after(patience, What::HoldTimeout(request));
                    self.story.line(self.now, || format!("request {request} is held"));
                }
                Did::Sent { request, instance, address } => {
                    self.sent(site, request, (instance, address), &mut open);
                }
            }
        }
        if let Some(what) = self.sites[site].router.miscounts() {
            self.fail("held-room", what);
        }
        self.want_batch(site);
    }

    pub(crate) fn sent(
        &mut self,
        site: usize,
        request: u32,
        (instance, address): (InstanceId, SocketAddr),
        open: &mut VecDeque<Did>,
    ) {
        let (what, _) = self.requests[request as usize];
        let now = self.clock.now(self.now);
        let pid = pid_at(address);
        if let Some(process) = self.backend.processes.get_mut(&pid).filter(|p| p.accepts) {
            process.requests.insert(request);
            process.touched = true;
            let (key, asked) = (process.key.clone(), what.key.map(key_text));
            self.requests[request as usize].1 = Place::At(pid);
            self.story.line(self.now, || format!("request {request} goes to {instance}"));
            if key.is_some() && key != asked {
                let what =
                    format!("request {request} of key {asked:?} goes to {instance}, which is {key:?}'s");
                return self.fail("one-key", what);
            }
            self.after(ANSWERED_WITHIN, What::NoAnswer(request, pid));
            return self.after(what.takes, What::Finish(request, pid));
        }
        self.story.line(self.now, || format!("request {request}: {instance} takes no connection"));
        let mut did = Vec::new();
        let router = &mut self.sites[site].router;
        if let Some((service, door)) = router.put_back(request, now, &mut did) {
            self.after(Span::from_millis(100), What::Probe(site, service, instance, door));
        }
        for did in did.into_iter().rev() {
            open.push_front(did);
        }
    }

    pub(crate) fn want_batch(&mut self, site: usize) {
        let s = &mut self.sites[site];
        if s.router.has_news() && !s.batch_due {
            s.batch_due = true;
            self.after(Span::from_millis(20), What::Batch(site));
        }
    }

    pub(crate) fn late(&mut self) -> u64 {
        match self.faults.strikes(Fault::RouterLate) {
            true => self.faults.how(Fault::RouterLate).between(10_000, 3_000_000),
            false => 0,
        }
    }

    pub(crate) fn send_up(&mut self, site: usize, event: Event) {
        if !self.sites[site].connected {
            return;
        }
        let after = self.delays.between(10, 500) + self.late();
        let s = &mut self.sites[site];
        s.control_clear = s.control_clear.max(self.now + Span(after));
        let (at, epoch) = (s.control_clear, s.epoch);
        self.at(at, What::Up(site, epoch, event));
    }

    pub(crate) fn batch(&mut self, site: usize) {
        self.sites[site].batch_due = false;
        if !self.sites[site].connected {
            return;
        }
        let room = !self.faults.strikes(Fault::LearningLost);
        if let Some(traffic) = self.sites[site].router.batch(room) {
            let after = self.delays.between(10, 500) + self.late();
            let s = &mut self.sites[site];
            // Control goes first, whenever it was sent.
            s.traffic_clear = s.traffic_clear.max(s.control_clear).max(self.now + Span(after));
            let (at, epoch) = (s.traffic_clear, s.epoch);
            self.at(at, What::Up(site, epoch, Event::Traffic(traffic)));
        }
        self.want_batch(site);
    }

    pub(crate) fn up(&mut self, site: usize, epoch: u32, event: Event) {
        let s = &self.sites[site];
        if s.epoch == epoch && (s.connected || s.joined) {
            self.tell(&event);
        }
    }

    pub(crate) fn send_table(&mut self, site: usize, table: Arc<RouteTable>) {
        if !self.sites[site].connected {
            return;
        }
        if self.setting.separate_routers == 0 {
            let epoch = self.sites[site].epoch;
            return self.after(Span::ZERO, What::Table(site, epoch, table));
        }
        let after = self.delays.between(10, 500) + self.late();
        let s = &mut self.sites[site];
        s.tables_clear = s.tables_clear.max(self.now + Span(after));
        let (at, epoch) = (s.tables_clear, s.epoch);
        self.at(at, What::Table(site, epoch, table));
    }

    pub(crate) fn table_arrives(&mut self, site: usize, epoch: u32, table: &RouteTable) {
        let now = self.clock.now(self.now);
        let s = &mut self.sites[site];
        if s.epoch != epoch || !s.connected {
            return;
        }
        let mut did = Vec::new();
        let older = s.router.generation;
        if !s.router.table(table, now, &mut did) {
            let what = format!(
                "{} has a table of generation {older} and refuses the engine's newest, {}",
                s.router.id, table.generation
            );
            return self.fail("table-obeyed", what);
        }
        self.apply(site, did);
    }
}
