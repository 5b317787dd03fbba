use super::*;
use forerun_types::{Container, Mode, Readiness};

fn container(name: &str, labels: &[(&str, &str)]) -> Labelled {
    let mut labels: BTreeMap<String, String> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    labels.entry(ENABLE.to_owned()).or_insert_with(|| "true".to_owned());
    Labelled {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        labels,
        image: "image:1".to_owned(),
        restart: "unless-stopped".to_owned(),
        ports: vec![8080],
        networks: vec!["shop_default".to_owned()],
        ..Labelled::default()
    }
}

/// A container that compose has made.
fn composed(service: &str, labels: &[(&str, &str)]) -> Labelled {
    let mut made = container(&format!("shop-{service}-1"), labels);
    made.labels.insert(PROJECT.to_owned(), "shop".to_owned());
    made.labels.insert(COMPOSE_SERVICE.to_owned(), service.to_owned());
    made
}

fn config(text: &str) -> Config {
    Config::parse("forerun.toml", text, &std::env::temp_dir()).unwrap()
}

fn read_with(text: &str, containers: &[Labelled]) -> FromLabels {
    services(&config(text), &[Found { site: String::new(), containers: containers.to_vec() }])
}

fn read(containers: &[Labelled]) -> FromLabels {
    read_with("", containers)
}

/// Names of what is read, and parts of what is told, in order.
#[track_caller]
fn check(containers: &[Labelled], names: &[&str], problems: &[&str]) -> FromLabels {
    let found = read(containers);
    let got: Vec<&str> = found.services.iter().map(|s| s.spec.name.as_str()).collect();
    assert_eq!(got, names, "{:?}", found.problems);
    assert_eq!(found.problems.len(), problems.len(), "{:#?}", found.problems);
    for (line, part) in found.problems.iter().zip(problems) {
        assert!(line.contains(part) && !line.contains('\n'), "got      {line}\nexpected {part}");
    }
    found
}

/// The schema is one: each key, by a label and in a file, makes the same record.
#[test]
fn labels_and_toml_make_one_record() {
    let labels = [
        ("forerun.route.host", "shop.example.com, www.example.com"),
        ("forerun.route.path", "/a"),
        ("forerun.port", "3000"),
        ("forerun.ready.http", "/healthz"),
        ("forerun.ready.settle", "2s"),
        ("forerun.start_timeout", "90s"),
        ("forerun.drain_timeout", "5s"),
        ("forerun.resources.memory", "256MB"),
        ("forerun.resources.cpu", "0.5"),
        ("forerun.resources.network", "1MB/s"),
        ("forerun.resources.storage", "1GB"),
        ("forerun.concurrency", "8"),
        ("forerun.min", "1"),
        ("forerun.max", "3"),
        ("forerun.schedule.0.cron", "0 8 * * mon-fri"),
        ("forerun.schedule.0.for", "9h"),
        ("forerun.schedule.0.zone", "Europe/Berlin"),
        ("forerun.schedule.10.cron", "0 20 * * *"),
        ("forerun.schedule.10.for", "1h"),
        ("forerun.schedule.10.min", "2"),
        ("forerun.sla.priority", "200"),
        ("forerun.sla.cold_start_cost", "12.5"),
        ("forerun.sla.guarantee", "20%"),
        ("forerun.mode", "advise"),
        ("forerun.user", "header:X-User"),
        ("forerun.group", "visitors"),
        ("forerun.tenant", "acme"),
        ("forerun.hold.style", "auto"),
        ("forerun.hold.requests", "7"),
        ("forerun.keep_at_least", "5m"),
        ("forerun.busy.command", "[\"pgrep\", \"-x\", \"ffmpeg\"]"),
        ("forerun.busy_max", "2h"),
        ("forerun.pausable", "false"),
        ("forerun.wake.deny", "/metrics,HEAD,kuma"),
        ("forerun.wake.defaults", "false"),
        ("forerun.wake.per_minute", "6"),
        ("forerun.auth.basic.eve", "secret"),
        ("forerun.excludes", "other,visitors"),
        ("forerun.cache.missing", "10s"),
        ("forerun.specialise.by", "path:0"),
        ("forerun.specialise.keys", "a,b"),
        ("forerun.specialise.env.DATA", "{key}"),
        ("forerun.specialise.files./etc/app.d/key.conf", "key={key}"),
        ("forerun.specialise.hook", "http:/become"),
    ];
    let found = check(&[container("web", &labels)], &["web"], &[]);
    let file = config(
        r#"
        [service.web]
        container = "web"
        route = { host = ["shop.example.com", "www.example.com"], path = "/a" }
        port = 3000
        ready = { http = "/healthz", settle = "2s" }
        start_timeout = "90s"
        drain_timeout = "5s"
        resources = { memory = "256MB", cpu = 0.5, network = "1MB/s", storage = "1GB" }
        concurrency = 8
        min = 1
        max = 3
        schedule = [
            { cron = "0 8 * * mon-fri", for = "9h", zone = "Europe/Berlin" },
            { cron = "0 20 * * *", for = "1h", min = 2 },
        ]
        sla = { priority = 200, cold_start_cost = 12.5, guarantee = 0.2 }
        mode = "advise"
        user = "header:X-User"
        group = "visitors"
        tenant = "acme"
        hold = { style = "auto", requests = 7 }
        keep_at_least = "5m"
        busy.command = ["pgrep", "-x", "ffmpeg"]
        busy_max = "2h"
        pausable = false
        wake = { deny = ["/metrics", "HEAD", "kuma"], defaults = false, per_minute = 6 }
        auth.basic.eve = "secret"
        cache = { missing = "10s" }
        excludes = ["other", "visitors"]
        specialise = { by = "path:0", keys = ["a", "b"], env = { DATA = "{key}" }, files = { "/etc/app.d/key.conf" = "key={key}" }, hook = "http:/become" }
        [service.other]
        image = "other"
        route = "none"
        "#,
    );
    let (label, file) = (&found.services[0], &file.services[0]);
    // What the container itself tells, and where a service was found, is no key.
    let Launch::Container(told) = &label.spec.launch else { panic!("{:?}", label.spec.launch) };
    assert_eq!(
        (told.own.as_deref(), told.image.as_str(), told.restart.as_str()),
        (Some("web"), "image:1", "unless-stopped")
    );
    let bare = |spec: &ServiceSpec| ServiceSpec {
        id: ServiceId(0),
        found: false,
        launch: Launch::Container(Container { own: Some("web".to_owned()), ..Container::default() }),
        ..spec.clone()
    };
    assert_eq!(bare(&label.spec), bare(&file.spec));
    assert_eq!(label.zone_name(), file.zone_name());
    assert!(label.spec.found && !file.spec.found);
}

