//! Stands before every route: who asks, whether they may, whether a page of another site made them, and what of it is logged.

use super::audit::{AuditEntry, AuditLog};
use super::tokens::{PREFIX, TokenStore};
use super::{Access, Caller, Reach, Role};
use crate::ApiError;
use crate::problem::problem;
use crate::routes::{self, Found};
use crate::server::{self, Peer, is_own};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// For a proxy that passes on somebody's `Authorization` and has a token of its own.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("forerun-token");
const SITE_HEADER: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Of a path, in a line of the audit log.
const PATH_CHARS_MAX: usize = 100;

/// What a handler did, in words for the audit log; it sets it on its answer.
#[derive(Clone, Debug)]
pub(crate) struct Did(pub(crate) String);

/// The tokens and the audit log of a state folder, and whether a token is needed at all.
#[derive(Debug)]
pub struct Guard {
    tokens: TokenStore,
    pub(crate) audit: AuditLog,
    token_needed: bool,
}

impl Guard {
    /// `token_needed`: on a loopback address too; on any other it always is.
    #[must_use]
    pub fn new(folder: &Path, token_needed: bool) -> Self {
        Self { tokens: TokenStore::of(folder), audit: AuditLog::of(folder), token_needed }
    }

    /// Whether an address may be listened on.
    ///
    /// # Errors
    /// A token is needed there, and none is there or the tokens cannot be read.
    pub fn fit_for(&self, listen: SocketAddr) -> Result<(), ApiError> {
        if listen.ip().is_loopback() && !self.token_needed {
            return Ok(());
        }
        match self.tokens.any()? {
            true => Ok(()),
            false => Err(ApiError::NoToken(listen)),
        }
    }

    /// The same guard for that address.
    pub(crate) fn at(self, listen: SocketAddr) -> Self {
        Self { token_needed: self.token_needed || !listen.ip().is_loopback(), ..self }
    }

    /// Who asks, or the refusal. `None` is somebody without a token where one is needed.
    fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>, Box<Response>> {
        let Some(token) = token_of(headers) else {
            return Ok((!self.token_needed).then(Caller::local));
        };
        match self.tokens.caller(token) {
            Ok(Some(caller)) => Ok(Some(caller)),
            Ok(None) => {
                Err(Box::new(unknown("this token is not known; it may have been revoked or have expired")))
            }
            Err(error) => {
                tracing::error!(%error, "api: the tokens cannot be read, so nobody comes in by one");
                let what = "the tokens cannot be read; forerun's log says why";
                Err(Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, what)))
            }
        }
    }

    fn log(&self, caller: &Caller, request: &Asked, response: &Response) {
        let status = response.status();
        let done = response.extensions().get::<Did>().map(|did| did.0.clone());
        let path = || request.uri.path().chars().take(PATH_CHARS_MAX).collect::<String>();
        let entry = AuditEntry {
            at: 0.0,
            who: caller.who.clone(),
            role: caller.role.to_string(),
            from: request.from.clone(),
            what: done.unwrap_or_else(|| format!("{} {}", request.method, path())),
            result: if status.is_success() { "done".to_owned() } else { status.to_string() },
        };
        if let Err(error) = self.audit.add(entry) {
            tracing::error!(%error, "api: a change is not in the audit log");
        }
    }
}

/// What is needed of a request once it is gone.
struct Asked {
    method: Method,
    uri: Uri,
    from: String,
}

