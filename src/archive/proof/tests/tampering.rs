//! Whatever is changed in a log, the check names the file and the reason.

use super::super::note::tests::key;
use super::*;
use crate::archive::disk::faults::bits;

/// The faults that the check finds after `tamper`, by file.
fn faults(tamper: impl FnOnce(&Path)) -> Vec<(String, Fault)> {
    let place = Place::three_days();
    tamper(&place.log());
    found(place.report())
}

fn found(report: Report) -> Vec<(String, Fault)> {
    let each = report.findings.into_iter();
    each.map(|finding| (finding.file.to_str().unwrap().to_owned(), finding.fault))
        .collect()
}

fn edit(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut octets = fs::read(&path).unwrap();
    change(&mut octets);
    fs::write(path, octets).unwrap();
}

#[test]
fn any_flipped_bit_is_found_in_its_file() {
    let place = Place::three_days();
    let (root, first) = (place.log(), place.first_key());
    // One old partial tile of each kind is as good as all.
    for width in ["1", "2", "3", "4", "6", "7"] {
        for kind in ["0", "entries"] {
            fs::remove_file(root.join(format!("tile/{kind}/000.p/{width}"))).unwrap();
        }
    }
    for file in files(&root) {
        let octets = fs::read(&file).unwrap();
        let name = file.strip_prefix(&root).unwrap();
        for bit in bits(octets.len()) {
            let mut flipped = octets.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, flipped).unwrap();
            let report = verify(&root, Some(&first), &[], at(0, 0), &mut |_, _| ()).unwrap();
            let mut names = report.findings.iter().map(|finding| &finding.file);
            assert!(names.any(|found| found == name), "{name:?}, bit {bit}");
        }
        fs::write(&file, octets).unwrap();
    }
    assert_eq!(place.report().findings, []);
}

#[test]
fn a_changed_entry_and_a_changed_hash_are_told_apart() {
    let changed = faults(|log| {
        edit(log.join("tile/entries/000.p/8"), |octets| {
            *octets.last_mut().unwrap() ^= 1
        })
    });
    assert_eq!(
        changed,
        [("tile/entries/000.p/8".to_owned(), Fault::Entry(7))]
    );
    let changed = faults(|log| edit(log.join("tile/0/000.p/8"), |octets| octets[40] ^= 1));
    assert_eq!(changed, [("tile/0/000.p/8".to_owned(), Fault::Hash(1))]);
}

/// An entry that cannot be read may have named a key, so that a second finding can follow.
fn first_fault(tamper: impl FnOnce(&Path)) -> (String, Fault) {
    faults(tamper).swap_remove(0)
}

#[test]
fn missing_added_and_cut_files_are_named() {
    for name in ["tile/entries/000.p/8", "tile/0/000.p/8", "checkpoint"] {
        let missing = first_fault(|log| fs::remove_file(log.join(name)).unwrap());
        assert_eq!(missing, (name.to_owned(), Fault::Missing));
    }
    for name in [
        "tile/entries/000.p/8",
        "tile/0/000.p/8",
        "tile/entries/000.p/5",
    ] {
        let cut = |octets: &mut Vec<u8>| octets.truncate(octets.len() - 1);
        let cut = first_fault(|log| edit(log.join(name), cut));
        assert_eq!(cut, (name.to_owned(), Fault::Length));
        let longer = first_fault(|log| edit(log.join(name), |octets| octets.push(0)));
        assert_eq!(longer, (name.to_owned(), Fault::Length));
    }
    for name in ["other", "tile/0/0", "tile/entries/000.p/x"] {
        let added = first_fault(|log| fs::write(log.join(name), "").unwrap());
        assert_eq!(added, (name.to_owned(), Fault::Added));
    }
}

#[test]
fn a_tail_that_nobody_signed_is_found_when_it_is_old() {
    let place = Place::three_days();
    let names = ["tile/0/000.p/9", "tile/0/001.p/1"];
    for name in names {
        fs::create_dir_all(place.log().join(name).parent().unwrap()).unwrap();
        let mut octets = fs::read(place.log().join("tile/0/000.p/8")).unwrap();
        octets.extend([7; 32]);
        fs::write(place.log().join(name), octets).unwrap();
    }
    let old = names.map(|name| (name.to_owned(), Fault::Unsigned));
    assert_eq!(found(place.report()), old);
    let young = verify(&place.log(), None, &[], at(0, 0), &mut |_, _| ()).unwrap();
    assert_eq!(young.findings, []);
}

