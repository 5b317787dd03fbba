//! The command backend against the contract that every backend keeps, and what only shell lines have.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod contract;

use contract::{Bench, World};
use forerun_backends::{Backend, CommandBackend, CommandSettings, Sink, StartOrder, StopOrder};
use forerun_types::{Event, Generation, InstanceId, Launch, Lines, Readiness, ServiceId, ServiceSpec, Span};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

const FIXTURE: &str = env!("CARGO_BIN_EXE_forerun-fixture");
const G: Generation = Generation(1);

/// A small init system, as a stand-in for whatever runs machines: each instance in a session of its own, with its
/// output in a file and its end in another. `@COMMAND@` is what it runs, `@FOLDER@` where it keeps its books.
const SCRIPT: &str = r#"
d="@FOLDER@/$FORERUN_INSTANCE"
members() {
  for f in /proc/[0-9]*/stat; do
    read -r line <"$f" || continue
    p=${f#/proc/}
    set -- ${line##*) }
    [ "$4" = "$s" ] && [ "$1" != Z ] && [ "${p%/stat}" != "$s" ] && echo "${p%/stat}"
  done 2>/dev/null
}
words() {
  lines=$(tail -n 20 "$d/log" | awk 'NR > 1 { printf " | " } { printf "%s", $0 }')
  [ -n "$lines" ] && echo "last lines: $lines" || echo "it printed nothing"
}
how() {
  if [ "$1" -gt 128 ]; then echo "killed by SIG$(kill -l $(($1 - 128)))"; else echo "exit code $1"; fi
}
case $1 in
start)
  mkdir -p "$d" && : >"$d/log"
  setsid sh "$0" run >/dev/null 2>&1 </dev/null &
  until [ -s "$d/pid" ]; do sleep 0.01; done ;;
run)
  trap : TERM
  echo $$ >"$d/session"
  @COMMAND@ >"$d/log" 2>&1 &
  p=$!
  echo $p >"$d/pid.new" && mv "$d/pid.new" "$d/pid"
  while :; do wait $p; c=$?; kill -0 $p 2>/dev/null || break; done
  echo $c >"$d/code.new" && mv "$d/code.new" "$d/code" ;;
state)
  [ -s "$d/pid" ] || exit 1
  s=$(cat "$d/session")
  if [ ! -s "$d/code" ]; then tail -n 20 "$d/log"; exit 0; fi
  while m=$(members); [ -n "$m" ]; do kill -KILL $m 2>/dev/null; sleep 0.01; done
  echo "$(how "$(cat "$d/code")"); $(words)"
  exit 3 ;;
stop)
  [ -s "$d/session" ] || exit 0
  s=$(cat "$d/session")
  kill -TERM $(members) 2>/dev/null
  until=$(date +%s%N | cut -c 1-13)
  until=$((until + $(echo "$FORERUN_GRACE" | tr -d . | sed 's/^0*\(.\)/\1/')))
  while [ -n "$(members)" ] && [ "$(date +%s%N | cut -c 1-13)" -lt "$until" ]; do sleep 0.02; done
  while m=$(members); [ -n "$m" ]; do kill -KILL $m 2>/dev/null; sleep 0.01; done
  kill -KILL "$s" 2>/dev/null
  rm -rf "$d" ;;
esac
"#;

/// Scripts and books of all cases of this process, removed when it is run again.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = std::env::temp_dir().join("forerun-command-test");
    let own = root.join(std::process::id().to_string());
    for old in fs::read_dir(&root).into_iter().flatten().flatten() {
        let alive = Path::new("/proc").join(old.file_name()).exists();
        if !alive {
            let _ = fs::remove_dir_all(old.path());
        }
    }
    fs::create_dir_all(&own).unwrap();
    own
});

