//! `forerun explain SERVICE|INSTANCE`: what is up and why, what would change it, who wakes it and keeps it up.

use super::control::percent;
use super::status::{seconds, why};
use crate::ask::{Asked, NoAnswer};
use crate::cli::ExplainArgs;
use crate::config::nearest;
use crate::failure::Failure;
use crate::terminal::bytes;
use forerun_api::{Instance, Load, LoadForecast, ServiceStatus, Status, Trust};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;

/// The answer of `/v1/services/NAME/wakes`: what the router remembers, the latest first.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Wakes {
    woken_by: Vec<Visitor>,
    kept_up_by: Vec<Visitor>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Visitor {
    at: f64,
    address: String,
    action: String,
    agent: String,
    by: String,
}

/// # Errors
/// Nobody answers, or neither a service nor an instance has that name.
pub(crate) fn run(args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let asked = Asked::of(&args.api)?;
    let odd = |e: serde_json::Error| {
        Failure::Running(format!("the api at {} gives no status: {e}", asked.address()))
    };
    let status: Status = serde_json::from_slice(&asked.get("/v1/status")?).map_err(odd)?;
    let (service, instance) = find(&status, &args.name)?;
    let wakes = match asked.get(&format!("/v1/services/{}/wakes", percent(&service.name))) {
        Ok(body) => serde_json::from_slice(&body).map_err(odd)?,
        // A service that takes no requests, or is new to the router.
        Err(NoAnswer::Refused(_)) => Wakes::default(),
        Err(NoAnswer::Failed(failure)) => return Err(failure),
    };
    if args.json {
        let document = json!({ "at": status.at, "service": service, "instance": instance, "wakes": wakes });
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&document).map_err(odd)?)?);
    }
    let mut text = String::new();
    if let Some(instance) = instance {
        text += &format!("{} is an instance of {}\n", instance.instance, service.name);
    }
    Ok(out.write_all((text + &people(service, &wakes, status.at)).as_bytes())?)
}

fn find<'a>(status: &'a Status, name: &str) -> Result<(&'a ServiceStatus, Option<&'a Instance>), Failure> {
    if let Some(service) = status.services.iter().find(|s| s.name == name) {
        return Ok((service, None));
    }
    let instance = |s: &'a ServiceStatus| Some((s, s.each.iter().find(|i| i.instance == name)?));
    if let Some((service, instance)) = status.services.iter().find_map(instance) {
        return Ok((service, Some(instance)));
    }
    let names = || status.services.iter().map(|s| s.name.as_str());
    let near = names().find(|known| known.contains(name)).or_else(|| nearest(name, names()));
    let mend = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Err(Failure::Running(format!("no service or instance is called `{name}`{mend}")))
}

/// What is known of a service without asking who woke it.
pub(crate) fn in_short(s: &ServiceStatus, now: f64) -> String {
    people(s, &Wakes::default(), now)
}