#[test]
fn one_line_is_enough() {
    let found = check(&[composed("web", &[])], &["shop-web"], &[]);
    let spec = &found.services[0].spec;
    assert_eq!(
        (spec.backend.as_str(), spec.mode, spec.max, spec.concurrency),
        ("docker", Mode::Observe, 1, 0)
    );
    assert_eq!((spec.route.hosts.join(" "), spec.unrouted), ("shop-web.localhost".to_owned(), false));
    assert_eq!((&spec.ready, spec.port, spec.found), (&Readiness::Health, Some(8080), true));
}

#[test]
fn names_are_told_or_made() {
    check(&[container("web_1.x", &[])], &["web_1-x"], &[]);
    check(&[container("web", &[("forerun.name", "front")])], &["front"], &[]);
    check(
        &[container("web", &[("forerun.name", "a b")])],
        &[],
        &["container web: forerun.name: a name is 1 to 63"],
    );
    check(&[container(&"x".repeat(70), &[])], &[], &["give it one, as forerun.name=web"]);
    check(
        &[container("a", &[("forerun.name", "x")]), container("b", &[("forerun.name", "x")])],
        &["x"],
        &["container b: forerun.name: \"x\" is container a's already"],
    );
    let mut second = composed("web", &[(COMPOSE_NUMBER, "2")]);
    second.name = "shop-web-2".to_owned();
    let first = composed("web", &[(COMPOSE_NUMBER, "1")]);
    check(
        &[second, first],
        &["shop-web"],
        &["container shop-web-2: forerun.name: \"shop-web\" is container shop-web-1's"],
    );
}

#[test]
fn what_is_not_to_be_managed_is_not() {
    check(&[container("a", &[(ENABLE, "false")])], &[], &[]);
    check(
        &[container("a", &[(ENABLE, "yes")])],
        &[],
        &["container a: forerun.enable: expected true or false, got \"yes\""],
    );
    check(&[container("a", &[("forerun.made", "true")])], &[], &[]);
    check(&[composed("web", &[(COMPOSE_ONEOFF, "True")])], &[], &[]);
    let file = "[service.web]\ncontainer = \"a\"\n";
    let found = read_with(file, &[container("a", &[("forerun.max", "zzz")]), container("web", &[])]);
    assert_eq!(found.services.len(), 0);
    assert_eq!(found.problems.len(), 1);
    assert!(
        found.problems[0].contains("\"web\" is the configuration file's already"),
        "{:?}",
        found.problems
    );
}

