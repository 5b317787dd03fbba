//! Which service a request is for.

use forerun_types::{RouteTable, ServiceId};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The routing rules of one table, indexed. A request costs a lookup per label of its host and per segment of its
/// path, whatever the number of services.
///
/// The host decides first: exact, then the longest wildcard, then rules without a host. Among rules of one host the
/// longest path prefix wins; of two services with the same rule the one with the lower id. Where no path of a more
/// special host matches, the next host level is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classifier {
    exact: BTreeMap<String, Paths>,
    /// Keyed by what follows the `*`, the dot included.
    wildcard: BTreeMap<String, Paths>,
    any: Paths,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Paths {
    /// Prefixes without a slash at the end; the empty one matches everything.
    prefixes: BTreeMap<String, ServiceId>,
    longest: usize,
}

impl Classifier {
    #[must_use]
    pub fn new(table: &RouteTable) -> Self {
        let mut classifier = Self::default();
        for service in table.services.iter().filter(|s| !s.spec.unrouted) {
            let rule = &service.spec.route;
            for host in &rule.hosts {
                classifier.paths_of(host).add_all(&rule.paths, service.spec.id);
            }
            if rule.hosts.is_empty() {
                classifier.any.add_all(&rule.paths, service.spec.id);
            }
        }
        classifier
    }

    fn paths_of(&mut self, host: &str) -> &mut Paths {
        let host = normalise_host(host);
        match host.strip_prefix('*') {
            Some("") => &mut self.any,
            Some(suffix) if suffix.starts_with('.') => self.wildcard.entry(suffix.to_owned()).or_default(),
            _ => self.exact.entry(host.into_owned()).or_default(),
        }
    }

    /// The service for a request. `host` as the client sent it, empty when it sent none; `path` without the query.
    #[must_use]
    pub fn classify(&self, host: &str, path: &str) -> Option<ServiceId> {
        let host = normalise_host(host);
        self.exact
            .get(host.as_ref())
            .and_then(|paths| paths.find(path))
            .or_else(|| self.by_wildcard(&host, path))
            .or_else(|| self.any.find(path))
    }

    fn by_wildcard(&self, host: &str, path: &str) -> Option<ServiceId> {
        if self.wildcard.is_empty() {
            return None;
        }
        // A dot at the very start has no label before it for the `*`.
        host.match_indices('.')
            .filter(|(at, _)| *at > 0)
            .find_map(|(at, _)| self.wildcard.get(&host[at..])?.find(path))
    }
}

impl Paths {
    fn add_all(&mut self, paths: &[String], service: ServiceId) {
        for path in paths {
            self.add(path, service);
        }
        if paths.is_empty() {
            self.add("", service);
        }
    }

    fn add(&mut self, path: &str, service: ServiceId) {
        let prefix = path.trim_end_matches('/');
        self.longest = self.longest.max(prefix.len());
        let owner = self.prefixes.entry(prefix.to_owned()).or_insert(service);
        *owner = service.min(*owner);
    }

    fn find(&self, path: &str) -> Option<ServiceId> {
        let mut end = path.len();
        loop {
            if end <= self.longest
                && let Some(service) = self.prefixes.get(&path[..end])
            {
                return Some(*service);
            }
            if end == 0 {
                return None;
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
    }
}

/// A host as rules are written: lower case, without port and without the dot of the root.
///
/// An IPv6 literal keeps its brackets.
#[must_use]
pub fn normalise_host(host: &str) -> Cow<'_, str> {
    let bare = match host.rfind(':') {
        Some(colon)
            if host[colon + 1..].bytes().all(|b| b.is_ascii_digit()) && !inside_brackets(host, colon) =>
        {
            &host[..colon]
        }
        _ => host,
    };
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    if bare.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(bare.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bare)
    }
}

