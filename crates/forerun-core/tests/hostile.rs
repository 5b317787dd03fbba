//! Guarantee: whatever users do, the model of who does what next and when stays within its memory, and what it says are
//! chances. The stage `simulate` runs it in release and at full size, the stage `unit` in debug on a small part.

use forerun_core::profile::next::{Foresight, Outlook};
use forerun_core::profile::table::spread;

const BYTES: usize = 16 << 20;
/// What it takes beside contexts and users, whose bound is [`BYTES`]: a count for every item and the mixers' weights,
/// and as much again while a vector grows.
const BESIDE: usize = 32 << 20;

const fn of(steps: u64) -> u64 {
    if cfg!(debug_assertions) { steps / 50 } else { steps }
}

/// A hostile stream: steps, and of each the user, the item and the time.
struct Stream {
    name: &'static str,
    steps: u64,
    step: fn(u64) -> (u64, u32, i64),
}

const STREAMS: [Stream; 5] = [
    Stream {
        name: "one user does a million things",
        steps: 1_000_000,
        step: |n| (1, (spread(n) % 50_000) as u32, n as i64),
    },
    Stream {
        name: "a million users do one thing each",
        steps: 1_000_000,
        step: |n| (spread(n).max(1), (n % 10) as u32, n as i64),
    },
    Stream {
        name: "everything is done for the first time",
        steps: 300_000,
        step: |n| (n % 1_000 + 1, n as u32, n as i64),
    },
    Stream {
        name: "time goes backwards",
        steps: 100_000,
        step: |n| (n % 5 + 1, (n % 7) as u32, i64::MAX - 1_000 * n as i64),
    },
    Stream {
        name: "time jumps between its ends",
        steps: 100_000,
        step: |n| (n % 3 + 1, (n % 4) as u32, if n % 2 == 0 { i64::MIN } else { i64::MAX }),
    },
];

/// Seconds ahead that nobody should ask for.
const AHEAD: [f64; 6] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300];

/// The most memory that this process ever took, if the system says.
#[expect(clippy::disallowed_methods, reason = "a test that looks at its own process")]
fn peak_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib << 10)
}

fn is_distribution(outlook: &Outlook) -> bool {
    let listed = || outlook.items.iter().map(|(_, p)| *p);
    let all = [outlook.nothing, outlook.new, outlook.others].into_iter().chain(listed());
    let sum: f64 = all.clone().sum();
    all.clone().all(|p| (0.0..=1.0 + 1e-9).contains(&p)) && (sum - 1.0).abs() < 1e-3
}

#[test]
fn hostile_streams_at_full_size_stay_within_memory() {
    let start = peak_bytes();
    for stream in STREAMS {
        let what = stream.name;
        let mut model = Foresight::new(BYTES);
        for n in 0..of(stream.steps) {
            let (user, item, at_s) = (stream.step)(n);
            model.learn(user, n % 3, at_s, item);
            if n % (of(stream.steps) / 50) == 0 {
                for within_s in AHEAD {
                    let outlook = model.look(user, n % 3, at_s.saturating_add(60), within_s);
                    assert!(is_distribution(&outlook), "{what}, step {n}, {within_s} s ahead: {outlook:?}");
                    let need = model.chance_of_need(user, n % 3, at_s, within_s, &[item, item + 1]);
                    assert!((0.0..=1.0).contains(&need), "{what}, step {n}, {within_s} s ahead: {need}");
                }
            }
        }
        assert!(model.bytes() <= BYTES, "{what}: {} bytes", model.bytes());
        if let (Some(start), Some(peak)) = (start, peak_bytes()) {
            assert!(peak - start <= BYTES + BESIDE, "{what}: the process took {} bytes more", peak - start);
        }
    }
}
