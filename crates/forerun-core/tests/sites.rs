//! Several sites: each has room of its own, and a service's instances are at its engine's.

use forerun_core::{Core, KeepAlive};
use forerun_types::*;
use std::net::SocketAddr;
use std::sync::Arc;

const SECOND: Span = Span::from_secs(1);

struct World {
    core: Core<KeepAlive>,
    now: Time,
    log: Vec<String>,
}

impl World {
    /// Two sites with room for one instance each.
    fn new() -> Self {
        let mut world = Self {
            core: Core::new(KeepAlive::new(Span::from_secs(60))),
            now: Time(1_000_000_000),
            log: Vec::new(),
        };
        world.tell(Event::Began);
        for (id, name) in [(0, "here"), (1, "there")] {
            world.tell(Event::Site(site(id, name)));
        }
        world.tell(Event::RouterJoined(RouterId(0)));
        world
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.step(self.now, &event, &mut actions);
        for action in actions {
            match action {
                Action::Start { instance, service, site, .. } => {
                    self.log.push(format!("start {service} at {site}"));
                    let address = SocketAddr::from(([127, 0, 0, 1], 1));
                    self.tell(Event::Ready { instance, address, took: SECOND });
                }
                Action::Stop { instance, .. } => {
                    self.log.push(format!("stop {instance}"));
                    self.tell(Event::Stopped { instance });
                }
                Action::Route { service, route: Some(route), .. } if route.instances.is_empty() => {
                    self.log.push(format!("none of {service}"));
                }
                _ => {}
            }
        }
    }

    fn describe(&mut self, id: u32, engine: &str) {
        let container = Container { engine: engine.to_owned(), ..Container::default() };
        let spec = ServiceSpec {
            launch: Launch::Container(container),
            start_estimate: SECOND,
            ..ServiceSpec::named(ServiceId(id), format!("s{id}"))
        };
        self.tell(Event::Service(Arc::new(spec)));
    }

    fn hold(&mut self, id: u32) {
        let (router, service) = (RouterId(0), ServiceId(id));
        self.tell(Event::Waiting { router, service, user: UserKey(0), waiting: 1 });
    }

    fn starts(&self) -> Vec<&str> {
        self.log.iter().filter(|line| line.starts_with("start")).map(String::as_str).collect()
    }

    /// Instances and shadow prices of both sites.
    fn rooms(&self) -> Vec<(String, u32, bool)> {
        self.core.sites().map(|s| (s.name, s.instances, s.shadow_price > 0)).collect()
    }
}

fn site(id: u16, name: &str) -> SiteSpec {
    SiteSpec { id: SiteId(id), name: name.to_owned(), capacity: Resources::default(), instances_max: 1 }
}

#[test]
fn a_full_site_takes_nothing_from_another() {
    let mut world = World::new();
    for (id, engine) in [(0, ""), (1, "there"), (2, "there"), (3, "here")] {
        world.describe(id, engine);
    }
    world.hold(0);
    world.hold(1);
    assert_eq!(world.starts(), ["start s0 at site0", "start s1 at site1"]);
    assert_eq!(world.rooms(), [("here".to_owned(), 1, false), ("there".to_owned(), 1, false)]);
    for id in [0, 1] {
        world.tell(Event::Abandoned { router: RouterId(0), service: ServiceId(id), waiting: 0 });
    }
    world.log.clear();
    // There is no room: what is idle at that site makes way, the other site's keeps its place.
    world.hold(2);
    assert!(world.log.contains(&"none of s1".to_owned()), "{:?}", world.log);
    assert!(!world.log.contains(&"none of s0".to_owned()), "{:?}", world.log);
}

#[test]
fn a_site_that_nobody_describes_counts_at_the_first() {
    let mut world = World::new();
    world.describe(0, "nowhere");
    world.hold(0);
    assert_eq!(world.starts(), ["start s0 at site0"]);
}

#[test]
fn a_new_life_knows_only_the_sites_that_it_is_told() {
    let mut world = World::new();
    world.describe(0, "there");
    world.hold(0);
    world.tell(Event::Began);
    world.tell(Event::Site(site(0, "there")));
    assert_eq!(world.rooms(), [("there".to_owned(), 0, false)]);
}

#[test]
fn what_moved_gives_back_the_room_that_it_took() {
    let mut world = World::new();
    world.describe(0, "there");
    world.hold(0);
    world.describe(0, "here");
    let gone = world.core.services().next().map(|s| s.instances[0].instance).expect("one runs");
    world.tell(Event::Died { instance: gone, why: "gone".to_owned() });
    let there = world.rooms()[1].clone();
    assert_eq!(there, ("there".to_owned(), 0, false), "{:?}", world.log);
}
