//! A stand-in for Engine 29: it speaks API 1.52, refuses below 1.44 as the real one does, writes down every call, and
//! carries each to the real daemon in the version that that one speaks.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SPOKEN: (u32, u32) = (1, 52);
const MINIMUM: (u32, u32) = (1, 44);
/// What the daemon behind it speaks.
const BEHIND: &str = "v1.41";
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longer than any stream of the daemon is silent in a test.
const SILENCE: Duration = Duration::from_secs(120);

/// One call as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// `None`: the path had none.
    pub(crate) version: Option<(u32, u32)>,
    /// Without version and query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// What the stand-in itself answered, instead of carrying it on.
    pub(crate) refused: Option<u16>,
    /// Of a container that is to be removed: which installation says that it made it.
    pub(crate) made_by: Option<String>,
}

/// A running proxy; it takes no more calls when dropped.
pub(crate) struct Proxy {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    ended: AtomicBool,
    /// Takes connections and answers nothing.
    hangs: AtomicBool,
}

impl Proxy {
    /// Listens on `socket` and carries calls on to `behind`.
    pub(crate) fn start(socket: &Path, behind: &Path) -> Self {
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (shared, behind) = (Arc::<Shared>::default(), behind.to_owned());
        let proxy = Self { socket: socket.to_owned(), shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, behind) = (Arc::clone(&shared), behind.clone());
                // A connection that breaks is the client's trouble, as with the real one.
                std::thread::spawn(move || drop(serve(&client, &behind, &shared)));
            }
        });
        proxy
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Every call so far, in the order that they came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on (or no longer) it takes calls and says nothing, as a daemon that is stuck.
    pub(crate) fn hang(&self, hangs: bool) {
        self.shared.hangs.store(hangs, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // So that it wakes, and sees it.
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

/// One connection, one call: the daemon is told to close after it, and its answer says so to the client.
fn serve(mut client: &UnixStream, behind: &Path, shared: &Shared) -> std::io::Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    let Some((head, rest)) = read_head(client)? else { return Ok(()) };
    let mut call = Call::parse(&head);
    let answer = call.own_answer();
    if let ("DELETE", Some(id)) = (call.method.as_str(), call.path.strip_prefix("/containers/")) {
        call.made_by = maker(behind, id)?;
    }
    call.refused = answer.as_ref().map(|a| a.0).filter(|status| *status >= 400);
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
    while shared.hangs.load(Ordering::Relaxed) && !shared.ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Some((status, body)) = answer {
        let head = format!(
            "HTTP/1.1 {status} Said\r\nApi-Version: {}\r\nServer: Docker/29.0.0 (linux)\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            text_of(SPOKEN),
            body.len()
        );
        client.write_all(head.as_bytes())?;
        return if call.method == "HEAD" { Ok(()) } else { client.write_all(body.as_bytes()) };
    }
    let mut upstream = UnixStream::connect(behind)?;
    upstream.write_all(rewritten(&head, &call).as_bytes())?;
    upstream.write_all(&rest)?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    let upwards = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        // Only what the client has left is over: its daemon may still be answering.
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut upstream, &mut client);
    client.shutdown(Shutdown::Both)?;
    let _ = upwards.join();
    Ok(())
}

/// The installation that a container's labels name.
fn maker(behind: &Path, id: &str) -> std::io::Result<Option<String>> {
    let mut stream = UnixStream::connect(behind)?;
    write!(stream, "GET /{BEHIND}/containers/{id}/json HTTP/1.0\r\nHost: d\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let inspected: serde_json::Value = serde_json::from_str(body)?;
    let labels = &inspected["Config"]["Labels"];
    let made = labels["forerun.made"] == "true";
    Ok(labels["forerun.installation"].as_str().filter(|_| made).map(str::to_owned))
}

/// A request's head with its empty line, and what came after it; `None` when nothing came.
fn read_head(mut client: &UnixStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while read.len() < HEAD_BYTES_MAX {
        let n = client.read(&mut buffer)?;
        if n == 0 {
            return Ok(None);
        }
        read.extend(&buffer[..n]);
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = read.split_off(at + 4);
            return Ok(Some((String::from_utf8_lossy(&read).into_owned(), rest)));
        }
    }
    Err(std::io::Error::other("the head is too long"))
}

/// The same head for the daemon behind: its version, and one call a connection unless it is taken over.
fn rewritten(head: &str, call: &Call) -> String {
    let mut lines = head.trim_end().split("\r\n");
    let first = lines.next().unwrap_or_default();
    let protocol = first.rsplit(' ').next().unwrap_or("HTTP/1.1");
    let query = if call.query.is_empty() { String::new() } else { format!("?{}", call.query) };
    let mut text = format!("{} /{BEHIND}{}{query} {protocol}\r\n", call.method, call.path);
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let upgrade = head.to_ascii_lowercase().contains("\r\nupgrade:");
    for line in lines.filter(|line| upgrade || name(line) != "connection") {
        text += line;
        text += "\r\n";
    }
    if !upgrade {
        text += "Connection: close\r\n";
    }
    text + "\r\n"
}

