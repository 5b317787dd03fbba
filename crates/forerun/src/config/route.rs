//! Which requests a service takes, as a person writes it, and whether two services ask for the same.

use super::keys::ROUTE;
use super::problems::Source;
use super::reader::{Found, Reader, text_of};
use super::units::Scalar;
use forerun_types::RouteRule;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

/// A host and a path prefix; an empty one is any.
type Pair = (String, String);

/// Reads `service.NAME.route`: a text, a table, or a list of them. What it names must combine freely, for that is
/// what a rule can say: every host with every path. Whether it takes no requests at all stands beside it.
pub(crate) fn read(service: &Reader<'_>) -> (RouteRule, bool) {
    match service.found("route") {
        Some(found) if matches!(found.scalar(), Scalar::Text("none")) => (RouteRule::default(), true),
        Some(found) => (rule(service, found), false),
        None => (RouteRule::default(), false),
    }
}

fn rule<'a>(service: &Reader<'a>, found: Found<'a>) -> RouteRule {
    let elements = found.list().unwrap_or_else(|| vec![found]);
    if elements.is_empty() {
        service.problem("route", "is an empty list; remove it to take every request");
    }
    let mut pairs = BTreeSet::new();
    for element in elements {
        match element.table() {
            Some(table) => {
                let path = service.field("route");
                let reader = Reader::new(service.source, path, ROUTE, Some(table), element.span());
                read_table(&reader, &mut pairs);
            }
            None => match text_of(element.scalar()).and_then(pair_of) {
                Ok(pair) => drop(pairs.insert(pair)),
                Err(what) => note(service, &element, &what),
            },
        }
    }
    match rule_of(&pairs) {
        Ok(rule) => rule,
        Err(what) => {
            service.problem("route", &what);
            RouteRule::default()
        }
    }
}

fn note(service: &Reader<'_>, element: &Found<'_>, what: &str) {
    service.source.problem(element.span(), &service.field("route"), what);
}

fn read_table(reader: &Reader<'_>, pairs: &mut BTreeSet<Pair>) {
    if !reader.has("host") && !reader.has("path") {
        reader.source.problem(
            reader.span(),
            &reader.field("host"),
            "is missing; name a host, a path or both",
        );
    }
    let checked = |name: &str, check: fn(&str) -> Result<String, String>| {
        let mut good = Vec::new();
        for (text, span) in reader.texts(name) {
            match check(&text) {
                Ok(text) => good.push(text),
                Err(what) => reader.source.problem(span, &reader.field(name), &what),
            }
        }
        if good.is_empty() {
            good.push(String::new());
        }
        good
    };
    let (hosts, paths) = (checked("host", host_of), checked("path", path_of));
    for host in &hosts {
        pairs.extend(paths.iter().map(|path| (host.clone(), path.clone())));
    }
}

/// `example.com`, `/api` or `example.com/api`.
fn pair_of(text: &str) -> Result<Pair, String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("\"{text}\" has a scheme; remove \"{scheme}://\", as \"{rest}\""));
    }
    match text.find('/') {
        Some(0) => Ok((String::new(), path_of(text)?)),
        Some(at) => Ok((host_of(&text[..at])?, path_of(&text[at..])?)),
        None => Ok((host_of(text)?, String::new())),
    }
}

/// Lower case; `*` alone is any host.
fn host_of(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(String::new());
    }
    if let Some((host, port)) = text.rsplit_once(':') {
        return Err(format!("host \"{text}\" has a port; remove \":{port}\", as \"{host}\""));
    }
    let labels = text.strip_prefix("*.").unwrap_or(text);
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if text.len() > 253 || !labels.split('.').all(good) {
        return Err(format!(
            "\"{text}\" is no host; write it as \"example.com\", \"*.example.com\", or a path with \"/\" in front"
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// Without the `/` at its end; the root is any path.
fn path_of(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("path \"{text}\" must begin with \"/\""));
    }
    if text.contains('*') {
        let shorter = text.split('*').next().unwrap_or_default().trim_end_matches('/');
        return Err(format!(
            "path \"{text}\" is a prefix already; write \"{}\"",
            if shorter.is_empty() { "/" } else { shorter }
        ));
    }
    let segments = text.trim_end_matches('/');
    let odd = |s: &str| s.is_empty() || s == "." || s == "..";
    if segments.split('/').skip(1).any(odd) || text.contains(['?', '#', ' ', '\\']) || !text.is_ascii() {
        return Err(format!(
            "path \"{text}\" holds what no prefix can: an empty segment, \".\", \"..\", \"?\", \"#\" or a blank"
        ));
    }
    Ok(segments.to_owned())
}

/// The rule that takes exactly these pairs.
fn rule_of(pairs: &BTreeSet<Pair>) -> Result<RouteRule, String> {
    let hosts: BTreeSet<&str> = pairs.iter().map(|(host, _)| host.as_str()).collect();
    let paths: BTreeSet<&str> = pairs.iter().map(|(_, path)| path.as_str()).collect();
    if hosts.len() * paths.len() != pairs.len() {
        return Err("these hosts and paths do not combine freely (every host with every path); make two services of it".to_owned());
    }
    // An empty one stands for all, which says what the others would.
    let list = |set: BTreeSet<&str>| {
        if set.contains("") { Vec::new() } else { set.into_iter().map(str::to_owned).collect() }
    };
    Ok(RouteRule { hosts: list(hosts), paths: list(paths) })
}

/// Notes services that ask for the very same requests.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Who has a pair, and on which line.
    by: BTreeMap<Pair, (String, usize)>,
    /// Who listens on a port.
    ports: BTreeMap<u16, String>,
}

