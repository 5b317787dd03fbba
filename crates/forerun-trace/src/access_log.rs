//! Access logs of Apache and nginx, common and combined, with or without the virtual host in front.

use crate::record::Record;
use crate::time::{log_date, quoted};

/// What names the service of a logged request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceRule {
    /// The first so many segments of the path.
    Path(usize),
    /// The virtual host in front of the line.
    Host,
    /// All requests are for this one.
    Fixed(String),
}

impl Default for ServiceRule {
    fn default() -> Self {
        Self::Path(1)
    }
}

impl ServiceRule {
    /// From `path:N`, `path`, `host` or a name.
    ///
    /// # Errors
    /// When N is no number from 1 to 32.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("path", n)) => match n.parse() {
                Ok(n @ 1..=32) => Ok(Self::Path(n)),
                _ => Err(format!("{text:?}: path:N needs N from 1 to 32")),
            },
            None if text == "path" => Ok(Self::Path(1)),
            None if text == "host" => Ok(Self::Host),
            _ => Ok(Self::Fixed(text.to_owned())),
        }
    }
}

/// Who is behind a logged request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserFrom {
    #[default]
    Address,
    /// The name that the client logged in with.
    Login,
    Nobody,
}

impl UserFrom {
    /// From `address`, `login` or `none`.
    ///
    /// # Errors
    /// When the text is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "address" => Ok(Self::Address),
            "login" => Ok(Self::Login),
            "none" => Ok(Self::Nobody),
            _ => Err(format!("{text:?} is unknown: write address, login or none")),
        }
    }
}

#[derive(Debug)]
pub(crate) struct AccessLogParser {
    service_rule: ServiceRule,
    user_from: UserFrom,
    service: Vec<u8>,
    action: Vec<u8>,
}

impl AccessLogParser {
    pub(crate) fn new(service_rule: ServiceRule, user_from: UserFrom) -> Self {
        Self { service_rule, user_from, service: Vec::new(), action: Vec::new() }
    }

    pub(crate) fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<Record<'a>, String> {
        let parts = Parts::cut(line)?;
        let at_us = log_date(parts.date).ok_or_else(|| format!("{} is no date", quoted(parts.date)))?;
        let path = parts.target.split(|&b| b == b'?').next().unwrap_or(parts.target);
        let service = match &self.service_rule {
            ServiceRule::Path(segments) => {
                first_segments(path, *segments, &mut self.service);
                &self.service[..]
            }
            ServiceRule::Host => parts.host.ok_or("there is no virtual host in front of the address")?,
            ServiceRule::Fixed(name) => name.as_bytes(),
        };
        action_of(parts.method, path, &mut self.action);
        let user = match self.user_from {
            UserFrom::Address => parts.address,
            UserFrom::Login if parts.login == b"-" => b"",
            UserFrom::Login => parts.login,
            UserFrom::Nobody => b"",
        };
        Ok(Record {
            at_us,
            service,
            user,
            action: &self.action,
            network_bytes: parts.bytes,
            status: parts.status,
            ..Record::default()
        })
    }
}

/// What a cache may have been asked for: a GET that was answered whole, or by what the client had already.
pub(crate) struct Fetch<'a> {
    pub(crate) at_us: i64,
    pub(crate) address: &'a [u8],
    pub(crate) host: Option<&'a [u8]>,
    /// Path and query.
    pub(crate) target: &'a [u8],
    /// 0 where the line does not tell.
    pub(crate) bytes: u64,
}

/// `None` for other methods and answers.
pub(crate) fn fetch(line: &[u8]) -> Result<Option<Fetch<'_>>, String> {
    let parts = Parts::cut(line)?;
    let at_us = log_date(parts.date).ok_or_else(|| format!("{} is no date", quoted(parts.date)))?;
    let Parts { host, address, target, bytes, .. } = parts;
    let cacheable = parts.method == b"GET" && matches!(parts.status, 200 | 304);
    Ok(cacheable.then_some(Fetch { at_us, address, host, target, bytes: bytes.unwrap_or(0) }))
}

/// The pieces of a line, uninterpreted but for the numbers.
struct Parts<'a> {
    host: Option<&'a [u8]>,
    address: &'a [u8],
    login: &'a [u8],
    date: &'a [u8],
    method: &'a [u8],
    target: &'a [u8],
    status: u16,
    bytes: Option<u64>,
}

impl<'a> Parts<'a> {
    fn cut(line: &'a [u8]) -> Result<Self, String> {
        let open = memchr::memmem::find(line, b" [").ok_or("no date in [...]")?;
        let date = &line[open + 2..];
        let close = memchr::memchr(b']', date).ok_or("the date's [ is never closed")?;
        let (date, rest) = (&date[..close], &date[close + 1..]);
        let (host, address, login) = who(&line[..open])?;
        let request =
            rest.trim_ascii_start().strip_prefix(b"\"").ok_or("no request in quotes after the date")?;
        let end = closing_quote(request).ok_or("the request's quote is never closed")?;
        let (request, rest) = (&request[..end], &request[end + 1..]);
        let mut words = request.split(|&b| b == b' ').filter(|w| !w.is_empty());
        let method = words.next().unwrap_or(b"");
        let target = words.next().ok_or_else(|| format!("{} is no request", quoted(request)))?;
        if !method.iter().all(u8::is_ascii_uppercase) {
            return Err(format!("{} is no method", quoted(method)));
        }
        let mut words = rest.split(|&b| b == b' ').filter(|w| !w.is_empty());
        let number =
            |word: Option<&[u8]>| word.and_then(|w| std::str::from_utf8(w).ok()?.parse::<u64>().ok());
        let status = number(words.next()).and_then(|s| u16::try_from(s).ok()).unwrap_or(0);
        let bytes = number(words.next());
        Ok(Self { host, address, login, date, method, target, status, bytes })
    }
}

