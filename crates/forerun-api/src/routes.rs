//! Every route, with what it asks of its caller.

use crate::auth::{Access, Reach, Role};
use crate::server::{self, Shared};
use crate::{cache, control, events, lists, page, status};
use axum::http::Method;
use axum::routing::{MethodRouter, get, post};

pub(crate) type Handler = MethodRouter<Shared>;

pub(crate) struct Route {
    pub(crate) method: Method,
    /// Segments in braces are names.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// `None` for what the router answers itself.
    pub(crate) handler: Option<fn() -> Handler>,
}

const fn own(method: Method, path: &'static str, access: Access, handler: fn() -> Handler) -> Route {
    Route { method, path, access, handler: Some(handler) }
}

const fn beside(path: &'static str, access: Access) -> Route {
    Route { method: Method::GET, path, access, handler: None }
}

const OPEN: Access = Access::Open;
const VIEW: Access = Access::Least(Role::Viewer, Reach::Own);
const VIEW_ALL: Access = Access::Least(Role::Viewer, Reach::All);
const OPERATE: Access = Access::Least(Role::Operator, Reach::Own);
const OPERATE_ALL: Access = Access::Least(Role::Operator, Reach::All);
const ADMIN_ALL: Access = Access::Least(Role::Admin, Reach::All);

pub(crate) const ROUTES: &[Route] = &[
    own(Method::GET, "/healthz", OPEN, || get(server::health)),
    own(Method::GET, "/readyz", OPEN, || get(server::ready)),
    own(Method::GET, "/metrics", VIEW_ALL, || get(server::metrics)),
    own(Method::GET, "/v1/status", VIEW, || get(status::status)),
    own(Method::GET, "/v1/audit", ADMIN_ALL, || get(status::audit)),
    own(Method::POST, "/v1/cache/purge", OPERATE, || post(cache::purge)),
    own(Method::GET, "/v1/events", VIEW, || get(events::events)),
    own(Method::GET, "/v1/services", VIEW, || get(lists::services)),
    own(Method::GET, "/v1/instances", VIEW, || get(lists::instances)),
    own(Method::GET, "/v1/plan", VIEW, || get(lists::plan)),
    own(Method::GET, "/v1/overrides", VIEW, || get(lists::overrides)),
    own(Method::GET, "/v1/sla", VIEW, || get(lists::sla)),
    own(Method::GET, "/v1/services/{service}", VIEW, || get(lists::service)),
    own(Method::GET, "/v1/services/{service}/forecast", VIEW, || get(lists::forecast)),
    own(Method::POST, "/v1/services/{service}/wake", OPERATE, || post(control::wake)),
    own(Method::POST, "/v1/services/{service}/pause", OPERATE, || post(control::pause)),
    own(Method::POST, "/v1/services/{service}/resume", OPERATE, || post(control::resume)),
    own(Method::POST, "/v1/services/{service}/scale", OPERATE, || post(control::scale)),
    own(Method::POST, "/v1/services/{service}/act", OPERATE, || post(control::act)),
    own(Method::POST, "/v1/services/{service}/advise", OPERATE, || post(control::advise)),
    own(Method::POST, "/v1/services/{service}/observe", OPERATE, || post(control::observe)),
    // They hold nothing of anyone's.
    own(Method::GET, "/openapi.json", OPEN, || get(page::openapi)),
    own(Method::GET, "/docs", OPEN, || get(page::docs)),
    own(Method::GET, "/docs/page.js", OPEN, || get(page::script)),
    own(Method::GET, "/v1/services/{service}/health", VIEW, || get(server::beside_service)),
    own(Method::GET, "/v1/services/{service}/badge.svg", VIEW, || get(server::beside_service)),
    own(Method::GET, "/v1/services/{service}/wakes", VIEW, || get(server::beside_service)),
    // What the router answers itself: it knows no callers, so these are about all tenants.
    beside("/health", OPEN),
    beside("/v1/route", VIEW_ALL),
    beside("/v1/traefik", VIEW_ALL),
    beside("/v1/caddy", VIEW_ALL),
    beside("/v1/wake", OPERATE_ALL),
    beside("/v1/page", OPERATE_ALL),
    beside("/api/themes", VIEW_ALL),
    beside("/api/dynamic/themes", VIEW_ALL),
    beside("/api/events", VIEW_ALL),
    beside("/api/strategies/{strategy}", OPERATE_ALL),
];

/// A route, for whoever wants to know what there is and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Segments in braces are names.
    pub path: &'static str,
    /// The least role that may ask; `None` is whoever comes.
    pub least: Option<Role>,
    /// Whether a token of one tenant may not ask.
    pub all_tenants: bool,
}

/// Every route that there is. A path that is not in it answers 404.
#[must_use]
pub fn routes() -> Vec<RouteInfo> {
    let info = |route: &Route| {
        let (least, all_tenants) = match route.access {
            Access::Open => (None, false),
            Access::Least(least, reach) => (Some(least), reach == Reach::All),
        };
        let method = if route.method == Method::POST { "POST" } else { "GET" };
        RouteInfo { method, path: route.path, least, all_tenants }
    };
    ROUTES.iter().map(info).collect()
}

/// What becomes of a method and a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Route(Access),
    /// There is something at the path, by another method.
    OtherMethod,
    Nothing,
}

impl Found {
    /// What is not listed is for nobody but an administrator of all tenants, who is told that it is not there.
    pub(crate) fn access(self) -> Access {
        match self {
            Found::Route(access) => access,
            Found::OtherMethod | Found::Nothing => ADMIN_ALL,
        }
    }
}

/// HEAD is as GET.
pub(crate) fn find(method: &Method, path: &str) -> Found {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let path = path.trim_end_matches('/');
    let mut at_path = ROUTES.iter().filter(|route| matches(route.path, path)).peekable();
    if at_path.peek().is_none() {
        return Found::Nothing;
    }
    at_path.find(|route| route.method == *method).map_or(Found::OtherMethod, |r| Found::Route(r.access))
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(name), Some(part)) if name.starts_with('{') => {
                if part.is_empty() {
                    return false;
                }
            }
            (Some(fixed), Some(part)) if fixed == part => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_to_the_letter() {
        for (method, path, expect) in [
            (Method::GET, "/healthz", Found::Route(OPEN)),
            (Method::HEAD, "/v1/status", Found::Route(VIEW)),
            (Method::GET, "/v1/status/", Found::Route(VIEW)),
            (Method::POST, "/v1/status", Found::OtherMethod),
            (Method::POST, "/v1/services/web/pause", Found::Route(OPERATE)),
            (Method::GET, "/v1/services/web/health", Found::Route(VIEW)),
            // Not one segment: the router may read it as a name with a slash.
            (Method::GET, "/v1/services/a/b/health", Found::Nothing),
            (Method::GET, "/v1/services//health", Found::Nothing),
            (Method::GET, "/api/strategies/poke", Found::Route(OPERATE_ALL)),
            (Method::GET, "/nothing", Found::Nothing),
        ] {
            assert_eq!(find(&method, path), expect, "{method} {path}");
        }
        assert_eq!(Found::Nothing.access(), ADMIN_ALL);
    }
}
