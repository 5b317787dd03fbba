//! Who may wake a service: asked before a request counts as anything.
//!
//! What names the user to an instance (`Remote-User` and the like) is taken off every request of a service whose
//! `auth` is another server's, and put on only as that server says: a client cannot name itself.

use crate::body::{Progress, RequestBody};
use crate::fault::Fault;
use crate::headers;
use crate::settings::RouterLimits;
use crate::upstream::{self, Pool, SendError};
use blake3::Hash;
use bytes::{Bytes, BytesMut};
use forerun_types::Auth;
use hyper::body::{Body, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, SET_COOKIE, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From the question to the whole answer. A login server that takes longer is down to those who wait for it.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Of the answer that a client gets instead of the service: a login page with its pictures inlined.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long an address that a name stands for is used.
const ADDRESS_KEPT: Duration = Duration::from_secs(30);

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// How headers begin that name a user, as Authelia, Authentik, oauth2-proxy and their like set them.
const IDENTITY: [&str; 8] = [
    "remote-email",
    "remote-groups",
    "remote-name",
    "remote-user",
    "x-auth-request-",
    "x-authentik-",
    "x-forwarded-user",
    "x-webauth-",
];

/// An `auth` in the form in which it is asked.
pub(crate) enum Guard {
    Forward(Forward),
    /// User and the hash of the password.
    Basic(Vec<(String, Hash)>),
    Token(Vec<Hash>),
}

/// What became of a request at the door.
pub(crate) enum Verdict {
    /// Let through, with what the instance is told of the user, and what the client gets with its answer.
    Pass(Told),
    /// The client's answer.
    Answer(Box<Response<Bytes>>),
    Refused(Fault),
}

/// What an `auth` server said with its yes.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) request: Vec<(HeaderName, HeaderValue)>,
    pub(crate) cookies: Vec<HeaderValue>,
}

/// What is asked about.
pub(crate) struct Knock<'r> {
    pub(crate) method: &'r Method,
    pub(crate) uri: &'r Uri,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) host: Option<&'r HeaderValue>,
    pub(crate) client: IpAddr,
    pub(crate) trust_forwarded: bool,
}

impl Guard {
    /// A hash that cannot be read lets nobody in: configuration refuses it.
    pub(crate) fn new(auth: &Auth) -> Self {
        match auth {
            Auth::Forward { url } => Guard::Forward(Forward::new(url)),
            Auth::Basic { users } => {
                let user =
                    |(name, hash): (&String, &String)| Some((name.clone(), Hash::from_hex(hash).ok()?));
                Guard::Basic(users.iter().filter_map(user).collect())
            }
            Auth::Token { hashes } => {
                Guard::Token(hashes.iter().filter_map(|hash| Hash::from_hex(hash).ok()).collect())
            }
        }
    }

    pub(crate) async fn check(&self, limits: &RouterLimits, knock: &Knock<'_>) -> Verdict {
        let given = knock.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match self {
            Guard::Forward(forward) => {
                match tokio::time::timeout(ANSWER_MAX, forward.ask(limits, knock)).await {
                    Ok(verdict) => verdict,
                    Err(_) => Verdict::Refused(forward.fault(&SendError::ResponseTimeout)),
                }
            }
            Guard::Basic(users) => match given.is_some_and(|given| knows(users, given)) {
                true => Verdict::Pass(Told::default()),
                false => unauthorised("Basic realm=\"forerun\", charset=\"UTF-8\""),
            },
            Guard::Token(hashes) => match given.is_some_and(|given| opens(hashes, given)) {
                true => Verdict::Pass(Told::default()),
                false => unauthorised("Bearer realm=\"forerun\""),
            },
        }
    }

    /// Takes off what a client says of itself that only this guard may say.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if !matches!(self, Guard::Forward(_)) {
            return;
        }
        let claimed: Vec<HeaderName> = headers.keys().filter(|name| is_identity(name)).cloned().collect();
        for name in claimed {
            headers.remove(name);
        }
    }
}

