//! Journals of every format so far, read as they were written. `FORERUN_JOURNALS=write` writes the newest format's
//! file anew; those of older formats are never written again.

#![allow(clippy::unwrap_used)]

use forerun_core::{AnyPolicy, Core};
use forerun_engine::journal;
use forerun_types::*;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

const BEGAN: Time = Time(1_700_000_000_000_000);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

/// A core, and what a world without faults of its own would answer to its orders.
struct Story {
    core: Core<AnyPolicy>,
    now: Time,
    steps: Vec<(Time, Event, Vec<Action>)>,
    listed: BTreeSet<InstanceId>,
    answers: Vec<Event>,
}

impl Story {
    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.step(self.now, &event, &mut actions);
        for action in &actions {
            match action {
                Action::Start { instance, .. } if instance.0.is_multiple_of(7) => self
                    .answers
                    .push(Event::StartFailed { instance: *instance, why: "exited with 1".to_owned() }),
                Action::Start { instance, .. } => self.answers.push(Event::Ready {
                    instance: *instance,
                    address: ([127, 0, 0, 1], 9_000).into(),
                    took: Span::from_millis(800),
                }),
                Action::Stop { instance, .. } => self.answers.push(Event::Stopped { instance: *instance }),
                Action::Route { generation, service, route } => {
                    let now: BTreeSet<InstanceId> =
                        route.iter().flat_map(|r| &r.instances).map(|i| i.instance).collect();
                    let of = |i: &InstanceId| {
                        self.core.services().any(|s| {
                            s.service == *service && s.instances.iter().any(|other| other.instance == *i)
                        })
                    };
                    for gone in self.listed.iter().filter(|i| of(i) && !now.contains(i)) {
                        self.answers.push(Event::Quiesced {
                            router: RouterId(0),
                            instance: *gone,
                            generation: *generation,
                        });
                    }
                    self.listed.extend(now);
                }
                _ => {}
            }
        }
        self.steps.push((self.now, event, actions));
    }
}

fn core() -> Core<AnyPolicy> {
    Core::new(AnyPolicy::named("keep-alive", Some(Span::from_secs(5)), 1 << 16).unwrap())
}

fn traffic(now: Time, service: ServiceId, user: u64, in_flight: u32) -> Event {
    let activity = Activity {
        at: now,
        tenant: TenantKey(0),
        user: UserKey(user),
        group: GroupKey(0),
        site: SiteId(0),
        service,
        action: ActionKey(1),
    };
    Event::Traffic(Traffic {
        activities: vec![activity],
        services: vec![ServiceLoad { service, in_flight, peak: in_flight, waiting: 0 }],
        ..Traffic::default()
    })
}

/// The story that every journal here tells.
fn story() -> Story {
    let mut random = Random(4);
    let mut story =
        Story { core: core(), now: BEGAN, steps: Vec::new(), listed: BTreeSet::new(), answers: Vec::new() };
    let site =
        SiteSpec { id: SiteId(0), name: "here".to_owned(), capacity: Resources::default(), instances_max: 4 };
    story.step(Event::Began);
    story.step(Event::Site(site));
    story.step(Event::RouterJoined(RouterId(0)));
    for (id, name) in ["shop", "mail"].into_iter().enumerate() {
        story.step(Event::Service(Arc::new(ServiceSpec {
            start_estimate: Span::from_secs(1),
            ..ServiceSpec::named(ServiceId(id as u32), name)
        })));
    }
    for _ in 0..60 {
        let service = ServiceId(random.below(2) as u32);
        let user = 1 + random.below(5);
        let event = match random.below(4) {
            0 => Event::Waiting {
                router: RouterId(0),
                service,
                user: UserKey(user),
                waiting: 1 + random.below(2) as u32,
            },
            1 => traffic(story.now, service, user, random.below(2) as u32),
            2 => traffic(story.now, service, user, 0),
            _ => Event::Tick,
        };
        story.step(event);
        story.now += Span::from_millis(random.below(3_000));
        while let Some(answer) = story.answers.pop() {
            story.step(answer);
        }
        story.now += Span::from_millis(random.below(3_000));
        story.step(Event::Tick);
    }
    story
}

