//! Notices, their authors, and the holds that come of them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::archive::row::Millis;

/// 2026-11-20T14:00:00Z.
fn now() -> Millis {
    Millis::new(1_795_183_200_000)
}

fn hold(case: &str) -> Notice {
    let question = json!({"subscriber": "10.1.2.3/32"});
    let selections = vec![Wanted::alive(Millis::new(5)..=Millis::new(9))];
    let mut notice = Notice::new(
        Act::Hold {
            question,
            selections,
        },
        now(),
    )
    .unwrap();
    notice.case = Some(case.to_owned());
    notice
}

fn lookup() -> Notice {
    Notice::new(Act::Lookup { lookups: vec![] }, now()).unwrap()
}

fn record(root: &Path, number: u64, notice: Notice) {
    let record = Record {
        gateway: "gw".to_owned(),
        number,
        taken: now(),
        uid: Some(0),
        notice,
    };
    let path = root.join(record.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, serde_json::to_vec_pretty(&record).unwrap()).unwrap();
    assert_eq!(read(&path).unwrap(), record);
}

#[test]
fn a_notice_is_found_with_the_owner_of_its_file() {
    let root = TempDir::new().unwrap();
    open(root.path()).unwrap();
    let (first, mut second) = (hold("a"), lookup());
    second.time = Millis::new(now().get() + 1);
    leave(root.path(), &second).unwrap();
    let path = leave(root.path(), &first).unwrap();
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o640);
    let found: Vec<_> = waiting(root.path()).unwrap().collect();
    assert!(found.iter().all(|it| it.uid == metadata.uid()));
    let notices: Vec<_> = found.into_iter().map(|it| it.notice.unwrap()).collect();
    assert_eq!(notices, [first, second]);
}

#[test]
fn without_an_archiver_there_is_no_inbox() {
    let root = TempDir::new().unwrap();
    let error = leave(root.path(), &lookup()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(waiting(root.path()).unwrap().count(), 0);
}

#[test]
fn a_link_to_the_file_of_somebody_else_is_no_notice() {
    let root = TempDir::new().unwrap();
    open(root.path()).unwrap();
    let inbox = root.path().join("inbox");
    let theirs = root.path().join("theirs.json");
    fs::write(&theirs, serde_json::to_vec(&lookup()).unwrap()).unwrap();
    fs::hard_link(&theirs, inbox.join("1.json")).unwrap();
    symlink(&theirs, inbox.join("2.json")).unwrap();
    let found: Vec<_> = waiting(root.path()).unwrap().collect();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|it| it.notice.is_err()));
}

#[test]
fn octets_that_are_no_notice_are_refused_however_many_they_are() {
    let root = TempDir::new().unwrap();
    open(root.path()).unwrap();
    let inbox = root.path().join("inbox");
    fs::write(inbox.join("1"), [b' '; (1 << 20) + 1]).unwrap();
    fs::write(inbox.join("2"), b"{\"act\":\"hold\"}").unwrap();
    let mut prefix = serde_json::to_value(hold("a")).unwrap();
    prefix["selections"][0]["pre_src"] = "10.0.0.0/33".into();
    fs::write(inbox.join("3"), prefix.to_string()).unwrap();
    let found = waiting(root.path()).unwrap();
    let reasons: Vec<_> = found.map(|it| it.notice.unwrap_err()).collect();
    let expected = ["octets", "missing field", "prefix length"];
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(reasons.len(), 3);
}

#[test]
fn a_directory_in_the_inbox_is_left_alone() {
    let root = TempDir::new().unwrap();
    open(root.path()).unwrap();
    fs::create_dir(root.path().join("inbox/!")).unwrap();
    leave(root.path(), &lookup()).unwrap();
    let found: Vec<_> = waiting(root.path()).unwrap().collect();
    assert!(found.len() == 1 && found[0].notice.is_ok());
}

#[test]
fn a_notice_is_read_when_its_turn_comes() {
    let root = TempDir::new().unwrap();
    open(root.path()).unwrap();
    leave(root.path(), &lookup()).unwrap();
    let taken_back = leave(root.path(), &hold("a")).unwrap();
    let mut found = waiting(root.path()).unwrap();
    fs::remove_file(taken_back).unwrap();
    assert_eq!(found.by_ref().count(), 1);
}

#[test]
fn only_root_and_the_archive_itself_may_do_what_deletes() {
    let granted = |uid: u32, act: Act| {
        let notice = Notice::new(act, now());
        let waiting = Waiting {
            path: PathBuf::new(),
            uid,
            notice: notice.map_err(|error| error.to_string()),
        };
        waiting.granted(7).is_ok()
    };
    let purge = || Act::Purge {
        keep: "30d".to_owned(),
    };
    let expire = || Act::Expire {
        keep: "30d".to_owned(),
        before: "2026-01-01".to_owned(),
    };
    assert!(granted(1000, lookup().act) && granted(1000, hold("a").act));
    for act in [purge, expire, || Act::Release] {
        assert!(!granted(1000, act()));
        assert!(granted(0, act()) && granted(7, act()));
    }
}

#[test]
fn a_hold_lasts_until_its_case_is_released() {
    let root = TempDir::new().unwrap();
    let release = |case: &str| Notice {
        act: Act::Release,
        ..hold(case)
    };
    let cases = |root: &Path| -> Vec<_> {
        let holds = holds(root).unwrap().into_iter();
        holds.filter_map(|it| it.notice.case).collect()
    };
    assert!(cases(root.path()).is_empty());
    record(root.path(), 1, hold("a"));
    record(root.path(), 2, hold("b"));
    record(root.path(), 3, hold("a"));
    assert_eq!(cases(root.path()), ["a", "b", "a"]);
    assert_eq!(held(root.path(), "gw").unwrap().len(), 3);
    assert!(held(root.path(), "another").unwrap().is_empty());
    record(root.path(), 9, release("a"));
    assert_eq!(cases(root.path()), ["b"]);
    record(root.path(), 10, hold("a"));
    assert_eq!(cases(root.path()), ["b", "a"]);
}

#[test]
fn an_order_that_cannot_be_read_is_not_taken_for_none() {
    let root = TempDir::new().unwrap();
    record(root.path(), 1, hold("a"));
    fs::write(root.path().join("acts/orders/gw-2.json"), "{").unwrap();
    assert!(held(root.path(), "gw").is_err());
}

#[test]
fn only_lookups_of_earlier_days_expire() {
    let root = TempDir::new().unwrap();
    record(root.path(), 1, lookup());
    let leaf = |record: &str| Leaf {
        act: "lookup".to_owned(),
        gateway: "gw".to_owned(),
        number: 1,
        record: record.to_owned(),
        sha256: String::new(),
        before: None,
    };
    let of_the_day = leaf("acts/lookups/date=2026-11-20/gw-1.json");
    assert!(!of_the_day.is_before("2026-11-20") && of_the_day.is_before("2026-11-21"));
    assert!(!leaf("acts/orders/gw-1.json").is_before("2026-11-21"));
    assert!(
        lookups_before(root.path(), "2026-11-20")
            .unwrap()
            .is_empty()
    );
    assert_eq!(lookups_before(root.path(), "2026-11-21").unwrap().len(), 1);
}
