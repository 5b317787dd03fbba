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
    let output = replay(b"a 600\nb 500\na 600\nb 500\n", &["--format", "keys", "--cache", "1KB,2KB"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.starts_with("4 requests of 2 keys; "), "{out}");
    let row = |start: &str| out.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    assert!(row("SIZE").is_some_and(|line| line.ends_with("BELADY")), "{out}");
    assert!(row("2KB").is_some_and(|line| line.matches("50.00%").count() == 6), "{out}");
    assert!(out.contains("of bytes"), "{out}");
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