impl Taken {
    /// What Forerun itself listens on, by the fields that say so.
    pub(crate) fn listening(addresses: &[(&str, SocketAddr)]) -> Self {
        let ports = addresses.iter().map(|(field, address)| (address.port(), (*field).to_owned()));
        Self { ports: ports.filter(|(port, _)| *port != 0).collect(), ..Self::default() }
    }

    pub(crate) fn add_port(&mut self, source: &Source<'_>, service: &Reader<'_>, name: &str, port: u16) {
        let span = service.found("port").and_then(|f| f.span());
        let line = source.line(span.clone());
        match self.ports.get(&port) {
            Some(other) => {
                let what = format!("{port} is {other}'s already; give each a port of its own");
                source.problem(span, &service.field("port"), &what);
            }
            None => {
                self.ports.insert(port, format!("service.{name} (line {line})"));
            }
        }
    }

    pub(crate) fn add(&mut self, source: &Source<'_>, service: &Reader<'_>, name: &str, rule: &RouteRule) {
        let span: Option<Range<usize>> =
            service.found("route").and_then(|f| f.span()).or_else(|| service.span());
        let line = source.line(span.clone());
        let any = vec![String::new()];
        let hosts = if rule.hosts.is_empty() { &any } else { &rule.hosts };
        let paths = if rule.paths.is_empty() { &any } else { &rule.paths };
        for host in hosts {
            for path in paths {
                let shown = if host.is_empty() && path.is_empty() {
                    "every request".to_owned()
                } else {
                    format!("\"{host}{path}\"")
                };
                if let Some((other, at)) = self.by.get(&(host.clone(), path.clone())) {
                    let what = format!(
                        "takes {shown}, which service.{other} (line {at}) takes already; give each a route of its own"
                    );
                    source.problem(span.clone(), &service.field("route"), &what);
                    return;
                }
                self.by.insert((host.clone(), path.clone()), (name.to_owned(), line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(&str, &str), &str>) {
        match (pair_of(text), expect) {
            (Ok(pair), Ok((host, path))) => {
                assert_eq!((pair.0.as_str(), pair.1.as_str()), (host, path), "{text}")
            }
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn routes_are_read() {
        check("Example.com", Ok(("example.com", "")));
        check("*.example.com/api/", Ok(("*.example.com", "/api")));
        check("/", Ok(("", "")));
        check("*", Ok(("", "")));
        check("/a/b", Ok(("", "/a/b")));
        check("http://example.com/", Err("remove \"http://\", as \"example.com/\""));
        check("example.com:8080", Err("remove \":8080\""));
        check("/api/*", Err("write \"/api\""));
        check("/*", Err("write \"/\""));
        check("/a//b", Err("empty segment"));
        check("/a/../b", Err("\"..\""));
        check("/a?x", Err("\"?\""));
        check("a b", Err("no host"));
        check("", Err("no host"));
        check("a.*.b", Err("no host"));
    }

    #[test]
    fn only_free_combinations_make_a_rule() {
        let set =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(h, p)| ((*h).to_owned(), (*p).to_owned())).collect();
        let rule = rule_of(&set(&[("a", "/x"), ("a", "/y"), ("b", "/x"), ("b", "/y")])).unwrap();
        assert_eq!((rule.hosts.len(), rule.paths.len()), (2, 2));
        assert_eq!(rule_of(&set(&[("", "/x"), ("a", "/x")])).unwrap().hosts, Vec::<String>::new());
        assert!(rule_of(&set(&[("a", "/x"), ("b", "/y")])).unwrap_err().contains("combine freely"));
    }
}