/// Lets a request through to its route, with a [`Caller`] in its extensions, or refuses it.
pub(crate) async fn admit(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let found = routes::find(request.method(), request.uri().path());
    let access = found.access();
    let caller = match guard.caller(request.headers()) {
        Ok(caller) => caller,
        Err(refused) => return *refused,
    };
    let by_token = token_of(request.headers()).is_some();
    if !by_token && let Some(refused) = foreign_name(&guard, &request) {
        return refused;
    }
    if let Some(refused) = foreign_page(&request, by_token) {
        return refused;
    }
    let caller = match (caller, access) {
        (Some(caller), _) => caller,
        // It reads nothing that is not for everyone.
        (None, Access::Open) => Caller { who: String::new(), role: Role::Viewer, tenant: None },
        (None, Access::Least(..)) => {
            return unknown(
                "a token is needed here; `forerun token create NAME` makes one, send it as Authorization: Bearer TOKEN",
            );
        }
    };
    if by_token {
        take_out_token(request.headers_mut());
    }
    let from = request.extensions().get::<Peer>().map_or_else(String::new, |peer| peer.0.to_string());
    let asked = Asked { method: request.method().clone(), uri: request.uri().clone(), from };
    let response = match refusal(&caller, found, &asked).or_else(|| odd_body(&request)) {
        Some(refused) => refused,
        None => {
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
    };
    if !asked.method.is_safe() && access != Access::Open {
        guard.log(&caller, &asked, &response);
    }
    response
}

/// Why a caller may not ask this, if so.
fn refusal(caller: &Caller, found: Found, asked: &Asked) -> Option<Response> {
    let Access::Least(least, reach) = found.access() else { return None };
    let all = caller.role == Role::Admin && caller.tenant.is_none();
    match found {
        Found::OtherMethod if !all => return Some(server::other_method(&asked.method)),
        Found::Nothing if !all => return Some(server::nothing_at(asked.uri.path())),
        _ => {}
    }
    let what = match (&caller.tenant, reach) {
        _ if caller.role < least => format!(
            "this needs the role {least}, and the token has {}; `forerun token create NAME --role {least}` makes one",
            caller.role
        ),
        (Some(tenant), Reach::All) => {
            format!(
                "this is about all tenants, and the token is for {tenant} only; take one without a tenant"
            )
        }
        _ => return None,
    };
    Some(problem(StatusCode::FORBIDDEN, &what))
}

fn unknown(what: &str) -> Response {
    let mut response = problem(StatusCode::UNAUTHORIZED, what);
    let scheme = HeaderValue::from_static("Bearer realm=\"forerun\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// The token that a request brings. What else its `Authorization` holds is for somebody behind a proxy that asks first.
fn token_of(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let own = text(TOKEN_HEADER).map(str::trim);
    own.or_else(|| bearer(text(header::AUTHORIZATION)?))
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && token.starts_with(PREFIX)).then_some(token)
}

/// It goes no further than here.
fn take_out_token(headers: &mut HeaderMap) {
    headers.remove(TOKEN_HEADER);
    let ours = headers.get(header::AUTHORIZATION).and_then(|v| bearer(v.to_str().ok()?)).is_some();
    if ours {
        headers.remove(header::AUTHORIZATION);
    }
}

/// A page on the web can make a browser ask a loopback address under a name of its own (DNS rebinding); such a request
/// names that host, and knows no token.
fn foreign_name(guard: &Guard, request: &Request) -> Option<Response> {
    // A proxy may ask with the host of the request that it asks about; what it gets tells no page more than that
    // request would.
    let of_a_proxy = matches!(request.uri().path(), "/v1/wake" | "/v1/page");
    let host = request.headers().get(header::HOST)?;
    let own = host.to_str().is_ok_and(is_own);
    (!guard.token_needed && !of_a_proxy && !own).then(|| {
        let what = "this host name is not the api's; ask localhost or a loopback address, or send a token";
        problem(StatusCode::FORBIDDEN, what)
    })
}

/// A page on the web can make a browser send orders here; a browser then says for which page.
fn foreign_page(request: &Request, by_token: bool) -> Option<Response> {
    if request.method().is_safe() {
        return None;
    }
    let text =
        |name| request.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let own_origin = text(header::ORIGIN).is_none_or(|origin| {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        is_own(host) || (by_token && Some(host) == text(header::HOST))
    });
    let own_site = text(SITE_HEADER).is_none_or(|site| matches!(site, "same-origin" | "none"));
    let what = "orders are not taken from other sites' pages";
    (!own_origin || !own_site).then(|| problem(StatusCode::FORBIDDEN, what))
}

/// A form of another site cannot send JSON without asking first.
fn odd_body(request: &Request) -> Option<Response> {
    let headers = request.headers();
    let empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !headers.contains_key(header::TRANSFER_ENCODING);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    (!request.method().is_safe() && !empty && !kind.eq_ignore_ascii_case("application/json")).then(|| {
        let what = "a body must be JSON and say so; send Content-Type: application/json";
        problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_credentials_are_no_tokens() {
        for (name, value, expect) in [
            ("authorization", "Bearer forerun_ab", Some("forerun_ab")),
            ("authorization", "bearer  forerun_ab ", Some("forerun_ab")),
            ("forerun-token", "anything", Some("anything")),
            // Somebody's, on its way through a proxy.
            ("authorization", "Bearer eyJhbGciOi", None),
            ("authorization", "Basic Zm9yZXJ1bl8=", None),
            ("authorization", "forerun_ab", None),
            ("cookie", "forerun_ab", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(token_of(&headers), expect, "{name}: {value}");
            take_out_token(&mut headers);
            assert_eq!(headers.is_empty(), expect.is_some(), "{name}: {value}");
        }
    }
}
