//! Headers that end at a proxy, and those that it adds.

use hyper::header::{
    ACCEPT, AsHeaderName, CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, Version};
use std::net::IpAddr;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What `Connection` may not take away: by naming it a client could hide who it is or break the framing.
const KEPT: [HeaderName; 6] =
    [HOST, CONTENT_LENGTH, FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO];

/// Takes out what is meant for this connection only, whatever `Connection` names included. `Transfer-Encoding` is
/// made anew from the body; `Trailer` stays, for the trailers are passed on.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers, &CONNECTION).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().filter(|name| !KEPT.contains(name)) {
        headers.remove(name);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// The comma-separated words of all headers of a name.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// A header's text; empty when there is none, or none that can be read.
pub(crate) fn text(headers: &HeaderMap, name: impl AsHeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether a browser goes to a page: it says so itself, or else it asks for HTML by name.
pub(crate) fn is_navigation(headers: &HeaderMap) -> bool {
    let mode = text(headers, "sec-fetch-mode");
    (mode.is_empty() || mode == "navigate") && text(headers, ACCEPT).contains("text/html")
}

/// What a browser says of a request that it makes ahead of need.
pub(crate) fn purpose(headers: &HeaderMap) -> &str {
    let names = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
    names.iter().map(|name| text(headers, *name)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// Whether another proxy has had a request before.
pub(crate) fn was_forwarded(headers: &HeaderMap) -> bool {
    let names = ["x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via"];
    names.iter().any(|name| headers.contains_key(*name))
}

/// Whether a body comes in a coding that a proxy would have to take off: anything but plain `chunked`.
pub(crate) fn has_strange_coding(headers: &HeaderMap) -> bool {
    tokens(headers, &TRANSFER_ENCODING).any(|coding| !coding.eq_ignore_ascii_case("chunked"))
}

/// Whether a request asks to become a WebSocket, the one upgrade that is passed on.
pub(crate) fn wants_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && tokens(headers, &UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
        && tokens(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// Says on a message whose hop-by-hop headers are stripped that this connection becomes a WebSocket.
pub(crate) fn mark_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Makes a client's request headers those that an instance gets. `host` is what the client asked for.
pub(crate) fn for_instance(headers: &mut HeaderMap, client: IpAddr, host: Option<&HeaderValue>, trust: bool) {
    let trailers = tokens(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    strip_hop_by_hop(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // hyper answers it as soon as the body is asked for.
    headers.remove(EXPECT);
    let client = client.to_canonical();
    append(headers, &FORWARDED_FOR, &client.to_string());
    if headers.contains_key(FORWARDED) {
        // Left alone, its last element would seem to speak of this connection.
        let element = match client {
            IpAddr::V4(ip) => format!("for={ip};proto=http"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto=http"),
        };
        append(headers, &FORWARDED, &element);
    }
    if !(trust && headers.contains_key(FORWARDED_PROTO)) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !(trust && headers.contains_key(FORWARDED_HOST)) {
        headers.remove(FORWARDED_HOST);
        if let Some(host) = host {
            headers.insert(FORWARDED_HOST, host.clone());
        }
    }
}

fn append(headers: &mut HeaderMap, name: &HeaderName, element: &str) {
    let mut list = Vec::new();
    for value in headers.get_all(name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(name, value);
    }
}

/// Whose request it is: who connected, or whom a trusted proxy names.
pub(crate) fn client_address(headers: &HeaderMap, connected: IpAddr, trust: bool) -> IpAddr {
    let named = || tokens(headers, &FORWARDED_FOR).last()?.parse().ok();
    if trust { named().unwrap_or(connected) } else { connected }
}

/// Roughly the bytes that a request's head takes up.
pub(crate) fn head_bytes<B>(request: &Request<B>) -> u64 {
    let line = request.uri().path_and_query().map_or(1, |p| p.as_str().len()) + 20;
    let fields: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (line + fields) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    fn texts(headers: &HeaderMap) -> Vec<String> {
        let mut texts: Vec<_> =
            headers.iter().map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v.as_bytes()))).collect();
        texts.sort();
        texts
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        for (given, left) in [
            (&[("connection", "close, X-Own"), ("x-own", "1"), ("x-end", "2")][..], &["x-end: 2"][..]),
            (&[("connection", "x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "2")], &[]),
            (
                &[("connection", "host, content-length"), ("host", "a"), ("content-length", "1")],
                &["content-length: 1", "host: a"],
            ),
            (&[("keep-alive", "5"), ("proxy-connection", "x"), ("te", "trailers"), ("upgrade", "h2c")], &[]),
            (
                &[("transfer-encoding", "chunked"), ("content-length", "3"), ("trailer", "x-sum")],
                &["trailer: x-sum"],
            ),
            (&[("proxy-authorization", "x"), ("authorization", "y")], &["authorization: y"]),
            (&[("connection", "bad name, (,"), ("a", "b")], &["a: b"]),
        ] {
            let mut headers = map(given);
            strip_hop_by_hop(&mut headers);
            assert_eq!(texts(&headers), left, "{given:?}");
        }
    }

    #[test]
    fn the_instance_learns_who_asked_for_what() {
        let host = HeaderValue::from_static("shop");
        for (given, trust, expect) in [
            (
                &[][..],
                false,
                &["x-forwarded-for: 10.0.0.9", "x-forwarded-host: shop", "x-forwarded-proto: http"][..],
            ),
            (
                &[
                    ("x-forwarded-for", "1.1.1.1"),
                    ("x-forwarded-for", "2.2.2.2"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "evil"),
                    ("forwarded", "for=1.1.1.1"),
                ],
                false,
                &[
                    "forwarded: for=1.1.1.1, for=10.0.0.9;proto=http",
                    "x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.9",
                    "x-forwarded-host: shop",
                    "x-forwarded-proto: http",
                ],
            ),
            (
                &[("x-forwarded-proto", "https"), ("x-forwarded-host", "front")],
                true,
                &["x-forwarded-for: 10.0.0.9", "x-forwarded-host: front", "x-forwarded-proto: https"],
            ),
            (
                &[("te", "trailers"), ("connection", "te, x-forwarded-for"), ("expect", "100-continue")],
                false,
                &[
                    "connection: te",
                    "te: trailers",
                    "x-forwarded-for: 10.0.0.9",
                    "x-forwarded-host: shop",
                    "x-forwarded-proto: http",
                ],
            ),
        ] {
            let mut headers = map(given);
            for_instance(&mut headers, [10, 0, 0, 9].into(), Some(&host), trust);
            assert_eq!(texts(&headers), expect, "{given:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let connected: IpAddr = [10, 0, 0, 1].into();
        let headers = map(&[("x-forwarded-for", "6.6.6.6, 7.7.7.7")]);
        assert_eq!(client_address(&headers, connected, false), connected);
        assert_eq!(client_address(&headers, connected, true), IpAddr::from([7, 7, 7, 7]));
        assert_eq!(client_address(&map(&[("x-forwarded-for", "junk")]), connected, true), connected);
    }
}