impl Call {
    fn parse(head: &str) -> Self {
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or("/");
        // Some clients name the host too.
        let target =
            target.split_once("://").map_or(target, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let version = path.strip_prefix("/v").and_then(|rest| {
            let (version, _) = rest.split_once('/')?;
            let (major, minor) = version.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let path = match version {
            Some((major, minor)) => &path[format!("/v{major}.{minor}").len()..],
            None => path,
        };
        Self { method, version, path: path.to_owned(), query: query.to_owned(), refused: None, made_by: None }
    }

    /// What Engine 29 answers and the daemon behind would not: the words are its own (moby,
    /// `daemon/server/middleware/version.go`).
    fn own_answer(&self) -> Option<(u16, String)> {
        let said = |message: String| Some((400, serde_json::json!({ "message": message }).to_string()));
        match self.version {
            Some(version) if version < MINIMUM => said(format!(
                "client version {} is too old. Minimum supported API version is {}, please upgrade your client to a \
                 newer version",
                text_of(version),
                text_of(MINIMUM)
            )),
            Some(version) if version > SPOKEN => said(format!(
                "client version {} is too new. Maximum supported API version is {}",
                text_of(version),
                text_of(SPOKEN)
            )),
            _ => match self.path.as_str() {
                "/_ping" => Some((200, "OK".to_owned())),
                "/version" => Some((
                    200,
                    serde_json::json!({
                        "Platform": {"Name": "Docker Engine - Community"}, "Version": "29.0.0",
                        "ApiVersion": text_of(SPOKEN), "MinAPIVersion": text_of(MINIMUM), "GitCommit": "3d4129b",
                        "GoVersion": "go1.25.4", "Os": "linux", "Arch": "amd64", "KernelVersion": "6.18.0",
                        "BuildTime": "2025-11-10T21:49:00.000000000+00:00", "Components": [],
                    })
                    .to_string(),
                )),
                _ => None,
            },
        }
    }
}

fn text_of(version: (u32, u32)) -> String {
    format!("{}.{}", version.0, version.1)
}

/// The calls that a document promises to be all: `METHOD /path/{part}` in backquotes, method in capitals.
pub(crate) fn promised(document: &str) -> Vec<(String, String)> {
    let spans = document.split('`').skip(1).step_by(2);
    let calls = spans.filter_map(|span| {
        let (method, path) = span.trim().split_once(' ')?;
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE"].contains(&method);
        (known && path.starts_with('/')).then(|| (method.to_owned(), path.to_owned()))
    });
    calls.collect()
}

/// What the example of a socket proxy lets through: a method and what a whole path must be.
fn let_through() -> Vec<(String, regex::Regex)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/compose/socket-proxy.yaml");
    let text = fs::read_to_string(file).unwrap();
    let rules = text.lines().filter_map(|line| line.trim().strip_prefix("- -allow")?.split_once('='));
    let rule = |(method, path): (&str, &str)| {
        let path = path.split(" #").next().unwrap();
        (method.to_owned(), regex::Regex::new(&format!("^(?:{path})$")).unwrap())
    };
    rules.map(rule).collect()
}

/// Whether the example lets a call through.
fn is_let_through(rules: &[(String, regex::Regex)], method: &str, path: &str) -> bool {
    rules.iter().any(|(allowed, whole)| allowed == method && whole.is_match(path))
}

/// Every call was in the version that was agreed on, was let through, and is one of those that the manual promises to
/// be all; what was removed, `installation` had made.
pub(crate) fn were_proper(calls: &[Call], installation: &str) {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/docker.md");
    let promised = promised(&fs::read_to_string(&manual).unwrap());
    assert!(promised.len() > 10, "{promised:?}");
    let rules = let_through();
    for (at, call) in calls.iter().enumerate() {
        assert_eq!(call.refused, None, "refused: {call:?}");
        let asks_version = ["/_ping", "/version"].contains(&call.path.as_str());
        assert!(asks_version || call.version == Some(SPOKEN), "not the version that was agreed on: {call:?}");
        let fit = promised.iter().any(|(method, path)| *method == call.method && fits(path, &call.path));
        assert!(fit, "docs/docker.md does not say that this is called: {call:?}");
        let version = call.version.map_or_else(String::new, |v| format!("/v{}", text_of(v)));
        let path = format!("{version}{}", call.path);
        assert!(is_let_through(&rules, &call.method, &path), "the example's proxy refuses it: {call:?}");
        // What is gone already may be asked for once more.
        let again = |c: &Call| c.method == "DELETE" && c.path == call.path;
        if call.method == "DELETE" && !calls[..at].iter().any(again) {
            assert_eq!(call.made_by.as_deref(), Some(installation), "removed what it did not make: {call:?}");
        }
    }
}

/// Whether a path is one of a template's; `{part}` stands for one segment, which a name of an image may not be: it has
/// slashes of its own, written as they are.
pub(crate) fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let spare = path.len().checked_sub(template.len());
    let Some(spare) = spare else { return false };
    let Some(at) = template.iter().position(|part| *part == "{image}") else {
        return spare == 0 && template.iter().zip(&path).all(|(t, p)| same(t, p));
    };
    let (after_template, after_path) = (&template[at + 1..], &path[at + 1 + spare..]);
    template[..at].iter().zip(&path).all(|(t, p)| same(t, p))
        && after_template.iter().zip(after_path).all(|(t, p)| same(t, p))
}

fn same(template: &str, part: &str) -> bool {
    if template.starts_with('{') { !part.is_empty() } else { template == part }
}

mod tests {
    use super::*;
    use crate::engine::{BUSYBOX, Engine};
    use crate::world::World;