fn fresh_folder() -> PathBuf {
    static FOLDERS: AtomicU64 = AtomicU64::new(0);
    let folder = ROOT.join(FOLDERS.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir(&folder).unwrap();
    folder
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A service of the init system above that runs the fixture with these flags.
fn service(flags: &[&str]) -> ServiceSpec {
    let folder = fresh_folder();
    let script = folder.join("svc.sh");
    // `{port}` is filled in into lines, not into scripts.
    let words: Vec<String> = flags.iter().map(|flag| quoted(flag).replace("{port}", "'\"$PORT\"'")).collect();
    let command = format!("{} {}", quoted(FIXTURE), words.join(" "));
    let text = SCRIPT.replace("@FOLDER@", &folder.display().to_string()).replace("@COMMAND@", &command);
    fs::write(&script, text).unwrap();
    let verb = |verb: &str| format!("sh {} {verb} # {{instance}}", script.display());
    spec(Lines {
        start: verb("start"),
        stop: verb("stop"),
        state: verb("state"),
        address: "127.0.0.1:{port}".to_owned(),
        ..Lines::default()
    })
}

fn spec(lines: Lines) -> ServiceSpec {
    ServiceSpec {
        backend: "command".to_owned(),
        launch: Launch::Command(lines),
        start_timeout: Span::from_secs(20),
        ..ServiceSpec::named(ServiceId(1), "fixture")
    }
}

struct Commands;

impl World for Commands {
    fn many(&self) -> usize {
        // Each is several shells.
        40
    }

    fn short(&self) -> Span {
        Span::from_millis(1_500)
    }

    fn shares_ports(&self) -> bool {
        false
    }

    fn sees_output(&self) -> bool {
        false
    }

    fn ends_with_its_backend(&self) -> bool {
        false
    }

    fn backend(&self, sink: Sink, _limit_memory: bool) -> Box<dyn Backend> {
        let settings = CommandSettings { poll_every: Span::from_millis(300), ..CommandSettings::default() };
        Box::new(CommandBackend::new(settings, sink).unwrap())
    }

    fn spec(&self, flags: &[&str]) -> ServiceSpec {
        service(flags)
    }

    fn not_runnable(&self) -> Vec<(ServiceSpec, &'static str)> {
        let lines = |start: &str, stop: &str, address: &str| {
            let text = |text: &str| text.to_owned();
            spec(Lines { start: text(start), stop: text(stop), address: text(address), ..Lines::default() })
        };
        vec![
            (lines("no-such-command-anywhere", "true", "127.0.0.1:80"), "not found"),
            (lines("exit 7", "true", "127.0.0.1:80"), "its start line ended with exit code 7"),
            (lines("", "true", "127.0.0.1:80"), "wants a `start` and a `stop` line"),
            (lines("true", " ", "127.0.0.1:80"), "wants a `start` and a `stop` line"),
            (lines("true", "true", "nas"), "write it as host:port"),
            (lines("true", "true", ""), "write it as host:port"),
        ]
    }

    fn without_folder(&self) -> ServiceSpec {
        let mut spec = service(&[]);
        if let Launch::Command(lines) = &mut spec.launch {
            lines.folder = Some("/nowhere/at/all".to_owned());
        }
        spec
    }

    fn processes(&self, tag: &str) -> Vec<u32> {
        living(tag)
    }
}

/// Processes whose arguments hold the tag and that are not dead.
fn living(tag: &str) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        args.split(|byte| *byte == 0).any(|arg| arg == tag.as_bytes())
    })
    .collect()
}

mod suite {
    crate::contract::contract!(crate::Commands);
}

/// A backend and what it tells.
struct Life {
    backend: CommandBackend,
    events: Receiver<Event>,
}

