//! What may wake a service, and what keeps it from being stopped.

use super::keys::{AUTH, BUSY, DENY, WAKE};
use super::reader::{Element, Reader, check_url_path};
use forerun_types::{Auth, Busy, WakeRules};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

pub(crate) fn wake(reader: &Reader<'_>) -> WakeRules {
    let inner = reader.table("wake", WAKE);
    let mut rules = WakeRules {
        no_defaults: !inner.flag("defaults"),
        asleep_status: u16::try_from(inner.count("asleep_status").unwrap_or_default()).unwrap_or_default(),
        per_minute: inner.count_u32("per_minute"),
        ..WakeRules::default()
    };
    for element in inner.each("deny", DENY) {
        match element {
            Element::Text(text, span) => note(&inner, &mut rules, &text, span),
            Element::Table(table) => deny(&table, &mut rules),
        }
    }
    rules
}

/// `HEAD`, `/metrics`, `10.0.0.0/8`, or a part of an agent's name.
fn note(reader: &Reader<'_>, rules: &mut WakeRules, text: &str, span: Option<Range<usize>>) {
    let problem = |what: &str| reader.source.problem(span.clone(), &reader.field("deny"), what);
    if text.trim().is_empty() {
        problem("holds an empty text; remove it");
    } else if text.starts_with('/') {
        match check_url_path(text) {
            Ok(()) => rules.paths.push(prefix(text)),
            Err(what) => problem(&what),
        }
    } else if let Some(network) = network(text) {
        rules.addresses.push(network);
    } else if text.bytes().all(|b| b.is_ascii_uppercase()) {
        rules.methods.push(text.to_owned());
    } else {
        rules.agents.push(text.to_lowercase());
    }
}

fn deny(table: &Reader<'_>, rules: &mut WakeRules) {
    type Check = fn(&str) -> Result<String, String>;
    let method: Check = |text| match !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err(format!("\"{text}\" is no method; write it as \"HEAD\"")),
    };
    let path: Check = |text| check_url_path(text).map(|()| prefix(text));
    let agent: Check = |text| match text.trim().is_empty() {
        true => Err("an empty text is in every name; remove it".to_owned()),
        false => Ok(text.to_lowercase()),
    };
    let address: Check =
        |text| network(text).ok_or_else(|| format!("\"{text}\" is no network; write it as \"10.0.0.0/8\""));
    for (name, check, into) in [
        ("methods", method, &mut rules.methods),
        ("paths", path, &mut rules.paths),
        ("agents", agent, &mut rules.agents),
        ("addresses", address, &mut rules.addresses),
    ] {
        for (text, span) in table.texts(name) {
            match check(&text) {
                Ok(text) => into.push(text),
                Err(what) => table.source.problem(span, &table.field(name), &what),
            }
        }
    }
}

/// Without the slash at its end; the root stays.
fn prefix(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

/// A network, or one address as one.
fn network(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse::<u8>().ok())?;
    (bits <= most).then(|| format!("{address}/{bits}"))
}

pub(crate) fn busy(reader: &Reader<'_>) -> Option<Busy> {
    let found = reader.found("busy")?;
    if found.table().is_none() {
        let text = reader.text("busy")?;
        let path = text.strip_prefix("http:").map(|path| (path, check_url_path(path)));
        return match path {
            Some((path, Ok(()))) => Some(Busy::Http { path: path.to_owned(), pointer: None }),
            Some((_, Err(what))) => {
                reader.problem("busy", &what);
                None
            }
            None => {
                let what = format!(
                    "\"{text}\" is not known; write \"http:/PATH\", or a table with http, command, cpu or network"
                );
                reader.problem("busy", &what);
                None
            }
        };
    }
    let inner = reader.table("busy", BUSY);
    let given: Vec<&str> =
        ["http", "command", "cpu", "network"].into_iter().filter(|name| inner.has(name)).collect();
    if inner.has("pointer") && !inner.has("http") {
        inner.problem("pointer", "is for http; name its path too");
    }
    match given[..] {
        ["http"] => {
            let path = inner.url_path("http")?;
            let pointer = inner.text("pointer");
            if pointer.as_ref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
                inner.problem("pointer", "begins with \"/\", as \"/jobs/running\"");
            }
            Some(Busy::Http { path, pointer })
        }
        ["command"] => inner.command("command").map(Busy::Command),
        ["cpu"] => Some(Busy::Cpu { milli: inner.cores_milli("cpu") }),
        ["network"] => Some(Busy::Network { bytes_per_s: inner.bytes_per_second("network") }),
        _ => {
            reader.problem("busy", "takes one of http, command, cpu and network");
            None
        }
    }
}

pub(crate) fn auth(reader: &Reader<'_>) -> Option<Auth> {
    reader.found("auth")?;
    let inner = reader.table("auth", AUTH);
    let given: Vec<&str> = ["forward", "basic", "token"].into_iter().filter(|name| inner.has(name)).collect();
    match given[..] {
        ["forward"] => {
            let url = inner.text("forward")?;
            if let Err(why) = forerun_router::check_forward_url(&url) {
                inner.problem("forward", &format!("\"{url}\" {why}"));
            }
            Some(Auth::Forward { url })
        }
        ["basic"] => {
            let mut users = BTreeMap::new();
            for (user, password) in inner.env("basic") {
                match hash(&password) {
                    Ok(hash) if !user.contains(':') => drop(users.insert(user, hash)),
                    Ok(_) => inner.problem(
                        "basic",
                        &format!("user \"{user}\" holds a \":\", which no browser can send"),
                    ),
                    Err(what) => inner.problem("basic", &format!("user \"{user}\": {what}")),
                }
            }
            Some(Auth::Basic { users })
        }
        ["token"] => {
            let mut hashes = Vec::new();
            for (token, span) in inner.texts("token") {
                match hash(&token) {
                    Ok(hash) => hashes.push(hash),
                    Err(what) => inner.source.problem(span, &inner.field("token"), &what),
                }
            }
            Some(Auth::Token { hashes })
        }
        _ => {
            reader.problem("auth", "takes one of forward, basic and token");
            None
        }
    }
}

/// A secret, or `blake3:` and its hash in hexadecimal.
fn hash(text: &str) -> Result<String, String> {
    match text.strip_prefix("blake3:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(hex.to_ascii_lowercase())
        }
        Some(_) => Err("behind \"blake3:\" stand 64 hexadecimal digits, as b3sum prints them".to_owned()),
        None if text.is_empty() => Err("is empty, and would let anyone in".to_owned()),
        None => Ok(blake3::hash(text.as_bytes()).to_hex().to_string()),
    }
}
