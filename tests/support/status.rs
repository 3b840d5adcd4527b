//! `nattrail status --json` of a running daemon, and the invariants of its numbers.

use std::process::Command;

use serde_json::Value;

use super::daemon::{Home, PROGRAM};

/// The answer of `nattrail status --json`.
#[must_use]
pub fn ask(home: &Home) -> Value {
    let output = status(home, &["--json"]).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `nattrail status`, with the environment of the daemon.
#[must_use]
pub fn status(home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("status").args(arguments);
    command.arg("--config").arg(home.config());
    home.dress(&mut command);
    command
}

#[must_use]
pub fn number(value: &Value, way: &str) -> u64 {
    let found = value.pointer(way);
    let found = found.and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {way} in {value:#}"))
}

#[must_use]
pub fn sum(value: &Value, ways: &[&str]) -> u64 {
    ways.iter().map(|way| number(value, way)).sum()
}

/// Asserts the invariants of every daemon at every moment.
pub fn assert_conserved(metrics: &Value) {
    let ends = [
        "/sessions/deletes",
        "/sessions/pending",
        "/sessions/unkept",
        "/sessions/forgotten",
    ];
    let begins = ["/sessions/creates", "/sessions/restored"];
    assert_eq!(sum(metrics, &begins), sum(metrics, &ends));
    let kernel = ["/events/new", "/events/destroy"];
    let known = [
        "/sessions/unannounced",
        "/sessions/adopted",
        "/sessions/inferred_ends",
    ];
    let ignored = ["/sessions/filtered", "/sessions/duplicates"];
    let records = ["/sessions/creates", "/sessions/deletes"];
    assert_eq!(
        sum(metrics, &kernel) + sum(metrics, &known),
        sum(metrics, &ignored) + sum(metrics, &records)
    );
    let messages = sum(metrics, &kernel) + number(metrics, "/events/malformed");
    assert_eq!(number(metrics, "/events/messages"), messages);
    for kind in ["new", "destroy"] {
        let by_protocol = metrics["events"][format!("{kind}_by_protocol")].as_object();
        let counts = by_protocol
            .unwrap()
            .values()
            .map(|count| count.as_u64().unwrap());
        assert_eq!(
            counts.sum::<u64>(),
            number(metrics, &format!("/events/{kind}"))
        );
    }
    let buckets = metrics["turns"]["histogram"].as_array().unwrap();
    let turns: u64 = buckets.iter().map(|bucket| number(bucket, "/count")).sum();
    assert_eq!(turns, number(metrics, "/turns/count"));
}
