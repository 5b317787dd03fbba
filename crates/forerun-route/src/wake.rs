//! Which requests are nobody's: probes, bots and prefetches. Such a request neither wakes a service nor counts as
//! what a person did.
//!
//! A wrong yes leaves a person in front of a sleeping service, a wrong no keeps an idle one up. Where the two are in
//! doubt the request counts: of HEAD and OPTIONS only what cannot be the first half of a person's act is left out (a
//! browser's preflight is followed by the request that it asks for, and clients of registries and file stores ask by
//! HEAD before they read).

use crate::network::Network;
use forerun_types::WakeRules;
use std::fmt;
use std::net::IpAddr;

/// Exact paths that only machines ask for.
pub const PROBE_PATHS: [&str; 14] = [
    "/-/healthy",
    "/-/ready",
    "/actuator/health",
    "/apple-touch-icon-precomposed.png",
    "/apple-touch-icon.png",
    "/favicon.ico",
    "/health",
    "/healthcheck",
    "/healthz",
    "/livez",
    "/ping",
    "/readyz",
    "/robots.txt",
    "/status/health",
];

/// Words in the user agents of monitors, and of crawlers whose name does not end with one of [`BOT_ENDINGS`].
pub const PROBE_AGENTS: [&str; 34] = [
    "aws-elb",
    "betteruptime",
    "blackbox",
    "blackbox-exporter",
    "bot",
    "check_http",
    "checkly",
    "consul",
    "datadog",
    "elb-healthchecker",
    "facebookexternalhit",
    "freshping",
    "gatus",
    "googlehc",
    "haproxy",
    "hetrixtools",
    "icinga",
    "kube-probe",
    "mediapartners-google",
    "monit",
    "monitis",
    "nagios",
    "nodeping",
    "pingdom",
    "prometheus",
    "python-uptime",
    "site24x7",
    "slurp",
    "statuscake",
    "updown",
    "uptime",
    "uptime-kuma",
    "varnish",
    "zabbix",
];

/// How the names of crawlers end.
pub const BOT_ENDINGS: [&str; 4] = ["bot", "crawler", "spider", "robot"];

/// A brand of telephones.
const NO_BOT: &str = "cubot";

/// What of a request tells whose it is. Empty texts stand for absent headers.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'r> {
    pub method: &'r str,
    /// Without the query.
    pub path: &'r str,
    /// `User-Agent`.
    pub agent: &'r str,
    /// `Sec-Purpose`, `Purpose`, or what went before them.
    pub purpose: &'r str,
    /// It carries `Access-Control-Request-Method`.
    pub preflight: bool,
    pub address: IpAddr,
}

/// By what a request is known as nobody's.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nobody {
    Method(String),
    Path(String),
    Agent(String),
    Address(Network),
    Prefetch,
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => write!(f, "method {method}"),
            Self::Path(path) => write!(f, "path {path}"),
            Self::Agent(word) => write!(f, "user agent with `{word}`"),
            Self::Address(network) => write!(f, "address in {network}"),
            Self::Prefetch => f.write_str("a browser's prefetch"),
        }
    }
}

/// A service's rules, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct WakeFilter {
    methods: Vec<String>,
    paths: Vec<String>,
    agents: Vec<String>,
    networks: Vec<Network>,
    defaults: bool,
}

impl WakeFilter {
    /// Networks that cannot be read match nothing: configuration refuses them.
    #[must_use]
    pub fn new(rules: &WakeRules) -> Self {
        let lower = |list: &[String]| list.iter().map(|text| text.to_ascii_lowercase()).collect();
        Self {
            methods: rules.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
            paths: rules.paths.iter().map(|path| path.trim_end_matches('/').to_owned()).collect(),
            agents: lower(&rules.agents),
            networks: rules.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            defaults: !rules.no_defaults,
        }
    }

