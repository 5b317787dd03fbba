//! The program as a shell sees it: output, errors, exit codes.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of a test's own, gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("forerun-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn forerun(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forerun")).args(args).current_dir(folder).output().unwrap()
}

/// Runs the program and compares its exit code, a part of its output, and its whole error but for a prefix.
fn check(folder: &Path, args: &[&str], code: i32, out: &str, err: &str) {
    let output = forerun(folder, args);
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    assert!(stdout.contains(out), "{args:?}: {stdout}");
    assert!(stderr.starts_with(err), "{args:?}: {stderr}");
    assert_eq!(err.is_empty(), stderr.is_empty(), "{args:?}: {stderr}");
}

#[test]
fn configuration_is_written_once_and_is_good() {
    let folder = Folder::new("init");
    check(
        &folder.0,
        &["config", "check"],
        2,
        "",
        "forerun.toml: no such file; write one with `forerun config init`",
    );
    check(&folder.0, &["config", "init"], 0, "wrote forerun.toml", "");
    check(&folder.0, &["config", "check"], 0, "forerun.toml: good\n", "");
    check(&folder.0, &["config", "check"], 0, "hello    process  * *", "");
    check(&folder.0, &["config", "init"], 1, "", "forerun: forerun.toml is there already; move it away");
    check(&folder.0, &["config", "init", "no/such/x.toml"], 1, "", "forerun: cannot write no/such/x.toml: ");
    check(&folder.0, &["config", "init", "-"], 0, "[service.hello]", "");
}

