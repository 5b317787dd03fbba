use super::keys::{self, Shape};
use super::*;
use forerun_types::{
    Auth, Busy, CacheRules, Dependency, DependsUntil, HoldStyle, Hook, KeyFrom, Launch, Mode, Readiness,
    Span, UserFrom, WakeRules,
};
use serde_json::Value;

/// The smallest service there is, so that a test says only what it is about.
const WEB: &str = "[service.web]\ncommand = \"true\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("forerun.toml", text, &std::env::temp_dir())
}

/// Every line that a text is refused with, in order; each must end or begin as said.
fn check(text: &str, expect: &[&str]) {
    let lines = parse(text).map(|_| ()).expect_err(text).lines;
    assert_eq!(lines.len(), expect.len(), "{text}\n{lines:#?}");
    for (line, part) in lines.iter().zip(expect) {
        assert!(line.contains(part), "{text}\ngot      {line}\nexpected {part}");
        assert!(!line.contains('\n'), "{line}");
    }
}

#[test]
fn defaults_fill_what_is_left_out() {
    let config = parse(WEB).unwrap();
    let spec = &config.services[0].spec;
    assert_eq!((spec.id, spec.name.as_str(), spec.backend.as_str()), (ServiceId(0), "web", "process"));
    assert_eq!((spec.min, spec.max, spec.concurrency, spec.mode), (0, 16, 1, Mode::Act));
    assert_eq!((spec.start_timeout, spec.drain_timeout), (Span::from_secs(60), Span::from_secs(30)));
    assert_eq!(spec.resources.memory_bytes, 512_000_000);
    assert_eq!(
        (&spec.ready, &spec.user, spec.tenant.as_str()),
        (&Readiness::Tcp, &UserFrom::Address, "default")
    );
    assert_eq!(spec.sla, SlaClass::default());
    assert_eq!(spec.hold, forerun_types::HoldLimits::default());
    assert_eq!(config.router.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.router.limits, forerun_router::RouterLimits::default());
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(config.learning.memory_bytes_max, 256 << 20);
    assert_eq!((config.store.journal_bytes_max, config.store.flush_interval), (2 << 30, Span::from_secs(1)));
    assert_eq!((config.prices.memory_gb_hour, config.prices.cpu_hour), (0.005, 0.04));
    assert_eq!(config.sites[0].name, "local");
    assert_eq!(config.engines, [EngineConfig { site: "local".to_owned(), host: None, tls: None }]);
}

#[test]
fn default_of_a_class_that_is_written_is_the_default_class() {
    let config = parse(&format!("{WEB}[sla.x]\n")).unwrap();
    assert_eq!(config.classes["x"], SlaClass { name: "x".to_owned(), ..SlaClass::default() });
}

#[test]
fn services_have_the_order_of_the_file() {
    let config = parse(
        "service.b = { command = \"x\", route = \"/b\" }\nservice.a = { command = \"x\", route = \"/a\" }",
    )
    .unwrap();
    let names: Vec<&str> = config.services.iter().map(|s| s.spec.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(config.services[1].spec.id, ServiceId(1));
}

#[test]
fn values_are_read_in_each_spelling() {
    let with = |line: &str| Arc::clone(&parse(&format!("{WEB}{line}\n")).unwrap().services[0].spec);
    assert_eq!(with("ready = \"http:/up\"").ready, Readiness::Http { path: "/up".to_owned() });
    assert_eq!(with("ready = { http = \"/up\" }").ready, Readiness::Http { path: "/up".to_owned() });
    assert_eq!(with("ready.log = \"on port\"").ready, Readiness::Log { text: "on port".to_owned() });
    assert_eq!(with("user = \"header:X-User\"").user, UserFrom::Header("x-user".to_owned()));
    assert_eq!(with("user = \"cookie:Sid\"").user, UserFrom::Cookie("Sid".to_owned()));
    assert_eq!(with("user = \"none\"").user, UserFrom::None);
    assert_eq!(with("port = 3000").port, Some(3000));
    assert_eq!(with("port = 3000").max, 1);
    assert_eq!(with("start_timeout = 1.5").start_timeout, Span::from_millis(1_500));
    assert_eq!(with("resources = { cpu = \"250m\", memory = \"1GiB\" }").resources.cpu_milli, 250);
    assert_eq!(with("sla = { priority = 1 }").sla.priority, 1);
    assert_eq!(with("sla = { cold_start_budget = \"0.05%\" }").sla.cold_start_budget_ppm, 500);
    assert_eq!(with("sla = { cold_start_budget = 0.01 }").sla.cold_start_budget_ppm, 10_000);
    assert_eq!(with("sla = {}").sla.cold_start_budget_ppm, 0);
    let rule = &with("route = [\"a.example/x\", { host = \"b.example\", path = [\"/x\"] }]").route;
    assert_eq!(
        (rule.hosts.join(" "), rule.paths.join(" ")),
        ("a.example b.example".to_owned(), "/x".to_owned())
    );
    let windows = "[[service.web.schedule]]\ncron = \"0 8 * * *\"\nfor = \"1h\"\n[[service.web.schedule]]\ncron = \"0 20 * * *\"\nfor = \"1h\"\nmin = 2";
    assert_eq!(with(windows).schedules.iter().map(|s| s.min).collect::<Vec<_>>(), [1, 2]);
    let Launch::Process { command, env, .. } = &with("env = { A = 1, B = true, C = \"{port}\" }").launch
    else {
        panic!("a process was asked for");
    };
    assert_eq!(command, &["true"]);
    assert_eq!(
        env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        ["A=1", "B=true", "C={port}"]
    );
}

fn spec(text: &str) -> Arc<ServiceSpec> {
    Arc::clone(&parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).services[0].spec)
}

