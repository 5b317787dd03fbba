//! Why a request goes where it goes: every rule looked at in turn, in words.

use crate::classify::{Classifier, normalise_host};
use forerun_types::{RouteTable, ServiceId, ServiceSpec};

/// Rules that are told of one request; a table of thousands is not repeated whole.
const TRIED_MAX: usize = 200;

/// One rule of one service, looked at for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub service: ServiceId,
    pub name: String,
    /// As the service says it; empty is any.
    pub host: String,
    /// The same.
    pub path: String,
    pub matches: bool,
    /// It is this rule by which the request goes to the service.
    pub chosen: bool,
    /// Why it matches or not, and why it was chosen or not, in one clause.
    pub why: String,
}

/// What was made of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// As it was compared.
    pub host: String,
    pub path: String,
    pub service: Option<ServiceId>,
    /// The one that was chosen first, then those that match, then the others, each in order of services.
    pub tried: Vec<Tried>,
    /// Rules that are not told.
    pub untold: usize,
}

/// How special a rule's match is: host before path. Larger wins.
type Rank = (usize, usize);

/// Says for a request of this host and path, without its query, what each rule of the table made of it.
#[must_use]
pub fn explain(table: &RouteTable, host: &str, path: &str) -> Explanation {
    let service = Classifier::new(table).classify(host, path);
    let host = normalise_host(host).into_owned();
    let mut tried: Vec<(Option<Rank>, Tried)> = Vec::new();
    let mut untold = 0;
    for route in &table.services {
        let spec = &route.spec;
        let room = TRIED_MAX.saturating_sub(tried.len());
        let rules = rules_of(spec);
        let keep = if service == Some(spec.id) { rules.len() } else { room.min(rules.len()) };
        untold += rules.len() - keep;
        tried.extend(rules.into_iter().take(keep).map(|rule| try_rule(spec, rule, &host, path)));
    }
    let best = tried
        .iter()
        .enumerate()
        .filter(|(_, (rank, rule))| rank.is_some() && Some(rule.service) == service)
        .max_by_key(|(at, (rank, _))| (*rank, std::cmp::Reverse(*at)))
        .map(|(at, _)| at);
    let best_rank = best.and_then(|at| tried[at].0);
    for (at, (rank, rule)) in tried.iter_mut().enumerate() {
        rule.chosen = best == Some(at);
        if let (Some(rank), Some(best_rank), false) = (*rank, best_rank, rule.chosen) {
            rule.why = format!("{}; {}", rule.why, beaten(rank, best_rank));
        }
    }
    tried.sort_by_key(|(_, rule)| (!rule.chosen, !rule.matches));
    Explanation {
        host,
        path: path.to_owned(),
        service,
        tried: tried.into_iter().map(|(_, rule)| rule).collect(),
        untold,
    }
}

/// Each host with each path; a service that takes no requests has none.
fn rules_of(spec: &ServiceSpec) -> Vec<(String, String)> {
    if spec.unrouted || spec.variant.is_some() {
        return Vec::new();
    }
    let any = [String::new()];
    let or_any = |list: &[String]| if list.is_empty() { any.to_vec() } else { list.to_vec() };
    let paths = or_any(&spec.route.paths);
    let hosts = or_any(&spec.route.hosts);
    hosts.iter().flat_map(|host| paths.iter().map(|path| (host.clone(), path.clone()))).collect()
}

fn try_rule(
    spec: &ServiceSpec,
    (host, path): (String, String),
    asked_host: &str,
    asked_path: &str,
) -> (Option<Rank>, Tried) {
    let (host_rank, host_why) = match_host(&host, asked_host);
    let (path_rank, path_why) = match_path(&path, asked_path);
    let rank = host_rank.zip(path_rank);
    let why = match (host_rank, path_rank) {
        (None, _) => host_why,
        (Some(_), None) => path_why,
        (Some(_), Some(_)) => format!("{host_why}, {path_why}"),
    };
    let (service, name) = (spec.id, spec.name.clone());
    (rank, Tried { service, name, host, path, matches: rank.is_some(), chosen: false, why })
}

fn match_host(rule: &str, host: &str) -> (Option<usize>, String) {
    let rule = normalise_host(rule);
    let told = if host.is_empty() { "(no host)" } else { host };
    match rule.strip_prefix('*') {
        None if rule.is_empty() => (Some(1), "any host".to_owned()),
        Some("") => (Some(1), "any host".to_owned()),
        None if rule == host => (Some(usize::MAX), "the very host".to_owned()),
        Some(suffix) if suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix) => {
            (Some(1 + suffix.len()), format!("{told} is below {}", &suffix[1..]))
        }
        _ => (None, format!("the host is {told}, not {rule}")),
    }
}

