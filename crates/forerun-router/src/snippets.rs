//! The services as other proxies and pages know them. Made from the same table that requests go by, so that a route
//! outlives its container.

use crate::fault::Fault;
use crate::page;
use crate::query::param;
use bytes::Bytes;
use forerun_types::{Launch, RouteTable, ServiceSpec};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Where the router is from where the proxy runs, if the question does not say.
const ROUTER: &str = "http://127.0.0.1:8080";
/// Where `/v1/wake` is, likewise.
const WAKE: &str = "http://127.0.0.1:7070/v1/wake";

/// A URL of the question, as `name=http://host:port`.
fn url(asked: &Parts, name: &str, default: &str) -> Result<String, Fault> {
    let url = param(asked.uri.query(), name).unwrap_or_else(|| default.to_owned());
    let is_url = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).is_some_and(|rest| {
        !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || "{}\"`\\".contains(c))
    });
    is_url.then_some(url).ok_or_else(|| {
        let sentence = format!("{name} is no URL; write one as {default}");
        Fault::client(StatusCode::BAD_REQUEST, "bad-request", sentence)
    })
}

/// Names that can stand in a rule of another program as they are.
fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control() || "`{}\"\\".contains(c))
}

/// The services that requests can be for; a rule that another program could misread is left out.
fn routed(table: &RouteTable) -> impl Iterator<Item = &ServiceSpec> {
    let specs =
        table.services.iter().map(|route| &*route.spec).filter(|s| !s.unrouted && s.variant.is_none());
    specs.filter(|s| s.route.hosts.iter().chain(&s.route.paths).all(|text| is_plain(text)))
}

/// Traefik's dynamic configuration for its HTTP provider. `router` is where Forerun's router is from where Traefik
/// runs; with `mode=auth` Traefik asks `wake` first, and then sends the request to the container itself.
pub(crate) fn traefik(table: &RouteTable, asked: &Parts) -> Response<Bytes> {
    match try_traefik(table, asked) {
        Ok(json) => page::own(StatusCode::OK, "application/json", format!("{json:#}\n")),
        Err(fault) => fault.into_text(true),
    }
}

fn try_traefik(table: &RouteTable, asked: &Parts) -> Result<Value, Fault> {
    let beside = match param(asked.uri.query(), "mode").as_deref() {
        None | Some("router") => false,
        Some("auth") => true,
        Some(other) => {
            let sentence = format!("there is no mode {other}; there are router and auth");
            return Err(Fault::client(StatusCode::BAD_REQUEST, "bad-request", sentence));
        }
    };
    let (router, wake) = (url(asked, "router", ROUTER)?, url(asked, "wake", WAKE)?);
    let (mut routers, mut services, mut middlewares) = (Map::new(), Map::new(), Map::new());
    for spec in routed(table) {
        let name = format!("forerun-{}", key(&spec.name));
        let mut entry = json!({ "rule": traefik_rule(spec), "service": "forerun" });
        if spec.route.hosts.is_empty() && spec.route.paths.is_empty() {
            // What takes everything comes last.
            entry["priority"] = json!(1);
        }
        if beside {
            let Some(address) = own_address(spec) else { continue };
            entry["service"] = json!(name);
            entry["middlewares"] = json!([name]);
            let server = json!([{ "url": format!("http://{address}") }]);
            services.insert(name.clone(), json!({ "loadBalancer": { "servers": server } }));
            let ask = format!("{wake}?service={}", crate::query::encode(&spec.name));
            middlewares.insert(name.clone(), json!({ "forwardAuth": { "address": ask } }));
        }
        routers.insert(name, entry);
    }
    if !beside {
        services.insert("forerun".to_owned(), json!({ "loadBalancer": { "servers": [{ "url": router }] } }));
    }
    // Traefik refuses a section that is empty.
    let mut http = Map::new();
    for (section, map) in [("routers", routers), ("services", services), ("middlewares", middlewares)] {
        if !map.is_empty() {
            http.insert(section.to_owned(), Value::Object(map));
        }
    }
    Ok(if http.contains_key("routers") { json!({ "http": http }) } else { json!({}) })
}

/// A name in Traefik's configuration.
fn key(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect()
}

/// Where a proxy on the same network finds a user's own container.
fn own_address(spec: &ServiceSpec) -> Option<String> {
    let Launch::Container(container) = &spec.launch else { return None };
    Some(format!("{}:{}", container.own.as_ref()?, spec.port?))
}

