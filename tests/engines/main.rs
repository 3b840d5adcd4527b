//! Engines that read Parquet answer from the archive as nattrail does, with the queries of nattrail-archive(5) as they are
//! printed there; and pages are readable in a browser.
//!
//! DuckDB is asked in every run. The others are large: `make engines` asks them, too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod engine;
mod manual;
mod page;

use std::collections::BTreeMap;
use std::net::IpAddr;

use archive::{ASKED, Archive, MIDNIGHT, SECOND};
use engine::{Answer, Engine, cell};
use nattrail::archive::row::Row;
use serde_json::Value;
use support::record::parse_millis;

#[test]
fn duckdb_answers_as_nattrail_does() {
    answers_as_nattrail_does("duckdb", &["duckdb==2.0.0"], &[]);
}

#[test]
#[ignore = "large: `make engines` runs it"]
fn clickhouse_answers_as_nattrail_does() {
    answers_as_nattrail_does("clickhouse", &["chdb==4.4.0"], &[]);
}

#[test]
#[ignore = "large: `make engines` runs it"]
fn spark_answers_as_nattrail_does() {
    answers_as_nattrail_does("spark", &["pyspark==4.3.0"], &["java"]);
}

fn answers_as_nattrail_does(name: &'static str, packages: &[&str], programs: &[&str]) {
    let Some(engine) = Engine::new(name, packages, programs) else {
        return;
    };
    let archive = Archive::new();
    let setup = archive.statements(engine.heading());
    let questions = questions(&archive);
    let found = engine.ask(&setup, &questions);
    compare(&archive, &found);
}

/// The table of a server is compared before and after files were merged.
#[test]
#[ignore = "large: `make engines` runs it"]
fn a_table_of_clickhouse_follows_the_files() {
    let Some(engine) = Engine::new("clickhouse", &["chdb==4.4.0"], &[]) else {
        return;
    };
    let mut archive = Archive::new();
    let feed = archive.statements("ClickHouse: feed it");
    let table = [
        archive.statements("ClickHouse"),
        archive.statements("ClickHouse: a table"),
    ]
    .concat();
    let stored = |archive: &Archive| {
        let questions = questions(archive).into_iter();
        let questions = questions.map(|it| it.replace("FROM sessions", "FROM stored"));
        let more = "SELECT count(*), uniq(file) FROM stored".to_owned();
        questions.chain([more]).collect::<Vec<_>>()
    };
    let place = archive.path("clickhouse");
    let engine = engine.with_place(place);
    let mut before = engine.ask(&[&table[..], &feed[..]].concat(), &stored(&archive));
    let count = before.pop().unwrap();
    assert_eq!(count[0][0], archive.rows.len().to_string());
    compare(&archive, &before);
    archive.merge(1);
    let gone = archive.statements("ClickHouse: files that are gone");
    assert!(!engine.ask(&[], &gone)[0].is_empty());
    let mut after = engine.ask(&feed, &[stored(&archive), gone].concat());
    assert_eq!(after.pop(), Some(Answer::new()));
    let fewer = after.pop().unwrap();
    assert_eq!(fewer[0][0], count[0][0]);
    assert_ne!(fewer[0][1], count[0][1], "no file was merged");
    compare(&archive, &after);
}

/// Who used an IPv4 and an IPv6 address, and who was forwarded from one; a day of each of two subscribers; the sums.
fn questions(archive: &Archive) -> Vec<String> {
    let question = |heading| archive.statements(heading).remove(0);
    let (who, day, most) = (
        question("Who was it?"),
        question("A subscriber's day"),
        question("Who used most on a day, port forwarding aside?"),
    );
    let usual = "post_src = ip4('203.0.113.9') AND post_sport = 50520";
    let others = manual::example("Other addresses");
    let others = others.lines().map(|condition| {
        let other = who.replace(usual, condition);
        assert_ne!(other, who, "{usual} is not in the question");
        other
    });
    let who: Vec<_> = [who.clone()].into_iter().chain(others).collect();
    let who = who.iter().map(|query| {
        format!("SELECT gateway, subscriber, port, MS(start), MS(\"end\") FROM ({query}) AS q")
    });
    let days = [day.clone(), day.replace("10.1.2.3", "10.1.2.77")];
    let days = days.iter().map(|query| {
        format!(
            "SELECT gateway, MS(start), MS(\"end\"), proto, public, port, server, service, octets, reply_octets FROM ({query}) \
             AS q"
        )
    });
    who.chain(days).chain([most]).collect()
}