#[test]
fn containers_and_lines_are_read() {
    let own = spec("[service.web]\ncontainer = \"shop-web-1\"\n");
    assert_eq!((own.backend.as_str(), own.max, own.concurrency), ("docker", 1, 0));
    assert_eq!((&own.ready, own.pausable, own.mode), (&Readiness::Health, true, Mode::Act));
    let made = spec(
        "[site.here]\n[site.b]\nengine = \"unix:///b.sock\"\n[service.web]\nimage = \"shop:1\"\nengine = \"b\"\nport = 80\n\
         command = [\"serve\"]\nenv.A = 1\nmounts = \"/a:/b:ro\"\nnetworks = [\"n\"]\npausable = false\nmax = 2\n",
    );
    let Launch::Container(container) = &made.launch else { panic!("{:?}", made.launch) };
    assert_eq!((made.backend.as_str(), made.max, made.port, made.pausable), ("docker@b", 2, Some(80), false));
    let expect = forerun_types::Container {
        engine: "b".to_owned(),
        own: None,
        image: "shop:1".to_owned(),
        command: vec!["serve".to_owned()],
        env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        mounts: vec!["/a:/b:ro".to_owned()],
        networks: vec!["n".to_owned()],
        restart: "no".to_owned(),
    };
    assert_eq!(container, &expect);
    let nas = spec(
        "[service.nas]\nstart = \"wol x\"\nstop = \"off\"\naddress = \"nas:80\"\nready.line = \"up\"\nroute = \"none\"\n",
    );
    let Launch::Command(lines) = &nas.launch else { panic!("{:?}", nas.launch) };
    assert_eq!(
        (lines.start.as_str(), lines.ready.as_str(), lines.address.as_str()),
        ("wol x", "up", "nas:80")
    );
    assert_eq!((nas.unrouted, &nas.ready, nas.max), (true, &Readiness::None, 1));
}

