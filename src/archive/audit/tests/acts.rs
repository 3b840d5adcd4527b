//! An audit of the records of acts.

use super::*;
use crate::archive::acts::{Act, Notice};

/// An archive with two lookups, of the first and of the second day, and the path of the first.
fn looked_up() -> (TempDir, Evidence, String) {
    let root = TempDir::new().unwrap();
    let mut spool = Spool::open(root.path(), "gw", Millis::new(HOUR)).unwrap();
    spool.seal(Millis::new(2 * HOUR)).unwrap();
    let mut evidence = Evidence::new(root.path(), "gw");
    evidence.append(1, Wall::from_millis(2 * HOUR)).unwrap();
    let mut look = |hour: u64| {
        let now = Wall::from_millis(hour * HOUR);
        let notice = Notice::new(Act::Lookup { lookups: vec![] }, now.into()).unwrap();
        evidence.record(notice, Some(1), now).unwrap().path()
    };
    let path = look(3);
    look(25);
    (root, evidence, path)
}

fn findings(root: &TempDir) -> Vec<Finding> {
    let now = clock::read().wall;
    let audit = audit(root.path(), &Known::default(), now, &mut |_, _| ()).unwrap();
    audit.findings
}

fn only(findings: &[Finding], file: &str, reason: &str) {
    let [finding] = findings else {
        panic!("{findings:?}");
    };
    assert!(
        finding.file == Path::new(file) && finding.reason.contains(reason),
        "{finding:?}"
    );
}

#[test]
fn the_record_of_an_act_that_is_changed_missing_or_added_is_found() {
    let (root, _, path) = looked_up();
    assert_eq!(findings(&root), []);
    let file = root.path().join(&path);
    let record = fs::read_to_string(&file).unwrap();
    fs::write(&file, record.replace("\"uid\": 1", "\"uid\": 2")).unwrap();
    only(&findings(&root), &path, "was changed");
    fs::remove_file(&file).unwrap();
    only(&findings(&root), &path, "act 1 (lookup) is missing");
    fs::write(&file, &record).unwrap();
    let added = path.replace("gw-1", "gw-2");
    fs::write(root.path().join(&added), &record).unwrap();
    only(&findings(&root), &added, "does not belong here");
    let record = record.replace("\"number\": 1", "\"number\": 2");
    fs::write(root.path().join(&added), &record).unwrap();
    only(&findings(&root), &added, "no entry of its log names it");
}

#[test]
fn only_records_that_an_act_deleted_may_be_gone() {
    let (root, mut evidence, path) = looked_up();
    let now = Wall::from_millis(50 * HOUR);
    evidence.expire("1d", "1970-01-02".to_owned(), now).unwrap();
    assert!(!root.path().join(&path).exists());
    assert_eq!(findings(&root), []);
    let second = "acts/lookups/date=1970-01-02/gw-2.json";
    fs::remove_file(root.path().join(second)).unwrap();
    only(&findings(&root), second, "act 2 (lookup) is missing");
}

#[test]
fn a_record_without_an_entry_gets_it_on_another_day_and_before_another_act() {
    let (root, _, _) = looked_up();
    // The process ended before the entry was in the log.
    let begin = |number: u64| {
        let second = root.path().join("acts/lookups/date=1970-01-02/gw-2.json");
        let mut record = crate::archive::acts::read(&second).unwrap();
        record.number = number;
        record.notice.nonce = number.to_string();
        let octets = serde_json::to_vec_pretty(&record).unwrap();
        fs::write(root.path().join(record.path()), octets).unwrap();
        (Evidence::new(root.path(), "gw"), record)
    };
    let now = Wall::from_millis(50 * HOUR);
    let (mut evidence, third) = begin(3);
    let again = evidence.record(third.notice.clone(), Some(1), now);
    assert_eq!(again.unwrap(), third);
    drop(evidence);
    let (mut evidence, _) = begin(4);
    let release = Notice::new(Act::Release, now.into()).unwrap();
    assert_eq!(evidence.record(release, Some(0), now).unwrap().number, 5);
    assert_eq!(findings(&root), []);
}
