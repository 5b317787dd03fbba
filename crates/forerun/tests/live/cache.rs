//! The router's cache, from the configuration to the metrics.

use crate::world::{Live, World, eventually, forerun};
use std::time::Duration;

const CACHED: &str = "[service.cached]\ncommand = [FIXTURE]\nroute = \"cached.test\"\ncache = { missing = \"10m\" }\n\
                      resources = { memory = \"64MB\" }\n";
/// The fixture answers it with 404, and nothing of caches.
const PAGE: &str = "/status?code=404";

fn status(live: &Live) -> String {
    live.get("cached.test", PAGE).header("cache-status").unwrap_or("none").to_owned()
}

#[test]
fn what_is_kept_is_answered_without_an_instance_until_it_is_purged() {
    let world = World::new("cache", CACHED);
    let live = world.up();
    assert_eq!(status(&live), "forerun; fwd=uri-miss; ttl=600; stored");
    assert!(status(&live).starts_with("forerun; hit; ttl="));
    let api = live.api.to_string();
    let told = |args: &[&str]| forerun(&[args, &["--api", &api]].concat());
    assert_eq!(told(&["scale", "cached", "0"]).0, Some(0));
    live.until("cached", "nothing is up", |s| s["instances"]["ready"] == 0);
    for _ in 0..3 {
        assert!(status(&live).starts_with("forerun; hit; ttl="));
    }
    let service = live.service("cached");
    assert_eq!((&service["instances"]["ready"], &service["instances"]["starting"]), (&0.into(), &0.into()));
    eventually("the hits are counted", Duration::from_secs(10), || {
        live.metric("forerun_cache_requests_total{site=\"local\",result=\"hit\"}") == 4.0
    });
    assert_eq!(live.metric("forerun_cache_entries{site=\"local\"}"), 1.0);

    assert_eq!(told(&["resume", "cached"]).0, Some(0));
    let (code, out, err) = told(&["cache", "purge", &format!("http://cached.test{PAGE}")]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("purged url http://cached.test{PAGE}\n"));
    assert_eq!(status(&live), "forerun; fwd=uri-miss; ttl=600; stored");
    for (args, code, part) in [
        (&["cache", "purge", "nonsense url"][..], 1, "is no url; write it as http://HOST/PATH"),
        (&["cache", "purge", "--tag", "a b"], 1, "is no tag; a tag is one word"),
        (&["cache", "purge", "--all", "--tenant", "nobody"], 1, "no service is of tenant nobody"),
        (&["cache", "purge"], 2, "required"),
        (&["cache", "purge", "--all", "--tag", "x"], 2, "cannot be used with"),
    ] {
        let (got, _, err) = told(args);
        assert!(got == Some(code) && err.contains(part), "{args:?}: {got:?} {err}");
    }
    live.drain();
    // What a journal tells of a service does not hold its cache; the configuration does.
    let live = world.up();
    assert_eq!(status(&live), "forerun; fwd=uri-miss; ttl=600; stored");
    live.drain();
}