fn people(s: &ServiceStatus, wakes: &Wakes, now: f64) -> String {
    let ago = |at: f64| format!("{} ago", seconds((now - at).max(0.0)));
    let mut text = format!(
        "{} ({}, {}): {} wanted, {} ready, {} starting, {} paused, {} draining\n",
        s.name,
        s.backend,
        s.mode,
        s.wanted,
        s.instances.ready,
        s.instances.starting,
        s.instances.paused,
        s.instances.draining
    );
    text += &format!("why     {}\n", why(s, now));
    for i in &s.each {
        let found = if i.found { ", which was there already" } else { "" };
        let because = if i.reason.is_empty() { String::new() } else { format!(": {}", i.reason) };
        text += &format!(
            "        {} {} since {}, {} in flight, {}{found}{because}\n",
            i.instance,
            i.state,
            ago(i.since),
            i.in_flight,
            bytes(i.memory_bytes)
        );
    }
    text.extend(s.trust.as_ref().map(trusted));
    text.extend(s.advice.iter().rev().map(|a| format!("advised {}: {}\n", ago(a.at), a.what)));
    if !s.last_failure.is_empty() {
        text += &format!("failed  {}\n", s.last_failure.replace('\n', "\n        "));
    }
    for line in next(s, now) {
        text += &format!("next    {line}\n");
    }
    if !s.depends_on.is_empty() {
        text += &format!("needs   {}\n", s.depends_on.join(", "));
    }
    if !s.needed_by.is_empty() {
        text += &format!("for     {}, which need it while they are up or wanted\n", s.needed_by.join(", "));
    }
    text += &format!("start   takes {}", seconds(s.start_seconds));
    text +=
        &s.resume_seconds.map_or_else(String::new, |t| format!(", going on after a pause {}", seconds(t)));
    text +=
        &s.specialise_seconds.map_or_else(String::new, |t| format!(", being given to a key {}", seconds(t)));
    text += "\n";
    text.extend(takes(s));
    text.extend(s.load.as_ref().and_then(comes));
    text.extend(s.forecast.as_ref().and_then(expects));
    text.extend(s.forecast.as_ref().and_then(needs));
    for w in s.wakes.iter().rev() {
        text += &format!("woken   {} by {}\n", ago(w.at), cause(&w.by));
    }
    let visitor = |v: &Visitor| {
        let agent = if v.agent.is_empty() { String::new() } else { format!(" ({})", v.agent) };
        format!("{}: {} from {}{agent}, by the {}", ago(v.at), v.action, v.address, door(&v.by))
    };
    text.extend(wakes.woken_by.iter().map(|v| format!("woke it {}\n", visitor(v))));
    text.extend(wakes.kept_up_by.iter().map(|v| format!("used it {}\n", visitor(v))));
    if let Some(token) = wakes.kept_up_by.iter().chain(&wakes.woken_by).find_map(|v| token(&v.agent)) {
        let line = match s.found {
            true => format!("the label forerun.wake.deny={token}"),
            false => format!("wake.deny = [\"{token}\"] in [service.{}]", s.name),
        };
        text += &format!("if one of these is no person, {line} keeps it from waking and from counting\n");
    }
    text
}

/// What its own forecasts were worth of late.
fn trusted(t: &Trust) -> String {
    let decides = if t.fallen { "the rule decides until they cost no more" } else { "they decide" };
    format!(
        "trust   over its last gaps ({} so far) its forecasts cost {:.1} GB-s and the reactive rule {:.1}: {decides}\n",
        t.gaps, t.foresight_gb_seconds, t.reactive_gb_seconds
    )
}

/// What its most frequent activities take.
fn takes(s: &ServiceStatus) -> impl Iterator<Item = String> {
    const SHOWN: usize = 4;
    s.activities.iter().take(SHOWN).map(|a| {
        let name = if a.action.is_empty() { "each of the others" } else { &a.action };
        format!(
            "takes   {name}: {} of a core, {} of memory, {} over the network, {} from and to disks, in {}\n",
            seconds(a.cpu_seconds),
            bytes(a.memory_bytes as u64),
            bytes(a.network_bytes as u64),
            bytes(a.storage_bytes as u64),
            seconds(a.seconds)
        )
    })
}

/// How much comes of late, and what that needs.
fn comes(load: &Load) -> Option<String> {
    let n = Some(load.instances_for_target).filter(|n| *n > 0)?;
    let counted = if n == 1 { "1 instance".to_owned() } else { format!("{n} instances") };
    Some(format!(
        "load    {:.1} a second, {:.1} at a time; with {counted} 99 in 100 would wait for less than their class's latency target\n",
        load.per_second, load.concurrency
    ))
}

/// How many requests at a time are to come.
fn expects(told: &LoadForecast) -> Option<String> {
    let most = |level: f64| {
        let at = told.levels.iter().position(|l| *l == level)?;
        Some(told.steps.iter().filter_map(|step| step.get(at)).copied().fold(0.0, f64::max))
    };
    let (usual, high, highest) = (most(0.5)?, most(0.9)?, most(0.99)?);
    let ahead = seconds(told.step_seconds * told.steps.len() as f64);
    let by = told.models.first().map_or_else(String::new, |m| format!(", mostly by {}", m.model));
    Some(format!(
        "expects {usual:.1} requests at a time at the most in the next {ahead}, 9 times in 10 under {high:.1}, \
         99 in 100 under {highest:.1}{by}\n"
    ))
}