impl Life {
    fn new(state_folder: Option<&Path>) -> Self {
        let (sender, events) = mpsc::channel();
        let poll_every = Span::from_millis(200);
        let settings = CommandSettings {
            state_folder: state_folder.map(Path::to_owned),
            poll_every,
            ..CommandSettings::default()
        };
        let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
        Self { backend: CommandBackend::new(settings, sink).unwrap(), events }
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn silent(&self, wait: Duration) {
        if let Ok(event) = self.events.recv_timeout(wait) {
            panic!("{event:?} instead of silence");
        }
    }

    fn start(&self, instance: u64, spec: &Arc<ServiceSpec>) {
        let (instance, spec) = (InstanceId(instance), Arc::clone(spec));
        self.backend.start(StartOrder { instance, generation: G, spec }).unwrap();
    }

    fn ready(&self, instance: u64, spec: &Arc<ServiceSpec>) -> std::net::SocketAddr {
        self.start(instance, spec);
        match self.next() {
            Event::Ready { address, .. } => address,
            other => panic!("{other:?} instead of Ready"),
        }
    }

    fn adopt(&self, instance: u64, spec: &Arc<ServiceSpec>, handle: &str) {
        let (instance, spec) = (InstanceId(instance), Arc::clone(spec));
        self.backend.adopt(StartOrder { instance, generation: G, spec }, handle).unwrap();
    }

    fn stop(&self, instance: u64) {
        let (instance, grace) = (InstanceId(instance), Span::from_secs(10));
        self.backend.stop(StopOrder { instance, generation: G, grace }).unwrap();
        assert_eq!(self.next(), Event::Stopped { instance });
    }
}

#[test]
fn what_runs_outlives_forerun_and_is_taken_over() {
    let (state, tag) = (fresh_folder(), format!("outlives-{}", std::process::id()));
    let spec = Arc::new(service(&["--tag", &tag]));
    let first = Life::new(Some(&state));
    let (one, two) = (first.ready(5, &spec), first.ready(6, &spec));
    drop(first);
    assert_eq!(living(&tag).len(), 2);
    let second = Life::new(Some(&state));
    second.backend.know(std::slice::from_ref(&spec));
    let mut found = [second.next(), second.next()];
    found.sort_by_key(|event| format!("{event:?}"));
    let told = |label: &str, was: u64, address| Event::Found {
        service: spec.id,
        handle: format!("fixture/{label}"),
        was: Some(InstanceId(was)),
        address,
        paused: false,
    };
    assert_eq!(found, [told("i5", 5, one), told("i6", 6, two)]);
    // Under its old id, and under another.
    second.adopt(5, &spec, "fixture/i5");
    second.adopt(100, &spec, "fixture/i6");
    second.silent(Duration::from_millis(700));
    assert_eq!(second.backend.running(), [InstanceId(5), InstanceId(100)]);
    // Its port stays its own.
    let third = second.ready(101, &spec);
    assert!(third.port() != one.port() && third.port() != two.port());
    second.stop(100);
    assert_eq!(living(&tag).len(), 2);
    contract::get(one, "/exit?code=3");
    match second.next() {
        Event::Died { instance: InstanceId(5), why } => assert!(why.starts_with("exit code 3"), "{why}"),
        other => panic!("{other:?} instead of Died"),
    }
    // What is not there cannot be taken over.
    second.adopt(200, &spec, "fixture/i9");
    assert!(matches!(second.next(), Event::Died { instance: InstanceId(200), .. }));
    second.stop(101);
    drop(second);
    let last = Life::new(Some(&state));
    last.backend.know(std::slice::from_ref(&spec));
    assert_eq!(last.next(), Event::OwnState { service: spec.id, there: true });
    last.silent(Duration::from_millis(500));
    assert!(living(&tag).is_empty());
}

/// A machine that is a file: it runs while the file is there, and says what stands in it when it is not.
fn machine(folder: &Path) -> Arc<ServiceSpec> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It is always reachable: whether it runs is only what its state line says.
    std::mem::forget(listener);
    let folder = folder.display();
    Arc::new(ServiceSpec {
        ready: Readiness::Tcp,
        ..spec(Lines {
            start: format!("echo started >> {folder}/log; touch {folder}/up"),
            stop: format!("echo stopped >> {folder}/log; rm -f {folder}/up"),
            state: format!(
                "test -e {folder}/up && exit 0; test -e {folder}/held && {{ echo held by jo; exit 2; }}; exit 1"
            ),
            address,
            ..Lines::default()
        })
    })
}