fn traefik_rule(spec: &ServiceSpec) -> String {
    let any = |rules: Vec<String>| match rules.len() {
        0 => None,
        1 => rules.into_iter().next(),
        _ => Some(format!("({})", rules.join(" || "))),
    };
    let host = |host: &String| match host.strip_prefix("*.") {
        Some(domain) => format!("HostRegexp(`^.+\\.{}$`)", domain.replace('.', "\\.")),
        None => format!("Host(`{host}`)"),
    };
    let path = |path: &String| {
        let prefix = path.trim_end_matches('/');
        match prefix {
            "" => "PathPrefix(`/`)".to_owned(),
            // Its prefixes do not end at a slash.
            prefix => format!("(Path(`{prefix}`) || PathPrefix(`{prefix}/`))"),
        }
    };
    let hosts = any(spec.route.hosts.iter().map(host).collect());
    let paths = any(spec.route.paths.iter().map(path).collect());
    match (hosts, paths) {
        (Some(hosts), Some(paths)) => format!("{hosts} && {paths}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "PathPrefix(`/`)".to_owned(),
    }
}

/// A Caddyfile whose sites all go to Forerun's router, which is at `router` from where Caddy runs.
pub(crate) fn caddy(table: &RouteTable, asked: &Parts) -> Response<Bytes> {
    match url(asked, "router", ROUTER) {
        Ok(router) => page::own(StatusCode::OK, "text/plain; charset=utf-8", caddyfile(table, &router)),
        Err(fault) => fault.into_text(false),
    }
}

fn caddyfile(table: &RouteTable, router: &str) -> String {
    // A site of Caddy's is a host: what several services have of one host stands together.
    let mut sites: Vec<(String, Vec<String>)> = Vec::new();
    let or_one =
        |list: &[String], one: &str| if list.is_empty() { vec![one.to_owned()] } else { list.to_vec() };
    for spec in routed(table) {
        let paths = or_one(&spec.route.paths, "/");
        for host in or_one(&spec.route.hosts, ":80") {
            match sites.iter_mut().find(|(site, _)| *site == host) {
                Some((_, all)) => all.extend(paths.iter().cloned()),
                None => sites.push((host, paths.clone())),
            }
        }
    }
    let mut text = String::from("# From forerun; renew it with: curl -s http://127.0.0.1:7070/v1/caddy\n");
    for (site, paths) in sites {
        let prefixes: Vec<&str> = paths.iter().map(|path| path.trim_end_matches('/')).collect();
        let list: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix} {prefix}/*")).collect();
        let _ = match prefixes.contains(&"") {
            true => writeln!(text, "{site} {{\n\treverse_proxy {router}\n}}"),
            false => writeln!(
                text,
                "{site} {{\n\t@forerun path {}\n\treverse_proxy @forerun {router}\n}}",
                list.join(" ")
            ),
        };
    }
    text
}

/// A picture of a service's state.
pub(crate) fn badge(name: &str, word: &str) -> Response<Bytes> {
    let colour = match word {
        "ready" => "#2a8",
        "asleep" => "#57a",
        "starting" => "#c90",
        _ => "#c33",
    };
    let shown: String = name.chars().take(40).collect();
    // About seven pixels for a letter of the size below.
    let (left, right) = (shown.chars().count() * 7 + 12, word.len() * 7 + 12);
    let (width, name) = (left + right, page::escape(&shown));
    let (name_x, word_x) = (left / 2, left + right / 2);
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" \
         aria-label=\"{name}: {word}\"><rect width=\"{left}\" height=\"20\" fill=\"#444\"/>\
         <rect x=\"{left}\" width=\"{right}\" height=\"20\" fill=\"{colour}\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,sans-serif\" font-size=\"11\">\
         <text x=\"{name_x}\" y=\"14\">{name}</text><text x=\"{word_x}\" y=\"14\">{word}</text></g></svg>\n"
    );
    page::own(StatusCode::OK, "image/svg+xml", svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{Container, RouteRule, ServiceId, ServiceRoute};
    use hyper::Request;
    use std::sync::Arc;

    fn table() -> RouteTable {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let mut services = Vec::new();
        for (id, (name, hosts, paths)) in [
            ("shop", &["shop.example", "*.shop.example"][..], &[][..]),
            ("api", &["shop.example"], &["/api/", "/v2"]),
            ("rest", &[], &[]),
            ("evil", &["a`) || Host(`b"], &[]),
            ("wide", &[], &["/wide"]),
            ("db", &["db"], &[]),
        ]
        .into_iter()
        .enumerate()
        {
            let mut spec = ServiceSpec::named(ServiceId(id as u32), name);
            spec.route = RouteRule { hosts: texts(hosts), paths: texts(paths) };
            spec.unrouted = name == "db";
            if name == "api" {
                let own = Some("shop-api-1".to_owned());
                spec.launch = Launch::Container(Container { own, ..Container::default() });
                spec.port = Some(8000);
            }
            services.push(Arc::new(ServiceRoute::new(Arc::new(spec), Vec::new(), None)));
        }
        RouteTable { services, ..RouteTable::default() }
    }

    fn asked(target: &str) -> Parts {
        Request::builder().uri(target).body(()).expect("a request").into_parts().0
    }

    #[test]
    fn traefik_sends_everything_to_the_router() {
        let json = try_traefik(&table(), &asked("/v1/traefik?router=http://forerun:8080")).expect("JSON");
        let http = &json["http"];
        assert_eq!(http["services"]["forerun"]["loadBalancer"]["servers"][0]["url"], "http://forerun:8080");
        let rules: Vec<_> = ["forerun-shop", "forerun-api", "forerun-rest", "forerun-wide"]
            .iter()
            .map(|name| http["routers"][name]["rule"].as_str().unwrap_or("missing"))
            .collect();
        assert_eq!(
            rules,
            [
                r"(Host(`shop.example`) || HostRegexp(`^.+\.shop\.example$`))",
                "Host(`shop.example`) && ((Path(`/api`) || PathPrefix(`/api/`)) || (Path(`/v2`) || PathPrefix(`/v2/`)))",
                "PathPrefix(`/`)",
                "(Path(`/wide`) || PathPrefix(`/wide/`))",
            ]
        );
        assert_eq!(http["routers"]["forerun-rest"]["priority"], 1);
        assert_eq!(
            http["routers"].as_object().map(Map::len),
            Some(4),
            "neither db nor what cannot be quoted"
        );
        assert!(http.get("middlewares").is_none(), "an empty section is refused");
        assert_eq!(try_traefik(&RouteTable::default(), &asked("/v1/traefik")).expect("JSON"), json!({}));
    }

    #[test]
    fn traefik_asks_first_where_a_container_is_known() {
        let wake = "http://forerun:7071/v1/wake";
        let json =
            try_traefik(&table(), &asked(&format!("/v1/traefik?mode=auth&wake={wake}"))).expect("JSON");
        let http = &json["http"];
        assert_eq!(http["routers"].as_object().map(Map::len), Some(1));
        assert_eq!(http["routers"]["forerun-api"]["middlewares"][0], "forerun-api");
        let server = &http["services"]["forerun-api"]["loadBalancer"]["servers"][0]["url"];
        assert_eq!(server, "http://shop-api-1:8000");
        let ask = &http["middlewares"]["forerun-api"]["forwardAuth"]["address"];
        assert_eq!(ask, &format!("{wake}?service=api"));
        for (query, expect) in [
            ("mode=other", "there is no mode other; there are router and auth"),
            ("router=forerun:8080", "router is no URL; write one as http://127.0.0.1:8080"),
            ("router=http://a%20b", "router is no URL; write one as http://127.0.0.1:8080"),
        ] {
            let fault = try_traefik(&table(), &asked(&format!("/v1/traefik?{query}"))).expect_err(query);
            assert_eq!(fault.sentence, expect);
        }
    }

    #[test]
    fn a_site_of_caddys_has_all_paths_of_its_host() {
        let text = caddyfile(&table(), "127.0.0.1:8080");
        let (_, sites) = text.split_once('\n').expect("a first line");
        assert_eq!(
            sites,
            "shop.example {\n\treverse_proxy 127.0.0.1:8080\n}\n\
             *.shop.example {\n\treverse_proxy 127.0.0.1:8080\n}\n\
             :80 {\n\treverse_proxy 127.0.0.1:8080\n}\n"
        );
        let mut table = table();
        table.services.retain(|route| route.spec.name == "api");
        assert!(caddyfile(&table, "r").contains(
            "shop.example {\n\t@forerun path /api /api/* /v2 /v2/*\n\treverse_proxy @forerun r\n}\n"
        ));
    }

    #[test]
    fn a_badge_is_a_picture_whatever_the_name() {
        let badge = badge("<a&b>", "asleep");
        let svg = String::from_utf8(badge.body().to_vec()).expect("UTF-8");
        assert!(svg.contains("&lt;a&amp;b&gt;: asleep") && !svg.contains("<a&"), "{svg}");
        assert_eq!(badge.headers()["content-type"], "image/svg+xml");
    }
}
