//! Sablier's labels, and those of its Traefik plugin, in ours.

use crate::config::duration_of;
use serde::Serialize;
use std::collections::BTreeMap;

const PREFIX: &str = "sablier.";
const MIDDLEWARES: &str = "traefik.http.middlewares.";
const PLUGIN: &str = ".plugin.sablier.";
/// Sablier's group of what names none; ours have none then, as `sablier`'s API with us takes it.
const DEFAULT_GROUP: &str = "default";

/// A container, or a service of a compose file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// Its other name: compose's of a container, the container's of a service.
    pub(crate) also: Option<String>,
    /// What a neighbour in its project calls it.
    pub(crate) service: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Our labels for one, and what of its own has no match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Labels {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) not_taken_over: Vec<String>,
}

impl Labels {
    fn set(&mut self, label: &str, value: &str) {
        match self.labels.iter_mut().find(|(known, _)| known == label) {
            Some((_, known)) if known.split(',').any(|v| v == value) => {}
            // Lists grow; nothing else is said twice.
            Some((_, known)) => *known = format!("{known},{value}"),
            None => self.labels.push((label.to_owned(), value.to_owned())),
        }
    }
}

impl Subject {
    fn enabled(&self) -> bool {
        self.labels.get("sablier.enable").is_some_and(|v| v == "true")
    }

    /// In the order of its list.
    fn groups(&self) -> Vec<&str> {
        let list = self.labels.get("sablier.group").map_or(DEFAULT_GROUP, String::as_str);
        let mut groups = Vec::new();
        for group in list.split(',').map(str::trim).filter(|g| !g.is_empty()) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.also.as_deref() == Some(name)
    }
}

/// For each that Sablier manages, in order. `zone` is where its hours are counted.
pub(crate) fn labels(subjects: &[Subject], zone: Option<&str>) -> Vec<Labels> {
    let managed: Vec<&Subject> = subjects.iter().filter(|s| s.enabled()).collect();
    let mut all: Vec<Labels> = managed.iter().map(|subject| own(subject, zone)).collect();
    for (at, subject) in managed.iter().enumerate() {
        anti_affinity(&managed, at, subject, &mut all);
    }
    for (middleware, options) in middlewares(subjects) {
        let group = options.get("group").map(String::as_str);
        let names: Vec<&str> =
            options.get("names").map_or_else(Vec::new, |n| n.split(',').map(str::trim).collect());
        for (subject, labels) in managed.iter().zip(&mut all) {
            let meant = group.is_some_and(|g| subject.groups().contains(&g))
                || names.iter().any(|n| subject.is_called(n));
            if meant {
                plugin(&middleware, &options, labels);
            }
        }
    }
    all
}

/// What stands on the container itself.
fn own(subject: &Subject, zone: Option<&str>) -> Labels {
    let mut out = Labels { name: subject.name.clone(), ..Labels::default() };
    out.set("forerun.enable", "true");
    let groups: Vec<&str> = subject.groups().into_iter().filter(|g| *g != DEFAULT_GROUP).collect();
    if let Some((first, more)) = groups.split_first() {
        out.set("forerun.group", first);
        if !more.is_empty() {
            out.not_taken_over.push(format!("sablier.group: {}; a service has one group", more.join(",")));
        }
    }
    let days = subject.labels.get("sablier.running-days").map(String::as_str);
    for (label, value) in &subject.labels {
        let Some(key) = label.strip_prefix(PREFIX) else { continue };
        let not = |why: &str| format!("{label}={value}: {why}");
        match key {
            "enable" | "group" | "running-days" | "anti-affinity" => {}
            "ready-after" => match duration_of(value) {
                Ok(_) => out.set("forerun.ready.settle", value),
                Err(_) => out.not_taken_over.push(not("no duration")),
            },
            "ready-on-start" if value == "true" => out.set("forerun.ready", "none"),
            "ready-on-start" => {}
            "running-hours" => hours(value, days, zone, &mut out),
            "idle.replicas" if value.parse::<u32>().is_ok() => out.set("forerun.min", value),
            "active.replicas" if value.parse::<u32>().is_ok_and(|n| n > 0) => out.set("forerun.max", value),
            _ if key.starts_with("idle.") || key.starts_with("active.") => {
                out.not_taken_over.push(not("nothing is throttled; what is idle is paused or stopped"));
            }
            _ => out.not_taken_over.push(not("has no match")),
        }
    }
    // A word and a table cannot stand side by side; to wait a while is the nearer to what both ask for.
    if out.labels.iter().any(|(label, _)| label == "forerun.ready.settle") {
        let before = out.labels.len();
        out.labels.retain(|(label, _)| label != "forerun.ready");
        if out.labels.len() < before {
            out.not_taken_over.push("sablier.ready-on-start: has no match beside ready-after".to_owned());
        }
    }
    out
}