#[test]
fn a_person_starts_and_stops_it_past_forerun() {
    let folder = fresh_folder();
    let spec = machine(&folder);
    let up = folder.join("up");
    let life = Life::new(None);
    life.backend.know(std::slice::from_ref(&spec));
    assert_eq!(life.next(), Event::OwnState { service: spec.id, there: true });
    let found = || match life.next() {
        Event::Found { handle, was: None, .. } => assert_eq!(handle, "fixture/"),
        other => panic!("{other:?} instead of Found"),
    };
    fs::write(&up, "").unwrap();
    found();
    life.adopt(1, &spec, "fixture/");
    // Stopped by a person, who says so.
    fs::write(folder.join("held"), "").unwrap();
    fs::remove_file(&up).unwrap();
    match life.next() {
        Event::StoppedByHand { instance: InstanceId(1), why } => assert_eq!(why, "held by jo"),
        other => panic!("{other:?} instead of StoppedByHand"),
    }
    life.silent(Duration::from_millis(500));
    fs::write(&up, "").unwrap();
    found();
    life.adopt(2, &spec, "fixture/");
    // Gone, and nobody says why.
    fs::remove_file(folder.join("held")).unwrap();
    fs::remove_file(&up).unwrap();
    assert!(matches!(life.next(), Event::Died { instance: InstanceId(2), .. }));
    // A start when it runs already starts nothing twice, and one more there cannot be.
    fs::write(&up, "").unwrap();
    found();
    life.ready(3, &spec);
    assert!(!folder.join("log").exists(), "it was started although it ran");
    life.start(4, &spec);
    match life.next() {
        Event::StartFailed { instance: InstanceId(4), why } => {
            assert!(why.contains("name no {instance}"), "{why}")
        }
        other => panic!("{other:?} instead of StartFailed"),
    }
    life.stop(3);
    assert_eq!(fs::read_to_string(folder.join("log")).unwrap(), "stopped\n");
    life.silent(Duration::from_millis(500));
    life.ready(5, &spec);
    assert_eq!(fs::read_to_string(folder.join("log")).unwrap(), "stopped\nstarted\n");
    life.stop(5);
}

#[test]
fn a_moment_of_doubt_ends_nothing() {
    let folder = fresh_folder();
    let spec = machine(&folder);
    let life = Life::new(None);
    life.backend.know(std::slice::from_ref(&spec));
    assert_eq!(life.next(), Event::OwnState { service: spec.id, there: true });
    life.ready(1, &spec);
    // No answer is no answer: a state line that hangs or cannot be run ends nothing.
    let mut odd = (*spec).clone();
    if let Launch::Command(lines) = &mut odd.launch {
        lines.state = "no-such-command-anywhere".to_owned();
    }
    let odd = Arc::new(ServiceSpec { id: ServiceId(2), name: "odd".to_owned(), ..odd });
    life.ready(2, &odd);
    life.silent(Duration::from_millis(1_500));
    assert_eq!(life.backend.running(), [InstanceId(1), InstanceId(2)]);
    life.stop(1);
}

#[test]
fn a_stop_that_fails_is_tried_until_it_is_gone() {
    let folder = fresh_folder();
    let mut spec = (*machine(&folder)).clone();
    let mark = folder.join("tried");
    if let Launch::Command(lines) = &mut spec.launch {
        lines.stop = format!("mkdir {} && exit 1; {}", mark.display(), lines.stop);
    }
    let spec = Arc::new(spec);
    let life = Life::new(None);
    life.ready(1, &spec);
    let began = Instant::now();
    life.stop(1);
    assert!(mark.is_dir() && !folder.join("up").exists());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn its_ready_line_tells_when_it_is_ready() {
    let folder = fresh_folder();
    let mut spec = (*machine(&folder)).clone();
    spec.settle = Span::from_millis(300);
    if let Launch::Command(lines) = &mut spec.launch {
        lines.start += &format!("; (sleep 0.7; touch {}/ready) >/dev/null 2>&1 &", folder.display());
        lines.ready = format!("test -e {}/ready", folder.display());
    }
    let life = Life::new(None);
    let began = Instant::now();
    life.ready(1, &Arc::new(spec));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    life.stop(1);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let new = |settings| CommandBackend::new(settings, Arc::new(|_| {})).map(drop).unwrap_err().to_string();
    let ports = Some((80, 90));
    assert_eq!(
        new(CommandSettings { ports, ..CommandSettings::default() }),
        "ports 80-90 are not a range of ports above 1023"
    );
    let state_folder = Some("/proc/nowhere".into());
    let error = new(CommandSettings { state_folder, ..CommandSettings::default() });
    assert!(error.starts_with("cannot create the folder of `/proc/nowhere/commands.json`"), "{error}");
    let bench = Bench::new(&Commands, "busy-floor");
    let (instance, _) = bench.ready(&[]);
    let spec = Arc::new(ServiceSpec { busy: Some(forerun_types::Busy::Cpu { milli: 1 }), ..bench.spec(&[]) });
    let refused =
        bench.backend().ask_busy(StartOrder { instance, generation: G, spec }).unwrap_err().to_string();
    assert!(refused.contains("the command backend cannot measure what an instance uses"), "{refused}");
    bench.stop(instance, Span::from_secs(10));
    bench.stopped(instance);
}
