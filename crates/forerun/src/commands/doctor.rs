//! `forerun doctor`: whether everything that Forerun needs is there, each line with its mend.

use crate::cli::DoctorArgs;
use crate::config::{Config, FILE};
use crate::failure::Failure;
use crate::{open_files, terminal};
use forerun_api::Guard;
use forerun_backends::process::cgroup_report;
use forerun_types::Span;
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The time limits of what often stands in front: nginx's `proxy_read_timeout`, and Cloudflare's.
const FRONTS: [(&str, Span); 2] = [("nginx", Span::from_secs(60)), ("Cloudflare", Span::from_secs(100))];
/// Room on the disk below which a journal soon has none.
const FREE_BYTES_MIN: u64 = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) what: &'static str,
    /// What was found; where it is no good, with the mend behind a semicolon.
    pub(crate) told: String,
}

impl Finding {
    fn ok(what: &'static str, told: impl Into<String>) -> Self {
        Self { level: Level::Ok, what, told: told.into() }
    }

    fn warn(what: &'static str, told: impl Into<String>) -> Self {
        Self { level: Level::Warn, what, told: told.into() }
    }

    fn fail(what: &'static str, told: impl Into<String>) -> Self {
        Self { level: Level::Fail, what, told: told.into() }
    }
}

/// # Errors
/// Something is not there that Forerun cannot do without.
pub(crate) fn run(args: &DoctorArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let findings = look(args.file.config.as_deref());
    if args.json {
        let text = serde_json::to_string_pretty(&findings).map_err(|e| Failure::Running(e.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        out.write_all(people(&findings).as_bytes())?;
    }
    match findings.iter().filter(|f| f.level == Level::Fail).count() {
        0 => Ok(()),
        n => Err(Failure::Running(format!("{n} of {} looks failed; mend those first", findings.len()))),
    }
}

/// What may be the reason that `forerun up` did not come up: the lines that are no good.
pub(crate) fn of_failure(file: Option<&Path>) -> String {
    let bad: Vec<Finding> = look(file).into_iter().filter(|f| f.level != Level::Ok).collect();
    if bad.is_empty() { String::new() } else { people(&bad) }
}

fn people(findings: &[Finding]) -> String {
    let mut table = terminal::table(["", "", ""]);
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        table.add_row(vec![level.to_owned(), finding.what.to_owned(), finding.told.clone()]);
    }
    // The table's head is empty.
    terminal::lines(&table).trim_start_matches('\n').to_owned()
}

fn look(file: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = match Config::load_or_default(file) {
        Ok(config) => {
            findings.push(configuration(file, &config));
            config
        }
        Err(error) => {
            findings.extend(error.lines.into_iter().map(|line| Finding::fail("configuration", line)));
            return findings;
        }
    };
    let running = crate::ask::Asked::at(config.api.listen).get("/healthz").is_ok();
    findings.push(address("api port", "api.listen", config.api.listen, running));
    findings.push(address("router port", "router.listen", config.router.listen, running));
    findings.push(state_folder(&config.store.folder));
    findings.push(tokens(&config));
    findings.push(files(config.router.limits.connections_max));
    findings.extend(control_groups());
    findings.push(clock(&config.store.folder, SystemTime::now()));
    findings.extend(holds(&config));
    #[cfg(feature = "docker")]
    findings.extend(super::doctor_engines::look(&config));
    #[cfg(not(feature = "docker"))]
    findings.push(Finding::ok("engine", "this forerun was built without docker"));
    findings
}

/// Whether who should get in by a token can, and nobody else does.
fn tokens(config: &Config) -> Finding {
    let api = &config.api;
    let (guard, needed) = (Guard::new(&config.store.folder, api.require_token), api.listen.ip());
    match guard.fit_for(api.listen) {
        Err(error) => Finding::fail("api tokens", error.to_string()),
        Ok(()) if needed.is_loopback() && !api.require_token => {
            Finding::ok("api tokens", "none is needed on a loopback address")
        }
        Ok(()) => Finding::ok("api tokens", "one is needed, and there is one"),
    }
}

fn configuration(file: Option<&Path>, config: &Config) -> Finding {
    let name = file.map_or_else(|| FILE.to_owned(), |path| path.display().to_string());
    let there = file.is_some() || Path::new(FILE).exists();
    match (there, config.services.len()) {
        (true, n) => Finding::ok("configuration", format!("{name} is good, with {n} service(s)")),
        (false, _) => {
            Finding::ok("configuration", format!("no {name} here: defaults, and services by labels"))
        }
    }
}

fn address(what: &'static str, key: &str, address: SocketAddr, running: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(what, format!("{address} is free")),
        Err(_) if running => Finding::ok(what, format!("{address} is taken, and a forerun runs")),
        Err(error) => {
            let why = crate::config::lower_first(&error.to_string());
            Finding::fail(
                what,
                format!("cannot listen on {address}: {why}; end what listens there, or change {key}"),
            )
        }
    }
}

fn state_folder(folder: &Path) -> Finding {
    let what = "state folder";
    let shown = folder.display();
    let mend = "give it to the user that forerun runs as, or change store.folder";
    let probe = folder.join(format!(".doctor-{}", std::process::id()));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&probe, b"x"));
    let _ = fs::remove_file(&probe);
    if let Err(error) = written {
        let why = crate::config::lower_first(&error.to_string());
        return Finding::fail(what, format!("cannot write in {shown}: {why}; {mend}"));
    }
    let free = rustix::fs::statvfs(folder).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    match free {
        Ok(free) if free < FREE_BYTES_MIN => Finding::warn(
            what,
            format!(
                "{shown} has {} left; make room, or lower store.journal_bytes_max",
                terminal::bytes(free)
            ),
        ),
        _ => Finding::ok(what, format!("{shown} can be written")),
    }
}

