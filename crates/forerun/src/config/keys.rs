//! Every key that a configuration may have: one table, from which the reader takes ranges and defaults, the schema
//! its properties, and a misspelt key its nearest neighbour.

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Text,
    /// One text or a list of them.
    Texts,
    /// `250ms`, `10s`, `1h30m`, or a number of seconds.
    Duration,
    /// `512MB`, `2GiB`, or a number of bytes.
    Bytes,
    /// The same per second.
    BytesPerSecond,
    /// Cores: `0.5`, `2`, or `500m`.
    Cores,
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// `0.2` or `20%`.
    Share,
    /// A number that is not negative.
    Number,
    /// `127.0.0.1:8080`.
    Address,
    Flag,
    Choice(&'static [&'static str]),
    /// A list of texts, or one text that is split as a shell splits words.
    Command,
    /// Names with texts.
    Env,
    Table(&'static [Key]),
    /// A table or a list of tables.
    Tables(&'static [Key]),
    /// A text or a table.
    TextOr(&'static [Key]),
    /// `true`, `false`, or a table, which is `true` with more to say.
    FlagOr(&'static [Key]),
    /// A text, a table, or a list of texts and tables.
    TextsOr(&'static [Key]),
    /// Tables by name: `[service.NAME]`.
    Named(&'static [Key]),
}

#[cfg(test)]
impl Shape {
    fn takes(self) -> String {
        match self {
            Shape::Text => "text".to_owned(),
            Shape::Texts => "text, or a list of texts".to_owned(),
            Shape::Duration => "duration".to_owned(),
            Shape::Bytes => "size".to_owned(),
            Shape::BytesPerSecond => "size a second".to_owned(),
            Shape::Cores => "cores: `0.5`, `2`, `500m`".to_owned(),
            Shape::Count(min, max) => format!("{min} to {max}"),
            Shape::Share => "share: `0.2`, `20%`".to_owned(),
            Shape::Number => "number".to_owned(),
            Shape::Address => "address and port".to_owned(),
            Shape::Flag => "`true`, `false`".to_owned(),
            Shape::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
            Shape::Command => "list of words, or a command line".to_owned(),
            Shape::Env => "names with texts".to_owned(),
            Shape::Table(_) => "table".to_owned(),
            Shape::Tables(_) => "table, or a list of tables".to_owned(),
            Shape::TextOr(_) => "text, or a table".to_owned(),
            Shape::FlagOr(_) => "`true`, `false`, or a table".to_owned(),
            Shape::TextsOr(_) => "text, a table, or a list of both".to_owned(),
            Shape::Named(_) => "tables by name".to_owned(),
        }
    }
}

/// One key. An empty `default` means that it has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) default: &'static str,
    pub(crate) doc: &'static str,
}

const fn key(name: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Key {
    Key { name, shape, default, doc }
}

/// What a later version will know; said so instead of "unknown key".
pub(crate) const LATER: &[&str] = &["prefetch", "selector", "notify"];

/// Twice the largest machine on sale, so that a slip of the unit is seen.
const INSTANCES_MAX: u64 = 100_000;

pub(crate) const ROOT: &[Key] = &[
    key("router", Shape::Table(ROUTER), "", "Where requests come in."),
    key("api", Shape::Table(API), "", "Status, metrics and health."),
    key("store", Shape::Table(STORE), "", "What is kept on disk."),
    key("learning", Shape::Table(LEARNING), "", "What is kept of users and services in memory."),
    key("prices", Shape::Table(PRICES), "", "What resources cost, for figures in money."),
    key(
        "site",
        Shape::Named(SITE),
        "",
        "A place where instances run; the first is where all runs that names no engine of another.",
    ),
    key("sla", Shape::Named(SLA), "", "Priority and promises that services share by name."),
    key("service", Shape::Named(SERVICE), "", "What requests are for."),
];

pub(crate) const ROUTER: &[Key] = &[
    key("listen", Shape::Address, "127.0.0.1:8080", "Address and port for requests."),
    key(
        "wake_listen",
        Shape::Address,
        "",
        "A second port, for proxies in containers or on other machines: /v1/wake, Sablier's API, health. \
         Whoever reaches it can wake services.",
    ),
    key(
        "connections_max",
        Shape::Count(1, 1_000_000),
        "8192",
        "Client connections at a time; more wait to be accepted.",
    ),
    key(
        "held_max",
        Shape::Count(0, 1_000_000),
        "",
        "Requests held at a time over all services; beyond that the lowest class gives way. Default: half of \
         connections_max.",
    ),
    key(
        "held_bytes_max",
        Shape::Bytes,
        "256MiB",
        "Bytes of requests held at a time over all services; shared out in the same way.",
    ),
    key("head_bytes_max", Shape::Bytes, "64KiB", "Bytes of a request's head."),
    key(
        "head_timeout",
        Shape::Duration,
        "30s",
        "For a whole head, and for the next request on a connection.",
    ),
    key(
        "stall_timeout",
        Shape::Duration,
        "60s",
        "A client that neither sends nor takes anything for so long is given up.",
    ),
    key("connect_timeout", Shape::Duration, "2s", "For an instance to accept a connection."),
    key("response_timeout", Shape::Duration, "5m", "For an instance to begin its answer; 0 is for ever."),
    key("idle_max", Shape::Count(0, 10_000), "32", "Idle connections kept to one instance."),
    key("idle_timeout", Shape::Duration, "4s", "How long they are kept; less than the instances keep them."),
    key(
        "trust_forwarded",
        Shape::Flag,
        "false",
        "Believe X-Forwarded-* of whoever connects: only behind a proxy of your own.",
    ),
    key(
        "cache_bytes",
        Shape::Bytes,
        "256MiB",
        "Memory for answers of services with cache; nothing is taken before one has it.",
    ),
];

pub(crate) const API: &[Key] = &[
    key(
        "listen",
        Shape::Address,
        "127.0.0.1:7070",
        "Address and port of the API. On any but a loopback address every request needs a token (`forerun token create`).",
    ),
    key(
        "require_token",
        Shape::Flag,
        "false",
        "On a loopback address too: set it where a proxy on this machine lets others in.",
    ),
];

pub(crate) const STORE: &[Key] = &[
    key(
        "folder",
        Shape::Text,
        "",
        "Where the journal and the key live. Default: forerun in the XDG state folder.",
    ),
    key("flush_interval", Shape::Duration, "1s", "The longest time that what was learned is only in memory."),
    key("journal_bytes_max", Shape::Bytes, "2GiB", "Size of the journal; the oldest segments go first."),
];

pub(crate) const LEARNING: &[Key] = &[key(
    "memory_bytes_max",
    Shape::Bytes,
    "256MiB",
    "Memory for what is learned; what was useful longest ago goes first.",
)];

pub(crate) const PRICES: &[Key] = &[
    key("memory_gb_hour", Shape::Number, "0.005", "10^9 bytes for an hour."),
    key("cpu_hour", Shape::Number, "0.04", "One core for an hour."),
];

pub(crate) const SITE: &[Key] = &[
    key("capacity", Shape::Table(CAPACITY), "", "What its instances together may take; 0 is no limit."),
    key(
        "engine",
        Shape::Text,
        "",
        "Its container engine: unix:///SOCKET or tcp://HOST:PORT. Default: DOCKER_HOST, or the usual sockets.",
    ),
    key("tls", Shape::Table(TLS), "", "Certificates for an engine over tcp."),
];

pub(crate) const TLS: &[Key] = &[
    key("ca", Shape::Text, "", "File of the authority that signed the engine's certificate (PEM)."),
    key("cert", Shape::Text, "", "File of the client's certificate (PEM)."),
    key("key", Shape::Text, "", "File of the client's key (PEM)."),
];

pub(crate) const CAPACITY: &[Key] = &[
    key("cpu", Shape::Cores, "0", "Cores."),
    key(
        "memory",
        Shape::Bytes,
        "",
        "Bytes. Default: four fifths of this machine's memory, and for an engine over tcp no limit.",
    ),
    key("network", Shape::BytesPerSecond, "0", "Bytes a second."),
    key("storage", Shape::Bytes, "0", "Bytes on disk."),
    key("instances", Shape::Count(0, INSTANCES_MAX), "0", "Number of instances."),
];

pub(crate) const SLA: &[Key] = &[
    key("priority", Shape::Count(0, 255), "100", "Larger goes first."),
    key("guarantee", Shape::Share, "0", "Share of the site's capacity that is this class's own."),
    key("latency", Shape::Duration, "500ms", "The wait that its requests should stay within."),
    key("cold_start_cost", Shape::Number, "80.55", "GB-seconds that avoiding one cold start is worth."),
    key("reclaim_max", Shape::Duration, "10s", "How soon capacity that was lent must come back."),
    key(
        "cold_start_budget",
        Shape::Share,
        "",
        "Share of its requests of a day that may be cold starts; the more of it is spent, the dearer they are to the plan.",
    ),
];

pub(crate) const SERVICE: &[Key] = &[
    key(
        "backend",
        Shape::Choice(&["process", "docker", "command"]),
        "",
        "What runs its instances. Default: docker with an image or a container, command with start, else process.",
    ),
    key(
        "command",
        Shape::Command,
        "",
        "What to start. {port} becomes the instance's port, also in PORT. In a container: instead of the image's own.",
    ),
    key("env", Shape::Env, "", "Environment variables; {port} is replaced here too."),
    key("folder", Shape::Text, "", "Working folder. Default: the folder of this file."),
    key(
        "container",
        Shape::Text,
        "",
        "Your own container, by name: the first instance, and what more are cloned from.",
    ),
    key("image", Shape::Text, "", "Image that instances are made from, where there is no container."),
    key("mounts", Shape::Texts, "", "Mounts of a container: SOURCE:TARGET or SOURCE:TARGET:ro."),
    key("networks", Shape::Texts, "", "Networks that a container joins, by name."),
    key("engine", Shape::Text, "", "Which engine its containers are on, by site. Default: the first."),
    key("start", Shape::Text, "", "Shell line that starts it, for what Forerun does not run itself."),
    key("stop", Shape::Text, "", "Shell line that stops it."),
    key(
        "state",
        Shape::Text,
        "",
        "Shell line that exits with 0 while it runs. Default: until it is stopped.",
    ),
    key("address", Shape::Text, "", "Where requests to it go: HOST:PORT."),
    key(
        "route",
        Shape::TextsOr(ROUTE),
        "",
        "Which requests are for it: a host, a path prefix or both; none takes none. Default: all; of a label, see docker.md.",
    ),
    key("port", Shape::Count(1, 65_535), "", "The only port it can listen on, if it cannot be told one."),
    key(
        "ready",
        Shape::TextOr(READY),
        "",
        "When an instance is ready: tcp, http:/PATH, log:TEXT, health (a container's own check) or none. Default: tcp; for docker health.",
    ),
    key(
        "start_timeout",
        Shape::Duration,
        "60s",
        "An instance that is not ready by then has failed; one that answers nothing for so long is replaced.",
    ),
    key(
        "drain_timeout",
        Shape::Duration,
        "30s",
        "How long a stop waits for requests, and then for the process.",
    ),
    key("resources", Shape::Table(RESOURCES), "", "What one instance counts for against the capacity."),
    key(
        "concurrency",
        Shape::Count(0, 1_000_000),
        "1",
        "Requests that an instance serves at a time; 0 is any number.",
    ),
    key("min", Shape::Count(0, INSTANCES_MAX), "0", "Instances that are always up."),
    key("max", Shape::Count(1, INSTANCES_MAX), "16", "Instances that are ever up."),
    key("schedule", Shape::Tables(SCHEDULE), "", "Windows in which more are up."),
    key("sla", Shape::TextOr(SLA), "default", "The name of a class, or a class of its own."),
    key(
        "mode",
        Shape::Choice(&["observe", "advise", "act"]),
        "act",
        "How far Forerun goes: learn, also say, also do.",
    ),
    key(
        "depends_on",
        Shape::TextsOr(DEPENDS),
        "",
        "Services that are started first and kept while it is there: NAME, or NAME:started, NAME:completed.",
    ),
    key("excludes", Shape::Texts, "", "Services, or groups of them, that do not run while this one does."),
    key("keep_at_least", Shape::Duration, "0", "An instance is kept at least so long after its last use."),
    key(
        "busy",
        Shape::TextOr(BUSY),
        "",
        "Asked before a stop; while it says busy, there is none: http:/PATH, or a table.",
    ),
    key("busy_max", Shape::Duration, "24h", "The longest that busy puts a stop off."),
    key(
        "pausable",
        Shape::Flag,
        "",
        "Instances may be frozen instead of stopped. Default: true for docker, else false.",
    ),
    key("wake", Shape::Table(WAKE), "", "Which requests wake it and count as a person's."),
    key("auth", Shape::Table(AUTH), "", "Who may wake it; asked before a request counts as anything."),
    key("specialise", Shape::Table(SPECIALISE), "", "Instances of its own for a key; {key} stands for it."),
    key("user", Shape::Text, "address", "What tells users apart: header:NAME, cookie:NAME, address or none."),
    key("group", Shape::Text, "", "The group whose habits a new user starts from."),
    key("tenant", Shape::Text, "default", "Whose it is; nothing is shared between tenants."),
    key("hold", Shape::TextOr(HOLD), "", "How requests wait for an instance: a style, or a table."),
    key(
        "cache",
        Shape::FlagOr(CACHE),
        "false",
        "Answers are kept in the router as HTTP lets a shared cache: see cache.md.",
    ),
];

pub(crate) const CACHE: &[Key] = &[
    key("body_bytes", Shape::Bytes, "8MiB", "A larger body is not kept."),
    key(
        "variants",
        Shape::Count(1, 256),
        "16",
        "Answers to one URL that differ by what Vary names; the oldest gives way.",
    ),
    key("wait", Shape::Duration, "5s", "How long a request waits for another that fetches the same."),
    key("missing", Shape::Duration, "0", "How long a 404 or 410 is kept that says nothing of that itself."),
    key(
        "stale_if_error",
        Shape::Duration,
        "0",
        "How long an answer that is over is served in place of an error, where it says nothing of that itself.",
    ),
];

pub(crate) const ROUTE: &[Key] = &[
    key("host", Shape::Texts, "", "Host names; *.example.com stands for one or more labels."),
    key("path", Shape::Texts, "", "Path prefixes that end at a segment."),
];

pub(crate) const READY: &[Key] = &[
    key("http", Shape::Text, "", "A GET of this path answers 2xx or 3xx."),
    key("log", Shape::Text, "", "A line of output contains this text."),
    key("line", Shape::Text, "", "A shell line exits with 0; for the command backend."),
    key("settle", Shape::Duration, "0", "How long a ready instance is left alone before requests go there."),
];

pub(crate) const RESOURCES: &[Key] = &[
    key("cpu", Shape::Cores, "0", "Cores."),
    key(
        "memory",
        Shape::Bytes,
        "512MB",
        "Bytes. An instance that uses more is ended. 0 for the command backend: on a machine of its own, it takes none of \
         the site's, and is priced as 512MB.",
    ),
    key("network", Shape::BytesPerSecond, "0", "Bytes a second."),
    key("storage", Shape::Bytes, "0", "Bytes on disk."),
];

pub(crate) const SCHEDULE: &[Key] = &[
    key("cron", Shape::Text, "", "When it opens: minute, hour, day of month, month, day of week."),
    key("for", Shape::Duration, "", "How long it stays open."),
    key("min", Shape::Count(1, INSTANCES_MAX), "1", "Instances that are up while it is open."),
    key("zone", Shape::Text, "UTC", "Time zone of the cron fields, as Europe/Berlin."),
];

pub(crate) const HOLD: &[Key] = &[
    key("requests", Shape::Count(0, 1_000_000), "1000", "Requests held at a time; 0 holds none."),
    key("bytes", Shape::Bytes, "64MiB", "Bytes of requests held at a time."),
    key("timeout", Shape::Duration, "60s", "The longest that one is held."),
    key(
        "style",
        Shape::Choice(&["auto", "wait", "page"]),
        "wait",
        "auto: a browser that goes to a page gets a waiting page, all else waits; wait: all wait; page: every GET \
         gets it.",
    ),
    key(
        "hide_log",
        Shape::Flag,
        "false",
        "Keep the last lines of what failed to start from those who wait for it.",
    ),
];

pub(crate) const DEPENDS: &[Key] = &[
    key("service", Shape::Text, "", "Name of the service."),
    key(
        "until",
        Shape::Choice(&["started", "ready", "completed"]),
        "ready",
        "What it must have reached; completed: it has ended with exit code 0.",
    ),
];

pub(crate) const BUSY: &[Key] = &[
    key("http", Shape::Text, "", "A GET of this path: busy unless it answers 204 or 404."),
    key(
        "pointer",
        Shape::Text,
        "",
        "With http: busy when there, in the JSON (RFC 6901), is more than null, false, 0 or nothing.",
    ),
    key("command", Shape::Command, "", "Busy when it exits with 0; in the container, or beside the process."),
    key("cpu", Shape::Cores, "", "Busy above so many cores."),
    key("network", Shape::BytesPerSecond, "", "Busy above so many bytes a second."),
];

pub(crate) const WAKE: &[Key] = &[
    key(
        "deny",
        Shape::TextsOr(DENY),
        "",
        "What wakes nothing: methods, /paths, parts of agents' names, networks; or a table of them.",
    ),
    key(
        "defaults",
        Shape::Flag,
        "true",
        "Also leave out the health checks, bots and prefetches that Forerun knows.",
    ),
    key(
        "asleep_status",
        Shape::Count(200, 599),
        "200",
        "Status that such a request gets of a sleeping service.",
    ),
    key(
        "per_minute",
        Shape::Count(0, 100_000),
        "0",
        "Wakes that one address may cause a minute; 0 is any number.",
    ),
];

pub(crate) const DENY: &[Key] = &[
    key("methods", Shape::Texts, "", "Methods, as HEAD."),
    key("paths", Shape::Texts, "", "Path prefixes that end at a segment."),
    key("agents", Shape::Texts, "", "Parts of a user agent's name."),
    key("addresses", Shape::Texts, "", "Networks, as 10.0.0.0/8."),
];

pub(crate) const AUTH: &[Key] = &[
    key("forward", Shape::Text, "", "URL that answers 2xx to a GET with the request's head."),
    key("basic", Shape::Env, "", "Users with their passwords, or blake3:HEX of them."),
    key("token", Shape::Texts, "", "Bearer tokens, or blake3:HEX of them."),
];

pub(crate) const SPECIALISE: &[Key] = &[
    key(
        "by",
        Shape::Text,
        "user",
        "Where the key stands: user, group, tenant, header:NAME or path:N (from 0).",
    ),
    key("keys", Shape::Texts, "", "The only keys. Default: those that requests bring."),
    key("keys_max", Shape::Count(1, 10_000), "64", "Keys that have instances at a time."),
    key("env", Shape::Env, "", "Environment variables of a key's instances."),
    key("args", Shape::Texts, "", "Arguments behind the command's own."),
    key("files", Shape::Env, "", "Paths and contents of files that are written before the start."),
    key("mounts", Shape::Texts, "", "Mounts of a container: SOURCE:TARGET or SOURCE:TARGET:ro."),
    key("preload", Shape::Texts, "", "Paths that are requested before the instance counts as ready."),
    key(
        "hook",
        Shape::TextOr(HOOK),
        "",
        "How a running generic instance becomes a key's: http:/PATH, or a table. Default: only a start makes one.",
    ),
];

pub(crate) const HOOK: &[Key] = &[
    key("http", Shape::Text, "", "A POST of this path answers 2xx."),
    key("command", Shape::Command, "", "It exits with 0; in the container, or beside the process."),
];

/// The tables and their paths in the configuration, `*` for a name: for tests and the schema.
#[cfg(test)]
pub(crate) fn every() -> Vec<(String, Key)> {
    fn walk(path: &str, keys: &[Key], into: &mut Vec<(String, Key)>) {
        for key in keys {
            let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            into.push((path.clone(), *key));
            match key.shape {
                Shape::Named(inner) => walk(&format!("{path}.*"), inner, into),
                Shape::Table(inner)
                | Shape::Tables(inner)
                | Shape::TextOr(inner)
                | Shape::FlagOr(inner)
                | Shape::TextsOr(inner) => {
                    walk(&path, inner, into);
                }
                _ => {}
            }
        }
    }
    let mut all = Vec::new();
    walk("", ROOT, &mut all);
    all
}

/// The reference of all keys, as `docs/configuration.md` holds it.
#[cfg(test)]
pub(crate) fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\nEvery key of `forerun.toml`. `forerun config init` writes a commented example, `forerun config check` \
         names what is wrong\nby line, `forerun config schema` prints this as JSON Schema. `*` is a name of your own. \
         Durations are written `250ms`, `10s`,\n`1h30m` or as seconds; sizes `512MB` (10^6), `2GiB` (2^30) or as bytes. \
         Relative paths start at the file's folder.\n\n| key | takes | default | what |\n|---|---|---|---|\n",
    );
    for (path, key) in every() {
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        text +=
            &format!("| `{path}` | {} | {default} | {} |\n", key.shape.takes(), key.doc.replace('|', "\\|"));
    }
    text
}