#[test]
fn what_bounds_a_service_is_read() {
    let with = |line: &str| spec(&format!("{WEB}{line}\n"));
    assert_eq!(with("hold = \"auto\"").hold_style, HoldStyle::Auto);
    assert_eq!(with("hold = { style = \"page\", requests = 3 }").hold.requests_max, 3);
    assert_eq!(with("ready.settle = \"2s\"").settle, Span::from_secs(2));
    assert_eq!(with("keep_at_least = \"5m\"").keep_at_least, Span::from_secs(300));
    assert_eq!(with("").busy_max, Span::from_secs(86_400));
    let pointer = Some("/a".to_owned());
    assert_eq!(
        with("busy = { http = \"/b\", pointer = \"/a\" }").busy,
        Some(Busy::Http { path: "/b".to_owned(), pointer })
    );
    assert_eq!(with("busy = { cpu = \"200m\" }").busy, Some(Busy::Cpu { milli: 200 }));
    let rules = with(
        "wake = { deny = [\"HEAD\", \"/metrics/\", \"Kuma\", \"10.1.0.0/16\", \"::1\"], per_minute = 3 }",
    );
    assert_eq!(
        rules.wake,
        WakeRules {
            methods: vec!["HEAD".to_owned()],
            paths: vec!["/metrics".to_owned()],
            agents: vec!["kuma".to_owned()],
            addresses: vec!["10.1.0.0/16".to_owned(), "::1/128".to_owned()],
            no_defaults: false,
            asleep_status: 200,
            per_minute: 3,
        }
    );
    let hash = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f";
    assert_eq!(with("auth.token = \"hello\"").auth, Some(Auth::Token { hashes: vec![hash.to_owned()] }));
    let users = BTreeMap::from([("eve".to_owned(), hash.to_owned())]);
    assert_eq!(with(&format!("auth.basic.eve = \"blake3:{hash}\"")).auth, Some(Auth::Basic { users }));
    assert_eq!((with("cache = false").cache.as_ref(), with("max = 1").cache.as_ref()), (None, None));
    assert_eq!(with("cache = true").cache, Some(CacheRules::default()));
    let cache = with("cache = { missing = \"10s\", variants = 2 }").cache.clone().unwrap();
    assert_eq!((cache.missing, cache.variants_max, cache.wait), (Span::from_secs(10), 2, Span::from_secs(5)));
    let special = with(
        "specialise = { by = \"path:1\", keys = [\"a\", \"b\"], env.DATA = \"{key}\", hook = \"http:/be\" }",
    );
    let special = special.specialise.as_ref().unwrap();
    assert_eq!((&special.by, special.keys_max, special.keys.len()), (&KeyFrom::Path(1), 64, 2));
    assert_eq!(special.hook, Some(Hook::Http { path: "/be".to_owned() }));
}

#[test]
fn only_what_is_elsewhere_takes_no_memory_here() {
    let command =
        "[service.nas]\nstart = \"a\"\nstop = \"b\"\nstate = \"c\"\naddress = \"nas:80\"\nroute = \"/\"\n";
    for (memory, bytes) in [("0", 0), ("64MB", 64_000_000)] {
        let text = format!("{command}resources = {{ memory = \"{memory}\" }}\n");
        assert_eq!(spec(&text).resources.memory_bytes, bytes);
    }
    check(&format!("{command}resources = {{ memory = 5 }}\n"), &["resources.memory: must be at least 1MiB"]);
    check(&format!("{WEB}resources = {{ memory = 0 }}\n"), &["resources.memory: must be at least 1MiB"]);
}

#[test]
fn needs_are_read_and_must_be_there() {
    let two = |line: &str| {
        format!("{WEB}{line}\n[service.db]\nimage = \"pg\"\nroute = \"none\"\ngroup = \"data\"\n")
    };
    let need = |until| vec![Dependency { service: "db".to_owned(), until }];
    assert_eq!(spec(&two("depends_on = \"db\"")).depends_on, need(DependsUntil::Ready));
    assert_eq!(spec(&two("depends_on = [\"db:completed\"]")).depends_on, need(DependsUntil::Completed));
    assert_eq!(
        spec(&two("[[service.web.depends_on]]\nservice = \"db\"\nuntil = \"started\"")).depends_on,
        need(DependsUntil::Started)
    );
    assert_eq!(spec(&two("excludes = [\"data\"]")).excludes, ["data"]);
    check(
        &two("depends_on = [\"dbx\"]"),
        &["forerun.toml:3: service.web.depends_on: no service \"dbx\"; did you mean \"db\"?"],
    );
    // Names of their own: labels of containers may describe them.
    for name in ["shop-db", "db2", "mail"] {
        assert_eq!(spec(&two(&format!("depends_on = \"{name}\""))).depends_on[0].service, name);
    }
    check(
        &two("excludes = \"dbs\""),
        &["forerun.toml:3: service.web.excludes: no service or group \"dbs\"; did"],
    );
    check(&two("depends_on = [\"db\", \"db:started\"]"), &["\"db\" is named twice"]);
    check(&two("depends_on = \"db:up\""), &["\"up\" is not known; it takes started, ready, completed"]);
    check(&two("depends_on = \"web\""), &["web waits for itself: web > web; remove one of these"]);
    check(
        "service.a = { command = \"x\", route = \"/a\" }\n\
         service.b = { command = \"x\", route = \"/b\", depends_on = \"c\" }\n\
         service.c = { command = \"x\", route = \"/c\", depends_on = [\"a\", \"d\"] }\n\
         service.d = { command = \"x\", route = \"/d\", depends_on = \"b\" }\n",
        &["forerun.toml:2: service.b.depends_on: b waits for itself: b > c > d > b"],
    );
}