/// Each format, the steps of its file, and a sum over what they tell. What the core decides may change and does not
/// matter here; what is read of a file may never.
const FORMATS: [(u32, usize, u32); 3] =
    [(1, 194, 3_817_541_176), (2, 194, 1_471_433_175), (3, 196, 1_760_815_061)];

fn path(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/journals/v{version}.frj"))
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("forerun-journals-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn head(version: u32) -> journal::Head {
    journal::Head { version, segment: 1, policy: "keep-alive=5s".to_owned(), program: "0.1.0".to_owned() }
}

/// The story in the newest format, a block for every twenty steps.
fn newest() -> Vec<u8> {
    let mut out = journal::Opening::new(&head(journal::FORMAT_VERSION), BEGAN, &core()).seal();
    let (mut changes, mut scratch) = (journal::Changes::default(), Vec::new());
    for steps in story().steps.chunks(20) {
        let mut block = Vec::new();
        for (now, event, actions) in steps {
            let hash = journal::actions_hash(actions, &mut scratch);
            journal::encode_step(*now, event, hash, &changes.of(event, actions, &[]), &mut block);
        }
        out.extend(journal::seal_block(&block));
    }
    out
}

fn read(version: u32) -> Vec<u8> {
    let path = path(version);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn steps(bytes: &[u8]) -> Result<(Vec<journal::Step>, journal::Tail), journal::JournalError> {
    let segment = journal::Segment::parse(&path(0), bytes.to_vec())?;
    let mut steps = Vec::new();
    let tail = segment.steps(|step| steps.push(step));
    Ok((steps, tail))
}

/// What a step tells, without what later formats say of a service besides.
fn told(step: &journal::Step) -> Vec<u8> {
    let event = match &step.event {
        Event::Service(s) => {
            let about = (s.id, &s.name, &s.launch, &s.resources, s.concurrency, s.start_estimate, &s.sla);
            serde_json::to_vec(&(about, s.max, s.mode, &s.hold, s.grain))
        }
        event => serde_json::to_vec(event),
    };
    [event.unwrap(), serde_json::to_vec(&(step.now, step.actions_hash, &step.changes)).unwrap()].concat()
}

#[test]
fn every_format_so_far_opens_and_replays() {
    if std::env::var("FORERUN_JOURNALS").is_ok_and(|v| v == "write") {
        std::fs::write(path(journal::FORMAT_VERSION), newest()).unwrap();
    }
    assert_eq!(FORMATS.last().unwrap().0, journal::FORMAT_VERSION);
    for (version, count, sum) in FORMATS {
        let (found, tail) = steps(&read(version)).unwrap();
        let sum_found = crc32fast::hash(&found.iter().flat_map(told).collect::<Vec<u8>>());
        assert_eq!((found.len(), sum_found, tail.torn_bytes), (count, sum, 0), "format {version}");
        // A snapshot may be one of another layout of the core; its events are learned from all the same.
        let folder = folder(&format!("format{version}"));
        std::fs::copy(path(version), journal::segment_path(&folder, 1)).unwrap();
        let relearned = journal::relearn(&folder, core()).unwrap();
        assert_eq!((relearned.steps, relearned.torn_bytes), (count as u64, 0), "format {version}");
        let names: Vec<_> = relearned.core.services().map(|s| s.name).collect();
        assert_eq!(names, ["shop", "mail"], "format {version}");
        match journal::replay(&path(version)) {
            Ok(report) => assert_eq!(report.steps, count as u64, "format {version}"),
            Err(error) => assert!(matches!(error, journal::JournalError::Snapshot { .. }), "{error}"),
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn what_this_core_decided_replays_to_the_bit() {
    let folder = folder("now");
    std::fs::write(journal::segment_path(&folder, 1), newest()).unwrap();
    let report = journal::replay(&journal::segment_path(&folder, 1)).unwrap();
    assert_eq!((report.steps, report.mismatches), (story().steps.len() as u64, 0), "{report:?}");
    assert!(report.actions > 100, "{report:?}");
    let restored = journal::restore(&folder, |error| panic!("{error}")).unwrap();
    let status = |core: &Core<AnyPolicy>| core.services().collect::<Vec<_>>();
    assert_eq!(status(&restored.core), status(&story().core));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn changes_are_told_in_words_that_need_no_core() {
    let (found, _) = steps(&newest()).unwrap();
    let changes: Vec<_> = found.iter().flat_map(|s| &s.changes).collect();
    let count = |fits: fn(&journal::What) -> bool| changes.iter().filter(|c| fits(&c.what)).count();
    let orders = |fits: fn(&Action) -> bool| {
        story().steps.iter().flat_map(|s| &s.2).filter(|action| fits(action)).count()
    };
    assert_eq!(
        count(|w| matches!(w, journal::What::Started(_))),
        orders(|a| matches!(a, Action::Start { .. }))
    );
    assert_eq!(
        count(|w| matches!(w, journal::What::StopOrdered(..))),
        orders(|a| matches!(a, Action::Stop { .. }))
    );
    assert!(count(|w| matches!(w, journal::What::StartFailed(_))) > 1);
    for change in changes.iter().filter(|c| !matches!(c.what, journal::What::Stopped(_))) {
        assert!(change.reason.contains(' '), "no sentence: {change:?}");
    }
}

#[test]
fn an_account_adds_up() {
    let end = story().now;
    let folder = folder("account");
    let path = folder.join("story.frj");
    std::fs::write(&path, newest()).unwrap();
    for service in ["shop", "mail"] {
        for at in (0..10).map(|tenth| Time(BEGAN.0 + (end.0 - BEGAN.0) * tenth / 9)) {
            let one = journal::account(&path, service, at, 1_000).unwrap();
            assert_eq!(one.last_step.unwrap().since(at), Span::ZERO);
            let up = |what: fn(&journal::What) -> bool| {
                one.entries.iter().filter(|e| e.what.as_ref().is_some_and(what)).count()
            };
            let gone = up(|w| {
                use journal::What::{Died, StartFailed, Stopped};
                matches!(w, Stopped(_) | StartFailed(_) | Died(_))
            });
            assert_eq!(one.instances.len(), up(|w| matches!(w, journal::What::Started(_))) - gone, "{one:?}");
        }
        let end = journal::account(&path, service, end, 3).unwrap();
        assert_eq!(end.entries.len(), 3);
    }
    let early = journal::account(&path, "shop", Time(5), 3).unwrap_err().to_string();
    assert!(early.contains("the journal begins at 1700000000.000"), "{early}");
    let unknown = journal::account(&path, "shpo", end, 3).unwrap_err().to_string();
    assert!(unknown.contains("no service `shpo` at that time; there are: mail, shop"), "{unknown}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// What is read of a damaged journal must be a beginning of what was written; gives how much.
fn check_damaged(whole: &[journal::Step], bytes: &[u8], what: &str) -> Option<usize> {
    let (found, tail) = match steps(bytes) {
        Ok(read) => read,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return None;
        }
    };
    assert!(found.len() <= whole.len() && found[..] == whole[..found.len()], "{what}");
    assert_eq!(tail.whole_bytes + tail.torn_bytes, bytes.len() as u64, "{what}");
    Some(found.len())
}

#[test]
fn a_cut_at_every_offset_leaves_a_beginning_and_says_what_is_torn() {
    for version in 1..=journal::FORMAT_VERSION {
        let bytes = read(version);
        let whole = steps(&bytes).unwrap().0;
        let mut last = 0;
        for cut in 0..bytes.len() {
            let left = check_damaged(&whole, &bytes[..cut], &format!("format {version} cut at {cut}"));
            assert!(left.unwrap_or(0) >= last && left.unwrap_or(0) < whole.len(), "cut at {cut}: {left:?}");
            last = left.unwrap_or(0);
        }
        assert!(last > whole.len() / 2, "format {version}: {last}");
    }
}

#[test]
fn a_flipped_bit_at_every_offset_is_never_read_as_whole() {
    let mut bits = Random(9);
    for version in 1..=journal::FORMAT_VERSION {
        let bytes = read(version);
        let whole = steps(&bytes).unwrap().0;
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bits.below(8);
            let what = format!("format {version} flipped at {at}");
            let left = check_damaged(&whole, &damaged, &what);
            assert!(left.is_none_or(|left| left < whole.len()), "{what} was not seen");
        }
    }
}

#[test]
fn a_folder_with_damaged_segments_restores_the_newest_whole_one_and_names_the_others() {
    let folder = folder("damaged");
    let write = |number, bytes: &[u8]| std::fs::write(journal::segment_path(&folder, number), bytes).unwrap();
    write(1, &newest());
    write(2, &newest());
    write(3, &newest()[..40]);
    write(4, b"");
    let mut flipped = newest();
    flipped[6] ^= 1;
    write(5, &flipped);
    std::fs::write(folder.join("00000006.part"), b"half").unwrap();
    let mut lost = Vec::new();
    let restored = journal::restore(&folder, |error| lost.push(error.to_string())).unwrap();
    assert_eq!(
        (restored.last_segment, restored.steps, lost.len()),
        (5, story().steps.len() as u64, 3),
        "{lost:?}"
    );
    assert!(lost[0].contains("00000005.frj"), "{lost:?}");
    let report = journal::replay(&folder).unwrap();
    assert_eq!((report.segments, report.lost.len()), (2, 3), "{report:?}");
    for number in [1, 2] {
        std::fs::remove_file(journal::segment_path(&folder, number)).unwrap();
    }
    let error = journal::replay(&folder).unwrap_err().to_string();
    assert!(error.contains("none of its 3 segments can be used; the newest: "), "{error}");
    assert!(journal::restore(&folder, |_| ()).is_none());
    std::fs::remove_dir_all(&folder).unwrap();
}

mod any {
    //! Steps of any kind, and bytes that are none.
    use super::*;
    use proptest::prelude::*;

    fn reasons() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), any::<String>(), "[a-z ]{200,400}"]
    }

    fn whats() -> impl Strategy<Value = journal::What> {
        use journal::What;
        let instance = || any::<u64>().prop_map(InstanceId);
        prop_oneof![
            any::<u32>().prop_map(What::Wanted),
            instance().prop_map(What::Started),
            instance().prop_map(What::Ready),
            instance().prop_map(What::Died),
            instance().prop_map(|i| What::StopOrdered(i, StopWhy::Evicted)),
        ]
    }

    fn events() -> impl Strategy<Value = Event> {
        let instance = || any::<u64>().prop_map(InstanceId);
        prop_oneof![
            Just(Event::Tick),
            Just(Event::Began),
            any::<i64>().prop_map(|micros| Event::ClockJumped { micros }),
            (instance(), reasons()).prop_map(|(instance, why)| Event::Died { instance, why }),
            (instance(), any::<u64>(), any::<u64>()).prop_map(|(instance, memory_bytes, cpu)| {
                Event::InstanceUsage { instance, memory_bytes, cpu: Span(cpu) }
            }),
            (any::<u32>(), any::<u64>(), 0u32..9).prop_map(|(service, user, load)| traffic(
                Time(user),
                ServiceId(service),
                user,
                load
            )),
        ]
    }

    fn any_step() -> impl Strategy<Value = journal::Step> {
        let change = (any::<u32>(), whats(), reasons()).prop_map(|(id, what, reason)| journal::Change {
            service: ServiceId(id),
            what,
            reason,
        });
        (any::<u64>(), any::<u64>(), events(), proptest::collection::vec(change, 0..4)).prop_map(
            |(now, actions_hash, event, changes)| journal::Step {
                now: Time(now),
                actions_hash,
                event,
                changes,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(steps in proptest::collection::vec(any_step(), 0..40)) {
            let mut plain = Vec::new();
            for s in &steps {
                journal::encode_step(s.now, &s.event, s.actions_hash, &s.changes, &mut plain);
            }
            let bytes = journal::seal_block(&plain);
            prop_assert_eq!(journal::decode(&bytes), Ok((journal::Record::Steps(steps), bytes.len())));
        }

        #[test]
        fn noise_is_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(journal::decode(&bytes).is_err());
        }

        /// Bytes that fit their checksum and are no content of ours, as another program may write them.
        #[test]
        fn a_right_checksum_over_noise_panics_nowhere(body in proptest::collection::vec(any::<u8>(), 1..300), kind in 0u8..9) {
            let body = [&[kind], &body[..]].concat();
            let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
            bytes.extend(crc32fast::hash(&body).to_le_bytes());
            bytes.extend(&body);
            let segment = [&read(2)[..], &bytes[..]].concat();
            let whole = super::steps(&read(2)).unwrap().0;
            let found = super::steps(&segment).unwrap().0;
            prop_assert!(found.len() >= whole.len() && found[..whole.len()] == whole[..]);
        }
    }
}
