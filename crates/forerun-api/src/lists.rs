//! Services, instances, the plan and people's words, a page at a time, as far as they are the caller's to see.

use crate::answer::{Params, Segment, tagged};
use crate::auth::Caller;
use crate::problem::{no_service, problem};
use crate::server::Shared;
use crate::{
    BudgetStatus, Down, Instance, Instances, LoadForecast, ModeWord, NextChange, PastLoad, ServiceStatus,
    SiteStatus, Waits, Word,
};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};

/// Of one page.
const LIMIT_MAX: usize = 1_000;
const LIMIT_USUAL: usize = 100;

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Ask for `after` this to go on; `null` at the end.
    pub next: Option<String>,
    /// How many there are on all pages.
    pub total: usize,
}

/// What of a list is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct Asked {
    /// Items on this page.
    #[cfg_attr(test, param(minimum = 1, maximum = 1_000, default = 100))]
    limit: Option<usize>,
    /// Go on after this: `next` of the page before.
    after: Option<String>,
    /// Only where the service's name has this in it.
    name: Option<String>,
}

/// A service in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ServiceSummary {
    pub name: String,
    pub tenant: String,
    pub backend: String,
    /// `observe`, `advise` or `act`.
    pub mode: String,
    /// Instances that the plan wants, busy ones included.
    pub wanted: u32,
    pub instances: Instances,
    /// Requests at instances.
    pub in_flight: u32,
    /// Requests that are held.
    pub waiting: u32,
    pub requests: u64,
    pub cold_starts: u64,
    /// `null` before the first request.
    pub wait_seconds: Option<Waits>,
    pub memory_bytes: u64,
    /// Why the plan wants what it wants, in one sentence.
    pub reason: String,
    /// The most requests at a time that are foreseen, at nine of ten; `null` while nothing is.
    pub foreseen: Option<f64>,
    /// A person's word on the number of instances, while it holds.
    pub word: Option<Word>,
}

/// An instance in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct InstanceItem {
    pub service: String,
    pub tenant: String,
    #[serde(flatten)]
    pub instance: Instance,
}

/// What the plan wants of a service, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct PlanItem {
    pub service: String,
    /// `start`, `stop` or `keep`: what is done to come from `up` to `wanted`.
    pub action: String,
    /// Instances that are starting, ready or paused.
    pub up: u32,
    pub wanted: u32,
    pub reason: String,
    /// `null` when none is foreseen.
    pub next_change: Option<NextChange>,
    /// What would be done if it might; `null` where it acts, or would do nothing.
    pub would: Option<String>,
}

/// What a person has said or done of a service, and that holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct OverrideItem {
    pub service: String,
    pub word: Option<Word>,
    pub mode_word: Option<ModeWord>,
    /// Held down by what a person did past Forerun.
    pub down: Option<Down>,
}

/// What is foreseen of a service's load, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ForecastAnswer {
    pub service: String,
    /// `null` while there is none: too few minutes are known.
    pub forecast: Option<LoadForecast>,
    /// The minutes that are past, oldest first, with what had been said of each a minute before.
    pub past: Vec<PastLoad>,
}

/// Promises to SLA classes and what is left of them, and the sites that they share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SlaAnswer {
    /// Of classes that have a cold-start budget.
    pub budgets: Vec<BudgetStatus>,
    pub sites: Vec<SiteStatus>,
}

/// Services a page at a time, in order of their names.
#[cfg_attr(test, utoipa::path(get, path = "/v1/services", params(Asked), responses(
    (status = 200, body = Page<ServiceSummary>), (status = 304),
)))]
pub(crate) async fn services(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Response {
    let summary = |s: &ServiceStatus| vec![(s.name.clone(), ServiceSummary::of(s))];
    paged(&shared, &caller, &asked, &headers, summary)
}

/// Instances a page at a time, in order of their services' names.
#[cfg_attr(test, utoipa::path(get, path = "/v1/instances", params(Asked), responses(
    (status = 200, body = Page<InstanceItem>), (status = 304),
)))]
pub(crate) async fn instances(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Response {
    let each = |s: &ServiceStatus| {
        let item = |i: &Instance| InstanceItem {
            service: s.name.clone(),
            tenant: s.tenant.clone(),
            instance: i.clone(),
        };
        s.each.iter().map(|i| (format!("{}/{}", s.name, i.instance), item(i))).collect()
    };
    paged(&shared, &caller, &asked, &headers, each)
}

/// What the plan wants of each service, and why, a page at a time.
#[cfg_attr(test, utoipa::path(get, path = "/v1/plan", params(Asked), responses(
    (status = 200, body = Page<PlanItem>), (status = 304),
)))]
pub(crate) async fn plan(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Response {
    let item = |s: &ServiceStatus| vec![(s.name.clone(), PlanItem::of(s))];
    paged(&shared, &caller, &asked, &headers, item)
}

/// Services of which a person has said something that holds, a page at a time.
#[cfg_attr(test, utoipa::path(get, path = "/v1/overrides", params(Asked), responses(
    (status = 200, body = Page<OverrideItem>), (status = 304),
)))]
pub(crate) async fn overrides(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Response {
    let item = |s: &ServiceStatus| {
        let said = s.word.is_some() || s.mode_word.is_some() || s.down.is_some();
        let item = || OverrideItem {
            service: s.name.clone(),
            word: s.word,
            mode_word: s.mode_word.clone(),
            down: s.down.clone(),
        };
        said.then(|| (s.name.clone(), item())).into_iter().collect()
    };
    paged(&shared, &caller, &asked, &headers, item)
}

/// All that is known of one service.
#[cfg_attr(test, utoipa::path(get, path = "/v1/services/{service}", params(("service" = String, Path, description = "Its name", example = "web")), responses(
    (status = 200, body = ServiceStatus), (status = 304),
)))]
pub(crate) async fn service(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    headers: HeaderMap,
) -> Response {
    match shared.seen(&caller).services.iter().find(|s| s.name == name) {
        Some(service) => tagged(&headers, service),
        None => no_service(&name),
    }
}