fn is_identity(name: &HeaderName) -> bool {
    IDENTITY.iter().any(|start| name.as_str().starts_with(start))
}

/// Every user is compared, and in constant time, so that an answer's delay tells neither name nor password.
fn knows(users: &[(String, Hash)], given: &str) -> bool {
    let Some(decoded) = scheme(given, "basic").and_then(decode_base64) else { return false };
    let Some(colon) = decoded.iter().position(|byte| *byte == b':') else { return false };
    let (name, password) = (blake3::hash(&decoded[..colon]), blake3::hash(&decoded[colon + 1..]));
    users.iter().fold(false, |found, (user, hash)| {
        // `Hash` compares in constant time.
        found | ((blake3::hash(user.as_bytes()) == name) & (*hash == password))
    })
}

fn opens(hashes: &[Hash], given: &str) -> bool {
    let Some(token) = scheme(given, "bearer") else { return false };
    let token = blake3::hash(token.as_bytes());
    hashes.iter().fold(false, |found, hash| found | (*hash == token))
}

/// The credentials, if they are of this scheme.
fn scheme<'h>(given: &'h str, name: &str) -> Option<&'h str> {
    let (scheme, rest) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
}

/// RFC 4648 with or without padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let bytes = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    }
    Some(out)
}

fn unauthorised(challenge: &'static str) -> Verdict {
    let mut response = Response::new(Bytes::from_static(b"this service wants to know who you are\n"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Verdict::Answer(Box::new(response))
}

/// A server that says who may come in.
pub(crate) struct Forward {
    url: String,
    /// Host, port and the target of the question; nothing if the URL makes no sense.
    target: Option<Target>,
    pool: Mutex<Option<(Arc<Pool>, Instant)>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    authority: HeaderValue,
    uri: Uri,
}

/// A URL that `auth` cannot ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardUrlError {
    #[error("is no url; write it as \"http://127.0.0.1:9091/verify\"")]
    NoUrl,
    #[error(
        "begins with https://, which forerun does not speak to an auth server; use http:// on a network of your own"
    )]
    Https,
}

/// Whether a URL can be asked by `auth = forward`.
///
/// # Errors
/// [`ForwardUrlError`]: it is no `http://` URL.
pub fn check_forward_url(url: &str) -> Result<(), ForwardUrlError> {
    Target::parse(url).map(drop)
}

impl Target {
    fn parse(url: &str) -> Result<Self, ForwardUrlError> {
        let uri: Uri = url.parse().map_err(|_| ForwardUrlError::NoUrl)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(ForwardUrlError::Https),
            _ => return Err(ForwardUrlError::NoUrl),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(ForwardUrlError::NoUrl)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let authority = HeaderValue::from_str(authority).map_err(|_| ForwardUrlError::NoUrl)?;
        let port = uri.port_u16().unwrap_or(80);
        let uri = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |target| target.clone().into());
        Ok(Self { host, port, authority, uri })
    }
}

impl Forward {
    fn new(url: &str) -> Self {
        Self { url: url.to_owned(), target: Target::parse(url).ok(), pool: Mutex::default() }
    }