#[test]
fn keys_of_another_backend_are_refused() {
    check(
        &format!("{WEB}backend = \"process\"\nstart = \"x\""),
        &["forerun.toml:4: service.web.start: is for the command backend, and this one's is process"],
    );
    check(
        "[service.a]\nbackend = \"docker\"\nfolder = \"/\"",
        &[
            "service.a.image: is missing; name an image",
            "service.a.folder: is for the process or command backend",
        ],
    );
    check("[service.a]\nstart = \"x\"\nstop = \"y\"", &["service.a.address: is missing"]);
    check("[service.a]\nimage = \"x\"\nengine = \"b\"", &["service.a.engine: no site \"b\"; add [site.b]"]);
}

#[test]
fn each_site_has_its_own_capacity() {
    let text = "[site.a.capacity]\nmemory = \"2GB\"\n[site.b]\nengine = \"unix:///b\"\ncapacity.memory = \"1GB\"\n\
                [site.c]\nengine = \"tcp://c:2376\"\n";
    let sites = parse(text).expect("three sites").sites;
    let told: Vec<(u16, &str, u64)> =
        sites.iter().map(|s| (s.id.0, s.name.as_str(), s.capacity.memory_bytes)).collect();
    assert_eq!(told, [(0, "a", 2_000_000_000), (1, "b", 1_000_000_000), (2, "c", 0)]);
    let on = |engine: &str, rest: &str| {
        format!(
            "{text}[service.s]\nimage = \"x\"\nengine = \"{engine}\"\nresources.memory = \"600MB\"\n{rest}"
        )
    };
    parse(&on("a", "min = 2")).expect("fits a");
    parse(&on("c", "min = 9")).expect("fits c");
    check(
        &on("b", "min = 2"),
        &["the instances that `min` keeps up take 1200000000 bytes of memory, site b has"],
    );
    parse(&on("b", "min = 1")).expect("fits b");
}

#[test]
fn zone_gives_the_offset_of_the_day() {
    let config =
        parse(&format!("{WEB}schedule = {{ cron = \"0 8 * * *\", for = 60, zone = \"Europe/Berlin\" }}"))
            .unwrap();
    let service = &config.services[0];
    // 2026-01-15 and 2026-07-15, noon UTC.
    assert_eq!(service.offset_seconds(Time(1_768_478_400_000_000)), 3_600);
    assert_eq!(service.offset_seconds(Time(1_784_116_800_000_000)), 7_200);
    assert_eq!(service.offset_seconds(Time::NEVER), 0);
}

#[test]
fn unknown_keys_name_the_nearest() {
    check(
        &format!("{WEB}max_ = 3"),
        &["forerun.toml:3: service.web.max_: unknown key; did you mean \"max\"?"],
    );
    check(&format!("{WEB}comand = 3"), &["did you mean \"command\"?"]);
    check(&format!("{WEB}zzz = 3"), &["service.web.zzz: unknown key; known are backend, command"]);
    check(&format!("[routr]\n{WEB}"), &["forerun.toml:1: routr: unknown key; did you mean \"router\"?"]);
    check(
        &format!("{WEB}hold = {{ request = 1 }}"),
        &["service.web.hold.request: unknown key; did you mean \"requests\"?"],
    );
    check(&format!("{WEB}prefetch = 1"), &["is not supported by this version; remove it"]);
    check(&format!("{WEB}\"a b\" = 1"), &["service.web.\"a b\": unknown key"]);
}

#[test]
fn a_port_belongs_to_one() {
    let two = |port: u16| {
        format!(
            "{WEB}route = \"/web\"\nport = 3000\n[service.api]\ncommand = \"true\"\nroute = \"/api\"\nport = {port}\n"
        )
    };
    check(
        &two(3000),
        &[
            "forerun.toml:8: service.api.port: 3000 is service.web (line 4)'s already; give each a port of its own",
        ],
    );
    check(&two(8080), &["service.api.port: 8080 is router.listen's already"]);
    check(&two(7070), &["service.api.port: 7070 is api.listen's already"]);
}

