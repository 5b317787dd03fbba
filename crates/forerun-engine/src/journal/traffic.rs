//! The traffic in a journal, as a trace: what would other policies, prices or capacities have made of it?

use super::change::What;
use super::read::{JournalError, Segment, files};
use super::record::Step;
use forerun_trace::{Trace, TraceEvent};
use forerun_types::{
    ActionKey, Activity, Event, Finished, ServiceId, ServiceSpec, SiteId, SiteSpec, Span, Time,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// What a journal tells of its traffic and of the world that it met.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub trace: Trace,
    /// By name, as last described: classes and their budgets, bounds, resources.
    pub services: BTreeMap<String, Arc<ServiceSpec>>,
    /// How long a start took, by service: the median of those in the journal, else what its first core had learned.
    pub starts: BTreeMap<String, Span>,
    /// Sites as last described.
    pub sites: Vec<SiteSpec>,
    /// Requests whose end is not in the journal; they count as long as their service's others, on the average.
    pub unfinished: u64,
    pub torn_bytes: u64,
    /// Segments of a folder that could not be used, and why.
    pub lost: Vec<String>,
}

/// Reads the traffic of a segment, or of every segment of a folder.
///
/// # Errors
/// The segment does not open, or none of the folder does.
pub fn traffic(path: &Path) -> Result<Recording, JournalError> {
    let files = files(path)?;
    let mut gather = Gather::default();
    let mut opened = 0;
    for file in &files {
        match Segment::open(file) {
            Ok(segment) => {
                opened += 1;
                gather.opening(&segment, opened == 1);
                gather.out.torn_bytes += segment.steps(|step| gather.step(step)).torn_bytes;
            }
            Err(error) if file == path => return Err(error),
            Err(error) => gather.out.lost.push(error.to_string()),
        }
    }
    match gather.out.lost.last() {
        Some(newest) if opened == 0 => Err(JournalError::NoneWhole {
            path: path.to_owned(),
            count: gather.out.lost.len(),
            newest: newest.clone(),
        }),
        _ => Ok(gather.close()),
    }
}

/// A request, and how long it took once it is known.
struct Arrived {
    activity: Activity,
    name: String,
    memory_bytes: Option<u64>,
    duration: Option<Span>,
}

#[derive(Default)]
struct Gather {
    out: Recording,
    names: BTreeMap<ServiceId, String>,
    sites: BTreeMap<SiteId, SiteSpec>,
    /// Cold-start budgets by class, as told last: descriptions are written without.
    budgets: BTreeMap<String, u32>,
    requests: Vec<Arrived>,
    /// Requests without an end, oldest first: positions in `requests`. A router does not say which one has ended, so
    /// of those of one action the oldest has.
    open: BTreeMap<(ServiceId, ActionKey), VecDeque<usize>>,
    took: BTreeMap<String, Vec<Span>>,
}

impl Gather {
    /// What stood when a segment began, as far as the journal's other records do not tell.
    fn opening(&mut self, segment: &Segment, first: bool) {
        for standing in segment.scene.iter().flat_map(|scene| &scene.services) {
            self.names.insert(standing.service, standing.name.clone());
        }
        // A snapshot of another program says nothing; the events do.
        let Ok(core) = segment.core() else { return };
        for spec in core.specs() {
            self.describe(spec);
            let class = &spec.sla.name;
            self.budgets.insert(class.clone(), core.cold_start_budget(class));
        }
        for site in core.sites() {
            let (id, name) = (site.site, site.name);
            let spec = SiteSpec { id, name, capacity: site.capacity, instances_max: site.instances_max };
            self.sites.insert(id, spec);
        }
        if first {
            let learned = core.services().map(|s| (s.name, s.start));
            self.out.starts.extend(learned.filter(|(_, start)| *start > Span::ZERO));
        }
    }

    fn describe(&mut self, spec: &Arc<ServiceSpec>) {
        self.names.insert(spec.id, spec.name.clone());
        self.out.services.insert(spec.name.clone(), spec.clone());
    }

    fn step(&mut self, step: Step) {
        match step.event {
            Event::Service(spec) => self.describe(&spec),
            Event::Site(site) => {
                self.sites.insert(site.id, site);
            }
            Event::ColdStartBudget { class, ppm } => {
                self.budgets.insert(class, ppm);
            }
            // What was under way ended with the routers of that life.
            Event::Began => self.open.clear(),
            Event::Traffic(traffic) => {
                traffic.activities.into_iter().for_each(|activity| self.arrived(activity));
                traffic.finished.iter().for_each(|finished| self.finished(finished));
            }
            Event::Ready { took, .. } => {
                let ready = step.changes.iter().find(|c| matches!(c.what, What::Ready(_)));
                if let Some(name) = ready.and_then(|c| self.names.get(&c.service)) {
                    self.took.entry(name.clone()).or_default().push(took);
                }
            }
            _ => {}
        }
    }

    fn arrived(&mut self, activity: Activity) {
        let service = activity.service;
        let name = self.names.get(&service).cloned().unwrap_or_else(|| format!("service-{}", service.0));
        let memory_bytes = self.out.services.get(&name).map(|spec| spec.resources.memory_bytes);
        let position = self.requests.len();
        self.open.entry((service, activity.action)).or_default().push_back(position);
        self.requests.push(Arrived { activity, name, memory_bytes, duration: None });
    }

    fn finished(&mut self, finished: &Finished) {
        let key = (finished.service, finished.action);
        if let Some(position) = self.open.get_mut(&key).and_then(VecDeque::pop_front) {
            self.requests[position].duration = Some(finished.duration);
        }
    }

    fn close(mut self) -> Recording {
        self.requests.sort_by_key(|r| r.activity.at);
        let mut means: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for request in &self.requests {
            if let Some(duration) = request.duration {
                let (sum, count) = means.entry(&request.name).or_default();
                *sum = sum.saturating_add(duration.0);
                *count += 1;
            }
        }
        let zero = self.requests.first().map_or(Time(0), |r| r.activity.at);
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let trace = &mut self.out.trace;
        trace.origin_us = i64::try_from(zero.0).unwrap_or(i64::MAX);
        for request in &self.requests {
            let next = numbers.len() as u32;
            let number = *numbers.entry(&request.name).or_insert_with(|| {
                trace.services.push(request.name.clone());
                next
            });
            self.out.unfinished += u64::from(request.duration.is_none());
            let mean = means.get(request.name.as_str()).map(|(sum, count)| Span(sum / count));
            let Activity { at, tenant, user, group, action, .. } = request.activity;
            trace.events.push(TraceEvent {
                at: Time(at.since(zero).0),
                service: ServiceId(number),
                tenant,
                user,
                group,
                action,
                duration: request.duration.or(mean),
                memory_bytes: request.memory_bytes,
            });
        }
        for (name, mut took) in self.took {
            took.sort_unstable();
            self.out.starts.insert(name, took[took.len() / 2]);
        }
        for spec in self.out.services.values_mut() {
            if let Some(&ppm) = self.budgets.get(&spec.sla.name).filter(|ppm| **ppm > 0) {
                Arc::make_mut(spec).sla.cold_start_budget_ppm = ppm;
            }
        }
        self.out.sites = self.sites.into_values().collect();
        self.out
    }
}
