//! `forerun replay --cache` as a shell sees it.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn replay(trace: &[u8], args: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forerun"))
        .args(["replay", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Bad arguments are refused before the trace is read.
    let _ = child.stdin.take().unwrap().write_all(trace);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn hit_ratios_of_every_policy_and_size() {
    let output = replay(b"a\nb\na\nc\na\nb\n", &["--format", "keys", "--cache", "1,3", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&printed["trace"]["requests"], &printed["trace"]["keys"]), (&6.into(), &3.into()));
    let rows = printed["cache"].as_array().unwrap();
    let of = |size: &str| -> Vec<(String, u64)> {
        let rows = rows.iter().filter(|row| row["size"] == size);
        rows.map(|row| (row["policy"].as_str().unwrap().to_owned(), row["hits"].as_u64().unwrap())).collect()
    };
    // All that comes twice is there in a cache for all three; in one of one, the optimum keeps `a`.
    let names = ["forerun", "lru", "arc", "s3-fifo", "w-tinylfu", "belady"];
    assert_eq!(of("3"), names.map(|name| (name.to_owned(), 3)));
    assert_eq!(of("1").last(), Some(&("belady".to_owned(), 2)));
    assert_eq!(rows[0]["byte_hit_ratio"], Value::Null);
    assert_eq!((&rows[0]["knows_the_future"], &rows[5]["knows_the_future"]), (&false.into(), &true.into()));
}

#[test]
fn sizes_in_bytes_and_a_table() {
    let output = replay(b"a 600\nb 500\na 600\nb 500\n", &["--format", "keys", "--cache", "1KB,8KB"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.starts_with("4 requests of 2 keys; "), "{out}");
    let row = |start: &str| out.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    assert!(row("SIZE").is_some_and(|line| line.ends_with("BELADY")), "{out}");
    assert!(row("8KB").is_some_and(|line| line.matches("50.00%").count() == 6), "{out}");
    assert!(out.contains("of bytes"), "{out}");
}

/// A log of users who ask for a page and then for its picture, in a cache that holds one of both.
#[test]
fn an_access_log_has_a_row_with_prefetch_and_a_part_that_is_scored() {
    let line = |n: u32| {
        let (user, minute, path) = (n / 2, n / 2, ["/page", "/picture"][(n % 2) as usize]);
        let at = format!("17/May/2015:{:02}:{:02}:{:02} +0000", minute / 60, minute % 60, n % 2 * 9);
        format!("10.0.0.{user} - - [{at}] \"GET {path}?v=1 HTTP/1.1\" 200 30\n")
    };
    let log: String = (0..200).map(line).collect();
    let output = replay(log.as_bytes(), &["--cache", "1KB", "--split", "0.5", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = told["cache"].as_array().unwrap();
    let names: Vec<_> = rows.iter().filter_map(|row| row["policy"].as_str()).collect();
    assert_eq!(names[..3], ["forerun", "forerun+prefetch", "lru"]);
    assert!(rows.iter().all(|row| row["requests"] == 100 && row["hits"] == 100), "{told}");
    assert_eq!(rows[1]["prefetch"]["fetches"], 0);
    assert!(rows[0].get("prefetch").is_none());
    let output = replay(log.as_bytes(), &["--cache", "1KB", "--split", "2"]);
    assert!(text(&output.stderr).starts_with("forerun: --split: with --cache a part from 0"), "{output:?}");
}

#[test]
fn what_does_not_fit_together_is_told() {
    for (args, code, why) in [
        (&["--cache", "many"][..], 2, "forerun: --cache: \"many\" is neither a number of keys"),
        (&["--cache", "0"], 2, "forerun: --cache: \"0\" is neither"),
        (&["--cache", "10MB", "--format", "keys"], 2, "forerun: --cache: 10MB is in bytes, and this trace"),
        (
            &["--cache", "10", "--format", "csv"],
            2,
            "forerun: --format: with --cache, \"csv\" is no format of keys",
        ),
        (&["--cache", "10"], 2, "forerun: --format: cannot tell the format of standard input"),
        (&["--format", "keys"], 2, "forerun: --format: keys holds keys: give --cache SIZE"),
        (
            &["--cache", "10", "--format", "keys-lirs", "--strict"],
            1,
            "forerun: standard input:1: \"a\" is no whole number",
        ),
        (&["--cache", "10", "--policy", "none"], 2, "forerun: "),
    ] {
        let output = replay(b"a\n", args);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        assert!(err.starts_with(why), "{args:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}