/// `09:00-18:00`, and `Mon,Tue`: a window that opens by cron, and how long it stays open.
fn hours(text: &str, days: Option<&str>, zone: Option<&str>, out: &mut Labels) {
    let minutes = |clock: &str| {
        let (hours, minutes) = clock.trim().split_once(':')?;
        let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
    };
    let Some((from, to)) = text.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)))
    else {
        out.not_taken_over.push(format!("sablier.running-hours={text}: is no window, as 09:00-18:00"));
        return;
    };
    let day = |day: &str| day.trim().get(..3).map(str::to_ascii_lowercase);
    let days: Option<Vec<String>> = days.map(|days| days.split(',').filter_map(day).collect());
    let days = days.filter(|days| !days.is_empty()).map_or_else(|| "*".to_owned(), |days| days.join(","));
    // A window that ends when it begins is the whole day; one over midnight ends on the next.
    let open = if to > from { to - from } else { to + 24 * 60 - from };
    out.set("forerun.schedule.cron", &format!("{} {} * * {days}", from % 60, from / 60));
    out.set("forerun.schedule.for", &format!("{open}m"));
    match zone {
        Some(zone) => out.set("forerun.schedule.zone", zone),
        None => out
            .not_taken_over
            .push("the hours' time zone is not known here; add forerun.schedule.zone".to_owned()),
    }
}

/// Sablier's label says for whom this one gives way; ours stands on those that it gives way to.
fn anti_affinity(managed: &[&Subject], at: usize, subject: &Subject, all: &mut [Labels]) {
    let Some(groups) = subject.labels.get("sablier.anti-affinity") else { return };
    for group in groups.split(',').map(str::trim).filter(|g| !g.is_empty()) {
        let mut found = false;
        for (other, labels) in all.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            if managed[other].groups().contains(&group) {
                found = true;
                labels.set("forerun.excludes", &subject.service);
            }
        }
        if !found {
            all[at]
                .not_taken_over
                .push(format!("sablier.anti-affinity={group}: nothing here is in that group"));
        }
    }
}

/// The plugin's options of each middleware, by their names in lower case.
fn middlewares(subjects: &[Subject]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (label, value) in subjects.iter().flat_map(|s| &s.labels) {
        let lower = label.to_ascii_lowercase();
        let Some((name, option)) = lower.strip_prefix(MIDDLEWARES).and_then(|rest| rest.split_once(PLUGIN))
        else {
            continue;
        };
        found.entry(name.to_owned()).or_default().insert(option.to_owned(), value.clone());
    }
    found
}

