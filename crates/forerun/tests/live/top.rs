//! `forerun top` on a real terminal: a pseudo terminal of util-linux's `script`.

use crate::world::{PATIENCE, World, binary, eventually};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const ONE: &str =
    "[service.shop-web]\ncommand = [FIXTURE]\nroute = \"web.test\"\nresources = { memory = \"64MB\" }\n";

#[test]
fn top_shows_tells_and_gives_the_terminal_back() {
    if Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("SKIPPED: forerun top on a terminal: there is no `script` of util-linux");
        return;
    }
    let world = World::new("top", ONE);
    let live = world.up();
    live.serves("web.test");
    let run = format!("stty rows 24 cols 120; exec {:?} top --every 200ms --api {}", binary(), live.api);
    let mut child = Command::new("script")
        .args(["-qfec", &run, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("NO_COLOR", "1")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let reader = {
        let shown = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut chunk) {
                shown.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        })
    };
    let text = || String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
    eventually("the service is on the screen", PATIENCE, || text().contains("shop-web"));
    keys.write_all(b"p").unwrap();
    eventually("the question is on the screen", PATIENCE, || text().contains("resumed."));
    assert!(live.service("shop-web")["word"].is_null(), "a question is no order");
    keys.write_all(b"y").unwrap();
    live.until("shop-web", "it is paused", |s| s["word"]["instances"] == 1);
    keys.write_all(b"q").unwrap();
    let child = RefCell::new(child);
    eventually("it ends", PATIENCE, || child.borrow_mut().try_wait().unwrap().is_some());
    assert!(child.borrow_mut().wait().unwrap().success());
    reader.join().unwrap();
    let text = text();
    // The screen beneath, the cursor, and no colour.
    assert!(text.contains("\x1b[?1049h") && text.contains("\x1b[?1049l"), "{text:?}");
    assert!(text.rfind("\x1b[?1049l") > text.rfind("\x1b[?1049h"), "{text:?}");
    assert!(!text.contains("\x1b[38;5;") && !text.contains("\x1b[32m"), "{text:?}");
    live.drain();
}
