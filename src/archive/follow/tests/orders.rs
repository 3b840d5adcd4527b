//! What people leave in the inbox, beside the daily run.

use serde_json::json;

use super::*;
use crate::archive::acts::{self, Act, Notice};
use crate::config::Prefix;

impl Gateway {
    fn order(&mut self, act: Act) -> Vec<crate::archive::tree::Seal> {
        let mut notice = Notice::new(act, self.now.into()).unwrap();
        notice.case = Some("4711".to_owned());
        acts::leave(self.root.path(), &notice).unwrap();
        let own = rustix::process::geteuid().as_raw();
        let purged = self.archive.act(own, self.now).unwrap();
        assert_eq!(acts::waiting(self.root.path()).unwrap().count(), 0);
        purged
    }

    fn hold(&mut self) {
        let all = Wanted::alive(Millis::default()..=Millis::MAX);
        let subscriber = Prefix::parse("10.0.0.0/8", "").unwrap();
        self.order(Act::Hold {
            question: json!({}),
            selections: vec![Wanted {
                pre_src: Some(subscriber),
                ..all
            }],
        });
    }

    fn findings(&mut self) -> Vec<audit::Finding> {
        // Some of them at a time.
        for _ in 0..9 {
            self.archive.sign(self.now).unwrap();
        }
        let known = Known::default();
        let audit = audit::audit(self.root.path(), &known, self.now, &mut |_, _| ()).unwrap();
        audit.findings
    }
}

#[test]
fn sessions_that_are_held_stay_until_they_are_released() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.pass(Duration::from_secs(3_600));
    gateway.hold();
    assert_eq!(gateway.live(7 * 24), 0);
    gateway.assert_whole();
    gateway.kill_archiver();
    assert_eq!(gateway.live(24), 0);
    gateway.order(Act::Release);
    assert_eq!(gateway.live(24), 1);
    assert_eq!(gateway.archived().len(), 0);
    assert!(gateway.findings().is_empty());
}

#[test]
fn a_purge_by_hand_names_the_act_of_the_person_who_wanted_it() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.live(40);
    gateway.session();
    gateway.live(1);
    let keep = "1d".to_owned();
    let purged = gateway.order(Act::Purge { keep });
    let [seal] = purged.as_slice() else {
        panic!("{purged:?}");
    };
    let purge = seal.purge.as_ref().unwrap();
    assert_eq!((purge.order.rule.as_str(), purge.rows), ("1d", 1));
    let act = acts::read(&gateway.root.path().join(purge.order.act.as_ref().unwrap()));
    assert_eq!(act.unwrap().notice.case.as_deref(), Some("4711"));
    assert_eq!(gateway.archived().len(), 1);
    assert!(gateway.findings().is_empty());
}

#[test]
fn a_notice_with_the_nonce_of_another_one_is_one_of_its_own() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.live(1);
    let keep = "1d".to_owned();
    let mut notice = Notice::new(Act::Purge { keep }, gateway.now.into()).unwrap();
    let record = |gateway: &mut Gateway, notice: &Notice, uid| {
        let now = gateway.now;
        let recorded = gateway.archive.evidence.record(notice.clone(), uid, now);
        recorded.unwrap()
    };
    let first = record(&mut gateway, &notice, Some(0));
    assert_eq!(record(&mut gateway, &notice, Some(0)), first);
    notice.act = Act::Lookup { lookups: vec![] };
    let second = record(&mut gateway, &notice, Some(1000));
    assert_eq!((second.number, second.uid), (first.number + 1, Some(1000)));
    assert_eq!(second.notice, notice);
}

#[test]
fn a_purge_that_fails_does_not_keep_the_notices_behind_it_waiting() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.live(40);
    let all = Millis::default()..=Millis::MAX;
    let files = Reader::open(gateway.root.path()).unwrap().sessions(&all);
    fs::write(&files.unwrap()[0], "PAR1").unwrap();
    for _ in 0..2 {
        let keep = "1d".to_owned();
        assert!(gateway.order(Act::Purge { keep }).is_empty());
        gateway.step();
    }
    gateway.hold();
    assert_eq!(acts::holds(gateway.root.path()).unwrap().len(), 1);
}

#[test]
fn nothing_is_deleted_when_the_holds_cannot_be_read() {
    let mut gateway = Gateway::new();
    gateway.session();
    gateway.pass(Duration::from_secs(3_600));
    gateway.hold();
    let orders = gateway.root.path().join("acts/orders");
    fs::write(orders.join("another-1.json"), "{").unwrap();
    let mut errors = 0;
    for _ in 0..5 * 24 {
        gateway.pass(Duration::from_secs(3_600));
        errors += u32::from(gateway.archive.expire(gateway.now).is_err());
    }
    assert!(errors > 0);
    gateway.assert_whole();
}

#[test]
fn lookups_go_after_their_time_and_sessions_stay() {
    let mut gateway = Gateway::new();
    gateway.archive.retention = Retention::new(None, Some(2 * DAY_LONG));
    gateway.session();
    gateway.pass(Duration::from_secs(3_600));
    gateway.order(Act::Lookup { lookups: vec![] });
    let lookups = |gateway: &Gateway| {
        acts::lookups_before(gateway.root.path(), "9999")
            .unwrap()
            .len()
    };
    gateway.live(2 * 24);
    assert_eq!(lookups(&gateway), 1);
    gateway.live(24);
    assert_eq!(lookups(&gateway), 0);
    gateway.assert_whole();
    assert!(gateway.findings().is_empty());
}
