//! When an instance counts as ready.

use super::keys::READY;
use super::launch::Kind;
use super::reader::{Reader, check_url_path};
use forerun_types::{Readiness, Span};

/// What `service.NAME.ready` says.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) when: Readiness,
    pub(crate) settle: Span,
    /// A shell line of the `command` backend; empty without one.
    pub(crate) line: String,
}

pub(crate) fn read(reader: &Reader<'_>, kind: Kind) -> Ready {
    let default = match kind {
        Kind::Docker => Readiness::Health,
        _ => Readiness::Tcp,
    };
    let mut ready = Ready { when: default, settle: Span::ZERO, line: String::new() };
    let Some(found) = reader.found("ready") else { return ready };
    if found.table().is_some() {
        table(reader, kind, &mut ready);
    } else if let Some(text) = reader.text("ready") {
        match in_a_word(&text, kind) {
            Ok(when) => ready.when = when,
            Err(what) => reader.problem("ready", &what),
        }
    }
    ready
}

fn table(reader: &Reader<'_>, kind: Kind, ready: &mut Ready) {
    let inner = reader.table("ready", READY);
    ready.settle = inner.duration("settle");
    let (path, text, line) = (inner.text("http"), inner.text("log"), inner.text("line"));
    if [path.is_some(), text.is_some(), line.is_some()].iter().filter(|given| **given).count() > 1 {
        reader.problem("ready", "takes one of http and log (or line, for the command backend), not several");
        return;
    }
    let read = match (path, text, line) {
        (Some(path), ..) => http(&path),
        (_, Some(text), _) => log(&text),
        (_, _, Some(line)) if kind == Kind::Command => {
            ready.line = line;
            Ok(Readiness::None)
        }
        (_, _, Some(_)) => {
            inner.problem("line", "is for the command backend; use http or log");
            return;
        }
        // Only how long to leave it alone.
        _ if inner.has("settle") => return,
        _ => Err("is empty; write \"tcp\", { http = \"/healthz\" } or { log = \"listening\" }".to_owned()),
    };
    match read {
        Ok(when) => ready.when = when,
        Err(what) => reader.problem("ready", &what),
    }
}

fn in_a_word(text: &str, kind: Kind) -> Result<Readiness, String> {
    match (text, text.split_once(':')) {
        ("tcp", _) => Ok(Readiness::Tcp),
        ("http", _) => http("/"),
        ("none", _) => Ok(Readiness::None),
        ("health", _) if kind == Kind::Docker => Ok(Readiness::Health),
        ("health", _) => {
            Err("\"health\" is a container's own check; write \"tcp\" or \"http:/healthz\"".to_owned())
        }
        (_, Some(("http", path))) => http(path),
        (_, Some(("log", line))) => log(line),
        _ => Err(format!("\"{text}\" is not known; write \"tcp\", \"http:/healthz\" or \"log:listening\"")),
    }
}

fn http(path: &str) -> Result<Readiness, String> {
    check_url_path(path)?;
    Ok(Readiness::Http { path: path.to_owned() })
}

fn log(text: &str) -> Result<Readiness, String> {
    if text.trim().is_empty() || text.contains('\n') {
        return Err("the text to wait for is empty, or more than a line".to_owned());
    }
    Ok(Readiness::Log { text: text.to_owned() })
}
