//! What is asked of a running instance beside its requests: whether it is busy, to become a key's, and to fetch its
//! data before it counts as ready. Shared by the backends.
//!
//! Everything here blocks, and is over by the deadline that it is given: call it on a thread that may wait.

mod http;
mod key;

pub use key::{KeyError, check_key, fill, fill_args, fill_files, fill_path};

use forerun_types::Readiness;
use http::{Answer, Ask};
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest that a question whether an instance is busy may take: an answer follows within a few seconds.
pub const BUSY_WITHIN: Duration = Duration::from_secs(5);
/// The longest that a running instance may take to become a key's.
pub const SPECIALISE_WITHIN: Duration = Duration::from_secs(60);
/// Of an answer in JSON; more cannot be looked into, and is no answer.
const JSON_BYTES_MAX: usize = 1 << 20;

/// Whether an instance is busy, and by what a person can see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyFound {
    pub busy: bool,
    pub why: String,
}

impl BusyFound {
    #[must_use]
    pub fn busy(why: impl Into<String>) -> Self {
        Self { busy: true, why: why.into() }
    }

    #[must_use]
    pub fn free(why: impl Into<String>) -> Self {
        Self { busy: false, why: why.into() }
    }
}

/// Asks by a GET of `path`. With a pointer (RFC 6901) it is busy when what stands there in the JSON is not null, false,
/// 0 or empty; a place that is not there is null. Without one it is busy unless the answer is 204 or 404. No answer
/// within the time, one that is no success, or one that is no JSON, is busy.
#[must_use]
pub fn busy_http(address: SocketAddr, path: &str, pointer: Option<&str>, within: Duration) -> BusyFound {
    let ask = Ask { method: "GET", path, key: None, keep_bytes_max: JSON_BYTES_MAX };
    let answer = match http::ask(address, &ask, Instant::now() + within) {
        Ok(answer) => answer,
        Err(error) => return BusyFound::busy(format!("no answer to GET {path}: {error}")),
    };
    let Some(pointer) = pointer else {
        let busy = !matches!(answer.status, 204 | 404);
        return BusyFound { busy, why: format!("GET {path} answered {}", answer.status) };
    };
    pointed(path, pointer, &answer)
}

fn pointed(path: &str, pointer: &str, answer: &Answer) -> BusyFound {
    if !answer.is_success() {
        return BusyFound::busy(format!("GET {path} answered {}", answer.status));
    }
    if answer.cut {
        return BusyFound::busy(format!("GET {path} answered more than {} KiB", JSON_BYTES_MAX >> 10));
    }
    let Ok(json) = serde_json::from_slice::<Value>(&answer.body) else {
        return BusyFound::busy(format!("GET {path} did not answer JSON"));
    };
    let value = json.pointer(pointer).unwrap_or(&Value::Null);
    let busy = match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    };
    // What stands there may be a person's: its kind is enough.
    let what = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("a text of {} bytes", text.len()),
        Value::Array(items) => format!("{} item(s)", items.len()),
        Value::Object(fields) => format!("{} field(s)", fields.len()),
    };
    BusyFound { busy, why: format!("GET {path} says {what} at `{pointer}`") }
}

/// What the end of a command says that was asked: exit code 0 is busy, and so is an end by a signal or none in time.
#[must_use]
pub fn busy_by_exit(code: Option<Option<i32>>) -> BusyFound {
    match code {
        Some(Some(0)) => BusyFound::busy("its busy command says so"),
        Some(Some(code)) => BusyFound::free(format!("its busy command ended with exit code {code}")),
        Some(None) => BusyFound::busy("its busy command was killed"),
        None => BusyFound::busy("its busy command was not over in time"),
    }
}

/// # Errors
/// A way to see readiness that cannot be, in a sentence.
pub fn check_ready(ready: &Readiness) -> Result<(), String> {
    match ready {
        Readiness::Http { path }
            if !path.starts_with('/') || path.contains(|c: char| c <= ' ' || c == '\u{7f}') =>
        {
            Err(format!("the ready path `{}` must start with / and hold no blanks", path.escape_debug()))
        }
        Readiness::Log { text } if text.is_empty() => Err("the ready text is empty".to_owned()),
        _ => Ok(()),
    }
}