#[test]
fn wrong_labels_name_container_label_and_mend() {
    for (label, value, part) in [
        ("forerun.maxx", "3", "container web: forerun.maxx: unknown key; did you mean \"max\"?"),
        ("forerun.max", "three", "forerun.max: expected a whole number, got a text"),
        ("forerun.max", "0", "forerun.max: 0 is out of range; it takes 1 to 100000"),
        ("forerun.max.x", "3", "forerun.max.x: max takes nothing behind it; write max=..."),
        ("forerun.pausable", "yes", "forerun.pausable: expected true or false, got a text"),
        ("forerun.image", "x", "forerun.image: is the container's own, and not for a label"),
        ("forerun.backend", "process", "forerun.backend: a container's is docker"),
        ("forerun.ready.htp", "/", "forerun.ready.htp: unknown key; did you mean \"http\"?"),
        ("forerun.route", "http://x", "forerun.route: \"http://x\" has a scheme"),
        ("forerun.sla", "gold", "forerun.sla: no class \"gold\""),
        (
            "forerun.depends_on",
            "dbb",
            "forerun.depends_on: no service \"dbb\"; label its container forerun.enable=true",
        ),
    ] {
        let found = read(&[container("web", &[(label, value)]), container("fine", &[])]);
        assert_eq!(found.services.len(), 1, "{label}: the other goes on");
        assert!(found.problems.iter().any(|p| p.contains(part)), "{label}={value}: {:#?}", found.problems);
    }
    let both = [("forerun.route", "a.example"), ("forerun.route.path", "/x")];
    check(
        &[container("web", &both)],
        &[],
        &["forerun.route.path: stands beside route; write one of the two"],
    );
}

#[test]
fn needs_are_those_of_the_project() {
    let web = composed(
        "web",
        &[(
            COMPOSE_NEEDS,
            "db:service_healthy:false,init:service_completed_successfully:true,mail:service_started:false",
        )],
    );
    let found = check(
        &[web, composed("db", &[]), composed("init", &[]), container("db", &[])],
        &["db", "shop-db", "shop-init", "shop-web"],
        &[],
    );
    let web = &found.services[3].spec;
    let needs: Vec<(&str, DependsUntil)> =
        web.depends_on.iter().map(|d| (d.service.as_str(), d.until)).collect();
    assert_eq!(needs, [("shop-db", DependsUntil::Ready), ("shop-init", DependsUntil::Completed)]);
    assert_eq!(
        found.warnings,
        [
            "container shop-web-1: depends on \"mail\", which carries no forerun.enable=true: forerun neither starts nor keeps that"
        ]
    );
    // What is there for others takes no requests unless it says so.
    let routed: Vec<bool> = found.services.iter().map(|s| !s.spec.unrouted).collect();
    assert_eq!(routed, [true, false, false, true]);
    let rival = composed("rival", &[("forerun.excludes", "db,elsewhere")]);
    let found = check(&[rival, composed("db", &[])], &["shop-db", "shop-rival"], &[]);
    assert_eq!(found.services[1].spec.excludes, ["shop-db", "elsewhere"]);
    // Our own label reaches other projects, and says more than compose's.
    let api = composed(
        "api",
        &[("forerun.depends_on", "db:started,other"), (COMPOSE_NEEDS, "db:service_healthy:false")],
    );
    let found = check(
        &[api, composed("db", &[("forerun.route", "db.example")]), container("other", &[])],
        &["other", "shop-api", "shop-db"],
        &[],
    );
    let needs: Vec<(&str, DependsUntil)> =
        found.services[1].spec.depends_on.iter().map(|d| (d.service.as_str(), d.until)).collect();
    assert_eq!(needs, [("shop-db", DependsUntil::Started), ("other", DependsUntil::Ready)]);
    assert!(!found.services[2].spec.unrouted);
}

