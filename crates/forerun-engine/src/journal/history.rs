//! What a journal says of one service at one time: `forerun why`. Reads what was written, decides nothing.

use super::change::{Change, Changes, Scene, ServiceStanding, Stage, Standing, What};
use super::read::{JournalError, Segment, begins, files};
use forerun_types::{Event, ServiceId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Segments before the one of the asked time that are read for earlier changes.
const EARLIER_MAX: usize = 4;

/// A service at a time, as far as the journal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub service: String,
    pub at: Time,
    pub wanted: Wanted,
    /// Those that were not known to be gone, in order of their ids.
    pub instances: Vec<Standing>,
    /// The last changes until then, oldest first.
    pub entries: Vec<Entry>,
    /// The last step until then; what happened after it the journal does not know.
    pub last_step: Option<Time>,
    /// Bytes of the segment that held the time which could not be read.
    pub torn_bytes: u64,
    /// Segments that could not be read, and why.
    pub lost: Vec<String>,
}

/// What the plan wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub instances: u32,
    /// `None` where it was so already when the oldest segment that was read began.
    pub since: Option<Time>,
    pub reason: String,
}

/// A change of the service and when it came about; `None` is a new life of Forerun, in which nothing ran yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Time,
    pub what: Option<What>,
    pub reason: String,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{}: the journal begins at {}, {} before that is asked for; ask for a later time", path.display(), seconds(*begins), seconds(*asked))]
    TooEarly { path: PathBuf, begins: Time, asked: Time },
    #[error("{}: no service `{service}` at that time; there {}", path.display(), list(known))]
    NoService { path: PathBuf, service: String, known: Vec<String> },
}

fn seconds(at: Time) -> String {
    format!("{:.3}", at.as_secs_f64())
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "is none".to_owned() } else { format!("are: {}", known.join(", ")) }
}

/// What is known while reading on.
#[derive(Debug, Default)]
struct Reader {
    service: String,
    id: Option<ServiceId>,
    /// All services that have been named, for the message that there is no such one.
    names: BTreeMap<String, ServiceId>,
    wanted: Wanted,
    instances: BTreeMap<forerun_types::InstanceId, Standing>,
    entries: VecDeque<Entry>,
    entries_max: usize,
    last_step: Option<Time>,
}

/// What `journal` (a segment, or a folder of them) says of a service at a time, with at most so many changes.
///
/// Segments of format 1 do not tell changes in words; there they are told by replaying, which needs a snapshot that
/// fits this program.
///
/// # Errors
/// Nothing can be read, the journal begins later, or it knows no such service.
pub fn account(journal: &Path, service: &str, at: Time, entries_max: usize) -> Result<Account, HistoryError> {
    let mut choice = choose(&files(journal)?, at);
    if choice.segments.is_empty() {
        let path = journal.to_owned();
        if let Some(begins) = choice.begins {
            return Err(HistoryError::TooEarly { path, begins, asked: at });
        }
        if !path.is_dir() {
            Segment::open(&path)?;
        }
        let (count, newest) = (choice.lost.len(), choice.lost.into_iter().next().unwrap_or_default());
        return Err(JournalError::NoneWhole { path, count, newest }.into());
    }
    let mut reader = Reader { service: service.to_owned(), entries_max, ..Reader::default() };
    let mut torn_bytes = 0;
    for segment in &choice.segments {
        torn_bytes = match reader.segment(segment, at) {
            Ok(torn) => torn,
            Err(error) => {
                choice.lost.push(error.to_string());
                0
            }
        };
    }
    if reader.id.is_none() {
        return Err(HistoryError::NoService {
            path: journal.to_owned(),
            service: service.to_owned(),
            known: reader.names.into_keys().collect(),
        });
    }
    Ok(Account {
        service: reader.service,
        at,
        wanted: reader.wanted,
        instances: reader.instances.into_values().collect(),
        entries: reader.entries.into(),
        last_step: reader.last_step,
        torn_bytes,
        lost: choice.lost,
    })
}

/// The segments that are read for an account.
#[derive(Debug, Default)]
struct Choice {
    /// Oldest first: the one in which the time falls is the last.
    segments: VecDeque<Segment>,
    /// Of the oldest segment that is too late.
    begins: Option<Time>,
    lost: Vec<String>,
}