/// What that is expected to take.
fn needs(told: &LoadForecast) -> Option<String> {
    let d = told.demand.iter().find(|d| d.level == 0.9)?;
    let counted = if d.instances == 1 { "1 instance" } else { &format!("{} instances", d.instances) };
    Some(format!(
        "needs   for that, 9 times in 10 at most: {counted}, {:.2} cores, {} of memory, {}/s over the network, \
         {}/s from and to disks\n",
        d.cpu_cores,
        bytes(d.memory_bytes as u64),
        bytes(d.network_bytes_per_second as u64),
        bytes(d.storage_bytes_per_second as u64)
    ))
}

/// When fewer will be up, and what would change that.
fn next(s: &ServiceStatus, now: f64) -> Vec<String> {
    let mut lines = Vec::new();
    match &s.next_change {
        _ if s.mode != "act" => {
            lines.push("nothing is started or stopped while it is only watched".to_owned())
        }
        _ if s.down.is_some() => {
            lines.push(format!("stays down until somebody starts it or says `forerun resume {}`", s.name));
        }
        _ if s.word.is_some() => {}
        Some(change) => lines.push(format!(
            "{} wanted in {} if no request comes; each request moves that",
            change.wanted,
            seconds((change.at - now).max(0.0))
        )),
        None if s.wanted > 0 && s.wanted <= s.min => lines.push(format!("min keeps {} up for good", s.min)),
        None if s.wanted > 0 => lines.push("no stop is foreseen".to_owned()),
        None => lines.push("a request starts it, or the plan when one is likely enough".to_owned()),
    }
    if s.mode == "act" && s.in_flight > 0 {
        lines.push(format!("not before the {} request(s) in flight have ended", s.in_flight));
    }
    if s.mode == "act" && s.keep_at_least_seconds > 0.0 {
        lines.push(format!(
            "not before {} after its last use (keep_at_least)",
            seconds(s.keep_at_least_seconds)
        ));
    }
    lines
}

fn cause(by: &str) -> String {
    match by {
        "request" => "a request".to_owned(),
        "operator" => "somebody past forerun".to_owned(),
        "person" => "a person's word".to_owned(),
        "plan" => "the plan, ahead of need".to_owned(),
        service => format!("{service}, which needs it"),
    }
}

fn door(by: &str) -> &str {
    match by {
        "wake" => "proxy that asks first",
        "page" => "waiting page",
        "sablier" => "sablier plugin",
        other => other,
    }
}

