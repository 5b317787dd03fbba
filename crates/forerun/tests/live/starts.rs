//! Services that cannot start: each says why, in bounded time, to the client, in `status`, and nothing hangs.

use crate::http::get;
use crate::world::{GONE_WITHIN, PATIENCE, World, binary, forerun};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// One service of these lines; a request for it is refused within `within`, and these words stand in the answer
/// and in `forerun status`.
fn check(name: &str, lines: &str, within: Duration, words: &[&str]) {
    let world = World::new(name, &format!("[service.bad]\n{lines}\nresources = {{ memory = \"64MB\" }}\n"));
    let live = world.up();
    let start = Instant::now();
    let answer = live.get("bad.test", "/");
    assert!(start.elapsed() < within, "{name}: answered only after {:?}", start.elapsed());
    assert!(answer.is_clear_refusal(), "{name}: {answer:?}");
    live.until("bad", "the failure", |s| s["reason"].as_str().unwrap().starts_with("failing: "));
    let (code, status, error) = forerun(&["status", "--api", &live.api.to_string()]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{name}");
    for word in words {
        assert!(answer.text().contains(word), "{name}: no `{word}` in {}", answer.text());
        assert!(status.contains(word), "{name}: no `{word}` in {status}");
    }
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn a_service_that_is_never_ready_says_so_with_its_last_lines() {
    let lines = "command = [FIXTURE, \"--no-listen\", \"--say\", \"waiting for the database\", \"--grandchild\"]\n\
                 start_timeout = \"500ms\"";
    let words = ["not ready after 500ms", "waiting for the database"];
    check("never", lines, Duration::from_secs(5), &words);
}

#[test]
fn a_held_request_is_refused_when_its_time_is_over() {
    let services = "[service.slow]\ncommand = [FIXTURE, \"--no-listen\"]\nhold = { timeout = \"700ms\" }\n";
    let world = World::new("hold", services);
    let live = world.up();
    let start = Instant::now();
    let answer = live.get("slow.test", "/");
    assert!(answer.is_clear_refusal(), "{answer:?}");
    assert_eq!(answer.header("forerun-reason"), Some("hold-timeout"));
    assert!((700..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn a_service_that_crashes_on_start_says_with_which_code_and_last_lines() {
    let lines = "command = [FIXTURE, \"--exit\", \"3\", \"--say\", \"no such table: users\"]";
    check("crash", lines, Duration::from_secs(5), &["exit code 3", "no such table: users"]);
}

#[test]
fn a_service_that_answers_only_errors_is_not_ready() {
    let lines = "command = [FIXTURE, \"--ready-after\", \"60000\"]\nready = { http = \"/\" }\n\
                 start_timeout = \"500ms\"";
    check("errors", lines, Duration::from_secs(5), &["not ready after 500ms"]);
}

#[test]
fn a_service_that_eats_its_memory_limit_says_so() {
    let services = "[service.eat]\ncommand = [FIXTURE, \"--eat\", \"200000000\"]\nready = { http = \"/\" }\n\
                    resources = { memory = \"64MB\" }\nmax = 1\n";
    let world = World::new("eat", services);
    let live = world.up();
    // It is looked at about once a second: until then it may answer.
    let start = Instant::now();
    let refused = loop {
        match get(live.router, "eat.test", "/") {
            Ok(answer) if answer.status == 503 => break answer,
            Ok(answer) if answer.status == 200 || answer.status == 502 => {}
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < PATIENCE, "it is never ended");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(refused.is_clear_refusal(), "{refused:?}");
    let told = |text: &str| text.contains("used more memory than its limit") && text.contains("of 64.0 MB");
    assert!(told(&refused.text()), "{}", refused.text());
    // The next one may be up by now, and says nothing of the last until it goes the same way.
    let start = Instant::now();
    loop {
        let (_, status, _) = forerun(&["status", "--api", &live.api.to_string()]);
        if told(&status) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(20));
        let _ = get(live.router, "eat.test", "/");
    }
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn a_command_that_went_away_is_named() {
    let world = World::new("went", "");
    let script = world.path("service.sh");
    fs::write(&script, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    world.configure("[service.bad]\ncommand = \"./service.sh\"\n");
    let live = world.up();
    fs::remove_file(&script).unwrap();
    let answer = live.get("bad.test", "/");
    assert!(answer.is_clear_refusal(), "{answer:?}");
    assert!(answer.text().contains("service.sh` does not exist"), "{}", answer.text());
    live.drain();
}

#[test]
fn a_command_that_never_was_is_refused_by_line() {
    let world = World::new("never-was", "");
    world.configure("[service.bad]\ncommand = \"./nothing.sh\"\n");
    let (code, error) = world.up_fails();
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("service.bad.command") && error.contains("nothing.sh"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_command_that_is_not_in_the_path_is_named() {
    check("path", "command = \"forerun-no-such-program\"", Duration::from_secs(5), &["is not in PATH"]);
}

/// An address that somebody has: exit code 1, one line that names it, and nothing left running.
fn taken(key: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let world = World::new(key, "");
    let table = format!("[{key}]\nlisten = \"127.0.0.1:0\"");
    let globals = World::globals(&table, &format!("[{key}]\nlisten = \"{address}\""));
    world.configure_all(&format!("{globals}[service.web]\ncommand = [FIXTURE]\nmin = 1\n"));
    let start = Instant::now();
    let (code, error) = world.up_fails();
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    assert_eq!(code, Some(1), "{error}");
    let line = error.lines().last().unwrap_or_default();
    assert!(line.starts_with("forerun: ") && line.contains(&address), "{error}");
    world.all_gone(GONE_WITHIN);
    drop(listener);
    // The folder is free again.
    world.configure("[service.web]\ncommand = [FIXTURE]\nmin = 1\n");
    let live = world.up();
    live.serves("web.test");
    live.drain();
}

#[test]
fn a_taken_router_address_is_named() {
    taken("router");
}

#[test]
fn a_taken_api_address_is_named() {
    taken("api");
}

/// A port that was free a moment ago, below those that the kernel gives to others.
fn free_port() -> u16 {
    let start = 10_000 + (std::process::id() % 5_000) as u16;
    (start..start + 1_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

#[test]
fn a_service_with_a_port_of_its_own_listens_there_and_names_who_took_it() {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let service = format!(
        "[service.fixed]\ncommand = [FIXTURE, \"--port\", \"{port}\"]\nport = {port}\n\
         resources = {{ memory = \"64MB\" }}\n"
    );
    let world = World::new("port", &service);
    let live = world.up();
    let answer = live.get("fixed.test", "/");
    assert!(answer.is_clear_refusal(), "{answer:?}");
    assert!(
        answer.text().contains(&format!("its port {port} is taken by another program")),
        "{}",
        answer.text()
    );
    drop(listener);
    let first = live.serves("fixed.test").pid();
    // Its successor waits for the port, also while connections to the first are still closing.
    crate::world::send("KILL", first);
    let second = live.serves("fixed.test").pid();
    assert_ne!(first, second);
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn a_second_forerun_on_the_same_state_folder_is_refused() {
    let world = World::new("twice", "[service.web]\ncommand = [FIXTURE]\nmin = 1\n");
    let live = world.up();
    live.serves("web.test");
    let (code, error) = world.up_fails();
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("another forerun is using this state folder"), "{error}");
    // The first is none the worse.
    live.serves("web.test");
    live.drain();
    assert!(binary().is_file());
}
