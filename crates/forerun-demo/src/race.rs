//! The race: the same arrivals go to a router of each policy at once, over real instances.

use crate::instances::Instances;
use crate::manifest::Rules;
use crate::script::Script;
use crate::{DemoError, learn};
use forerun_backends::Sink;
use forerun_core::AnyPolicy;
use forerun_engine::ServiceTotals;
use forerun_engine::live::{Engine, Settings};
use forerun_router::{Listen, RouterLimits, action_of, user_of};
use forerun_trace::{Trace, TraceEvent};
use forerun_types::{
    Event, HoldLimits, Readiness, Resources, RouteRule, ServiceId, ServiceSpec, SiteId, SiteSpec, SlaClass,
    Span, Time, UserFrom, UserKey,
};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long after the last arrival answers are waited for: as long as a request may be held.
const LAST_ANSWERS: Duration = Duration::from_secs(60);
/// Far beyond any start on a machine that has nothing else to do. On one that is busy, a late start still serves whoever
/// waits for it; one that is given up only makes the next one later.
const START_TIMEOUT: Span = Span::from_secs(60);
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
const LEARNING_BYTES_MAX: u64 = 64 << 20;
/// Tells a request's user.
const USER_HEADER: &str = "x-user";
/// The one action that the fixture has for all.
const ACTION: &str = "GET /sleep";
const TENANT: &str = "default";

/// A policy and the engine that runs it.
pub(crate) struct Side {
    pub(crate) policy: String,
    engine: Engine,
    client: Client<HttpConnector, Empty<Bytes>>,
    pub(crate) seen: Arc<Seen>,
    /// Totals when the race began.
    before: BTreeMap<ServiceId, ServiceTotals>,
    _folder: Folder,
}

/// What the clients saw, and when.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Microseconds that each answer took beyond the request's own time.
    waits: Mutex<Vec<u64>>,
}

/// One side as it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) requests: u64,
    pub(crate) cold_starts: u64,
    pub(crate) up: u32,
    pub(crate) wait_p99: Span,
    /// GB-seconds at playing speed.
    pub(crate) gb_seconds: f64,
}

/// What one side did, per service and in all; times and GB-seconds at playing speed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) policy: String,
    /// Requests and cold starts by service.
    pub(crate) services: Vec<(u64, u64)>,
    /// Sorted, microseconds.
    pub(crate) waits: Vec<u64>,
    pub(crate) failed: u64,
    pub(crate) totals: ServiceTotals,
}

/// A state folder that goes when its side goes.
struct Folder {
    path: PathBuf,
    /// What its router keys users with.
    secret: [u8; 32],
}

impl Folder {
    /// With a secret that is known beforehand, so that what is learned of a user is found again under the router's key.
    fn make(name: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let mut secret = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut secret)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path.join("secret"))?;
        file.write_all(&secret)?;
        Ok(Self { path, secret })
    }

    /// A user of a recording as the router will report them.
    fn user(&self, recorded: UserKey) -> UserKey {
        if recorded == UserKey::NOBODY {
            return recorded;
        }
        user_of(&self.secret, TENANT, identity(recorded).as_bytes())
    }
}

/// What a request of this user says in its header.
fn identity(user: UserKey) -> String {
    format!("{:016x}", user.0)
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Seen {
    fn waits(&self) -> Vec<u64> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waits.sort_unstable();
        waits
    }
}

