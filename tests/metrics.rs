//! The metrics that Prometheus fetches from the real daemon: their numbers, their form by the judgement of promtool;
//! and no client, however slow or hostile, keeps the daemon from its work.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "how long a real process takes needs the real clock"
)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::daemon::{CAPTURE, Daemon, Home, STDOUT_TEXT};
use support::gateway::{CLIENT, Gateway, MASQUERADE, SERVER};
use support::netns::succeed;
use support::record;
use support::status::{ask, number, status};
use support::traffic::Udp;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9469);
const GET: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A gateway with a daemon that listens on [`ADDRESS`].
fn scene(programs: &[&str]) -> Option<(Gateway, Home, Daemon)> {
    let net = Gateway::new(programs)?;
    net.nft(MASQUERADE);
    let rest = format!("[metrics]\nlisten = \"{ADDRESS}\"\n");
    let home = Home::new(&format!("{CAPTURE}{STDOUT_TEXT}\n{rest}"));
    let daemon = Daemon::start(&net.gateway, &home);
    let _ = daemon.wait_for_message("started");
    Some((net, home, daemon))
}

fn connect(net: &Gateway) -> TcpStream {
    let stream = net.gateway.run(|| TcpStream::connect(ADDRESS)).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream
}

/// Everything that the daemon sends until it closes.
fn rest_of(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn fetch(net: &Gateway, request: &str) -> String {
    let mut stream = connect(net);
    stream.write_all(request.as_bytes()).unwrap();
    rest_of(&mut stream)
}

/// Two sessions over UDP.
fn make_sessions(net: &Gateway) {
    for port in [40_000, 40_001] {
        let (client, server) = (&net.client, &net.server);
        Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53)).exchange(1, 1);
    }
    net.end_connections();
}

/// The lines with this beginning, which name the metrics and not their values.
fn lines_of<'a>(page: &'a str, beginning: &str) -> Vec<&'a str> {
    let lines = page.lines();
    lines.filter(|line| line.starts_with(beginning)).collect()
}

