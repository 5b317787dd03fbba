//! The launcher that waits for the next start.

use crate::world::{GONE_WITHIN, Live, PATIENCE, World, eventually, processes, send};
use std::time::{Duration, Instant};

const LAUNCHER: &str = "__launch";

/// The launcher that waits, once there is one: those of starts that are under way are gone a moment later.
fn waiting(live: &Live) -> u32 {
    let start = Instant::now();
    loop {
        let launchers = live.children(LAUNCHER);
        std::thread::sleep(Duration::from_millis(200));
        if let [launcher] = launchers[..]
            && live.children(LAUNCHER) == launchers
        {
            return launcher;
        }
        assert!(start.elapsed() < PATIENCE, "no launcher waits: {launchers:?}");
    }
}

#[test]
fn the_next_start_takes_the_launcher_that_waits_and_needs_none() {
    let service = |name| {
        format!(
            "[service.{name}]\ncommand = [FIXTURE]\nroute = {{ host = \"{name}.test\" }}\n\
             resources = {{ memory = \"64MB\" }}\n"
        )
    };
    let world = World::new("spare", &["first", "next", "last"].map(service).concat());
    let mut live = world.up();
    assert!(live.children(LAUNCHER).is_empty(), "nothing was started yet");
    assert_eq!(live.get("first.test", "/").status, 200);
    let taken = waiting(&live);
    assert_eq!(live.get("next.test", "/").status, 200);
    let instances = || processes(&world.tag).into_iter().map(|(pid, _)| pid);
    assert!(instances().any(|pid| pid == taken), "{taken} became no instance: {:?}", processes(&world.tag));
    // One that somebody killed is not missed.
    let killed = waiting(&live);
    assert_ne!(killed, taken);
    send("KILL", killed);
    assert_eq!(live.get("last.test", "/").status, 200, "{}", world.log());
    let left = waiting(&live);
    live.kill();
    world.all_gone(GONE_WITHIN);
    eventually("what waits goes with Forerun", GONE_WITHIN, || {
        !processes(LAUNCHER).iter().any(|p| p.0 == left)
    });
}