impl Side {
    /// A router, an engine and a backend of its own, whose core has learned from the script's past, which ends at
    /// `begins_at`. `keep` is the baseline's time at playing speed.
    pub(crate) async fn start(
        policy: &str,
        keep: Option<Span>,
        begins_at: Time,
        script: &Script,
        instances: &Arc<Instances>,
    ) -> Result<Self, DemoError> {
        let act = &script.rules;
        let keep = if policy == "keep-alive" { keep } else { None };
        let shown = keep.map_or_else(|| policy.to_owned(), |k| format!("{policy}={}", act.recorded(k)));
        let folder = Folder::make(&format!("forerun-demo-{}-{}-{policy}", std::process::id(), script.act))?;
        let decides = AnyPolicy::named(policy, keep, LEARNING_BYTES_MAX)
            .ok_or_else(|| DemoError::Manifest(format!("no policy {policy}")))?;
        let action = action_of(ACTION);
        let reported = |e: &TraceEvent| TraceEvent { user: folder.user(e.user), action, ..*e };
        let past = Trace { events: script.past.events.iter().map(reported).collect(), ..script.past.clone() };
        let learned = learn::core(decides, past, script.past_length(), begins_at, act)?;
        let settings = Settings {
            policy: policy.to_owned(),
            keep,
            learning_bytes_max: LEARNING_BYTES_MAX,
            services: specs(script, instances),
            sites: vec![SiteSpec {
                id: SiteId(0),
                name: "here".to_owned(),
                capacity: Resources::default(),
                instances_max: 0,
            }],
            offset_seconds: Arc::new(|_, _| 0),
            keep_found: false,
            core_milli_gb: None,
            state_folder: folder.path.clone(),
            flush_interval: Span::from_secs(1),
            journal_bytes_max: JOURNAL_BYTES_MAX,
            listen: Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            router_limits: RouterLimits::default(),
            beside: None,
            backends: Box::new({
                let instances = Arc::clone(instances);
                move |sink, folder: &Path| Ok(vec![instances.backend(without_readings(sink), folder)?])
            }),
            learned: Some(learned),
        };
        let engine = Engine::start(settings).await?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let seen = Arc::default();
        Ok(Self { policy: shown, engine, client, seen, before: BTreeMap::new(), _folder: folder })
    }

    fn totals(&self) -> BTreeMap<ServiceId, ServiceTotals> {
        self.engine.published().with(|v| v.map(|v| v.totals.clone())).unwrap_or_default()
    }

    /// From here on memory counts.
    pub(crate) fn begin(&mut self) {
        self.before = self.totals();
    }

    pub(crate) fn standing(&self) -> Standing {
        let up = self
            .engine
            .published()
            .with(|v| v.map_or(0, |v| v.sites.iter().map(|site| site.instances).sum()));
        let stats = self.engine.router_stats();
        let totals = difference(&self.before, &self.totals());
        Standing {
            requests: stats.services.iter().map(|s| s.requests_total()).sum(),
            cold_starts: stats.services.iter().map(|s| s.cold_starts).sum(),
            up,
            wait_p99: quantile(&self.seen.waits(), 0.99),
            gb_seconds: gb_seconds(&totals),
        }
    }

    /// The side's account at the end of the race; `totals` are those of its last moment.
    fn tally(&self, totals: ServiceTotals) -> Tally {
        let stats = self.engine.router_stats();
        Tally {
            policy: self.policy.clone(),
            services: stats.services.iter().map(|s| (s.requests_total(), s.cold_starts)).collect(),
            waits: self.seen.waits(),
            failed: self.seen.failed.load(Ordering::Relaxed),
            totals,
        }
    }

