//! `nattrail who` about sessions of real NAT, at moments within their lives and outside.

use crate::ledger::open;
use crate::scene::{Ended, Scene};
use crate::support::gateway::SERVER;
use crate::support::record::rfc3339;
use crate::support::wait_for;

const SESSIONS: u32 = 32;

/// The exit statuses of `nattrail who`.
const ONE: i32 = 0;
const NONE: [i32; 2] = [1, 3];

impl Scene {
    /// Asks who had this public port at a time, in milliseconds since 1970, with the server of the session.
    fn who(&self, session: &Ended, at: i64) -> (i32, String) {
        let (public, at) = (
            format!("203.0.113.9:{}", session.post_sport),
            rfc3339(at.unsigned_abs()),
        );
        let server = format!("{SERVER}:{}", session.key.1);
        let question = [
            "who", &public, "--proto", "udp", "--at", &at, "--to", &server, "--skew", "0s",
            "--json",
        ];
        let output = self.command(&question).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }
}

#[test]
fn every_session_is_found_throughout_its_life_and_at_no_other_time() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let keys = scene.sessions.begin_all(&scene.net, SESSIONS, 0);
    assert_eq!(open(&scene.net), keys.len());
    // While they are open, the database answers.
    let now = crate::ledger::now();
    for key in &keys {
        let session = Ended {
            key: *key,
            post_sport: key.0,
            start: now,
            end: now,
        };
        wait_for("an answer about an open session", || {
            let (status, _) = scene.who(&session, now);
            (status == ONE).then_some(())
        });
    }
    scene.net.end_connections();
    scene.wait_until_archived();
    let ended = scene.ended();
    assert_eq!(ended.len(), keys.len());
    let mut random = 7_u64;
    for session in &ended {
        let life = session.end - session.start;
        for _ in 0..5 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = session.start + (random >> 33) as i64 % (life + 1);
            let (status, said) = scene.who(session, at);
            assert_eq!(status, ONE, "{session:?} at {at}: {said}");
            let subscriber = format!("\"pre_sport\":{}", session.key.0);
            assert!(said.contains(&subscriber), "{session:?}: {said}");
        }
        for at in [session.start - 1, session.end + 1] {
            let (status, said) = scene.who(session, at);
            assert!(
                NONE.contains(&status),
                "{session:?} at {at}: {status} {said}"
            );
        }
    }
}
