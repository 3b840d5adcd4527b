//! Both processes are killed at random under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::scene::Scene;

/// How long, in seconds; the variable `CHAOS` gives another time.
const SECONDS: u64 = 15;

/// The copy in a file repeats records after a crash, with the same times; the archive has each once, and none besides.
#[test]
fn whatever_is_killed_the_archive_has_every_record_once() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let seconds = std::env::var("CHAOS").map_or(SECONDS, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    // The same order in each run; the moments differ by themselves.
    let mut random = 1_u32;
    let mut rounds = 0;
    while Instant::now() < end {
        rounds += 1;
        let _ = scene.sessions.begin(150);
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (kills_archiver, kills_daemon) = (random >> 28 < 6, random >> 24 & 15 < 3);
        if kills_archiver {
            scene.archiver.take().unwrap().kill();
        }
        if random & 1 << 20 == 0 {
            scene.net.end_connections();
        }
        if kills_daemon {
            let ended = scene.daemon.take().unwrap().kill();
            let is_locked = |line: &String| line.contains("database is locked");
            assert!(!ended.stderr.iter().any(is_locked), "{:#?}", ended.stderr);
            scene.start_daemon();
        }
        if kills_archiver {
            scene.start_archiver();
        }
    }
    scene.net.end_connections();
    scene.wait_until_archived();
    let ended = scene.ended().into_iter();
    let expected: BTreeSet<_> = ended.map(|session| (session.key, session.end)).collect();
    let rows = scene.rows();
    let doubles: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubles.is_empty(), "{rounds} rounds: {doubles:?}");
    let archived: BTreeSet<_> = rows.into_keys().collect();
    let missing: Vec<_> = expected.difference(&archived).collect();
    let gaps = scene.gaps();
    assert!(
        missing.is_empty(),
        "{rounds} rounds: {} missing, {:?}; gaps: {gaps:#?}",
        missing.len(),
        missing.iter().take(3).collect::<Vec<_>>()
    );
    let others: Vec<_> = archived.difference(&expected).collect();
    assert!(others.is_empty(), "{rounds} rounds: {others:?}");
    assert!(
        archived.len() > 100,
        "{rounds} rounds, {} sessions",
        archived.len()
    );
}