#[test]
fn a_log_that_is_cut_off_or_rewritten_differs_from_its_witness() {
    let (place, longer) = (Place::three_days(), Place::three_days());
    longer.open(at(3, 30)).append(b"{}", at(3, 30)).unwrap();
    let check =
        |witness| found(verify(&place.log(), None, &[witness], later(), &mut |_, _| ()).unwrap());
    let fault = Fault::CutOff {
        size: 8,
        witnessed: 9,
    };
    assert_eq!(check(longer.witness()), [("checkpoint".to_owned(), fault)]);
    let other = Place::three_days();
    assert_eq!(
        check(other.witness()),
        [("checkpoint".to_owned(), Fault::Rewritten(8))]
    );
    assert_eq!(check(place.witness()), []);
}

/// Signs the checkpoint of a log anew.
fn sign(log: &Path, key: &super::super::note::PrivateKey) {
    let note: Note = fs::read_to_string(log.join("checkpoint"))
        .unwrap()
        .parse()
        .unwrap();
    let note = Note::sign(note.text().to_owned(), key);
    fs::write(log.join("checkpoint"), note.to_string()).unwrap();
}

#[test]
fn a_key_that_the_log_does_not_name_is_a_missing_epoch() {
    let fault = faults(|log| sign(log, &key(9)));
    assert_eq!(fault, [("checkpoint".to_owned(), Fault::MissingEpoch(8))]);
}

/// The private key of a place, as it is now.
fn current(place: &Place) -> super::super::note::PrivateKey {
    let text = fs::read_to_string(place.keys().join("current")).unwrap();
    let seed = text.lines().next().unwrap().splitn(5, '+').nth(4).unwrap();
    let seed = super::super::base64::decode(seed).unwrap();
    super::super::note::PrivateKey::new(ORIGIN, &seed[1..]).unwrap()
}

#[test]
fn a_key_does_not_sign_after_its_epoch() {
    let place = Place::three_days();
    let old = current(&place);
    place.open(at(4, 0)).append(b"{}", at(4, 0)).unwrap();
    sign(&place.log(), &old);
    assert_eq!(
        found(place.report()),
        [("checkpoint".to_owned(), Fault::OutsideEpoch(10))]
    );
}

#[test]
fn whoever_has_the_key_of_the_day_cannot_rewrite_the_day_before() {
    let place = Place::three_days();
    // The thief makes the log anew with another entry 4, and has the key entries and the current key.
    let (reader, forged) = (place.reader(), Place::new());
    drop(forged.open(at(0, 0)));
    let mut entries: Vec<_> = (0..8).map(|index| reader.entry(index).unwrap()).collect();
    entries[4] = b"{}".to_vec();
    super::super::log::tests::write(&forged.log(), &entries, &current(&place));
    let report = verify(
        &forged.log(),
        Some(&place.first_key()),
        &[],
        at(0, 0),
        &mut |_, _| (),
    );
    let name = "tile/entries/000.p/8".to_owned();
    assert_eq!(found(report.unwrap()), [(name, Fault::KeyEntry(5))]);
}

#[test]
fn a_log_that_begins_with_another_key_is_not_the_published_one() {
    let place = Place::three_days();
    let report = verify(
        &place.log(),
        Some(key(1).public()),
        &[],
        later(),
        &mut |_, _| (),
    );
    let fault = ("tile/entries/000.p/8".to_owned(), Fault::FirstKey);
    assert_eq!(found(report.unwrap()), [fault]);
}

#[test]
fn any_size_in_a_checkpoint_is_checked_in_no_time() {
    for size in [0, 9, 300, u64::MAX] {
        let fault = faults(|log| {
            let text = fs::read_to_string(log.join("checkpoint")).unwrap();
            fs::write(
                log.join("checkpoint"),
                text.replacen("\n8\n", &format!("\n{size}\n"), 1),
            )
            .unwrap();
        });
        assert!(
            fault.contains(&("checkpoint".to_owned(), Fault::Root)),
            "{size}: {fault:?}"
        );
    }
}
