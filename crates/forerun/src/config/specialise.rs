//! What an instance specialised for a key gets.

use super::keys::{HOOK, SPECIALISE};
use super::launch::{self, Kind};
use super::reader::{Reader, check_url_path};
use forerun_types::{Hook, KeyFrom, Specialise};

/// The longest key that is taken from a request, or may stand in a list.
const KEY_BYTES_MAX: usize = 128;

pub(crate) fn read(reader: &Reader<'_>, kind: Kind) -> Option<Specialise> {
    reader.found("specialise")?;
    let inner = reader.table("specialise", SPECIALISE);
    if kind == Kind::Command {
        reader.problem("specialise", "the command backend has one instance, for everyone; remove it");
    }
    if kind != Kind::Docker && inner.has("mounts") {
        inner.problem("mounts", "is for containers; use files, or env");
    }
    let mut keys: Vec<String> = Vec::new();
    for (key, span) in inner.texts("keys") {
        let what = if key.is_empty() || key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control) {
            format!(
                "\"{}\" is no key; it has 1 to {KEY_BYTES_MAX} bytes, none of them a control",
                key.escape_debug()
            )
        } else if keys.contains(&key) {
            format!("\"{key}\" is named twice; remove one")
        } else {
            keys.push(key);
            continue;
        };
        inner.source.problem(span, &inner.field("keys"), &what);
    }
    let keys_max = inner.count_u32("keys_max");
    if keys.len() as u64 > u64::from(keys_max) && inner.has("keys_max") {
        inner.problem("keys_max", &format!("{keys_max} is fewer than the {} keys of the list", keys.len()));
    }
    let mut preload = Vec::new();
    for (path, span) in inner.texts("preload") {
        match check_url_path(&path) {
            Ok(()) => preload.push(path),
            Err(what) => inner.source.problem(span, &inner.field("preload"), &what),
        }
    }
    Some(Specialise {
        by: by(&inner),
        keys_max: keys_max.max(u32::try_from(keys.len()).unwrap_or(u32::MAX)),
        keys,
        env: inner.env("env"),
        args: inner.texts("args").into_iter().map(|(text, _)| text).collect(),
        files: inner.env("files"),
        mounts: launch::mounts(&inner, "mounts"),
        preload,
        hook: hook(&inner),
    })
}

fn by(inner: &Reader<'_>) -> KeyFrom {
    let text = inner.text("by").unwrap_or_default();
    let token = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    match (text.as_str(), text.split_once(':')) {
        ("user", _) => KeyFrom::User,
        ("group", _) => KeyFrom::Group,
        ("tenant", _) => KeyFrom::Tenant,
        (_, Some(("header", name))) if token(name) => KeyFrom::Header(name.to_ascii_lowercase()),
        (_, Some(("path", n))) if n.parse::<u8>().is_ok() => KeyFrom::Path(n.parse().unwrap_or_default()),
        _ => {
            let what = format!(
                "\"{text}\" is not known; write user, group, tenant, \"header:NAME\" or \"path:N\" with N from 0 to 255"
            );
            inner.problem("by", &what);
            KeyFrom::User
        }
    }
}

fn hook(inner: &Reader<'_>) -> Option<Hook> {
    let found = inner.found("hook")?;
    if found.table().is_none() {
        let text = inner.text("hook")?;
        let path = text.strip_prefix("http:").filter(|path| check_url_path(path).is_ok());
        if path.is_none() {
            inner.problem(
                "hook",
                &format!("\"{text}\" is not known; write \"http:/PATH\", or a table with http or command"),
            );
        }
        return path.map(|path| Hook::Http { path: path.to_owned() });
    }
    let table = inner.table("hook", HOOK);
    match (table.has("http"), table.has("command")) {
        (true, false) => table.url_path("http").map(|path| Hook::Http { path }),
        (false, true) => table.command("command").map(Hook::Command),
        _ => {
            inner.problem("hook", "takes one of http and command");
            None
        }
    }
}
