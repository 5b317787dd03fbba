//! Files as people have them, good and bad, through the one door.

#![allow(clippy::unwrap_used, reason = "a helper of tests panics as a test does")]

use flate2::Compression;
use flate2::write::GzEncoder;
use forerun_trace::{ColumnMap, Format, Input, ReadOptions, Recorded, Trace, Writer, read, read_records};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

fn file(bytes: &[u8]) -> Input {
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("read-{}-{n}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    Input::Path(path)
}

fn options(f: impl FnOnce(&mut ReadOptions)) -> ReadOptions {
    let mut options = ReadOptions::default();
    f(&mut options);
    options
}

fn requests(inputs: &[Input], options: &ReadOptions) -> Result<Trace, String> {
    match read(inputs, options, &mut |_| {}) {
        Ok(Recorded::Requests(trace)) => Ok(trace),
        Ok(Recorded::Minutes(_)) => Err("minutes".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// `at service duration memory` of each request, in microseconds.
fn told(trace: &Trace) -> String {
    let one = |e: &forerun_trace::TraceEvent| {
        let name = &trace.services[e.service.0 as usize];
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        format!("{} {name} {} {}", e.at.0, number(e.duration.map(|d| d.0)), number(e.memory_bytes))
    };
    trace.events.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_format_is_guessed_and_read() {
    let check = |text: &str, expect: &str| {
        let trace = requests(&[file(text.as_bytes())], &ReadOptions::default()).unwrap();
        assert_eq!(told(&trace), expect);
        assert_eq!(trace.report.notes(), Vec::<String>::new());
    };
    check("at,service,duration_s\n100.5,a,1\n101,b,0.25\n", "0 a 1000000 -; 500000 b 250000 -");
    check("service,at\r\nx,2024-01-01T00:00:00Z\r\nx,2024-01-01 00:00:02\r\n", "0 x - -; 2000000 x - -");
    check("app,func,end_timestamp,duration\na,f,10.0000000,9.5\n", "500000 a 9500000 -");
    let log = "h - - [17/May/2015:10:05:03 +0000] \"GET /a/b?c HTTP/1.1\" 200 5\n";
    check(log, "0 /a - -");
}

#[test]
fn azure2021_keeps_its_own_zero_even_before_it() {
    let text = b"app,func,end_timestamp,duration\na,f,10,12\nb,f,20,5\n";
    let trace = requests(&[file(text)], &ReadOptions::default()).unwrap();
    assert_eq!(told(&trace), "0 a 12000000 -; 17000000 b 5000000 -");
    assert_eq!(trace.zero.0, 2_000_000);
}

#[test]
fn times_that_run_backwards_are_sorted_and_told() {
    let text = b"at,service\n9,c\n5,a\n7,b\n8,a\n";
    let mut trace = requests(&[file(text)], &ReadOptions::default()).unwrap();
    assert_eq!(told(&trace), "0 a - -; 2000000 b - -; 3000000 a - -; 4000000 c - -");
    assert_eq!(trace.report.out_of_order, 3);
    assert_eq!(trace.report.notes(), ["3 requests were out of order and have been sorted by time"]);
    // A cut trace has the same numbers for the same names.
    trace.cut(forerun_types::Time(3_000_000));
    assert_eq!((told(&trace).as_str(), trace.services.len()), ("0 a - -; 2000000 b - -", 2));
}

#[test]
fn several_files_are_one_trace() {
    let (a, b) = (file(b"at,service\n1,x\n4,y\n"), file(b"service,at\ny,2\n"));
    let trace = requests(&[a, b], &ReadOptions::default()).unwrap();
    assert_eq!(told(&trace), "0 x - -; 1000000 y - -; 3000000 y - -");
    assert_eq!(trace.report.out_of_order, 0);
}

#[test]
fn any_csv_by_its_map() {
    let map = ColumnMap::parse("at=when,service=model,duration_s=took,user=who").unwrap();
    let text = b"who,when,model,took\nann,2024-11-15 16:57:50,M0,32.0\nbob,2024-11-15 16:57:51,\"M,1\",\n";
    let trace = requests(&[file(text)], &options(|o| o.map = Some(map))).unwrap();
    assert_eq!(told(&trace), "0 M0 32000000 -; 1000000 M,1 0 -");
    assert!(trace.events[0].user.is_known() && trace.events[0].user != trace.events[1].user);
}

#[test]
fn azure2019_spreads_arrivals_whatever_the_order_of_its_files() {
    let head = "HashOwner,HashApp,HashFunction";
    let invocations = file(format!("{head},Trigger,1,2,3\no,a,f,http,1,0,2\no,b,g,http,0,1,\n").as_bytes());
    let durations = file(format!("{head},Average,Count\no,a,f,1500,3\n").as_bytes());
    let memory =
        file(format!("{head},SampleCount,AverageAllocatedMb\no,a,f,3,100\no,a,h,3,120.5\n").as_bytes());
    let expect =
        "0 a 1500000 120500000; 60000000 b 0 -; 105000000 a 1500000 120500000; 135000000 a 1500000 120500000";
    for files in [[&invocations, &durations, &memory], [&memory, &invocations, &durations]] {
        let trace = requests(&files.map(Clone::clone), &ReadOptions::default()).unwrap();
        assert_eq!(told(&trace), expect);
    }
}

#[test]
fn bad_lines_are_counted_and_the_first_is_named() {
    let long = "x".repeat(2000);
    let text = format!("at,service,duration_s\n1,a,1\n2,b,nan\n3\n4,c,-1\n5,{long},1\n6,\"d,1\n7,,0\n\n");
    let options = options(|o| o.line_bytes_max = 1000);
    let trace = requests(&[file(text.as_bytes())], &options).unwrap();
    assert_eq!(told(&trace), "0 a 1000000 -; 6000000  0 -");
    assert_eq!((trace.report.lines, trace.report.skipped), (8, 5));
    let first = trace.report.first_offender.as_ref().unwrap();
    assert_eq!((first.line, first.why.as_str()), (3, "duration_s \"nan\" is no number of seconds"));
    assert!(trace.report.notes()[0].starts_with("5 lines skipped, the first is "));
}

#[test]
fn what_cannot_be_read_is_said_in_one_line() {
    let check = |bytes: &[u8], options: ReadOptions, expect: &str| {
        let error = requests(&[file(bytes)], &options).unwrap_err();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    let guess = ReadOptions::default;
    check(b"", guess(), "is empty");
    check(b"\n\r\n\n", guess(), "is empty");
    check(b"a,b,c\n1,2,3\n", guess(), "cannot tell the format");
    check(b"\x00\xff\xfe\x1b[31m\n", guess(), "cannot tell the format");
    check(b"at,service\n", guess(), "only a header");
    check(b"at,service,colour\n1,a,red\n", guess(), "unknown column \"colour\"");
    check(b"at,service\nnever,a\n", guess(), ":2: \"never\" is neither a date nor seconds");
    check(b"at,service\n1,a\nnever,a\n", options(|o| o.strict = true), ":3: \"never\" is neither");
    check(b"at,service\n1,a\n2,a\n3,a\n", options(|o| o.events_max = 2), ":4: more than 2 requests");
    check(b"at,service\n1,a\n", options(|o| o.format = Some(Format::Csv)), "--map: say which column");
    check(
        b"at,service\n1,a\n",
        options(|o| o.service = Some("x".into())),
        "--service: a file of the format forerun",
    );
    check(b"at,service\n1,a\n", options(|o| o.user = Some("login".into())), "--user: is for access logs");
    check(
        b"at,service\n1,a\n",
        options(|o| o.format = Some(Format::Minutes)),
        "avg_concurrency_per_minute.csv",
    );
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&b"at,service\n1,a\n".repeat(100)).unwrap();
    let gz = gz.finish().unwrap();
    check(&gz[..gz.len() - 10], guess(), "cut short");
    let no_file = requests(&[Input::parse("no/such/file")], &guess()).unwrap_err();
    assert!(no_file.starts_with("cannot open no/such/file: no such file"), "{no_file}");
    let mixed = [file(b"at,service\n1,a\n"), file(b"app,func,end_timestamp,duration\na,f,2,1\n")];
    assert!(requests(&mixed, &guess()).unwrap_err().contains("give files of one format"));
}

#[test]
fn what_is_written_reads_back() {
    let text = "at,service,user,action,duration_s,cpu_s,memory_bytes,network_bytes,storage_bytes,status,tenant,group,site\n\
                -1.5,\"a,\"\"b\",ann,GET /,0.25,0.000001,5,6,7,200,t,g,s\n1731689870.123456,,,,,,,,,,,,\n";
    let mut writer = Writer::new(Vec::new()).unwrap();
    let report =
        read_records(&[file(text.as_bytes())], &ReadOptions::default(), &mut writer, &mut |_| {}).unwrap();
    assert_eq!(report.skipped, 0);
    let written = String::from_utf8(writer.finish().unwrap()).unwrap();
    assert_eq!(
        written,
        "at,service,tenant,user,group,site,action,duration_s,cpu_s,memory_bytes,network_bytes,storage_bytes,status\n\
         -1.5,\"a,\"\"b\",t,ann,g,s,GET /,0.25,0.000001,5,6,7,200\n1731689870.123456,,,,,,,0,0,,,,\n"
    );
    let mut again = Writer::new(Vec::new()).unwrap();
    read_records(&[file(written.as_bytes())], &ReadOptions::default(), &mut again, &mut |_| {}).unwrap();
    assert_eq!(String::from_utf8(again.finish().unwrap()).unwrap(), written);
}

fn folder(concurrency: &str, containers: &str) -> Result<String, String> {
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("minutes-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("avg_concurrency_per_minute.csv"), concurrency).unwrap();
    std::fs::write(path.join("containers_per_minute.csv"), containers).unwrap();
    match read(&[Input::Path(path)], &ReadOptions::default(), &mut |_| {}) {
        Ok(Recorded::Minutes(m)) => {
            let app =
                |a: &forerun_trace::MinuteApp| format!("{} {} {:?}", a.name, a.memory_mb, a.concurrency);
            let apps: Vec<String> = m.apps.iter().map(app).collect();
            Ok(format!("{} | {} skipped", apps.join("; "), m.report.skipped))
        }
        Ok(Recorded::Requests(_)) => Err("requests".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

#[test]
fn folders_of_minutes() {
    let containers = "app,avg_mem_mb,num,m0\na,138,1,1\nb,0.5,1,1\n";
    let check = |concurrency: &str, expect: &str| {
        assert_eq!(folder(concurrency, containers).unwrap_or_else(|e| e), expect);
    };
    check("app,m0,m1\na,0.5,\nb,0,1.25\n", "a 138 [0.5, 0.0]; b 0.5 [0.0, 1.25] | 0 skipped");
    check("app,m0,m1\na,0.5,nan\nb,0,1.25\nc,1,1\na,-1,0\nb,0\nb,0,0\n", "b 0.5 [0.0, 1.25] | 5 skipped");
    for (concurrency, expect) in [
        ("", "is empty"),
        ("app\n", "at least one minute"),
        ("app,m0\n", "only a header"),
        ("app,m0\nx,1\n", "has no avg_mem_mb"),
    ] {
        let error = folder(concurrency, containers).unwrap_err();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    }
    assert!(
        folder("app,m0\na,1\n", "app,m0\na,1\n").unwrap_err().contains("column \"avg_mem_mb\" is missing")
    );
}