#[test]
fn wrong_values_name_line_field_and_mend() {
    let cases: &[(&str, &[&str])] = &[
        ("max = \"3\"", &["forerun.toml:3: service.web.max: expected a whole number, got a text"]),
        ("max = 0", &["max: 0 is out of range; it takes 1 to 100000"]),
        ("max = -1", &["max: -1 is out of range"]),
        ("min = 4\nmax = 2", &["forerun.toml:3: service.web.min: 4 is more than max, which is 2"]),
        ("port = 80\nmax = 2", &["max: one port serves one instance"]),
        ("port = 99999", &["port: 99999 is out of range"]),
        ("mode = \"acting\"", &["\"acting\" is not known; did you mean \"act\"?"]),
        ("mode = \"zzz\"", &["\"zzz\" is not known; it takes observe, advise, act"]),
        ("backend = \"dokcer\"", &["backend: \"dokcer\" is not known; did you mean \"docker\"?"]),
        ("user = \"X-User\"", &["user: \"X-User\" is not known; write \"header:NAME\""]),
        ("user = \"header:a b\"", &["user: \"header:a b\" is not known"]),
        ("sla = \"gold\"", &["sla: no class \"gold\"; add [sla.gold], or use one of default"]),
        ("sla = \"defualt\"", &["did you mean \"default\"?"]),
        ("start_timeout = \"soon\"", &["start_timeout: \"soon\" is no duration"]),
        ("start_timeout = 0", &["start_timeout: must be more than nothing"]),
        ("resources = { memory = \"1 kg\" }", &["resources.memory: \"kg\" is no unit of bytes"]),
        ("resources = { memory = 5 }", &["resources.memory: must be at least 1MiB"]),
        ("resources = 7", &["resources: expected a table, got a whole number"]),
        ("ready = \"udp\"", &["ready: \"udp\" is not known"]),
        ("ready = { http = \"up\" }", &["ready: path \"up\" must begin with \"/\""]),
        ("ready = { http = \"/\", log = \"x\" }", &["ready: takes one of http and log"]),
        ("ready = {}", &["ready: is empty"]),
        ("ready = 7", &["ready: expected a text in quotes, got a whole number"]),
        ("folder = \"no/such/folder\"", &["folder: no folder "]),
        ("env = { PORT = 80 }", &["env: PORT is set by forerun; write port ="]),
        ("env = [1]", &["env: expected a table of names and texts, got a list"]),
        ("env = { A = [1] }", &["env.A: expected a text, got a list"]),
        ("schedule = { cron = \"0 8 * *\", for = \"1h\" }", &["schedule.cron: \"0 8 * *\" has 4 fields"]),
        ("schedule = { for = \"1h\" }", &["schedule.cron: is missing"]),
        ("schedule = { cron = \"0 8 * * *\" }", &["schedule.for: is missing"]),
        ("schedule = [\"0 8 * * *\"]", &["schedule: expected a table"]),
        (
            "schedule = { cron = \"@daily\", for = 1, zone = \"Mars/Base\" }",
            &["zone: \"Mars/Base\" is no time zone"],
        ),
        (
            "schedule = { cron = \"@daily\", for = 1, min = 17 }",
            &["schedule.min: 17 is more than the service's max"],
        ),
        ("route = \"http://a.b\"", &["route: \"http://a.b\" has a scheme"]),
        (
            "route = { hosts = \"a\" }",
            &["route.host: is missing", "route.hosts: unknown key; did you mean \"host\"?"],
        ),
        ("route = []", &["route: is an empty list"]),
        ("route = [\"a.b/x\", \"c.d/y\"]", &["route: these hosts and paths do not combine freely"]),
        ("tenant = \"a/b\"", &["tenant: a name is 1 to 63 letters"]),
        ("hold = \"atuo\"", &["hold: \"atuo\" is not known; it takes auto, wait, page, or a table"]),
        ("ready = \"health\"", &["ready: \"health\" is a container's own check"]),
        ("ready.line = \"x\"", &["ready.line: is for the command backend"]),
        ("busy = \"yes\"", &["busy: \"yes\" is not known; write \"http:/PATH\""]),
        ("busy = { cpu = 1, http = \"/\" }", &["busy: takes one of http, command, cpu and network"]),
        ("busy = { http = \"/\", pointer = \"a\" }", &["busy.pointer: begins with \"/\""]),
        ("wake.deny = [\"10.0.0.0/8\", \"\"]", &["wake.deny: holds an empty text"]),
        ("wake.deny.addresses = \"10.0.0.0/40\"", &["wake.deny.addresses: \"10.0.0.0/40\" is no network"]),
        ("auth = { token = \"\" }", &["auth.token: is empty, and would let anyone in"]),
        (
            "auth = { token = \"x\", forward = \"http://x\" }",
            &["auth: takes one of forward, basic and token"],
        ),
        ("auth.forward = \"127.0.0.1/x\"", &["auth.forward: \"127.0.0.1/x\" is no url"]),
        ("auth.forward = \"https://auth/x\"", &["auth.forward: \"https://auth/x\" begins with https://"]),
        ("auth.basic.eve = \"blake3:12\"", &["auth.basic: user \"eve\": behind \"blake3:\" stand 64"]),
        ("cache = \"yes\"", &["cache: expected true or false"]),
        ("cache = { body_bytes = 5 }", &["cache.body_bytes: must be at least 1KiB"]),
        ("cache.varants = 5", &["cache.varants: unknown key; did you mean \"variants\"?"]),
        ("specialise = { by = \"cookie:x\" }", &["specialise.by: \"cookie:x\" is not known"]),
        ("specialise = { keys = [\"a\", \"a\"] }", &["specialise.keys: \"a\" is named twice"]),
        ("specialise = { mounts = \"/a:/b\" }", &["specialise.mounts: is for containers"]),
        ("specialise = { preload = \"x\" }", &["specialise.preload: path \"x\" must begin"]),
        ("specialise.hook = \"x\"", &["specialise.hook: \"x\" is not known"]),
        ("hold = { timeout = 0 }", &["hold.timeout: must be more than nothing"]),
    ];
    for (lines, expect) in cases {
        check(&format!("{WEB}{lines}"), expect);
    }
}