/// Virtual host, address and login.
type Who<'a> = (Option<&'a [u8]>, &'a [u8], &'a [u8]);

/// `address ident login` or `host address ident login`: the ident is `-` everywhere but in museums, so where it
/// stands tells which.
fn who(head: &[u8]) -> Result<Who<'_>, String> {
    let mut words = head.split(|&b| b == b' ').filter(|w| !w.is_empty());
    let [first, second] = [words.next(), words.next()].map(|w| w.unwrap_or(b""));
    let (third, fourth) = (words.next(), words.next());
    let Some(third) = third else { return Err("fewer than three words before the date".to_owned()) };
    match fourth {
        Some(login) if second != b"-" && third == b"-" => Ok((Some(first), second, login)),
        _ => Ok((None, first, third)),
    }
}

/// Web servers write a quote inside the request as `\"`.
fn closing_quote(text: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'"', text).find(|&at| {
        let slashes = text[..at].iter().rev().take_while(|&&b| b == b'\\').count();
        slashes % 2 == 0
    })
}

fn first_segments(path: &[u8], segments: usize, out: &mut Vec<u8>) {
    out.clear();
    let start = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|&b| b != b'/').map_or(start, |at| at + 1);
    out.push(b'/');
    for (n, segment) in path[start..end].split(|&b| b == b'/').take(segments).enumerate() {
        if n > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(segment);
    }
}

/// Longer texts are names of things, not of actions.
const SEGMENT_BYTES_MAX: usize = 40;
const ACTION_BYTES_MAX: usize = 256;

/// `GET /orders/{id}`: segments that look like a key are replaced.
fn action_of(method: &[u8], path: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(method);
    out.push(b' ');
    for (n, segment) in path.split(|&b| b == b'/').enumerate() {
        if n > 0 {
            out.push(b'/');
        }
        if is_key(segment) {
            out.extend_from_slice(b"{id}")
        } else {
            out.extend_from_slice(segment)
        }
        if out.len() > ACTION_BYTES_MAX {
            out.truncate(ACTION_BYTES_MAX);
            return;
        }
    }
}

/// A number, a long hexadecimal, a UUID, or something too long to have been typed.
fn is_key(segment: &[u8]) -> bool {
    const HEX_MIN: usize = 8;
    let digits = segment.iter().filter(|b| b.is_ascii_digit()).count();
    let hex = segment.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-');
    segment.len() > SEGMENT_BYTES_MAX
        || (digits > 0 && digits == segment.len())
        || (hex && digits > 0 && segment.len() >= HEX_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rule: &str, user: &str, line: &str) -> Result<String, String> {
        let mut parser = AccessLogParser::new(ServiceRule::parse(rule)?, UserFrom::parse(user)?);
        let r = parser.parse(line.as_bytes())?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Ok(format!("{}|{}|{}|{}", text(r.service), text(r.user), text(r.action), r.status))
    }

    #[test]
    fn lines_of_real_servers() {
        let check = |rule, user, line: &str, expect: &str| {
            let line = line.replace("DATE", "[17/May/2015:10:05:03 +0000]");
            assert_eq!(parse(rule, user, &line).as_deref(), Ok(expect), "{line}");
        };
        let common = r#"10.0.0.9 - ann DATE "GET /blog/tags/puppet?flav=rss20 HTTP/1.1" 200 14872"#;
        check("path", "address", common, "/blog|10.0.0.9|GET /blog/tags/puppet|200");
        check("path:2", "login", common, "/blog/tags|ann|GET /blog/tags/puppet|200");
        check("path:9", "none", common, "/blog/tags/puppet||GET /blog/tags/puppet|200");
        check("web", "address", common, "web|10.0.0.9|GET /blog/tags/puppet|200");
        let combined = r#"::1 - - DATE "GET / HTTP/1.1" 304 - "http://a/\"x" "curl [7]""#;
        check("path", "login", combined, "/||GET /|304");
        let vhost =
            r#"shop.example:443 10.0.0.9 - - DATE "POST //cart/17/7c9e6679-7425-40de HTTP/2.0" 201 5"#;
        check("host", "address", vhost, "shop.example:443|10.0.0.9|POST //cart/{id}/{id}|201");
        check("path", "address", vhost, "/cart|10.0.0.9|POST //cart/{id}/{id}|201");
        check("path", "login", r#"a - john doe DATE "GET /x" 200 1"#, "/x|john|GET /x|200");
        check("path", "address", r#"a - - DATE "GET /q\"x HTTP/1.0" 200 1"#, r#"/q\"x|a|GET /q\"x|200"#);
    }

    #[test]
    fn lines_that_are_none() {
        let check = |line: &str, expect: &str| {
            let error = parse("path", "address", line).unwrap_err();
            assert!(error.contains(expect), "{error:?} does not say {expect:?}");
        };
        check("", "no date");
        check("a - - [now", "never closed");
        check("a - - [now]", "no request in quotes");
        check(r#"a - - [now] "GET / HTTP/1.1" 200 1"#, "\"now\" is no date");
        check(r#"a - - [17/May/2015:10:05:03 +0000] "-" 408 0"#, "is no request");
        check(r#"a - - [17/May/2015:10:05:03 +0000] "\x16\x03 x" 400 0"#, "is no method");
        check(r#"a - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1 200 0"#, "never closed");
        check(r#"- [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 0"#, "fewer than three words");
        assert!(
            parse("host", "address", r#"a - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 0"#).is_err()
        );
        assert!(ServiceRule::parse("path:0").is_err());
        assert!(UserFrom::parse("cookie").is_err());
    }
}