fn plugin(middleware: &str, options: &BTreeMap<String, String>, out: &mut Labels) {
    if options.keys().any(|option| option.starts_with("dynamic")) {
        out.set("forerun.hold.style", "auto");
    }
    for (option, value) in options {
        let timed = duration_of(value).is_ok();
        match option.as_str() {
            "sessionduration" if timed => out.set("forerun.keep_at_least", value),
            "blocking.timeout" if timed => out.set("forerun.hold.timeout", value),
            "ignoreuseragent" => out.set("forerun.wake.deny", value),
            "sablierurl" | "group" | "names" | "blocking" | "dynamic" => {}
            // How Sablier's page looks: ours says the same without being told.
            _ if option.starts_with("dynamic.") => {}
            _ => out
                .not_taken_over
                .push(format!("{option}={value} of the middleware {middleware}: has no match")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str, labels: &[(&str, &str)]) -> Subject {
        let labels = [("sablier.enable", "true")].iter().chain(labels);
        Subject {
            name: name.to_owned(),
            also: None,
            service: name.to_owned(),
            labels: labels.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[track_caller]
    fn check(labels: &[(&str, &str)], expect: &[(&str, &str)], not: &[&str]) {
        let found = super::labels(&[subject("web", labels)], Some("Europe/Berlin")).remove(0);
        let got: Vec<(&str, &str)> =
            found.labels.iter().skip(1).map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, expect);
        assert_eq!(found.labels[0], ("forerun.enable".to_owned(), "true".to_owned()));
        assert_eq!(found.not_taken_over.len(), not.len(), "{:?}", found.not_taken_over);
        for (line, part) in found.not_taken_over.iter().zip(not) {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn each_label_has_its_match_or_is_told() {
        check(&[("sablier.group", "default")], &[], &[]);
        check(&[("sablier.group", "a,b")], &[("forerun.group", "a")], &["sablier.group: b"]);
        check(&[("sablier.ready-after", "30s")], &[("forerun.ready.settle", "30s")], &[]);
        check(&[("sablier.ready-on-start", "true")], &[("forerun.ready", "none")], &[]);
        check(
            &[("sablier.running-hours", "22:30-06:00"), ("sablier.running-days", "Mon,Tue")],
            &[
                ("forerun.schedule.cron", "30 22 * * mon,tue"),
                ("forerun.schedule.for", "450m"),
                ("forerun.schedule.zone", "Europe/Berlin"),
            ],
            &[],
        );
        check(&[("sablier.running-hours", "9 to 5")], &[], &["is no window"]);
        check(&[("sablier.idle.replicas", "1")], &[("forerun.min", "1")], &[]);
        check(
            &[("sablier.idle.cpu", "0.1"), ("sablier.new", "x")],
            &[],
            &["nothing is throttled", "has no match"],
        );
        check(&[("sablier.anti-affinity", "gone")], &[], &["nothing here is in that group"]);
    }

    #[test]
    fn who_gives_way_is_named_by_whom_it_gives_way_to() {
        let found = super::labels(
            &[
                subject("encode", &[("sablier.anti-affinity", "streaming")]),
                subject("jellyfin", &[("sablier.group", "streaming")]),
            ],
            None,
        );
        assert_eq!(found[1].labels[2], ("forerun.excludes".to_owned(), "encode".to_owned()));
        assert_eq!(found[0].labels.len(), 1);
    }

    #[test]
    fn the_plugins_options_go_to_those_that_they_name() {
        let mw = |rest: &str| format!("traefik.http.middlewares.m.plugin.sablier.{rest}");
        let options = [
            (mw("group"), "shop"),
            (mw("sessionDuration"), "5m"),
            (mw("ignoreUserAgent"), "curl"),
            (mw("dynamic.theme"), "ghost"),
            (mw("failOpen"), "true"),
        ];
        let traefik = Subject {
            name: "traefik".to_owned(),
            also: None,
            service: "traefik".to_owned(),
            labels: options.iter().map(|(k, v)| (k.clone(), (*v).to_owned())).collect(),
        };
        let found = super::labels(
            &[traefik, subject("web", &[("sablier.group", "shop")]), subject("other", &[])],
            None,
        );
        let got: Vec<String> = found[0].labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            got,
            [
                "forerun.enable=true",
                "forerun.group=shop",
                "forerun.hold.style=auto",
                "forerun.wake.deny=curl",
                "forerun.keep_at_least=5m"
            ]
        );
        assert_eq!(found[0].not_taken_over, ["failopen=true of the middleware m: has no match"]);
        assert_eq!((found[1].name.as_str(), found[1].labels.len()), ("other", 1));
    }

    /// What is printed is read: by the reader of labels itself.
    #[test]
    fn what_is_printed_is_understood() {
        use crate::config::{Config, Found, from_labels};
        use forerun_backends::docker::Labelled;
        let every = [
            ("sablier.group", "shop"),
            ("sablier.ready-after", "1m30s"),
            ("sablier.running-hours", "09:00-18:00"),
            ("sablier.running-days", "Mon,Fri"),
            ("sablier.idle.replicas", "1"),
            ("sablier.active.replicas", "2"),
            ("traefik.http.middlewares.m.plugin.sablier.names", "web"),
            ("traefik.http.middlewares.m.plugin.sablier.sessionduration", "10m"),
            ("traefik.http.middlewares.m.plugin.sablier.dynamic.displayname", "Web"),
            ("traefik.http.middlewares.m.plugin.sablier.blocking.timeout", "30s"),
        ];
        let labels = super::labels(&[subject("web", &every)], Some("Europe/Berlin")).remove(0);
        assert_eq!(labels.not_taken_over, [""; 0]);
        let container = Labelled {
            name: "web".to_owned(),
            labels: labels.labels.into_iter().collect(),
            ports: vec![80],
            ..Labelled::default()
        };
        let config = Config::parse("forerun.toml", "", &std::env::temp_dir()).unwrap();
        let read = from_labels(&config, &[Found { site: String::new(), containers: vec![container] }]);
        assert_eq!(read.problems, [""; 0]);
        let spec = &read.services[0].spec;
        assert_eq!((spec.min, spec.max, spec.schedules.len()), (1, 2, 1));
        assert_eq!(spec.keep_at_least, forerun_types::Span::from_secs(600));
    }
}