#[test]
fn prometheus_gets_what_the_status_prints_in_a_form_that_promtool_accepts() {
    let Some((net, home, daemon)) = scene(&["promtool"]) else {
        return;
    };
    make_sessions(&net);
    let _ = daemon.wait_for_records(4, record::parse_text);
    let answer = fetch(&net, GET);
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = format!("Content-Length: {}\r\n", page.len());
    for field in [
        "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
        &length,
        "Connection: close",
    ] {
        assert!(head.contains(field), "{head}");
    }
    for sample in [
        "\nnattrail_sessions_creates_total 2\n",
        "\nnattrail_events_new_total{protocol=\"udp\"} 2\n",
        "\nnattrail_log_records_total 4\n",
        "\nnattrail_output_records_total{output=\"standard output\",format=\"text\",target=\"stdout\"} 4\n",
        "\nnattrail_store_available 1\n",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
    let printed = status(&home, &["--prometheus"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(lines_of(&printed, "#"), lines_of(page, "#"));
    for page in [page, &printed] {
        succeed(Command::new("promtool").args(["check", "metrics"]), page);
    }
    daemon.terminate();
}

/// Has promtool judge a file.
fn promtool(arguments: [&str; 2], file: &Path) {
    let mut promtool = Command::new("promtool");
    succeed(promtool.args(arguments).arg(file), "");
}

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("conf")
        .join(file)
}

/// Two hours of a gateway with one output, a sample a minute, with faults from the second hour on.
const ALERTS: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="nattrail", instance="well"}', values: '1x120'}
      - {series: 'nattrail_gaps_total{cause="overflow", instance="well"}', values: '3x120'}
      - {series: 'nattrail_gaps_last_timestamp_seconds{cause="restart", instance="well"}', values: '0x120'}
      - {series: 'nattrail_output_state{output="a", state="failing", instance="well"}', values: '0x60 1x60'}
      - {series: 'nattrail_output_state{output="a", state="working", instance="well"}', values: '1x60 0x60'}
      - {series: 'nattrail_output_lost_total{output="a", instance="well"}', values: '0x119 7'}
      - {series: 'nattrail_kernel_table_entries{instance="well"}', values: '10x60 95x60'}
      - {series: 'nattrail_kernel_table_limit{instance="well"}', values: '100x120'}
      - {series: 'nattrail_log_bytes{instance="well"}', values: '9x120'}
      - {series: 'nattrail_log_limit_bytes{instance="well"}', values: '0x120'}
    alert_rule_test:
      - {eval_time: 30m, alertname: NattrailDown}
      - {eval_time: 30m, alertname: NattrailGaps}
      - {eval_time: 30m, alertname: NattrailOutputNotWorking}
      - {eval_time: 30m, alertname: NattrailOutputLost}
      - {eval_time: 30m, alertname: NattrailTableNearlyFull}
      - {eval_time: 90m, alertname: NattrailLogNearlyFull}
      - eval_time: 90m
        alertname: NattrailTableNearlyFull
        exp_alerts: [{exp_labels: {severity: page, instance: well}}]
      - eval_time: 90m
        alertname: NattrailOutputNotWorking
        exp_alerts: [{exp_labels: {severity: page, instance: well, output: a, state: failing}}]
      - eval_time: 120m
        alertname: NattrailOutputLost
        exp_alerts: [{exp_labels: {severity: page, instance: well, output: a}}]
  - interval: 1m
    input_series:
      - {series: 'nattrail_gaps_last_timestamp_seconds{cause="restart"}', values: '_x60 3600x60'}
    alert_rule_test:
      - eval_time: 65m
        alertname: NattrailGaps
        exp_alerts: [{exp_labels: {severity: page, cause: restart}}]
      - {eval_time: 75m, alertname: NattrailGaps}
      - eval_time: 65m
        alertname: NattrailDown
        exp_alerts: [{exp_labels: {severity: page, job: nattrail}}]
"#;

#[test]
fn the_alerts_fire_when_something_is_amiss_and_not_before() {
    if !support::can_run(&["promtool"]) {
        return;
    }
    let rules = shipped("prometheus/nattrail.rules.yml");
    promtool(["check", "rules"], &rules);
    let directory = tempfile::tempdir().unwrap();
    // The annotations are for people and not compared.
    let text = fs::read_to_string(rules).unwrap();
    let silent = text.split("        annotations:\n").map(|part| {
        let lines = part
            .lines()
            .filter(|line| !line.starts_with("          summary:"));
        let lines = lines.filter(|line| !line.starts_with("          description:"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    });
    fs::write(
        directory.path().join("rules.yml"),
        silent.collect::<String>(),
    )
    .unwrap();
    let test = directory.path().join("test.yml");
    fs::write(&test, format!("rule_files: [rules.yml]\n{ALERTS}")).unwrap();
    promtool(["test", "rules"], &test);
}

#[test]
fn the_queries_of_the_dashboard_are_ones_that_prometheus_understands() {
    if !support::can_run(&["promtool"]) {
        return;
    }
    let text = fs::read_to_string(shipped("grafana/nattrail.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    // This is Grafana's value for the variable.
    let rules = queries.enumerate().map(|(index, query)| {
        let query = query["expr"].as_str().unwrap();
        let query = query
            .replace("$__rate_interval", "5m")
            .replace("$instance", ".*");
        json!({ "record": format!("query_{index}"), "expr": query })
    });
    let rules: Vec<_> = rules.collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.json");
    let groups = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(&file, groups.to_string()).unwrap();
    promtool(["check", "rules"], &file);
}

#[test]
fn whoever_asks_for_something_else_is_told_so() {
    let Some((net, _home, daemon)) = scene(&[]) else {
        return;
    };
    let long = format!("GET /metrics HTTP/1.1\r\nHost: {}", "x".repeat(100_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
        (
            "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "405 Method Not Allowed",
        ),
        ("hello\r\n\r\n", "400 Bad Request"),
        (&long, "400 Bad Request"),
    ] {
        // The whole answer arrives although the daemon does not first read the whole request.
        let answer = fetch_after_close(&net, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(answer.ends_with("nattrail has metrics at /metrics, for GET\n"));
    }
    daemon.terminate();
}

/// The same for a request that the daemon may stop reading.
fn fetch_after_close(net: &Gateway, request: &str) -> String {
    let mut stream = connect(net);
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn clients_that_hold_every_place_cost_no_record_and_are_closed_in_time() {
    let Some((net, home, daemon)) = scene(&[]) else {
        return;
    };
    let begun = Instant::now();
    let mut silent: Vec<_> = (0..8).map(|_| connect(&net)).collect();
    // One client sends its request bit by bit and never ends it.
    silent[0].write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    // Nobody else gets a place, and the refusal is immediate.
    let mut ninth = connect(&net);
    assert_eq!(ninth.read(&mut [0; 1]).unwrap_or(0), 0);
    make_sessions(&net);
    let _ = daemon.wait_for_records(4, record::parse_text);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    for stream in &mut silent {
        assert_eq!(rest_of(stream), "");
    }
    let took = begun.elapsed();
    assert!((4..10).contains(&took.as_secs()), "{took:?}");
    assert!(fetch(&net, GET).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(number(&ask(&home), "/turns/longest_microseconds") < 2_000_000);
    daemon.terminate();
}

#[test]
fn an_address_that_is_taken_is_said_and_the_daemon_runs_without() {
    let Some((net, home, daemon)) = scene(&[]) else {
        return;
    };
    let rest = format!("[capture]\ntable = \"other\"\n[metrics]\nlisten = \"{ADDRESS}\"\n");
    let second = Home::new(&format!("{STDOUT_TEXT}\n{rest}"));
    let second = Daemon::start(&net.gateway, &second);
    let message = second.wait_for_message("metrics.listen");
    assert!(message.contains("Prometheus gets no metrics"), "{message}");
    second.terminate();
    assert_eq!(number(&ask(&home), "/pid"), u64::from(daemon.pid()));
    daemon.terminate();
}