    #[test]
    fn the_example_of_a_socket_proxy_lets_through_what_is_promised_and_no_more() {
        let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/docker.md");
        let (rules, promised) = (let_through(), promised(&fs::read_to_string(manual).unwrap()));
        for (method, template) in &promised {
            let path = template
                .replace("{id}", "5f0c2ab1")
                .replace("{image}", "registry.example/shop/web:1.2")
                .replace("{network}", "shop_default");
            assert!(is_let_through(&rules, method, &format!("/v1.52{path}")), "{method} {path} is refused");
        }
        for (method, path) in [
            ("HEAD", "/_ping"),
            ("GET", "/v1.52/containers/5f0c2ab1/archive"),
            ("GET", "/v1.52/containers/5f0c2ab1/export"),
            ("GET", "/v1.52/secrets"),
            ("POST", "/v1.52/containers/5f0c2ab1/update"),
            ("POST", "/v1.52/containers/prune"),
            ("POST", "/v1.52/build"),
            ("POST", "/v1.52/volumes/create"),
            ("POST", "/v1.52/networks/create"),
            ("POST", "/v1.52/containers/a/b/start"),
            ("DELETE", "/v1.52/images/shop"),
            ("DELETE", "/v1.52/containers/5f0c2ab1/x"),
            ("PUT", "/v1.52/containers/5f0c2ab1"),
        ] {
            assert!(!is_let_through(&rules, method, path), "{method} {path} is let through");
        }
    }

    #[test]
    fn calls_fit_what_is_promised() {
        let document =
            "| `GET /containers/{id}/json` | what |\n`POST /images/{image}/push`, `docker ps`, `GET it`";
        let promised = promised(document);
        let got: Vec<(&str, &str)> = promised.iter().map(|(m, p)| (m.as_str(), p.as_str())).collect();
        assert_eq!(got, [("GET", "/containers/{id}/json"), ("POST", "/images/{image}/push")]);
        for (template, path, expect) in [
            ("/containers/{id}/json", "/containers/abc/json", true),
            ("/containers/{id}/json", "/containers/abc/start", false),
            ("/containers/{id}/json", "/containers//json", false),
            ("/containers/{id}/json", "/containers/a/b/json", false),
            ("/containers/json", "/containers/json", true),
            ("/images/{image}/json", "/images/team/web:1/json", true),
            ("/images/{image}/json", "/images/web:1/json", true),
            ("/images/{image}/json", "/images/json", false),
        ] {
            assert_eq!(fits(template, path), expect, "{template} {path}");
        }
    }

    #[test]
    fn it_refuses_what_engine_29_refuses_and_carries_the_rest() {
        let Some(engine) = Engine::find() else { return };
        let world = World::new("proxy", "");
        let proxy = Proxy::start(&world.path("p.sock"), &engine.socket);
        let ask = |method: &str, target: &str| {
            let mut stream = UnixStream::connect(world.path("p.sock")).unwrap();
            write!(stream, "{method} {target} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let old = ask("GET", "/v1.43/containers/json");
        assert!(old.starts_with("HTTP/1.1 400 "), "{old}");
        assert!(
            old.contains("client version 1.43 is too old. Minimum supported API version is 1.44"),
            "{old}"
        );
        assert!(ask("GET", "/v1.53/version").contains("client version 1.53 is too new"));
        assert!(ask("HEAD", "/_ping").contains("Api-Version: 1.52\r\n"));
        assert!(ask("GET", "/version").contains(r#""MinAPIVersion":"1.44""#));
        let image = ask("GET", &format!("/v1.52/images/{BUSYBOX}/json"));
        assert!(image.starts_with("HTTP/1.1 200 ") && image.contains(BUSYBOX), "{image}");
        proxy.hang(true);
        let stuck = UnixStream::connect(world.path("p.sock")).unwrap();
        stuck.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        write!(&stuck, "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        assert!((&stuck).read(&mut [0]).is_err(), "it answers while it hangs");
        proxy.hang(false);
        let calls = proxy.calls();
        assert!(proxy.host().starts_with("unix:///"), "{}", proxy.host());
        let refused: Vec<Option<u16>> = calls.iter().map(|c| c.refused).collect();
        assert_eq!(refused, [Some(400), Some(400), None, None, None, None]);
        assert_eq!(calls[4].path, format!("/images/{BUSYBOX}/json"));
        assert_eq!(calls[4].version, Some((1, 52)));
    }
}