/// The segment in which a time falls and some before it.
fn choose(files: &[PathBuf], at: Time) -> Choice {
    let mut choice = Choice::default();
    for file in files.iter().rev() {
        let opened = match begins(file) {
            Ok(Some(begins)) if begins > at => {
                choice.begins = Some(begins);
                continue;
            }
            _ => Segment::open(file),
        };
        match opened {
            Ok(segment) => match beginning(&segment) {
                Some(begins) if begins > at => choice.begins = Some(begins),
                Some(_) => choice.segments.push_front(segment),
                None => choice.lost.push(format!("{}: no whole record of a step", file.display())),
            },
            // It made room for a newer one just now.
            Err(JournalError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && files.len() > 1 => {}
            Err(error) => choice.lost.push(error.to_string()),
        }
        if choice.segments.len() > EARLIER_MAX {
            break;
        }
    }
    choice
}

fn beginning(segment: &Segment) -> Option<Time> {
    if let Some(scene) = &segment.scene {
        return Some(scene.at);
    }
    let mut first = None;
    segment.steps(|step| {
        first.get_or_insert(step.now);
    });
    first
}

impl Reader {
    /// Reads a segment's steps until `at`; gives the bytes that could not be read.
    fn segment(&mut self, segment: &Segment, at: Time) -> Result<u64, JournalError> {
        match &segment.scene {
            Some(scene) => {
                self.scene(scene);
                let tail = segment.steps(|step| {
                    if step.now <= at {
                        self.step(step.now, &step.event, &step.changes);
                    }
                });
                Ok(tail.torn_bytes)
            }
            None => self.replayed(segment, at),
        }
    }

    fn replayed(&mut self, segment: &Segment, at: Time) -> Result<u64, JournalError> {
        let mut core = segment.core()?;
        let scene = Scene::of(&core, beginning(segment).unwrap_or_default());
        self.scene(&scene);
        let (mut changes, mut actions) = (Changes::from(&scene), Vec::new());
        let tail = segment.steps(|step| {
            if step.now <= at {
                actions.clear();
                core.step(step.now, &step.event, &mut actions);
                let changes = changes.of(&step.event, &actions, &[]);
                self.step(step.now, &step.event, &changes);
            }
        });
        Ok(tail.torn_bytes)
    }

    fn scene(&mut self, scene: &Scene) {
        for s in &scene.services {
            self.name(&s.name, s.service);
        }
        self.last_step = self.last_step.max(Some(scene.at));
        let Some(s) = scene.services.iter().find(|s| Some(s.service) == self.id) else { return };
        self.stands(s);
    }

    fn stands(&mut self, s: &ServiceStanding) {
        self.instances = s.instances.iter().map(|i| (i.instance, i.clone())).collect();
        if self.wanted.instances != s.wanted {
            self.wanted.since = None;
        }
        self.wanted.instances = s.wanted;
        s.reason.clone_into(&mut self.wanted.reason);
    }

    fn name(&mut self, name: &str, service: ServiceId) {
        self.names.insert(name.to_owned(), service);
        if name == self.service {
            self.id = Some(service);
        }
    }

    fn step(&mut self, now: Time, event: &Event, changes: &[Change]) {
        self.last_step = Some(now);
        match event {
            Event::Began => self.began(now),
            Event::Service(spec) => self.name(&spec.name, spec.id),
            _ => {}
        }
        let id = self.id;
        for change in changes.iter().filter(|c| Some(c.service) == id) {
            self.change(now, change);
        }
    }

    fn began(&mut self, now: Time) {
        self.instances.clear();
        self.wanted = Wanted { instances: 0, since: Some(now), reason: String::new() };
        self.note(Entry { at: now, what: None, reason: String::new() });
    }

    fn note(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        if self.entries.len() > self.entries_max {
            self.entries.pop_front();
        }
    }

    fn change(&mut self, now: Time, change: &Change) {
        let reason = || change.reason.clone();
        match change.what {
            What::Wanted(instances) => {
                self.wanted = Wanted { instances, since: Some(now), reason: reason() };
            }
            What::Started(instance) => {
                let stage = Stage::Starting;
                self.instances.insert(instance, Standing { instance, stage, since: now, reason: reason() });
            }
            What::Ready(instance) => self.becomes(instance, Stage::Ready, now),
            What::StopOrdered(instance, _) => self.becomes(instance, Stage::Stopping, now),
            What::Adopted(instance) => {
                let stage = Stage::Ready;
                self.instances.insert(instance, Standing { instance, stage, since: now, reason: reason() });
            }
            What::PauseOrdered(instance) | What::Paused(instance) => {
                self.becomes(instance, Stage::Paused, now);
            }
            What::SpecialiseOrdered(instance) => {
                let stage = Stage::Starting;
                self.instances.insert(instance, Standing { instance, stage, since: now, reason: reason() });
            }
            What::ResumeOrdered(instance) => self.becomes(instance, Stage::Starting, now),
            What::Resumed(instance) | What::Specialised(instance) => {
                self.becomes(instance, Stage::Ready, now);
            }
            What::NotChanged(_) | What::Refused(_) | What::WouldStart(_) | What::WouldStop(_) => {}
            What::StartFailed(instance)
            | What::Died(instance)
            | What::Stopped(instance)
            | What::StoppedByHand(instance)
            | What::Completed(instance)
            | What::LetGo(instance) => {
                self.instances.remove(&instance);
            }
        }
        self.note(Entry { at: now, what: Some(change.what), reason: reason() });
    }

    fn becomes(&mut self, instance: forerun_types::InstanceId, stage: Stage, now: Time) {
        if let Some(standing) = self.instances.get_mut(&instance) {
            standing.stage = stage;
            standing.since = now;
        }
    }
}