    fn kept(&self) -> Option<Arc<Pool>> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.as_ref().filter(|(_, since)| since.elapsed() < ADDRESS_KEPT).map(|(pool, _)| Arc::clone(pool))
    }

    fn keep(&self, pool: Option<Arc<Pool>>) {
        let old = std::mem::replace(
            &mut *self.pool.lock().unwrap_or_else(PoisonError::into_inner),
            pool.map(|pool| (pool, Instant::now())),
        );
        drop(old);
    }

    /// Connections to where the name leads now.
    async fn pool(&self, target: &Target) -> Result<Arc<Pool>, SendError> {
        if let Some(pool) = self.kept() {
            return Ok(pool);
        }
        let mut found =
            tokio::net::lookup_host((target.host.as_str(), target.port)).await.map_err(SendError::Connect)?;
        let address = found.next().ok_or_else(|| {
            SendError::Connect(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
        })?;
        let pool = Arc::new(Pool::new(address));
        self.keep(Some(Arc::clone(&pool)));
        Ok(pool)
    }

    async fn ask(&self, limits: &RouterLimits, knock: &Knock<'_>) -> Verdict {
        let Some(target) = &self.target else {
            return Verdict::Refused(
                self.fault(&SendError::Connect(std::io::ErrorKind::InvalidInput.into())),
            );
        };
        let sent = match self.pool(target).await {
            Ok(pool) => {
                let again = || Some(question(target, limits, knock));
                upstream::send(&pool, limits, question(target, limits, knock), &again, &|| 0).await
            }
            Err(error) => return Verdict::Refused(self.fault(&error)),
        };
        let (answer, lease) = match sent {
            Ok(answered) => answered,
            Err(failed) => {
                self.keep(None);
                return Verdict::Refused(self.fault(&failed.error));
            }
        };
        let (mut parts, mut body) = answer.into_parts();
        let Some(text) = collect(&mut body).await else {
            return Verdict::Refused(self.fault(&SendError::ResponseTimeout));
        };
        lease.give_back();
        if parts.status.is_success() {
            let identity = |(name, value): (&HeaderName, &HeaderValue)| {
                is_identity(name).then(|| (name.clone(), value.clone()))
            };
            return Verdict::Pass(Told {
                request: parts.headers.iter().filter_map(identity).collect(),
                cookies: parts.headers.get_all(SET_COOKIE).into_iter().cloned().collect(),
            });
        }
        headers::strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(CONTENT_LENGTH);
        parts.extensions.clear();
        // What is no answer for a client of another request: a switch of protocols, or not modified.
        if parts.status.is_informational() {
            parts.status = StatusCode::BAD_GATEWAY;
        }
        Verdict::Answer(Box::new(Response::from_parts(parts, text)))
    }

    fn fault(&self, error: &SendError) -> Fault {
        let (status, what) = match error {
            SendError::Connect(error) => (StatusCode::BAD_GATEWAY, format!("cannot be reached: {error}")),
            SendError::Closed(error) => (StatusCode::BAD_GATEWAY, format!("gave no answer: {error}")),
            SendError::ConnectTimeout | SendError::ResponseTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "did not answer in time".to_owned())
            }
        };
        tracing::warn!(url = %self.url, "the auth server {what}");
        // Not its address: that is nobody's business who has not been let in.
        Fault::upstream(status, "auth-server", "the server that says who may come in does not answer")
    }
}

/// The request's head as a GET for the auth server.
fn question(target: &Target, limits: &RouterLimits, knock: &Knock<'_>) -> Request<RequestBody> {
    let mut asked = knock.headers.clone();
    headers::for_instance(&mut asked, knock.client, knock.host, knock.trust_forwarded);
    let claimed: Vec<HeaderName> = asked.keys().filter(|name| is_identity(name)).cloned().collect();
    for name in claimed {
        asked.remove(name);
    }
    // Conditions and ranges are of what the service would answer.
    for name in [
        CONTENT_LENGTH,
        CONTENT_TYPE,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
    ] {
        asked.remove(name);
    }
    asked.insert(HOST, target.authority.clone());
    let uri = knock.uri.path_and_query().map_or("/", |target| target.as_str());
    let host = knock.host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let proto = asked.get("x-forwarded-proto").and_then(|proto| proto.to_str().ok()).unwrap_or("http");
    let original = HeaderValue::from_str(&format!("{proto}://{host}{uri}"));
    let method = HeaderValue::from_str(knock.method.as_str());
    for (name, value) in
        [(FORWARDED_METHOD, method), (FORWARDED_URI, HeaderValue::from_str(uri)), (ORIGINAL_URL, original)]
    {
        if let Ok(value) = value {
            asked.insert(name, value);
        }
    }
    let body = RequestBody::new(None, Arc::new(Progress::default()), limits.stall_timeout);
    let mut request = Request::new(body);
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = asked;
    request
}