/// Whether an instance is ready by what its address says. What is not asked there counts as ready, but for a line of
/// output, which is not seen here.
#[must_use]
pub fn is_ready(address: SocketAddr, ready: &Readiness, within: Duration) -> bool {
    match ready {
        Readiness::None => true,
        Readiness::Log { .. } => false,
        Readiness::Tcp | Readiness::Health => TcpStream::connect_timeout(&address, within).is_ok(),
        Readiness::Http { path } => {
            let ask = Ask { method: "GET", path, key: None, keep_bytes_max: 0 };
            http::ask(address, &ask, Instant::now() + within)
                .is_ok_and(|answer| (200..400).contains(&answer.status))
        }
    }
}

/// Makes a running instance `key`'s by a POST of `path`, in which `{key}` is replaced. The key is the body, and the
/// value of the header `Forerun-Key`.
///
/// # Errors
/// Why it is not the key's, without naming the key: it may be a person's name.
pub fn specialise_http(address: SocketAddr, path: &str, key: &str, within: Duration) -> Result<(), String> {
    check_key(key).map_err(|error| error.to_string())?;
    let filled = fill_path(path, key);
    let ask = Ask { method: "POST", path: &filled, key: Some(key), keep_bytes_max: 0 };
    match http::ask(address, &ask, Instant::now() + within) {
        Ok(answer) if answer.is_success() => Ok(()),
        Ok(answer) => Err(format!("POST {path} answered {}", answer.status)),
        Err(error) => Err(format!("no answer to POST {path}: {error}")),
    }
}