    fn send(&self, event: &TraceEvent, tasks: &mut JoinSet<()>) {
        let lasting = event.duration.unwrap_or_default();
        self.seen.sent.fetch_add(1, Ordering::Relaxed);
        let (client, seen) = (self.client.clone(), Arc::clone(&self.seen));
        let uri = format!("http://{}/sleep?ms={}", self.engine.address(), lasting.as_millis());
        let mut request = hyper::Request::get(uri).header("host", host(event.service));
        if event.user != UserKey::NOBODY {
            request = request.header(USER_HEADER, identity(event.user));
        }
        let request = request.body(Empty::new());
        tasks.spawn(async move {
            let began = Instant::now();
            let answered = match request {
                Ok(request) => answer(&client, request).await,
                Err(_) => false,
            };
            if answered {
                let slept = Duration::from_millis(lasting.as_millis());
                let wait = began.elapsed().saturating_sub(slept);
                let mut waits = seen.waits.lock().unwrap_or_else(PoisonError::into_inner);
                waits.push(wait.as_micros() as u64);
            } else {
                seen.failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    pub(crate) async fn stop(self) {
        self.engine.shutdown().await;
    }
}

/// Measured memory would be that of the demo's tiny program. Both sides count, and Forerun prices, each instance with
/// what the trace tells of its application instead.
fn without_readings(sink: Sink) -> Sink {
    Arc::new(move |event| {
        if !matches!(event, Event::InstanceUsage { .. } | Event::InstanceTraffic { .. }) {
            sink(event);
        }
    })
}

async fn answer(client: &Client<HttpConnector, Empty<Bytes>>, request: hyper::Request<Empty<Bytes>>) -> bool {
    let Ok(response) = client.request(request).await else { return false };
    let good = response.status().is_success();
    good && response.into_body().collect().await.is_ok()
}

/// Requests tell their service by its host.
fn host(service: ServiceId) -> String {
    format!("s{}", service.0)
}

/// The services as all sides run them.
fn specs(script: &Script, instances: &Instances) -> Vec<Arc<ServiceSpec>> {
    let act: &Rules = &script.rules;
    let (backend, launch, port) = instances.launch(act.sleep);
    let spec = |(id, app): (usize, &crate::script::App)| {
        let id = ServiceId(id as u32);
        Arc::new(ServiceSpec {
            backend: backend.to_owned(),
            launch: launch.clone(),
            port,
            route: RouteRule { hosts: vec![host(id)], paths: Vec::new() },
            ready: Readiness::Tcp,
            start_timeout: START_TIMEOUT,
            start_estimate: act.start,
            drain_timeout: Span::from_secs(5),
            concurrency: act.concurrency,
            resources: Resources { memory_bytes: app.memory_bytes, ..Resources::default() },
            sla: SlaClass {
                cold_start_milli_gbs: (act.cold_start_gbs * 1e3 / act.speedup as f64) as u64,
                ..SlaClass::default()
            },
            user: UserFrom::Header(USER_HEADER.to_owned()),
            hold: HoldLimits::default(),
            ..ServiceSpec::named(id, app.name.clone())
        })
    };
    script.apps.iter().enumerate().map(spec).collect()
}

/// Sends every request to all sides at its instant after `begins`, and measures until `length` has passed.
/// `watch` is called four times a second with the time that has passed.
pub(crate) async fn run(
    sides: &[Side],
    trace: &Trace,
    begins: Instant,
    length: Span,
    watch: &mut dyn FnMut(Span),
) -> Vec<Tally> {
    let mut tasks = JoinSet::new();
    let mut next = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let ends = begins + Duration::from(length);
    while Instant::now() < ends {
        let due = trace.events.get(next).map_or(ends, |e| begins + Duration::from_micros(e.at.0));
        tokio::select! {
            () = tokio::time::sleep_until(due.min(ends).into()) => {}
            _ = tick.tick() => watch(begins.elapsed().into()),
        }
        while let Some(event) = trace.events.get(next)
            && begins + Duration::from_micros(event.at.0) <= Instant::now()
        {
            for side in sides {
                side.send(event, &mut tasks);
            }
            next += 1;
        }
        while tasks.try_join_next().is_some() {}
    }
    watch(length);
    let totals: Vec<ServiceTotals> = sides.iter().map(|s| difference(&s.before, &s.totals())).collect();
    let all = async { while tasks.join_next().await.is_some() {} };
    // Whoever has no answer by then is counted as sent and not answered.
    let _ = tokio::time::timeout(LAST_ANSWERS, all).await;
    sides.iter().zip(totals).map(|(side, totals)| side.tally(totals)).collect()
}

fn difference(
    before: &BTreeMap<ServiceId, ServiceTotals>,
    after: &BTreeMap<ServiceId, ServiceTotals>,
) -> ServiceTotals {
    let mut sum = ServiceTotals::default();
    for (service, now) in after {
        let then = before.get(service).cloned().unwrap_or_default();
        sum.started += now.started - then.started;
        sum.prewarmed += now.prewarmed - then.prewarmed;
        sum.prewarmed_used += now.prewarmed_used - then.prewarmed_used;
        sum.failed += now.failed - then.failed;
        sum.starting_byte_seconds += now.starting_byte_seconds - then.starting_byte_seconds;
        sum.busy_byte_seconds += now.busy_byte_seconds - then.busy_byte_seconds;
        sum.idle_byte_seconds += now.idle_byte_seconds - then.idle_byte_seconds;
    }
    sum
}

pub(crate) fn gb_seconds(totals: &ServiceTotals) -> f64 {
    (totals.starting_byte_seconds + totals.busy_byte_seconds + totals.idle_byte_seconds) / 1e9
}

/// Of sorted microseconds.
pub(crate) fn quantile(sorted: &[u64], q: f64) -> Span {
    let at = ((q * sorted.len() as f64) as usize).min(sorted.len().saturating_sub(1));
    Span(sorted.get(at).copied().unwrap_or(0))
}