/// The whole body, or nothing if it breaks off or is too long.
async fn collect(body: &mut Incoming) -> Option<Bytes> {
    let mut text = BytesMut::new();
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Some(text.freeze()),
            Some(Err(_)) => return None,
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if text.len() + data.len() > ANSWER_BYTES_MAX {
                    return None;
                }
                text.extend_from_slice(&data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYmE", Some(b"fooba")),
            ("+/+/", Some(b"\xfb\xff\xbf")),
            ("Z", None),
            ("Zm9v!", None),
            ("Zm 9", None),
        ] {
            assert_eq!(decode_base64(text).as_deref(), bytes, "{text}");
        }
    }

    fn hex(text: &str) -> String {
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    #[test]
    fn only_who_is_known_comes_in() {
        let users = BTreeMap::from([
            ("anna".to_owned(), hex("se:cret")),
            ("bob".to_owned(), hex("x")),
            ("broken".to_owned(), "no hash".to_owned()),
        ]);
        let basic = Guard::new(&Auth::Basic { users });
        let token = Guard::new(&Auth::Token { hashes: vec![hex("t0ken"), "no hash".to_owned()] });
        let (Guard::Basic(users), Guard::Token(hashes)) = (&basic, &token) else { panic!("another guard") };
        // anna:se:cret, bob:x, anna:x, eve:x, annase:cret without a colon in place, broken:no hash
        for (given, by_basic, by_token) in [
            ("Basic YW5uYTpzZTpjcmV0", true, false),
            ("basic YW5uYTpzZTpjcmV0", true, false),
            ("Basic Ym9iOng=", true, false),
            ("Basic YW5uYTp4", false, false),
            ("Basic ZXZlOng=", false, false),
            ("Basic YW5uYQ==", false, false),
            ("Basic YnJva2VuOm5vIGhhc2g=", false, false),
            ("Basic", false, false),
            ("Bearer t0ken", false, true),
            ("bearer  t0ken", false, true),
            ("Bearer t0kem", false, false),
            ("Bearer no hash", false, false),
            ("", false, false),
        ] {
            assert_eq!((knows(users, given), opens(hashes, given)), (by_basic, by_token), "{given}");
        }
    }

    #[test]
    fn urls_are_checked() {
        for (url, expect) in [
            ("http://auth:9091/api/verify?rd=x", Ok(())),
            ("http://[::1]:80", Ok(())),
            ("https://auth/verify", Err(ForwardUrlError::Https)),
            ("auth:9091", Err(ForwardUrlError::NoUrl)),
            ("/verify", Err(ForwardUrlError::NoUrl)),
            ("ftp://auth/", Err(ForwardUrlError::NoUrl)),
            ("http://", Err(ForwardUrlError::NoUrl)),
        ] {
            assert_eq!(check_forward_url(url), expect, "{url}");
        }
        let target = Target::parse("http://[::1]:8080/a?b").expect("a target");
        assert_eq!(
            (target.host.as_str(), target.port, target.uri.to_string().as_str()),
            ("::1", 8080, "/a?b")
        );
    }

    #[test]
    fn a_client_cannot_name_itself() {
        let forward = Guard::new(&Auth::Forward { url: "http://a/".to_owned() });
        let mut headers = HeaderMap::new();
        for name in ["remote-user", "x-auth-request-email", "x-authentik-uid", "x-forwarded-user", "cookie"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("me"));
        }
        let mut kept = headers.clone();
        forward.strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["cookie"]);
        Guard::new(&Auth::Token { hashes: Vec::new() }).strip(&mut kept);
        assert_eq!(kept.len(), 5);
    }
}
