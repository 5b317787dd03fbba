//! What strikes at a time of its own: faults of routers, disks and clocks, kills, and people who change things.

use crate::backend::{Pid, Step};
use crate::faults::{Fault, Faults};
use crate::lives;
use crate::world::{CHANCES, What, World};
use forerun_types::{Event, Override, ServiceSpec, Span, Time};
use std::sync::Arc;

impl World {
    /// Faults that strike at a time of their own.
    pub(crate) fn chance(&mut self) {
        let span = self.setting.lasts.0 / CHANCES;
        let when = |faults: &mut Faults, fault: Fault| {
            let struck = faults.strikes(fault);
            struck.then(|| Span(faults.how(fault).below(span)))
        };
        if self.setting.separate_routers > 0
            && let Some(at) = when(&mut self.faults, Fault::LeaseEnds)
        {
            let site = self.faults.how(Fault::LeaseEnds).below(self.sites.len() as u64) as usize;
            self.after(at, What::CutOff(site));
        }
        if self.faults.strikes(Fault::DiskFull) {
            self.with_disk(|disk| disk.full = true);
            let later = self.faults.how(Fault::DiskFull).below(120_000_000);
            self.after(Span(later), What::DiskHeals);
        }
        if self.faults.strikes(Fault::DiskSlow) {
            let latency = self.faults.how(Fault::DiskSlow).between(10_000, 5_000_000);
            self.with_disk(|disk| disk.latency_us = latency);
            let later = self.faults.how(Fault::DiskSlow).below(120_000_000);
            self.after(Span(later), What::DiskHeals);
        }
        if self.faults.strikes(Fault::ClockJumps) {
            let by = self.faults.how(Fault::ClockJumps).between(0, 7_200_000_000) as i64 - 3_600_000_000;
            self.wall_ahead_us += by;
            self.story.line(self.now, || format!("the wall clock jumps by {} s", by / 1_000_000));
        }
        if self.engine.is_some() && self.faults.strikes(Fault::Killed) {
            lives::kill(self);
        }
    }

    /// A person changes a service, asks for a number of instances, or takes a service out for a while.
    pub(crate) fn change(&mut self) {
        if self.engine.is_none() {
            return;
        }
        let at = self.changes.below(self.setting.services.len() as u64) as usize;
        let spec = Arc::clone(&self.setting.services[at]);
        match self.changes.below(3) {
            0 => {
                let instances = Some(self.changes.below(4) as u32);
                let until = self.clock.now(self.now) + Span(self.changes.below(900_000_000));
                self.tell(&Event::Override { service: spec.id, order: Override { instances, until } });
            }
            1 => {
                let mut other = ServiceSpec::clone(&spec);
                other.min = self.changes.below(3) as u32;
                other.max = [1, 3, u32::MAX][self.changes.below(3) as usize].max(other.min);
                other.resources.memory_bytes = self.changes.between(1, 4) * 128_000_000;
                other.drain_timeout = Span::from_secs(self.changes.between(1, 30));
                other.concurrency = self.changes.below(3) as u32;
                self.tell(&Event::Service(Arc::new(other)));
            }
            _ => {
                self.tell(&Event::ServiceGone(spec.id));
                let later = self.changes.between(1_000_000, 300_000_000);
                self.after(Span(later), What::Back(at));
            }
        }
    }

    /// A service is as it was.
    pub(crate) fn back(&mut self, at: usize) {
        let spec = Arc::clone(&self.setting.services[at]);
        self.tell(&Event::Override { service: spec.id, order: Override { instances: None, until: Time(0) } });
        self.tell(&Event::Service(spec));
    }

    pub(crate) fn heal(&mut self) {
        self.story.line(self.now, || "no more faults".to_owned());
        for at in 0..self.setting.services.len() {
            self.back(at);
        }
        self.faults.heal();
        self.hands_off();
        self.with_disk(|disk| (disk.full, disk.latency_us) = (false, 0));
        let sick: Vec<Pid> = self.backend.processes.iter().filter(|p| p.1.hung).map(|p| *p.0).collect();
        for pid in sick {
            self.process(pid, Step::Die);
        }
        for process in self.backend.processes.values_mut() {
            process.accepts = true;
        }
    }
}