    /// Why a request is nobody's, or `None` when it counts.
    pub fn nobody(&self, caller: &Caller<'_>) -> Option<Nobody> {
        if let Some(method) = self.methods.iter().find(|m| m.eq_ignore_ascii_case(caller.method)) {
            return Some(Nobody::Method(method.clone()));
        }
        if let Some(path) = self.paths.iter().find(|path| is_below(caller.path, path)) {
            return Some(Nobody::Path(if path.is_empty() { "/".to_owned() } else { path.clone() }));
        }
        if !self.agents.is_empty() {
            let agent = caller.agent.to_ascii_lowercase();
            if let Some(word) = self.agents.iter().find(|word| agent.contains(word.as_str())) {
                return Some(Nobody::Agent(word.clone()));
            }
        }
        if let Some(network) = self.networks.iter().find(|network| network.contains(caller.address)) {
            return Some(Nobody::Address(*network));
        }
        if self.defaults { by_default(caller) } else { None }
    }
}

fn by_default(caller: &Caller<'_>) -> Option<Nobody> {
    if !caller.purpose.is_empty() && is_prefetch(caller.purpose) {
        return Some(Nobody::Prefetch);
    }
    let alone = match caller.method {
        "HEAD" => caller.path == "/" || caller.path.is_empty(),
        "OPTIONS" => !caller.preflight,
        "TRACE" => true,
        _ => false,
    };
    if alone {
        return Some(Nobody::Method(caller.method.to_owned()));
    }
    if PROBE_PATHS.binary_search(&caller.path).is_ok() {
        return Some(Nobody::Path(caller.path.to_owned()));
    }
    bot_word(caller.agent).map(Nobody::Agent)
}

fn is_prefetch(purpose: &str) -> bool {
    let mut words = purpose.split([';', ',']).map(str::trim);
    words.any(|word| word.eq_ignore_ascii_case("prefetch") || word.eq_ignore_ascii_case("preview"))
}

/// Whether a path is `prefix` or below it; the empty prefix has everything below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The word by which a user agent is a bot or a monitor. Words are cut at all but letters, digits, `-` and `_`.
fn bot_word(agent: &str) -> Option<String> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let words = agent.split(|c| !is_inside(c)).filter(|word| word.len() >= 3);
    words.map(|word| (word, bot_part(word))).find_map(|(word, bad)| bad.then(|| word.to_ascii_lowercase()))
}

