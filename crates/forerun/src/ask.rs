//! Asks a running Forerun's API.

use crate::cli::ApiAddress;
use crate::config::{Config, FILE, lower_first};
use crate::failure::Failure;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// The API answers from memory; longer than this it does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Ten thousand services take some 5 MB.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A running Forerun, by its API's address.
#[derive(Clone)]
pub(crate) struct Asked {
    address: SocketAddr,
    /// What opens it; never shown.
    token: Option<String>,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The API's own words, as a problem document's `detail`.
    Refused(String),
    Failed(Failure),
}

impl From<NoAnswer> for Failure {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Refused(detail) => Failure::Running(detail),
            NoAnswer::Failed(failure) => failure,
        }
    }
}

impl Asked {
    /// Where to ask: what was said, what the configuration says, the default.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub(crate) fn of(args: &ApiAddress) -> Result<Self, Failure> {
        let token = args.token()?;
        if let Some(address) = args.api {
            return Ok(Self { token, ..Self::at(address) });
        }
        let path = match &args.file.config {
            Some(path) => path,
            None if Path::new(FILE).is_file() => Path::new(FILE),
            None => return Ok(Self { token, ..Self::at(SocketAddr::from(([127, 0, 0, 1], 7070))) }),
        };
        Ok(Self { token, ..Self::at(Config::load(path)?.api.listen) })
    }

    /// Without a token. Whoever listens on all addresses is asked on this machine's own.
    pub(crate) fn at(mut address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Self { address, token: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The body of a successful answer.
    ///
    /// # Errors
    /// Nobody answers, or not with success.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>, NoAnswer> {
        self.send("GET", path, "", TIMEOUT)
    }

    /// The same for an order with a body of JSON.
    ///
    /// # Errors
    /// As [`Asked::get`].
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<Vec<u8>, NoAnswer> {
        self.send("POST", path, body, TIMEOUT)
    }

    fn send(&self, method: &str, path: &str, sent: &str, timeout: Duration) -> Result<Vec<u8>, NoAnswer> {
        let address = self.address;
        let failed = |error: std::io::Error| {
            NoAnswer::Failed(Failure::Running(match error.kind() {
                ErrorKind::ConnectionRefused => {
                    format!("nothing listens on {address}; is `forerun up` running?")
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    format!("{address} does not answer within {}s; is it forerun's api?", timeout.as_secs())
                }
                _ => format!("cannot ask {address}: {}", lower_first(&error.to_string())),
            }))
        };
        let mut stream = TcpStream::connect_timeout(&address, timeout).map_err(failed)?;
        stream.set_read_timeout(Some(timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(timeout)).map_err(failed)?;
        // With HTTP/1.0 the answer comes in one piece and ends with the connection.
        let length = match sent.len() {
            0 if method == "GET" => String::new(),
            length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
        };
        let token = match &self.token {
            Some(token) => format!("Authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n{token}{length}\r\n{sent}"
        );
        stream.write_all(head.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(failed)?;
        let odd = |what: String| {
            NoAnswer::Failed(Failure::Running(format!("{address} {what}; is it forerun's api?")))
        };
        match body(&answer).map_err(odd)? {
            (200, body) => Ok(body),
            (status, body) => Err(match detail(&body) {
                Some(detail) => NoAnswer::Refused(detail),
                None => odd(format!("answers with status {status}")),
            }),
        }
    }
}

/// Status and body.
fn body(answer: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("does not speak http")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let first = head.lines().next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    Ok((status.ok_or("does not speak http")?, answer[end + 4..].to_vec()))
}

fn detail(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    // A problem document of the API's, or the router's own words.
    Some(document.get("detail").or_else(|| document.get("error"))?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        for (answer, expect) in [
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok((200, "{}"))),
            ("HTTP/1.1 200 OK\r\n\r\n", Ok((200, ""))),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\nx", Ok((503, "x"))),
            ("HTTP/1.0 200 OK\r\n", Err("does not speak http")),
            ("HTTP/1.0 OK\r\n\r\n", Err("does not speak http")),
            ("SSH-2.0-x\r\n\r\n", Err("does not speak http")),
            ("", Err("does not speak http")),
        ] {
            let got = body(answer.as_bytes());
            let got = got.as_ref().map(|(status, body)| (*status, body.as_slice())).map_err(String::as_str);
            assert_eq!(got, expect.map(|(status, body)| (status, body.as_bytes())), "{answer}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_apis_words() {
        assert_eq!(detail(b"{\"detail\":\"no service\"}").as_deref(), Some("no service"));
        assert_eq!(detail(b"{\"error\":\"url is missing\"}").as_deref(), Some("url is missing"));
        assert_eq!(detail(b"{\"title\":\"x\"}"), None);
        assert_eq!(detail(b"not json"), None);
    }
}