/// What is foreseen of a service's load, with the minutes that are past beside what had been said of them.
#[cfg_attr(test, utoipa::path(get, path = "/v1/services/{service}/forecast", params(("service" = String, Path, description = "Its name", example = "web")), responses(
    (status = 200, body = ForecastAnswer), (status = 304),
)))]
pub(crate) async fn forecast(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    headers: HeaderMap,
) -> Response {
    let seen = shared.seen(&caller);
    let Some(service) = seen.services.iter().find(|s| s.name == name) else { return no_service(&name) };
    let past = shared.past.of(&name);
    tagged(&headers, &ForecastAnswer { service: name, forecast: service.forecast.clone(), past })
}

/// Cold-start budgets of SLA classes, and the sites' capacity.
#[cfg_attr(test, utoipa::path(get, path = "/v1/sla", responses((status = 200, body = SlaAnswer), (status = 304))))]
pub(crate) async fn sla(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let seen = shared.seen(&caller);
    tagged(&headers, &SlaAnswer { budgets: seen.budgets.clone(), sites: seen.sites.clone() })
}

impl ServiceSummary {
    pub(crate) fn of(s: &ServiceStatus) -> Self {
        Self {
            name: s.name.clone(),
            tenant: s.tenant.clone(),
            backend: s.backend.clone(),
            mode: s.mode.clone(),
            wanted: s.wanted,
            instances: s.instances,
            in_flight: s.in_flight,
            waiting: s.waiting,
            requests: s.requests,
            cold_starts: s.cold_starts,
            wait_seconds: s.wait_seconds,
            memory_bytes: s.memory_bytes,
            reason: s.reason.clone(),
            foreseen: s.forecast.as_ref().and_then(|told| most(told, 0.9)),
            word: s.word,
        }
    }
}

/// The most of all steps at a level.
pub(crate) fn most(told: &LoadForecast, level: f64) -> Option<f64> {
    let at = told.levels.iter().position(|l| (l - level).abs() < 1e-9)?;
    told.steps.iter().filter_map(|step| step.get(at)).copied().reduce(f64::max)
}

impl PlanItem {
    fn of(s: &ServiceStatus) -> Self {
        let up = s.instances.starting + s.instances.ready + s.instances.paused;
        let action = match up.cmp(&s.wanted) {
            std::cmp::Ordering::Less => "start",
            std::cmp::Ordering::Equal => "keep",
            std::cmp::Ordering::Greater => "stop",
        };
        Self {
            service: s.name.clone(),
            action: action.to_owned(),
            up,
            wanted: s.wanted,
            reason: s.reason.clone(),
            next_change: s.next_change,
            would: s.would.clone(),
        }
    }
}

/// One page of what services have, each with the key that it is ordered and found by.
fn paged<T: Serialize>(
    shared: &Shared,
    caller: &Caller,
    asked: &Asked,
    headers: &HeaderMap,
    of: impl Fn(&ServiceStatus) -> Vec<(String, T)>,
) -> Response {
    let limit = asked.limit.unwrap_or(LIMIT_USUAL);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let what = format!("limit: {limit} is out of range; it takes 1 to {LIMIT_MAX}");
        return problem(StatusCode::BAD_REQUEST, &what);
    }
    let seen = shared.seen(caller);
    let named = |s: &&ServiceStatus| asked.name.as_ref().is_none_or(|part| s.name.contains(part.as_str()));
    let mut all: Vec<(String, T)> = seen.services.iter().filter(named).flat_map(of).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let total = all.len();
    let from = match &asked.after {
        Some(after) => all.partition_point(|(key, _)| key <= after),
        None => 0,
    };
    let more = total > from + limit;
    let part: Vec<(String, T)> = all.into_iter().skip(from).take(limit).collect();
    let next = if more { part.last().map(|(key, _)| key.clone()) } else { None };
    tagged(headers, &Page { items: part.into_iter().map(|(_, item)| item).collect(), next, total })
}