/// The product at the head of an agent's name, as `wake.deny` takes it; `None` for a browser's.
fn token(agent: &str) -> Option<String> {
    let product = agent.split(['/', ' ', '(']).next().unwrap_or_default().to_lowercase();
    let plain = product.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (!product.is_empty() && plain && product != "mozilla").then_some(product)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_api::{Advice, Demand, Instances, NextChange, Woken};

    fn web() -> ServiceStatus {
        ServiceStatus {
            name: "web".to_owned(),
            mode: "act".to_owned(),
            backend: "docker".to_owned(),
            wanted: 1,
            instances: Instances { ready: 1, ..Instances::default() },
            each: vec![Instance {
                instance: "i7".to_owned(),
                state: "ready".to_owned(),
                since: 940.0,
                memory_bytes: 61_000_000,
                found: true,
                ..Instance::default()
            }],
            reason: "1 needed at the load of now".to_owned(),
            next_change: Some(NextChange { at: 1_090.0, wanted: 0 }),
            keep_at_least_seconds: 30.0,
            needed_by: vec!["front".to_owned()],
            wakes: vec![Woken { at: 940.0, by: "request".to_owned() }],
            start_seconds: 1.5,
            found: true,
            ..ServiceStatus::default()
        }
    }

    #[test]
    fn people_read_what_keeps_it_up() {
        let visitor = |agent: &str| Visitor {
            at: 990.0,
            address: "10.0.0.1".to_owned(),
            action: "GET /metrics".to_owned(),
            agent: agent.to_owned(),
            by: "router".to_owned(),
        };
        let wakes = Wakes {
            woken_by: vec![visitor("Mozilla/5.0 (X11)")],
            kept_up_by: vec![visitor("Prometheus/2.45")],
        };
        let expect = "web (docker, act): 1 wanted, 1 ready, 0 starting, 0 paused, 0 draining\n\
            why     1 needed at the load of now; needed by front\n        \
            i7 ready since 60s ago, 0 in flight, 61MB, which was there already\n\
            next    0 wanted in 90s if no request comes; each request moves that\n\
            next    not before 30s after its last use (keep_at_least)\n\
            for     front, which need it while they are up or wanted\n\
            start   takes 1.5s\n\
            woken   60s ago by a request\n\
            woke it 10s ago: GET /metrics from 10.0.0.1 (Mozilla/5.0 (X11)), by the router\n\
            used it 10s ago: GET /metrics from 10.0.0.1 (Prometheus/2.45), by the router\n\
            if one of these is no person, the label forerun.wake.deny=prometheus keeps it from waking and from counting\n";
        assert_eq!(people(&web(), &wakes, 1_000.0), expect);
    }

    #[test]
    fn people_read_what_its_forecasts_were_worth() {
        let told =
            |fallen| Trust { foresight_gb_seconds: 12.34, reactive_gb_seconds: 20.0, gaps: 812, fallen };
        for (fallen, end) in [(false, "they decide\n"), (true, "the rule decides until they cost no more\n")]
        {
            let status = ServiceStatus { trust: Some(told(fallen)), ..web() };
            let text = people(&status, &Wakes::default(), 1_000.0);
            let expect = "trust   over its last gaps (812 so far) its forecasts cost 12.3 GB-s and the \
                reactive rule 20.0: ";
            assert!(text.contains(&(expect.to_owned() + end)), "{text}");
        }
    }

    #[test]
    fn people_read_what_would_have_been_done() {
        let told = |at: f64, what: &str| Advice { at, what: what.to_owned(), ..Advice::default() };
        let advice = vec![told(880.0, "would start 1: min keeps 1"), told(990.0, "would stop 1: idle")];
        let text = people(&ServiceStatus { advice, ..web() }, &Wakes::default(), 1_000.0);
        assert!(
            text.contains(
                "advised 10s ago: would stop 1: idle\nadvised 2m ago: would start 1: min keeps 1\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn people_read_what_comes_and_how_many_that_needs() {
        let load = Load { per_second: 12.0, concurrency: 3.25, instances_for_target: 6, ..Load::default() };
        let text = people(&ServiceStatus { load: Some(load), ..web() }, &Wakes::default(), 1_000.0);
        let expect = "load    12.0 a second, 3.2 at a time; with 6 instances 99 in 100 would wait for less than their class's \
            latency target\n";
        assert!(text.contains(expect), "{text}");
    }

    #[test]
    fn people_read_what_is_expected_and_what_that_takes() {
        let demand = |level: f64, instances| Demand {
            level,
            instances,
            cpu_cores: 0.456,
            memory_bytes: 122e6,
            network_bytes_per_second: 3e6,
            storage_bytes_per_second: 0.0,
        };
        let told = LoadForecast {
            step_seconds: 60.0,
            levels: vec![0.5, 0.9, 0.99],
            steps: vec![vec![1.0, 2.0, 4.0], vec![1.5, 1.9, 4.0]],
            demand: vec![demand(0.5, 1), demand(0.9, 2), demand(0.99, 4)],
            ..LoadForecast::default()
        };
        let status = ServiceStatus { forecast: Some(told), ..web() };
        let text = people(&status, &Wakes::default(), 1_000.0);
        let expect = "expects 1.5 requests at a time at the most in the next 2m, 9 times in 10 under 2.0, \
            99 in 100 under 4.0\n\
            needs   for that, 9 times in 10 at most: 2 instances, 0.46 cores, 122MB of memory, 3MB/s over the network, \
            0B/s from and to disks\n";
        assert!(text.contains(expect), "{text}");
    }

    #[test]
    fn services_and_instances_are_found_by_name() {
        let status = Status { services: vec![web()], ..Status::default() };
        assert!(find(&status, "web").is_ok_and(|(_, instance)| instance.is_none()));
        assert!(find(&status, "i7").is_ok_and(|(_, instance)| instance.is_some()));
        for (name, part) in [("we", "did you mean `web`?"), ("zzz", "no service or instance is called `zzz`")]
        {
            let error = find(&status, name).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn only_programs_are_offered_for_denial() {
        for (agent, expect) in [
            ("Uptime-Kuma/1.23", Some("uptime-kuma")),
            ("Mozilla/5.0 (X11; Linux)", None),
            ("", None),
            ("\"odd\"", None),
        ] {
            assert_eq!(token(agent).as_deref(), expect, "{agent}");
        }
    }
}