#[test]
fn wrong_globals_name_line_field_and_mend() {
    let cases: &[(&str, &[&str])] = &[
        (
            "[router]\nlisten = \"8080\"",
            &["forerun.toml:2: router.listen: \"8080\" is no address with a port"],
        ),
        ("[router]\ntrust_forwarded = 1", &["trust_forwarded: expected true or false, got a whole number"]),
        ("[router]\nhead_bytes_max = 100", &["head_bytes_max: must be at least 8KiB"]),
        (
            "[router]\nconnections_max = 10\nheld_max = 11",
            &["forerun.toml:3: router.held_max: is more than router.connections_max, 10"],
        ),
        ("[router]\nheld_max = -1", &["held_max: -1 is out of range; it takes 0 to 1000000"]),
        ("[api]\nrequire_token = \"yes\"", &["api.require_token: expected true or false"]),
        ("[api]\nlisten = \"127.0.0.1:8080\"", &["api.listen: is router.listen too"]),
        ("[store]\njournal_bytes_max = 5", &["store.journal_bytes_max: must be at least 16MiB"]),
        ("[prices]\ncpu_hour = -1", &["prices.cpu_hour: expected a number from 0"]),
        (
            "[sla.a]\nguarantee = 0.6\n[sla.b]\nguarantee = 0.6",
            &["forerun.toml:4: sla.b.guarantee: the guarantees"],
        ),
        (
            "[sla.a]\ncold_start_budget = 0",
            &["forerun.toml:2: sla.a.cold_start_budget: allows none at all; write at least"],
        ),
        ("[sla.a]\ncold_start_budget = 2", &["sla.a.cold_start_budget: a share is from 0 to 1"]),
        ("[sla.\"a b\"]", &["sla.a b: a name is 1 to 63 letters"]),
        ("[site.a]\n[site.b]", &["site.b.engine: is missing; a site beside the first is a container engine"]),
        (
            "[site.a]\nengine = \"http://x\"",
            &["site.a.engine: is no engine; write \"unix:///run/docker.sock\""],
        ),
        (
            "[site.a]\nengine = \"unix:///x\"\ntls = { ca = \"no.pem\", cert = \"/\" }",
            &[
                "site.a.tls: is for an engine over tcp",
                "tls.key: is missing",
                "tls.ca: no file",
                "tls.cert: no file",
            ],
        ),
        (
            "[site.a]\ncapacity = { memory = \"100MB\" }",
            &["service.web.resources.memory: is more than the whole site has"],
        ),
        ("router = 7", &["router: expected a table, got a whole number"]),
        ("sla = 7", &["sla: expected tables [sla.NAME], got a whole number"]),
        ("sla.a = 7", &["sla.a: expected a table; write it under [sla.a]"]),
    ];
    for (lines, expect) in cases {
        check(&format!("{lines}\n{WEB}"), expect);
    }
    assert!(parse("").unwrap().services.is_empty());
    check("[service.web]", &["forerun.toml:1: service.web.command: is missing"]);
    check("[service.web]\ncommand = []", &["command: is empty"]);
    check("[service.web]\ncommand = \"a | b\"", &["command: '|' needs a shell"]);
    check("[service.web]\ncommand = \"./no-such\"", &["command: no program "]);
    check(
        "[service.web]\ncommand = [1]",
        &["command: is empty", "command: expected a text in quotes, got a whole number"],
    );
    check("[service.\"a.b\"]\ncommand = \"x\"", &["service.a.b: a name is 1 to 63 letters"]);
}