#[test]
fn the_file_may_need_what_labels_describe() {
    let file = "[service.api]\ncommand = \"x\"\nroute = \"/api\"\ndepends_on = [\"shop-db\", \"mail\"]\n";
    let found = read_with(file, &[composed("db", &[]), composed("web", &[("forerun.depends_on", "api")])]);
    let names: Vec<(&str, bool)> =
        found.services.iter().map(|s| (s.spec.name.as_str(), s.spec.unrouted)).collect();
    // What the file needs is there for others, too.
    assert_eq!(names, [("shop-db", true), ("shop-web", false)], "{:?}", found.problems);
    assert_eq!(
        found.warnings,
        [
            "service api: depends_on: no container carries labels for a service \"mail\" yet; api is started without it"
        ]
    );
    // A circle through the file is broken where the labels are.
    let found = read_with(file, &[composed("db", &[("forerun.depends_on", "api")])]);
    assert!(found.services.is_empty());
    assert!(found.problems[0].contains("container shop-db-1: forerun.depends_on: "), "{:?}", found.problems);
}

#[test]
fn what_cannot_be_there_twice_is_taken_as_one() {
    let one = |labels: &[(&str, &str)]| Labelled {
        only_one: Some(
            "its port 80/tcp is published as the fixed port 8080 of the host; publish none".to_owned(),
        ),
        ..container("web", labels)
    };
    for (labels, min, warned) in [
        (&[][..], 0, None),
        (&[("forerun.max", "1"), ("forerun.min", "1")][..], 1, None),
        (
            &[("forerun.max", "3")][..],
            0,
            Some("forerun.max: there can be no second one like it: its port 80/tcp"),
        ),
        (&[("forerun.min", "2")][..], 1, Some("forerun.min: ")),
    ] {
        let found = check(&[one(labels)], &["web"], &[]);
        assert_eq!((found.services[0].spec.min, found.services[0].spec.max), (min, 1), "{labels:?}");
        let told = found.warnings.first().map(String::as_str);
        assert_eq!(told.is_some(), warned.is_some(), "{labels:?}: {told:?}");
        assert!(warned.is_none_or(|part| told.is_some_and(|told| told.contains(part))), "{told:?}");
    }
    let several = container("web", &[("forerun.max", "3")]);
    assert_eq!(check(&[several], &["web"], &[]).services[0].spec.max, 3);
}

#[test]
fn what_goes_takes_what_needs_it_along() {
    let chain = [
        container("a", &[("forerun.depends_on", "b")]),
        container("b", &[("forerun.depends_on", "c")]),
        container("d", &[]),
    ];
    check(
        &chain,
        &["d"],
        &[
            "container b: forerun.depends_on: no service \"c\"",
            "container a: forerun.depends_on: no service \"b\"",
        ],
    );
    let circle =
        [container("a", &[("forerun.depends_on", "b")]), container("b", &[("forerun.depends_on", "a")])];
    check(
        &circle,
        &[],
        &[
            "container a: forerun.depends_on: a waits for itself: a > b > a",
            "container b: forerun.depends_on: no service \"a\"",
        ],
    );
}

#[test]
fn requests_have_one_taker_and_a_port() {
    let two = [
        container("a", &[("forerun.route", "x.example")]),
        container("b", &[("forerun.route", "x.example")]),
    ];
    check(&two, &["a"], &["container b: forerun.route: takes \"x.example\", which a takes already"]);
    let mut silent = container("worker", &[]);
    silent.ports.clear();
    let found = check(&[silent.clone()], &["worker"], &[]);
    assert!(found.services[0].spec.unrouted);
    silent.labels.insert("forerun.route".to_owned(), "w.example".to_owned());
    check(
        &[silent],
        &[],
        &["container worker: forerun.port: it exposes no port; name the one it listens on"],
    );
    let mut many = container("web", &[]);
    many.ports = vec![80, 443];
    check(
        &[many],
        &[],
        &["container web: forerun.port: it exposes 80, 443; name the one for requests, as forerun.port=80"],
    );
    let found = check(&[container("web", &[("forerun.route", "none")])], &["web"], &[]);
    assert!(found.services[0].spec.unrouted);
}

#[test]
fn engines_beside_the_first_are_backends_of_their_own() {
    let text = "[site.here]\n[site.box]\nengine = \"tcp://box:2376\"\n[service.x]\nimage = \"x\"\n";
    let found = [
        Found { site: String::new(), containers: vec![container("a", &[])] },
        Found { site: "box".to_owned(), containers: vec![container("b", &[])] },
    ];
    let read = services(&config(text), &found);
    let backends: Vec<&str> = read.services.iter().map(|s| s.spec.backend.as_str()).collect();
    assert_eq!(backends, ["docker", "docker@box"], "{:?}", read.problems);
}