fn match_path(rule: &str, path: &str) -> (Option<usize>, String) {
    let prefix = rule.trim_end_matches('/');
    match path.strip_prefix(prefix) {
        Some(_) if prefix.is_empty() => (Some(0), "any path".to_owned()),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            (Some(prefix.len()), format!("the path is {prefix} or below it"))
        }
        Some(_) => (None, format!("the path {path} only begins like {prefix}: prefixes end at a slash")),
        None => (None, format!("the path {path} is not below {prefix}")),
    }
}

fn beaten(rank: Rank, best: Rank) -> &'static str {
    if rank.0 < best.0 {
        "a more special host goes first"
    } else if rank.1 < best.1 {
        "a longer path goes first"
    } else {
        "the same rule of an earlier service goes first"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{Generation, RouteRule, ServiceRoute};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn table(rules: Vec<(Vec<String>, Vec<String>)>) -> RouteTable {
        let services = rules.into_iter().zip(0..).map(|((hosts, paths), id)| {
            let mut spec = ServiceSpec::named(ServiceId(id), format!("s{id}"));
            spec.route = RouteRule { hosts, paths };
            Arc::new(ServiceRoute::new(Arc::new(spec), Vec::new(), None))
        });
        RouteTable { generation: Generation(1), services: services.collect() }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn each_rule_says_what_it_made_of_the_request() {
        let table = table(vec![
            (texts(&["shop.example"]), texts(&["/api", "/static"])),
            (texts(&["*.example"]), texts(&[])),
            (texts(&["other.test"]), texts(&[])),
            (texts(&[]), texts(&["/api/v2"])),
            (texts(&["shop.example"]), texts(&["/api/"])),
        ]);
        let lines = |host: &str, path: &str| -> Vec<String> {
            let explanation = explain(&table, host, path);
            let mark = |t: &Tried| {
                if t.chosen {
                    ">"
                } else if t.matches {
                    "+"
                } else {
                    "-"
                }
            };
            explanation.tried.iter().map(|t| format!("{} {}: {}", mark(t), t.name, t.why)).collect()
        };
        assert_eq!(
            lines("Shop.example:80", "/api/v2/x"),
            [
                "> s0: the very host, the path is /api or below it",
                "+ s1: shop.example is below example, any path; a more special host goes first",
                "+ s3: any host, the path is /api/v2 or below it; a more special host goes first",
                "+ s4: the very host, the path is /api or below it; the same rule of an earlier service goes first",
                "- s0: the path /api/v2/x is not below /static",
                "- s2: the host is shop.example, not other.test",
            ]
        );
        let unknown = explain(&table, "", "/apix");
        assert_eq!(unknown.service, None);
        assert!(unknown.tried.iter().all(|t| !t.matches && !t.chosen));
        assert!(
            lines("shop.example", "/apix")
                .contains(&"- s0: the path /apix only begins like /api: prefixes end at a slash".to_owned())
        );
    }

    #[test]
    fn a_large_table_is_not_told_whole_but_for_what_was_chosen() {
        let mut rules: Vec<_> = (0..1_000).map(|n| (vec![format!("h{n}")], Vec::new())).collect();
        rules.push((texts(&["mine"]), Vec::new()));
        let explanation = explain(&table(rules), "mine", "/");
        assert_eq!(explanation.service, Some(ServiceId(1_000)));
        assert!(explanation.tried[0].chosen);
        assert_eq!((explanation.tried.len(), explanation.untold), (TRIED_MAX + 1, 800));
    }

    proptest! {
        #[test]
        fn the_chosen_rule_is_that_of_the_service_that_is_picked(
            rules in prop::collection::vec(
                (
                    prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..3),
                    prop::collection::vec("(/[xy]{1,2}){1,3}/?", 0..3),
                ),
                0..8,
            ),
            host in "[ab](\\.[ab]){0,2}",
            path in "(/[xy]{0,2}){0,4}",
        ) {
            let table = table(rules);
            let explanation = explain(&table, &host, &path);
            prop_assert_eq!(explanation.service, Classifier::new(&table).classify(&host, &path));
            let chosen: Vec<_> = explanation.tried.iter().filter(|t| t.chosen).map(|t| t.service).collect();
            prop_assert_eq!(chosen, Vec::from_iter(explanation.service));
            // And nothing that matches is more special than what was chosen.
            prop_assert_eq!(explanation.tried.iter().any(|t| t.matches), explanation.service.is_some());
        }
    }
}