#[test]
fn routes_are_given_once() {
    check(
        "[service.a]\ncommand = \"x\"\n\n[service.b]\ncommand = \"x\"",
        &["forerun.toml:4: service.b.route: takes every request, which service.a (line 1) takes already"],
    );
    check(
        "[service.a]\ncommand = \"x\"\nroute = \"/x\"\n[service.b]\ncommand = \"x\"\nroute = [\"/y\", \"/x/\"]",
        &["forerun.toml:6: service.b.route: takes \"/x\", which service.a (line 3) takes already"],
    );
}

#[test]
fn min_that_cannot_fit_is_refused() {
    let site = "[site.a]\ncapacity = { memory = \"1GB\" }\n";
    check(
        &format!("{site}{WEB}min = 2"),
        &["service: the instances that `min` keeps up take 1024000000 bytes"],
    );
}

#[test]
fn what_is_no_toml_names_its_line() {
    check("a = \n", &["forerun.toml:1: "]);
    check("[service.web]\ncommand = \"x\n", &["forerun.toml:2: "]);
    check("[service.web]\ncommand = \"x\"\ncommand = \"y\"\n", &["forerun.toml:3: duplicate key"]);
}

#[test]
fn all_problems_are_told_up_to_a_bound() {
    let many: String = (0..30).map(|n| format!("zzz{n} = 1\n")).collect();
    let lines = parse(&format!("{WEB}{many}")).unwrap_err().lines;
    assert_eq!(lines.len(), 21);
    assert!(lines[20].contains("and 10 more"), "{}", lines[20]);
    check(
        "[router]\nlisten = 7\n[service.web]\nmax = -1",
        &[
            "forerun.toml:2: router.listen",
            "forerun.toml:3: service.web.command",
            "forerun.toml:4: service.web.max",
        ],
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = std::env::temp_dir().join(format!("forerun-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("x.toml");
    std::fs::write(&file, b"a = 1\nb = \"\xff\"\n").unwrap();
    for (path, part) in [
        (folder.join("none.toml"), "no such file; write one with `forerun config init`"),
        (folder.clone(), "is a folder"),
        (file, "line 2 is not UTF-8"),
    ] {
        let message = Config::load(&path).unwrap_err().to_string();
        assert!(message.contains(part) && message.starts_with(&path.display().to_string()), "{message}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The example as it stands, and with each line that is commented out put in its place.
#[test]
fn example_loads_and_shows_every_key() {
    parse(EXAMPLE).unwrap();
    let shown: Vec<&str> = EXAMPLE.lines().filter(|line| !line.starts_with("# ")).collect();
    for (path, key) in keys::every() {
        // A table is shown by its header or as a value, `*` by any name.
        let parts: Vec<&str> = path.split('.').collect();
        let table = parts.iter().all(|p| *p != "*") && parts.len() == 1;
        let found = shown.iter().any(|line| {
            let line = line.trim_start_matches('#');
            line.starts_with(&format!("[{}", key.name)) && table
                || line.starts_with(&format!("{} =", key.name))
                || line.contains(&format!("{{ {} =", key.name))
                || line.contains(&format!(", {} =", key.name))
                || line.contains(&format!(".{} =", key.name))
        });
        assert!(found, "{path} is not in the example");
    }
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(other) =
            line.strip_prefix('#').filter(|rest| rest.contains(" = ") && !rest.starts_with(' '))
        else {
            continue;
        };
        let name = other.split(' ').next().unwrap();
        // The other way to write it takes the place of the first; so does what goes with it.
        let header = |l: &&str| l.starts_with('[');
        let begin = lines[..at].iter().rposition(header).unwrap_or(0);
        let end = lines[at..].iter().position(header).map_or(lines.len(), |n| at + n);
        let text: Vec<&str> = (0..lines.len())
            .filter(|n| !(begin..end).contains(n) || !lines[*n].starts_with(&format!("{name} = ")))
            .map(|n| lines[n])
            .collect();
        let mut text = text.join("\n").replace(line, other);
        if name == "port" {
            text = text.replace("max = 4\n", "max = 1\n");
        }
        let text = text.replace("folder = \"state\"", "folder = \"/var/lib/forerun\"");
        if name == "tls" {
            let text = text.replace("#engine = \"unix:///run/docker.sock\"", "engine = \"tcp://host:2376\"");
            check(&text, &["tls.ca: no file", "tls.cert: no file", "tls.key: no file"]);
            continue;
        }
        parse(&text).unwrap_or_else(|e| panic!("line {}: {e}", at + 1));
    }
}

/// The parser, the schema and the table of keys know the same keys: the parser asks the table, so what remains is
/// that it reads all of it, which a value of a wrong type for each key shows.
#[test]
fn schema_and_parser_know_the_same_keys() {
    let schema = schema();
    for (path, key) in keys::every() {
        let mut at = &schema;
        for part in path.split('.') {
            at = step_in(at, part).unwrap_or_else(|| panic!("{path} is not in the schema"));
        }
        assert_eq!(at["description"], key.doc, "{path}");
        let wrong = match key.shape {
            // Any text is a text, and a text is a list of one.
            Shape::Text | Shape::Texts | Shape::Command => "1979-05-27",
            _ => "1979-05-27T07:32:00",
        };
        let field = path.replace('*', "web");
        let text = document(&path, wrong);
        let lines = match parse(&text) {
            Err(error) => error.lines,
            Ok(_) => panic!("{path}: the parser does not read it\n{text}"),
        };
        assert!(
            lines.iter().any(|l| l.contains(&format!(" {field}: ")) && !l.contains("unknown key")),
            "{path}: {lines:#?}"
        );
    }
    // The other way round: nothing in the schema that the table does not have.
    let known: Vec<String> = keys::every().into_iter().map(|(path, _)| path).collect();
    let mut found = Vec::new();
    collect(&schema, "", &mut found);
    for path in found {
        assert!(known.contains(&path), "{path} is in the schema only");
    }
}

/// A file in which one key, deep in its tables, has the value `value`.
fn document(path: &str, value: &str) -> String {
    let path = path.replace('*', "web");
    let key = path.split('.').map(|p| format!("\"{p}\"")).collect::<Vec<_>>().join(".");
    let web = if path.starts_with("service.web") || path == "service" {
        ""
    } else {
        "service.web.command = \"x\"\n"
    };
    format!("{key} = {value}\n{web}")
}

/// The schema of a property, looking into alternatives, list elements and named tables.
fn step_in<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    if name == "*" {
        return schema.get("additionalProperties").filter(|v| v.is_object());
    }
    if let Some(found) = schema.get("properties").and_then(|p| p.get(name)) {
        return Some(found);
    }
    let inner = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    inner.chain(schema.get("items")).find_map(|s| step_in(s, name))
}

fn collect(schema: &Value, path: &str, into: &mut Vec<String>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        into.push(join(name));
        collect(inner, &join(name), into);
    }
    if let Some(named) = schema.get("additionalProperties").filter(|v| v.get("properties").is_some()) {
        collect(named, &join("*"), into);
    }
    for inner in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        collect(inner, path, into);
    }
    if let Some(items) = schema.get("items") {
        collect(items, path, into);
    }
}

/// Run with `FORERUN_BLESS=1` to write the reference anew.
#[test]
fn reference_in_docs_has_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expect = keys::reference();
    if std::env::var_os("FORERUN_BLESS").is_some() {
        std::fs::write(&path, &expect).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text, expect,
        "docs/configuration.md is not up to date; FORERUN_BLESS=1 cargo test -p forerun writes it"
    );
}