/// Compares an engine's answers to [`questions`] with those of nattrail.
fn compare(archive: &Archive, found: &[Answer]) {
    let moment = ["--proto", "udp", "--at", "2026-11-20 14:30:00"];
    let of = |role: &str, address: &str| {
        let sessions = archive.who(&[&[address], &moment[..]].concat());
        let rows = sessions.iter().filter(|it| it["role"] == role).map(|it| {
            let names = ["gateway", "pre_src", "pre_sport", "start", "end"];
            names.map(|name| value(it, name)).to_vec()
        });
        rows.collect::<Answer>()
    };
    let day = |subscriber: &str| {
        let sessions = archive.who(&[
            "--subscriber",
            subscriber,
            "--from",
            "2026-11-20",
            "--until",
            "2026-11-20",
            "--skew",
            "0s",
        ]);
        let names = [
            "gateway",
            "start",
            "end",
            "proto",
            "post_src",
            "post_sport",
            "post_dst",
            "post_dport",
            "orig_octets",
            "reply_octets",
        ];
        let rows = sessions.iter();
        rows.map(|it| names.map(|name| value(it, name)).to_vec())
            .collect::<Answer>()
    };
    let expected = [
        of("subscriber", "203.0.113.9:50520"),
        of("subscriber", "[2001:db8::9]:50520"),
        of("server", "203.0.113.9:50520"),
        day("10.1.2.3"),
        day("10.1.2.77"),
        most(&archive.rows),
    ];
    assert_eq!(found.len(), expected.len());
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(!expected.is_empty(), "question {number} has no answer");
        let (found, expected) = (sorted(found), sorted(expected));
        let of = |these: &Answer, others: &Answer| {
            let mut alone = these.clone();
            alone.retain(|row| !others.contains(row));
            alone
        };
        let (more, fewer) = (of(&found, &expected), of(&expected, &found));
        assert!(
            found == expected,
            "question {number}: {more:?} instead of {fewer:?}"
        );
    }
    // 2026-11-20T14:29:59 until 14:30:01.999, both gateways: so many of `archive::asked` are in, and by chance two more.
    assert!(expected[0].len() >= 12, "{:?}", expected[0]);
    assert!(expected[3].len() > 300, "{}", expected[3].len());
}

fn sorted(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    answer.sort();
    answer
}

/// A member of nattrail's JSON as an engine has it.
fn value(session: &Value, name: &str) -> String {
    let number = |name: &str| session[name].as_u64().unwrap();
    match (name, session[name].as_str()) {
        ("start" | "end", Some(time)) => parse_millis(time).to_string(),
        ("proto", Some(name)) => {
            let numbers = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58)];
            let found = numbers.into_iter().find(|it| it.0 == name);
            found.unwrap().1.to_string()
        }
        // ICMP has other names.
        ("post_sport", _) if session["post_id"].is_u64() => cell(&session["post_id"]),
        ("post_dport", _) if session["post_id"].is_u64() => {
            (number("icmp_type") << 8 | number("icmp_code")).to_string()
        }
        _ => cell(&session[name]),
    }
}

/// The ten subscribers with the most octets on 2026-11-20, out of the sessions that were put into the archive.
fn most(rows: &[Row]) -> Answer {
    let day = MIDNIGHT - 86_400 * SECOND..MIDNIGHT;
    assert!(day.contains(&ASKED));
    let mut sums: BTreeMap<IpAddr, (u64, u64)> = BTreeMap::new();
    let rows = rows
        .iter()
        .filter(|row| day.contains(&row.end.get()) && !row.has_dnat());
    for row in rows {
        let sum = sums.entry(row.pre.src).or_default();
        let octets = row.totals.map(|it| it.original.octets + it.reply.octets);
        *sum = (sum.0 + 1, sum.1 + octets.unwrap_or_default());
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (_, octets))| std::cmp::Reverse(*octets));
    let sums = sums.into_iter().take(10);
    sums.map(|(address, (number, octets))| {
        vec![address.to_string(), number.to_string(), octets.to_string()]
    })
    .collect()
}