fn inside_brackets(host: &str, at: usize) -> bool {
    host.starts_with('[') && host.find(']').is_none_or(|end| at < end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{Generation, RouteRule, ServiceRoute, ServiceSpec};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn table(rules: &[(&[&str], &[&str])]) -> RouteTable {
        let services = rules.iter().zip(0..).map(|((hosts, paths), id)| {
            let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
            let mut spec = ServiceSpec::named(ServiceId(id), format!("s{id}"));
            spec.route = RouteRule { hosts: texts(hosts), paths: texts(paths) };
            Arc::new(ServiceRoute::new(Arc::new(spec), Vec::new(), None))
        });
        RouteTable { generation: Generation(1), services: services.collect() }
    }

    #[test]
    fn the_most_special_rule_wins() {
        let classifier = Classifier::new(&table(&[
            (&["shop.example"], &["/api"]),           // 0
            (&["shop.example"], &[]),                 // 1
            (&["*.example"], &["/api/v2"]),           // 2
            (&["*.eu.example"], &[]),                 // 3
            (&[], &["/health", "/shared/"]),          // 4
            (&["only.example"], &["/deep"]),          // 5
            (&["shop.example"], &["/api"]),           // 6: same rule as 0
            (&["[::1]", "UPPER.example."], &["/up"]), // 7
        ]));
        for (host, path, service) in [
            ("shop.example", "/api", Some(0)),
            ("shop.example", "/api/x", Some(0)),
            ("shop.example", "/apix", Some(1)),
            ("shop.example", "/", Some(1)),
            ("SHOP.Example.:8080", "/api/", Some(0)),
            ("a.example", "/api/v2/y", Some(2)),
            ("a.example", "/api", None),
            ("a.b.example", "/api/v2", Some(2)),
            ("x.eu.example", "/api/v2", Some(3)),
            ("eu.example", "/", None),
            (".example", "/api/v2", None),
            ("only.example", "/deep/er", Some(5)),
            ("only.example", "/health", Some(4)),
            ("other", "/shared", Some(4)),
            ("other", "/shared/x", Some(4)),
            ("other", "/sharedx", None),
            ("", "/health", Some(4)),
            ("[::1]:80", "/up", Some(7)),
            ("upper.example", "/up", Some(7)),
            ("other", "*", None),
            ("shop.example", "*", Some(1)),
            ("other", "", None),
        ] {
            assert_eq!(classifier.classify(host, path), service.map(ServiceId), "{host} {path}");
        }
    }

    #[test]
    fn hosts_are_normalised() {
        for (given, normal) in [
            ("Example.COM", "example.com"),
            ("example.com:443", "example.com"),
            ("example.com.:443", "example.com"),
            ("example.com:", "example.com"),
            ("[::1]", "[::1]"),
            ("[2001:DB8::1]:8080", "[2001:db8::1]"),
            ("[::1", "[::1"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(normalise_host(given), normal);
        }
    }

    /// What the index must agree with: every rule looked at in turn.
    fn by_hand(table: &RouteTable, host: &str, path: &str) -> Option<ServiceId> {
        let mut best: Option<(usize, usize, ServiceId)> = None;
        for service in &table.services {
            let rule = &service.spec.route;
            let hosts = if rule.hosts.is_empty() { vec![String::new()] } else { rule.hosts.clone() };
            let paths = if rule.paths.is_empty() { vec![String::new()] } else { rule.paths.clone() };
            for rule_host in &hosts {
                let rank = match rule_host.strip_prefix('*') {
                    _ if rule_host.is_empty() => 1,
                    Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => 1 + suffix.len(),
                    None if rule_host == host => usize::MAX,
                    _ => continue,
                };
                for rule_path in &paths {
                    let rest = path.strip_prefix(rule_path.as_str());
                    if rest.is_some_and(|r| r.is_empty() || r.starts_with('/')) {
                        let found = (rank, rule_path.len(), service.spec.id);
                        let better = best.is_none_or(|b| {
                            (found.0, found.1) > (b.0, b.1)
                                || (found.0, found.1) == (b.0, b.1) && found.2 < b.2
                        });
                        if better {
                            best = Some(found);
                        }
                    }
                }
            }
        }
        best.map(|b| b.2)
    }

    fn some_host() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]", "[ab]\\.[ab]", "[ab]\\.[ab]\\.[ab]"]
    }

    #[test]
    fn what_is_there_for_others_only_takes_no_requests() {
        let mut database = ServiceSpec::named(ServiceId(0), "db");
        database.unrouted = true;
        let route = ServiceRoute::new(Arc::new(database), Vec::new(), None);
        let table = RouteTable { generation: Generation(1), services: vec![Arc::new(route)] };
        assert_eq!(Classifier::new(&table).classify("any.example", "/"), None);
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_looking_at_every_rule(
            rules in prop::collection::vec(
                (
                    prop::collection::vec(prop_oneof![some_host(), some_host().prop_map(|h| format!("*.{h}"))], 0..3),
                    prop::collection::vec("(/[xy]{1,2}){1,3}", 0..3),
                ),
                0..8,
            ),
            asked in prop::collection::vec((some_host(), "(/[xy]{0,2}){0,4}"), 1..20),
        ) {
            let services = rules.into_iter().zip(0..).map(|((hosts, paths), id)| {
                let mut spec = ServiceSpec::named(ServiceId(id), "s");
                spec.route = RouteRule { hosts, paths };
                Arc::new(ServiceRoute::new(Arc::new(spec), Vec::new(), None))
            });
            let table = RouteTable { generation: Generation(1), services: services.collect() };
            let classifier = Classifier::new(&table);
            for (host, path) in asked {
                prop_assert_eq!(classifier.classify(&host, &path), by_hand(&table, &host, &path), "{} {}", host, path);
            }
        }

        #[test]
        fn no_request_makes_it_panic(host in ".{0,40}", path in ".{0,80}") {
            let classifier = Classifier::new(&table(&[(&["*.a"], &["/b"]), (&["a"], &["/b"])]));
            let _ = classifier.classify(&host, &path);
        }
    }
}