fn files(connections_max: u32) -> Finding {
    let what = "open files";
    match open_files::lacking(connections_max) {
        None => Finding::ok(what, format!("enough for {connections_max} connections")),
        Some((limit, needed)) => Finding::warn(
            what,
            format!(
                "at most {limit}, and router.connections_max = {connections_max} can need {needed}; \
                 raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower connections_max"
            ),
        ),
    }
}

fn control_groups() -> Vec<Finding> {
    let report = cgroup_report();
    let limit = |what: &'static str, can: Result<(), String>, told: &str| match can {
        Ok(()) => Finding::ok(what, format!("{told} (control groups {})", report.version)),
        Err(why) => Finding::warn(what, why),
    };
    vec![
        limit("memory limits", report.memory.clone(), "processes are held to resources.memory by the kernel"),
        limit("cpu limits", report.cpu.clone(), "processes are held to resources.cpu by the kernel"),
        limit("processes", report.membership.clone(), "those that leave their session are found and ended"),
    ]
}

/// A clock that is behind what was written with it lets nothing of that be learned from.
fn clock(folder: &Path, now: SystemTime) -> Finding {
    let newest = fs::read_dir(folder.join("journal"))
        .ok()
        .and_then(|entries| entries.flatten().filter_map(|e| e.metadata().ok()?.modified().ok()).max());
    let built = std::env::current_exe().and_then(fs::metadata).and_then(|m| m.modified()).ok();
    let ahead = |at: Option<SystemTime>| at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default();
    let (journal, program) = (ahead(newest), ahead(built));
    // A second or two of a shared disk's own clock is no fault.
    if journal.max(program) > Duration::from_secs(60) {
        let what = if journal >= program { "the journal's last record" } else { "this program" };
        let by = Span::from(journal.max(program));
        return Finding::warn(
            "clock",
            format!("it is {by} before {what}; set it, as by chrony or systemd-timesyncd"),
        );
    }
    Finding::ok("clock", "not before what was written with it")
}

/// Who holds longer than what stands in front waits lets its client see the front's error.
fn holds(config: &Config) -> Vec<Finding> {
    let behind = config.router.limits.trust_forwarded || config.router.wake_listen.is_some();
    let longest = config.services.iter().max_by_key(|s| s.spec.hold.timeout);
    let Some(longest) = longest else { return Vec::new() };
    let (name, timeout) = (&longest.spec.name, longest.spec.hold.timeout);
    let shorter: Vec<String> = FRONTS
        .iter()
        .filter(|(_, limit)| timeout >= *limit)
        .map(|(front, limit)| format!("{front} ({limit})"))
        .collect();
    vec![match (shorter.is_empty(), behind) {
        (true, _) => Finding::ok("hold", format!("no service holds longer than {timeout}")),
        (false, false) => Finding::ok(
            "hold",
            format!(
                "{name} holds for {timeout}; too long behind {}, where hold.timeout = \"55s\" would do",
                shorter.join(", ")
            ),
        ),
        (false, true) => Finding::warn(
            "hold",
            format!(
                "{name} holds for {timeout}, and {} gives up by then; set hold.timeout = \"55s\", or raise it there",
                shorter.join(", ")
            ),
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("forerun.toml", text, &std::env::temp_dir()).unwrap()
    }

    #[test]
    fn a_taken_port_fails_unless_a_forerun_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let taken = address("api port", "api.listen", at, false);
        assert_eq!(taken.level, Level::Fail);
        assert!(
            taken.told.contains(&at.to_string()) && taken.told.contains("change api.listen"),
            "{}",
            taken.told
        );
        assert_eq!(address("api port", "api.listen", at, true).level, Level::Ok);
        drop(listener);
        assert_eq!(address("api port", "api.listen", at, false).level, Level::Ok);
    }

    #[test]
    fn a_folder_that_is_a_file_fails() {
        let file = std::env::temp_dir().join(format!("forerun-doctor-{}", std::process::id()));
        fs::write(&file, "x").unwrap();
        let found = state_folder(&file);
        assert!(found.level == Level::Fail && found.told.contains("change store.folder"), "{found:?}");
        fs::remove_file(&file).unwrap();
        assert_ne!(state_folder(&std::env::temp_dir()).level, Level::Fail);
    }

    #[test]
    fn a_clock_behind_the_program_is_told() {
        let nowhere = Path::new("/no/such/folder");
        assert_eq!(clock(nowhere, SystemTime::now()).level, Level::Ok);
        let early = clock(nowhere, SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
        assert!(early.level == Level::Warn && early.told.contains("before this program"), "{early:?}");
    }

    #[test]
    fn long_holds_are_told_where_something_stands_in_front() {
        let web = "[service.web]\ncommand = \"true\"\n";
        let level = |text: &str| holds(&config(text)).first().map(|f| (f.level, f.told.clone()));
        assert_eq!(level(""), None);
        let (ok, told) = level(web).unwrap();
        assert!(ok == Level::Ok && told.contains("too long behind nginx (60s)"), "{told}");
        let (warn, told) =
            level(&format!("[router]\ntrust_forwarded = true\n{web}hold.timeout = \"2m\"")).unwrap();
        assert!(warn == Level::Warn && told.contains("nginx (60s), Cloudflare (100s) gives up"), "{told}");
        assert_eq!(level(&format!("{web}hold.timeout = \"50s\"")).unwrap().0, Level::Ok);
    }

    #[test]
    fn people_see_a_line_each() {
        let lines = people(&[Finding::ok("clock", "good"), Finding::fail("api port", "taken; free it")]);
        let lines: Vec<Vec<&str>> = lines.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["ok", "clock", "good"], vec!["fail", "api", "port", "taken;", "free", "it"]]);
    }
}