/// Requests each path of an instance once, one after the other, with `{key}` replaced, all within the time. What does
/// not answer 2xx is no reason against the instance, whose first request then finds the data less near: it is
/// returned, one sentence each, naming the path as it stands in the configuration.
#[must_use]
pub fn preload(address: SocketAddr, paths: &[String], key: &str, within: Duration) -> Vec<String> {
    let until = Instant::now() + within;
    let mut warnings = Vec::new();
    for path in paths {
        let filled = fill_path(path, key);
        let ask = Ask { method: "GET", path: &filled, key: Some(key), keep_bytes_max: 0 };
        match http::ask(address, &ask, until) {
            Ok(answer) if answer.is_success() => {}
            Ok(answer) => warnings.push(format!("preload {path} answered {}", answer.status)),
            Err(error) => warnings.push(format!("preload {path}: {error}")),
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread::{self, JoinHandle};

    /// Answers one connection with these bytes and tells what it was asked.
    fn server(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut piece = [0; 1024];
            // To the end of the head, and of the body if a length is named.
            loop {
                let text = String::from_utf8_lossy(&asked).into_owned();
                let length = |head: &str| {
                    let line = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                    line.map_or(0, |length| length.parse().unwrap())
                };
                if let Some((head, body)) = text.split_once("\r\n\r\n")
                    && body.len() >= length(head)
                {
                    break;
                }
                let len = stream.read(&mut piece).unwrap();
                asked.extend_from_slice(&piece[..len]);
            }
            let _ = stream.write_all(answer.as_bytes());
            String::from_utf8(asked).unwrap()
        });
        (address, server)
    }

    fn check_busy(pointer: Option<&str>, answer: &'static str, busy: bool, why: &str) {
        let (address, server) = server(answer);
        let found = busy_http(address, "/stat", pointer, Duration::from_secs(5));
        assert_eq!((found.busy, found.why.as_str()), (busy, why), "{answer}");
        let asked = server.join().unwrap();
        assert!(asked.starts_with("GET /stat HTTP/1.1\r\nHost: localhost:"), "{asked}");
    }

    #[test]
    fn busy_by_status() {
        check_busy(None, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, "GET /stat answered 200");
        check_busy(None, "HTTP/1.1 204 No Content\r\n\r\n", false, "GET /stat answered 204");
        check_busy(None, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", false, "GET /stat answered 404");
        check_busy(None, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", true, "GET /stat answered 500");
    }

    #[test]
    fn busy_by_pointer() {
        let answers = [
            ("{\"jobs\": 0}", "/jobs", false, "GET /stat says 0 at `/jobs`"),
            ("{\"jobs\": 0.5}", "/jobs", true, "GET /stat says 0.5 at `/jobs`"),
            ("{\"jobs\": [1, 2]}", "/jobs", true, "GET /stat says 2 item(s) at `/jobs`"),
            ("{\"jobs\": []}", "/jobs", false, "GET /stat says 0 item(s) at `/jobs`"),
            ("{\"a/b\": {\"c\": \"x y\"}}", "/a~1b/c", true, "GET /stat says a text of 3 bytes at `/a~1b/c`"),
            ("{\"a\": \"\"}", "/a", false, "GET /stat says a text of 0 bytes at `/a`"),
            ("{\"a\": true}", "/a", true, "GET /stat says true at `/a`"),
            ("{\"a\": false}", "/a", false, "GET /stat says false at `/a`"),
            ("{\"a\": null}", "/a", false, "GET /stat says nothing at `/a`"),
            ("{}", "/a", false, "GET /stat says nothing at `/a`"),
            ("[{}, {\"x\": {\"y\": 1}}]", "/1/x", true, "GET /stat says 1 field(s) at `/1/x`"),
            ("nonsense", "/a", true, "GET /stat did not answer JSON"),
            ("", "", true, "GET /stat did not answer JSON"),
        ];
        for (body, pointer, busy, why) in answers {
            let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            check_busy(Some(pointer), length.leak(), busy, why);
            let chunk = format!("{:x};x=y\r\n{body}\r\n", body.len());
            let chunk = if body.is_empty() { "" } else { &chunk };
            let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
            check_busy(Some(pointer), chunked.leak(), busy, why);
            check_busy(Some(pointer), format!("HTTP/1.0 200 OK\r\n\r\n{body}").leak(), busy, why);
        }
        let refused = "HTTP/1.1 503 Oh\r\nContent-Length: 2\r\n\r\n{}";
        check_busy(Some("/a"), refused, true, "GET /stat answered 503");
        let long = format!("HTTP/1.1 200 OK\r\n\r\n[{}]", " ".repeat(JSON_BYTES_MAX));
        check_busy(Some("/a"), long.leak(), true, "GET /stat answered more than 1024 KiB");
    }

    #[test]
    fn no_answer_is_busy_and_comes_in_time() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let began = Instant::now();
        let found = busy_http(address, "/stat", None, Duration::from_millis(200));
        assert!(found.busy && found.why.contains("no answer to GET /stat: "), "{found:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        drop(listener);
        assert!(busy_http(address, "/stat", None, Duration::from_secs(1)).busy);
        // One that never ends its head, a byte at a time.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"H").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let began = Instant::now();
        assert!(busy_http(address, "/stat", None, Duration::from_millis(300)).busy);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        server.join().unwrap();
    }

    #[test]
    fn a_key_is_told_in_header_and_body() {
        let (address, asked) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        specialise_http(address, "/become/{key}?x", "a b/ü", Duration::from_secs(5)).unwrap();
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("POST /become/a%20b%2F%C3%BC?x HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nForerun-Key: a b/ü\r\n") && asked.ends_with("\r\n\r\na b/ü"), "{asked}");
        let (address, _asked) = server("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n");
        let refused = specialise_http(address, "/become", "secret", Duration::from_secs(5)).unwrap_err();
        assert_eq!(refused, "POST /become answered 409");
        let split = specialise_http(address, "/become", "a\r\nX: y", Duration::from_secs(5)).unwrap_err();
        assert!(split.contains("control character"), "{split}");
    }

    #[test]
    fn a_preload_that_fails_is_told_without_its_key() {
        let (address, asked) = server("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
        let paths = ["/warm/{key}".to_owned(), "/more".to_owned()];
        let warnings = preload(address, &paths, "jo", Duration::from_secs(5));
        assert!(asked.join().unwrap().starts_with("GET /warm/jo HTTP/1.1\r\n"));
        assert_eq!(warnings[0], "preload /warm/{key} answered 404");
        assert!(warnings[1].starts_with("preload /more: ") && warnings.len() == 2, "{warnings:?}");
    }
}