fn bot_part(word: &str) -> bool {
    let mut lower = [0; 24];
    let Some(lower) = lower.get_mut(..word.len()) else {
        return word.split('-').any(|part| part.len() < word.len() && bot_part(part));
    };
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    let Ok(lower) = std::str::from_utf8(lower) else { return false };
    let ends = |part: &str| part != NO_BOT && BOT_ENDINGS.iter().any(|ending| part.ends_with(ending));
    PROBE_AGENTS.binary_search(&lower).is_ok() || lower.split(['-', '_']).any(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller<'r>(method: &'r str, path: &'r str, agent: &'r str) -> Caller<'r> {
        Caller { method, path, agent, purpose: "", preflight: false, address: [10, 1, 2, 3].into() }
    }

    #[test]
    fn lists_are_in_order() {
        assert!(PROBE_PATHS.is_sorted());
        assert!(PROBE_AGENTS.is_sorted());
    }

    #[test]
    fn probes_bots_and_prefetches_are_nobody() {
        const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        let filter = WakeFilter::new(&WakeRules::default());
        for (method, path, agent, expect) in [
            ("GET", "/", FIREFOX, None),
            ("POST", "/orders", "curl/8.5.0", None),
            ("GET", "/healthz", FIREFOX, Some("path /healthz")),
            ("GET", "/healthz/deep", FIREFOX, None),
            ("GET", "/api/health", FIREFOX, None),
            ("HEAD", "/", FIREFOX, Some("method HEAD")),
            ("HEAD", "/v2/app/manifests/1", "docker/28.0", None),
            ("OPTIONS", "/orders", FIREFOX, Some("method OPTIONS")),
            ("GET", "/", "Uptime-Kuma/1.23.11", Some("user agent with `uptime-kuma`")),
            ("GET", "/", "kube-probe/1.31", Some("user agent with `kube-probe`")),
            ("GET", "/", "Prometheus/2.53.0", Some("user agent with `prometheus`")),
            ("GET", "/", "Blackbox Exporter/0.25.0", Some("user agent with `blackbox`")),
            ("GET", "/", "check_http/v2.3 (nagios-plugins 2.3)", Some("user agent with `check_http`")),
            (
                "GET",
                "/",
                "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
                Some("user agent with `pingdom`"),
            ),
            (
                "GET",
                "/",
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                Some("user agent with `googlebot`"),
            ),
            ("GET", "/", "Mozilla/5.0 (compatible; Baiduspider/2.0)", Some("user agent with `baiduspider`")),
            ("GET", "/", "Slackbot-LinkExpanding 1.0", Some("user agent with `slackbot-linkexpanding`")),
            ("GET", "/", "Mozilla/5.0 (Linux; Android 9; CUBOT_X18_Plus) Chrome/120", None),
            ("GET", "/", "Mozilla/5.0 (Linux; Android 13; Bottega) Chrome/120", None),
            ("GET", "/", "", None),
        ] {
            let why = filter.nobody(&caller(method, path, agent)).map(|why| why.to_string());
            assert_eq!(why.as_deref(), expect, "{method} {path} {agent}");
        }
    }

    #[test]
    fn preflights_count_and_prefetches_do_not() {
        let filter = WakeFilter::new(&WakeRules::default());
        let preflight = Caller { preflight: true, ..caller("OPTIONS", "/orders", "x") };
        assert_eq!(filter.nobody(&preflight), None);
        for (purpose, nobody) in [
            ("prefetch", true),
            ("prefetch;prerender", true),
            ("Prefetch", true),
            ("", false),
            ("other", false),
        ] {
            let caller = Caller { purpose, ..caller("GET", "/", "x") };
            assert_eq!(filter.nobody(&caller).is_some(), nobody, "{purpose}");
        }
    }

    #[test]
    fn own_rules_add_to_the_defaults_or_replace_them() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let rules = WakeRules {
            methods: texts(&["propfind"]),
            paths: texts(&["/metrics/", "/probe"]),
            agents: texts(&["myMonitor"]),
            addresses: texts(&["10.1.0.0/16", "nonsense", "fd00::/8"]),
            ..WakeRules::default()
        };
        let bare = WakeRules { addresses: Vec::new(), no_defaults: true, ..rules.clone() };
        let (own, bare) = (WakeFilter::new(&rules), WakeFilter::new(&bare));
        for (method, path, agent, by_own, by_bare) in [
            ("PROPFIND", "/x", "a", "method PROPFIND", "method PROPFIND"),
            ("GET", "/metrics", "a", "path /metrics", "path /metrics"),
            ("GET", "/metricsx", "a", "address in 10.1.0.0/16", ""),
            ("GET", "/probe/deep", "a", "path /probe", "path /probe"),
            ("GET", "/", "A MyMonitor/2", "user agent with `mymonitor`", "user agent with `mymonitor`"),
            ("GET", "/healthz", "a", "address in 10.1.0.0/16", ""),
        ] {
            let why = |filter: &WakeFilter| {
                filter.nobody(&caller(method, path, agent)).map_or(String::new(), |why| why.to_string())
            };
            assert_eq!((why(&own), why(&bare)), (by_own.to_owned(), by_bare.to_owned()), "{method} {path}");
        }
        let v6 = Caller { address: "fd12::1".parse().expect("an address"), ..caller("GET", "/x", "a") };
        assert_eq!(own.nobody(&v6).expect("nobody").to_string(), "address in fd00::/8");
    }
}
