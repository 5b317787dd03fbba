//! An existing compose project of six services, as compose leaves it in the engine: a network, a container for each
//! with compose's own labels, and six lines of ours. `api` and `orders` share `db`.

use crate::engine::{Engine, fixture};
use serde_json::json;

/// A service of the project: its name, compose's `depends_on`, and labels of its own beside those that all have.
struct Part {
    name: &'static str,
    depends_on: &'static str,
    labels: &'static [(&'static str, &'static str)],
    flags: &'static [&'static str],
}

const PARTS: [Part; 6] = [
    Part { name: "db", depends_on: "", labels: &[("forerun.ready.settle", "0s")], flags: &[] },
    Part { name: "cache", depends_on: "", labels: &[], flags: &[] },
    Part {
        name: "api",
        depends_on: "db:service_started:false,cache:service_started:false",
        labels: &[("forerun.route.host", "api.test")],
        flags: &[],
    },
    Part {
        name: "orders",
        depends_on: "db:service_healthy:false",
        labels: &[("forerun.route.host", "orders.test")],
        flags: &[],
    },
    Part {
        name: "web",
        depends_on: "api:service_started:false",
        labels: &[("forerun.route.host", "web.test"), ("forerun.hold", "auto")],
        // Long enough for a person to see the waiting page.
        flags: &["--start-delay", "700"],
    },
    Part {
        name: "admin",
        depends_on: "",
        // Long enough for a person to stop it before Forerun does.
        labels: &[("forerun.route.host", "admin.test"), ("forerun.keep_at_least", "8s")],
        flags: &[],
    },
];

/// What every service of the project says to Forerun. `brief` is a class of the configuration whose cold starts cost
/// so little that nothing is kept for long.
const COMMON: [(&str, &str); 6] = [
    ("forerun.enable", "true"),
    ("forerun.port", "8080"),
    ("forerun.ready.http", "/"),
    ("forerun.resources.memory", "64MB"),
    ("forerun.concurrency", "100"),
    ("forerun.sla", "brief"),
];

/// Names of the project's services, dependencies first.
pub(crate) fn names() -> [&'static str; 6] {
    PARTS.each_ref().map(|part| part.name)
}

/// The name by which Forerun knows a service.
pub(crate) fn service(name: &str) -> String {
    format!("shop-{name}")
}

/// The name that compose gives a service's only container.
pub(crate) fn container(service: &str) -> String {
    format!("shop-{service}-1")
}

/// `docker compose create`.
pub(crate) fn create(engine: &Engine) {
    let network = json!({"Name": "shop_default", "Labels": {"com.docker.compose.project": "shop"}});
    engine.call("POST", "/networks/create", Some(&network));
    for part in &PARTS {
        let mut labels = vec![
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", part.name),
            ("com.docker.compose.container-number", "1"),
            ("com.docker.compose.oneoff", "False"),
            ("com.docker.compose.depends_on", part.depends_on),
        ];
        labels.extend(COMMON);
        labels.extend(part.labels);
        let mut flags = vec!["--tag", part.name];
        flags.extend(part.flags);
        let mut settings = fixture(&flags, &labels);
        settings["HostConfig"] = json!({
            "NetworkMode": "shop_default",
            "RestartPolicy": {"Name": "unless-stopped"},
        });
        settings["NetworkingConfig"] = json!({
            "EndpointsConfig": {"shop_default": {"Aliases": [part.name]}},
        });
        engine.create(&container(part.name), &settings);
    }
}

/// `docker compose start`.
pub(crate) fn start(engine: &Engine) {
    for name in names() {
        engine.start(&container(name));
    }
}

/// `docker compose down`.
pub(crate) fn down(engine: &Engine) {
    for name in names().iter().rev() {
        let name = container(name);
        if engine.is_running(&name) {
            engine.stop(&name);
        }
        engine.call("DELETE", &format!("/containers/{name}"), None);
    }
    engine.call("DELETE", "/networks/shop_default", None);
}

/// The containers of the project with what a restart or a replacement would change: id and start.
pub(crate) fn identity(engine: &Engine) -> Vec<(String, String, String)> {
    let one = |name: &str| {
        let inspected = engine.inspect(&container(name));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (name.to_owned(), text(&inspected["Id"]), text(&inspected["State"]["StartedAt"]))
    };
    names().iter().map(|name| one(name)).collect()
}
