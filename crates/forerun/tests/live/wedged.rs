//! A process that lives and answers nothing is replaced.

use crate::http::get;
use crate::world::{GONE_WITHIN, World, eventually, processes, send};
use std::time::{Duration, Instant};

/// Half a minute of silence, the last drain, the stop of what ignores it, and the next start.
const REPLACED_WITHIN: Duration = Duration::from_secs(90);

#[test]
fn a_stopped_process_is_replaced_though_max_is_one() {
    let service = "
        [service.web]
        command = [FIXTURE]
        route = { host = \"web.test\" }
        concurrency = 0
        min = 1
        max = 1
        start_timeout = \"10s\"
        drain_timeout = \"2s\"
        resources = { memory = \"64MB\" }
        [service.other]
        command = [FIXTURE]
        route = { host = \"other.test\" }
        min = 1
        resources = { memory = \"64MB\" }
        ";
    let world = World::new("wedged", "");
    let router = "[router]\nlisten = \"127.0.0.1:0\"\nresponse_timeout = \"11s\"\n";
    world.configure_all(&(World::globals("[router]\nlisten = \"127.0.0.1:0\"\n", router) + service));
    let live = world.up();
    let (first, other) = (live.serves("web.test").pid(), live.serves("other.test").pid());
    let began = Instant::now();
    send("STOP", first);
    // Clients that ask again and again, each waiting as long as the router does; the kernel takes their connections.
    let mut statuses = Vec::new();
    let (replaced, mut told) = (|pid: u32| pid != first, false);
    let second = loop {
        assert!(began.elapsed() < REPLACED_WITHIN, "not replaced: {statuses:?} {}", live.service("web"));
        let asked: Vec<_> = (0..2)
            .map(|_| {
                std::thread::spawn({
                    let router = live.router;
                    move || get(router, "web.test", "/")
                })
            })
            .collect();
        let answers: Vec<_> = asked.into_iter().map(|client| client.join().unwrap()).collect();
        statuses.extend(answers.iter().flatten().map(|answer| answer.status));
        told |= live.service("web")["reason"].as_str().unwrap().contains("in a row got no answer for");
        let served = answers.into_iter().flatten().find(|answer| answer.status == 200);
        if let Some(answer) = served.filter(|answer| replaced(answer.pid())) {
            break answer.pid();
        }
    };
    assert!(told, "status says what does not answer");
    assert!(statuses.contains(&504) && began.elapsed() > Duration::from_secs(30), "{statuses:?}");
    eventually("the first is killed", GONE_WITHIN, || processes(&world.tag).iter().all(|p| p.0 != first));
    assert_eq!((live.serves("web.test").pid(), live.serves("other.test").pid()), (second, other));
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}
