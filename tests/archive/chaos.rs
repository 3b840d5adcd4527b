//! Both processes are killed at random under load.

use std::time::{Duration, Instant};

use crate::scene::Scene;

/// How long, in seconds; the variable `CHAOS` gives another time.
const SECONDS: u64 = 15;

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
    let archived = scene.assert_archived_once();
    assert!(
        archived.len() > 100,
        "{rounds} rounds, {} sessions",
        archived.len()
    );
}