#[test]
fn problems_of_a_configuration_are_told_by_line() {
    let folder = Folder::new("check");
    std::fs::write(folder.0.join("x.toml"), "[service.web]\ncommand = \"true\"\nmax_ = 3\nmin = -1\n")
        .unwrap();
    let output = forerun(&folder.0, &["config", "check", "-c", "x.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "x.toml:3: service.web.max_: unknown key; did you mean \"max\"?\n\
         x.toml:4: service.web.min: -1 is out of range; it takes 0 to 100000\n"
    );
}

#[test]
fn schema_is_json() {
    let output = forerun(Path::new("."), &["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["properties"]["router"]["properties"]["listen"]["default"], "127.0.0.1:8080");
}

#[test]
fn bad_arguments_exit_with_2() {
    let here = Path::new(".");
    check(here, &[], 2, "", "forerun: no command given; see forerun --help\n");
    check(here, &["dmo"], 2, "", "forerun: unrecognized subcommand 'dmo'");
    check(here, &["config", "check", "--confg"], 2, "", "forerun: unexpected argument '--confg' found");
    check(here, &["--version"], 0, concat!("forerun ", env!("CARGO_PKG_VERSION")), "");
    check(here, &["--help"], 0, "starts what your users are about to need", "");
}

#[test]
fn status_without_a_running_forerun_says_so() {
    let folder = Folder::new("status");
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = format!("forerun: nothing listens on {address}; is `forerun up` running?\n");
    check(&folder.0, &["status", "--api", &address], 1, "", &error);
    let text = format!("[api]\nlisten = \"{address}\"\n[service.web]\ncommand = \"true\"\n");
    std::fs::write(folder.0.join("forerun.toml"), text).unwrap();
    check(&folder.0, &["status"], 1, "", &error);
}

/// Answers one connection with `answer`, and gives the address.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    address
}

#[test]
fn status_is_shown_and_oddities_are_named() {
    let here = Path::new(".");
    let good = "HTTP/1.0 200 OK\r\n\r\n{\"version\":\"1.2.3\",\"at\":5,\"uptime_seconds\":60,\"sites\":[],\"services\":[]}";
    check(here, &["status", "--api", &answering(good)], 0, "forerun 1.2.3, up for 60s", "");
    check(here, &["status", "--json", "--api", &answering(good)], 0, "\"uptime_seconds\": 60.0", "");
    let odd = answering("HTTP/1.0 404 Not Found\r\n\r\n");
    check(here, &["status", "--api", &odd], 1, "", &format!("forerun: {odd} answers with status 404"));
    let odd = answering("HTTP/1.0 200 OK\r\n\r\n[]");
    check(here, &["status", "--api", &odd], 1, "", &format!("forerun: the api at {odd} gives no status"));
    let odd = answering("");
    check(here, &["status", "--api", &odd], 1, "", &format!("forerun: {odd} does not speak http"));
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forerun"))
        .args(["config", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn replay_names_what_cannot_be_read() {
    let folder = Folder::new("replay");
    std::fs::create_dir(folder.0.join("journal")).unwrap();
    std::fs::write(folder.0.join("odd.frj"), "not a journal").unwrap();
    check(&folder.0, &["replay"], 2, "", "forerun: the following required arguments were not provided: ");
    check(&folder.0, &["replay", "no.csv"], 1, "", "forerun: ");
    check(&folder.0, &["replay", "--journal", "journal"], 1, "", "forerun: ");
    check(&folder.0, &["replay", "--journal", "odd.frj"], 1, "", "forerun: ");
    check(&folder.0, &["replay", "--journal", "none.frj"], 1, "", "forerun: ");
}

/// Forty requests of two services, one of which is asked every two minutes.
fn write_trace(folder: &Folder) {
    let even = (0..20).map(|n| (1_000_000 + n * 120, "even,a,1"));
    let mut rows: Vec<(u64, &str)> =
        even.chain((0..20).map(|n| (1_000_030 + n * n * 60, "odd,b,2"))).collect();
    rows.sort_unstable();
    let rows: String = rows.iter().map(|(at, rest)| format!("{at},{rest}\n")).collect();
    let text = format!("at,service,user,duration_s\n{rows}");
    std::fs::write(folder.0.join("trace.csv"), text).unwrap();
}

fn json(folder: &Folder, args: &[&str]) -> serde_json::Value {
    let output = forerun(&folder.0, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn policies_are_weighed_against_each_other() {
    let folder = Folder::new("weighed");
    write_trace(&folder);
    let policies = "none,keep-alive=3m,knative=target:1,window:90s,optimal-keep";
    let printed = json(&folder, &["replay", "trace.csv", "--policy", policies, "--json"]);
    let rows = printed["policies"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|r| r["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "keep-alive=3m", "knative=target:1,window:90s", "optimal-keep"]);
    assert!(rows.iter().all(|r| r["dominated"].is_boolean() && r["cold_starts"].is_u64()), "{printed}");
    assert_eq!(rows[3]["knows_the_future"], true);
    let swept = [
        "replay",
        "trace.csv",
        "--policy",
        "lru,belady",
        "--sweep",
        "capacity=1,2",
        "--sweep",
        "cold-start-cost=10,20",
        "--sweep",
        "keep-alive=1m",
        "--json",
    ];
    let printed = json(&folder, &swept);
    let rows = printed["policies"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * 2 * 3);
    assert_eq!((&rows[3]["capacity"], &rows[3]["cold_start_cost"]), (&"1".into(), &20.0.into()));
    // Two of two services stay, so that only the first of each is cold.
    assert_eq!((&rows[6]["policy"], &rows[6]["cold_starts"]), (&"lru".into(), &2.into()));
    check(&folder.0, &["replay", "trace.csv", "--policy", "none,hpa"], 0, "DOMINATED", "");
    for (args, error) in [
        (
            ["--policy", "belady"],
            "forerun: --policy: lru, faascache and belady stop instances only to make room",
        ),
        (["--policy", "knative=targt:1"], "forerun: --policy: knative: \"targt\" is unknown"),
        (["--policy", "nobody"], "forerun: --policy: \"nobody\" is unknown, there are forerun"),
        (["--sweep", "price=1"], "forerun: --sweep: \"price=1\" is unknown"),
    ] {
        check(&folder.0, &[&["replay", "trace.csv"][..], &args].concat(), 2, "", error);
    }
}

#[test]
fn a_page_compares_without_being_told_with_what() {
    let folder = Folder::new("page");
    write_trace(&folder);
    check(&folder.0, &["replay", "trace.csv", "--html", "page.html"], 0, "keep-alive=10m", "");
    let page = std::fs::read_to_string(folder.0.join("page.html")).unwrap();
    for part in ["<h1>Replay: trace.csv</h1>", "Saved is against <b>keep-alive=10m</b>", "<svg", "always-on"]
    {
        assert!(page.contains(part), "no {part}");
    }
    check(
        &folder.0,
        &["replay", "trace.csv", "--html", "no/such/x"],
        1,
        "",
        "forerun: cannot write no/such/x: ",
    );
}

/// A journal's traffic decided anew; what the journal tells of its world stands where no flag says otherwise.
#[test]
fn what_if_of_a_journal() {
    let folder = Folder::new("what-if");
    let journal = concat!(env!("CARGO_MANIFEST_DIR"), "/../forerun-engine/tests/journals/v3.frj");
    let policies = ["replay", "--journal", journal, "--policy", "forerun,none,keep-alive=1m", "--json"];
    let printed = json(&folder, &policies);
    assert!(printed["trace"]["journal"]["measured_starts"].as_u64().unwrap() > 0, "{printed}");
    let cold =
        |printed: &serde_json::Value, row: usize| printed["policies"][row]["cold_starts"].as_u64().unwrap();
    let requests = printed["trace"]["requests"].as_u64().unwrap();
    assert!(requests > 10 && cold(&printed, 1) > cold(&printed, 2), "{printed}");
    let dear = json(&folder, &[&policies[..], &["--cold-start-cost", "100000"]].concat());
    assert!(cold(&dear, 0) <= cold(&printed, 0), "{dear}");
    let slow = json(&folder, &[&policies[..], &["--start", "1m"]].concat());
    let waited =
        |printed: &serde_json::Value| printed["policies"][1]["added_wait_seconds"]["mean"].as_f64().unwrap();
    assert!(waited(&slow) > 10.0 * waited(&printed), "{slow}");
    check(
        &folder.0,
        &["replay", "--journal", journal, "--sweep", "keep-alive=1s,1h"],
        0,
        "as they were measured",
        "",
    );
}

/// The same, as one who wants to know what it saved asks.
#[test]
fn savings_of_a_journal() {
    let folder = Folder::new("savings");
    let journal = concat!(env!("CARGO_MANIFEST_DIR"), "/../forerun-engine/tests/journals/v3.frj");
    let printed = json(&folder, &["savings", "--journal", journal, "--html", "saved.html", "--json"]);
    let rows = printed["policies"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["forerun", "keep-alive=10m", "knative", "always-on"]);
    assert!(rows.iter().all(|row| row["requests"] == rows[0]["requests"]), "{printed}");
    assert!(std::fs::read_to_string(folder.0.join("saved.html")).unwrap().contains("always-on"));
    check(&folder.0, &["savings", "--journal", journal], 0, "than knative", "");
    // A part of it: what lies before is not counted.
    let requests = |since: &str| {
        let args = ["savings", "--journal", journal, "--since", since, "--against", "none", "--json"];
        json(&folder, &args)["policies"][0]["requests"].as_u64().unwrap()
    };
    assert_eq!(requests("1990-01-01"), rows[0]["requests"].as_u64().unwrap());
    check(&folder.0, &["savings", "--journal", journal, "--since", "1h"], 2, "", "forerun: --since: ");
    check(
        &folder.0,
        &["savings", "--journal", journal, "--since", "soon"],
        2,
        "",
        "forerun: --since: \"soon\" is neither a time back, as 30d, nor",
    );
    check(&folder.0, &["savings"], 2, "", "forerun: there is no forerun.toml here");
    // From the configuration's folder, where nothing has run yet.
    std::fs::write(folder.0.join("forerun.toml"), "[store]\nfolder = \"state\"\n").unwrap();
    check(&folder.0, &["savings"], 1, "", "forerun: ");
}

#[test]
fn doctor_names_what_is_wrong_with_its_mend() {
    let folder = Folder::new("doctor");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let config = |router: &str| {
        let text = format!(
            "[router]\nlisten = \"{router}\"\n[api]\nlisten = \"127.0.0.1:0\"\n[store]\nfolder = \"state\"\n[service.web]\ncommand = \"true\"\n"
        );
        std::fs::write(folder.0.join("forerun.toml"), text).unwrap();
    };
    let doctor = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_forerun"))
            .args([&["doctor"], args].concat())
            // Whatever engine this machine has is another test's.
            .env("DOCKER_HOST", "unix:///no/such/socket")
            .current_dir(&folder.0)
            .output()
            .unwrap()
    };
    config(&taken.to_string());
    let output = doctor(&["--json"]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = |what: &str| findings.as_array().unwrap().iter().find(|f| f["what"] == what).unwrap().clone();
    assert_eq!(output.status.code(), Some(1), "{findings}");
    assert_eq!(find("router port")["level"], "fail");
    assert!(find("router port")["told"].as_str().unwrap().contains("change router.listen"), "{findings}");
    for good in ["configuration", "api port", "state folder", "clock", "hold"] {
        assert_eq!(find(good)["level"], "ok", "{findings}");
    }
    assert_eq!(find("engine")["level"], "fail", "{findings}");
    config("127.0.0.1:0");
    let text = String::from_utf8(doctor(&[]).stdout).unwrap();
    assert!(text.lines().any(|l| l.starts_with("ok ") && l.contains("router port")), "{text}");
    std::fs::write(folder.0.join("forerun.toml"), "[service.web]\nmax = 0\n").unwrap();
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("forerun.toml:2: service.web.max: 0 is out of range"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_compose_file_of_sablier_is_adopted() {
    let folder = Folder::new("adopt");
    let text = "services:\n  web:\n    image: shop\n    labels:\n      - sablier.enable=true\n      - sablier.group=shop\n      - sablier.idle.memory=64m\n  db:\n    image: pg\n";
    std::fs::write(folder.0.join("compose.yml"), text).unwrap();
    let expect = "# web\nlabels:\n  forerun.enable: \"true\"\n  forerun.group: \"shop\"\n  # not taken over: sablier.idle.memory=64m: nothing is throttled";
    check(&folder.0, &["adopt", "--from-sablier", "compose.yml"], 0, expect, "");
    check(&folder.0, &["adopt", "--from-sablier", "compose.yml", "--json"], 0, "\"not_taken_over\": [", "");
    check(&folder.0, &["adopt", "--from-sablier", "none.yml"], 1, "", "forerun: none.yml: no such file");
    std::fs::write(folder.0.join("odd.yml"), "services: [\n").unwrap();
    check(&folder.0, &["adopt", "--from-sablier", "odd.yml"], 1, "", "forerun: odd.yml: line ");
    std::fs::write(folder.0.join("none.yml"), "services:\n  a: {image: x}\n").unwrap();
    check(&folder.0, &["adopt", "--from-sablier", "none.yml"], 0, "nothing carries sablier.enable=true", "");
}

#[test]
fn predictions_are_written_and_scored() {
    let folder = Folder::new("predict");
    let mut events = String::new();
    for round in 0..40 {
        for (index, item) in ["login", "list, all", "buy"].into_iter().enumerate() {
            let (n, phase) = (3 * round + index, if round < 30 { "fit" } else { "score" });
            events += &format!("ann\t{n}\t{item}\t{}\t{phase}\n", 60 * n);
        }
    }
    let at = |name: &str| folder.0.join(name);
    std::fs::write(at("events.tsv"), events).unwrap();
    let args = ["predict", "events.tsv", "--out", "p.csv", "--when", "w.csv", "--html", "p.html", "--json"];
    check(&folder.0, &args, 0, "\"acc1\": 1.0", "");
    let rows = std::fs::read_to_string(at("p.csv")).unwrap();
    let first = rows.lines().next().unwrap();
    assert!(rows.lines().count() == 30 && first.starts_with("ann,90,login,0."), "{first}");
    assert!(rows.contains(",\"list, all\","), "{first}");
    let when = std::fs::read_to_string(at("w.csv")).unwrap();
    assert_eq!(when.lines().next().unwrap().split(',').count(), 21);
    assert!(std::fs::read_to_string(at("p.html")).unwrap().contains("<svg"));

    let quick = ["predict", "events.tsv", "--quick", "--out", "q.csv", "--json"];
    check(&folder.0, &quick, 0, "\"acc1\": 1.0", "");
    let rows = std::fs::read_to_string(at("q.csv")).unwrap();
    let first = rows.lines().next().unwrap();
    assert!(rows.lines().count() == 30 && first.starts_with("ann,90,login,0."), "{first}");

    std::fs::write(at("s.tsv"), "1\ta b c d\n2\ta b c d\n".repeat(20)).unwrap();
    check(
        &folder.0,
        &["predict", "s.tsv", "--window", "3", "--out", "f.csv"],
        0,
        "100.0% of 40 sequences",
        "",
    );
    assert!(std::fs::read_to_string(at("f.csv")).unwrap().starts_with("0,0,"));

    std::fs::write(at("no-users.csv"), "at,service\n1,a\n2,b\n").unwrap();
    std::fs::write(at("no-times.tsv"), "ann\t0\tx\t\tfit\nann\t1\tx\t\tscore\n").unwrap();
    for (args, code, err) in [
        (&["predict", "events.tsv", "--quick", "--when", "w.csv"][..], 2, "forerun: "),
        (&["predict", "no-users.csv"], 1, "forerun: no request in no-users.csv: no request names a user"),
        (&["predict", "gone.tsv"], 1, "forerun: cannot open gone.tsv"),
        (&["predict", "no-times.tsv", "--when", "w.csv"], 2, "forerun: --when: the steps have no times"),
        (&["predict", "no-times.tsv", "--split", "soon"], 2, "forerun: --split: this trace has no times"),
        (
            &["predict", "events.tsv", "--split", "soon"],
            2,
            "forerun: --split: \"soon\" is neither a part below 1",
        ),
        (&["predict", "events.tsv", "--memory", "1kB"], 2, "forerun: --memory: 1kB is too little"),
        (&["predict", "events.tsv", "--format", "tsv"], 2, "forerun: --format: \"tsv\" is unknown"),
        (&["predict", "s.tsv", "no-times.tsv", "--format", "events"], 2, "forerun: TRACE: give one file"),
    ] {
        check(&folder.0, args, code, "", err);
    }
}

#[test]
fn load_is_forecast_from_plain_files() {
    let folder = Folder::new("forecast");
    let write = |name: &str, text: &str| std::fs::write(folder.0.join(name), text).unwrap();
    let value = |t: usize| (t % 24) * 10 + t % 7;
    let mut series = String::from("series,t,value\n");
    let mut dated = String::from("time,load\n");
    for t in 0..400 {
        series += &format!("a,{t},{}\n", value(t));
        dated += &format!("{},{}\n", 1_700_000_400 + 3_600 * t, value(t));
    }
    write("s.csv", &series);
    write("d.csv", &dated);
    write("o.csv", "series,origin,horizon,season,test_from\na,319,6,24,320\na,325,6,24,320\n");
    check(&folder.0, &["forecast", "s.csv", "--origins", "o.csv", "--out", "f.csv"], 0, "", "");
    let told = std::fs::read_to_string(folder.0.join("f.csv")).unwrap();
    assert_eq!(told.lines().count(), 13);
    assert!(told.starts_with("series,origin,step,q0.1,q0.5,q0.9,q0.95,q0.99\na,319,1,"), "{told}");
    // The scored part of other series, and what comes after an origin, change nothing.
    let cut: String = series.lines().take(1 + 326).map(|l| format!("{l}\n")).collect();
    write("cut.csv", &cut);
    check(&folder.0, &["forecast", "cut.csv", "--origins", "o.csv", "--out", "g.csv"], 0, "", "");
    assert_eq!(told, std::fs::read_to_string(folder.0.join("g.csv")).unwrap());

    let people = ["forecast", "d.csv", "--horizon", "6h", "--html", "page.html"];
    check(&folder.0, &people, 0, "2023-12-01T14:20:00Z", "");
    assert!(std::fs::read_to_string(folder.0.join("page.html")).unwrap().contains("<polyline class=\"m\""));
    check(&folder.0, &["forecast", "d.csv", "--horizon", "6h", "--backtest"], 0, "models: ", "");
    for (args, code, err) in [
        (&["d.csv"][..], 2, "forerun: the following required arguments were not provided"),
        (&["d.csv", "--horizon", "6x"], 2, "forerun: --horizon: \"6x\" is no duration"),
        (
            &["d.csv", "--horizon", "0s"],
            2,
            "forerun: --horizon: 0s is 0 steps of 3600 s; give 1 to 1024 steps",
        ),
        (&["no.csv", "--horizon", "6h"], 1, "forerun: cannot open no.csv: "),
        (&["d.csv", "--origins", "o.csv", "--out", "x.csv"], 1, "forerun: d.csv:1: no column series"),
        (&["s.csv", "--origins", "s.csv", "--out", "x.csv"], 1, "forerun: s.csv:1: no column origin"),
    ] {
        check(&folder.0, &[&["forecast"], args].concat(), code, "", err);
    }
    write("o.csv", "series,origin,horizon,season,test_from\na,900,6,24,320\n");
    let args = ["forecast", "s.csv", "--origins", "o.csv", "--out", "x.csv"];
    check(&folder.0, &args, 1, "", "forerun: o.csv:2: origin 900 is after the series' last t, 399");
}
