//! Files that are changed, cut short, missing, or somebody else's.

use super::*;

/// A spool with a run and a journal, and the records in it.
fn spool() -> (TempDir, Vec<Entry>) {
    let (root, log) = (TempDir::new().unwrap(), log()[..13].to_vec());
    let mut spool = open(root.path()).unwrap();
    for (index, entry) in log.iter().enumerate() {
        match entry {
            Entry::Row(row) => spool.push(row),
            Entry::Gap(gap) => spool.push_gap(gap),
        }
        spool.commit(place(index + 1)).unwrap();
    }
    assert_eq!(spool.manifest.runs.len(), 1);
    (root, log)
}

/// The file with its [bits](faults::bits) flipped, one at a time, and cut to each length.
fn damaged(path: &Path) -> impl Iterator<Item = Vec<u8>> {
    let octets = fs::read(path).unwrap();
    let flipped = |(octets, bit): (Vec<u8>, usize)| {
        let mut octets = octets;
        octets[bit / 8] ^= 1 << (bit % 8);
        octets
    };
    let bits = faults::bits(octets.len()).map({
        let octets = octets.clone();
        move |bit| flipped((octets.clone(), bit))
    });
    let lengths = (0..octets.len()).map(move |length| octets[..length].to_vec());
    bits.chain(lengths)
}

#[test]
fn damage_in_the_journal_goes_back_to_the_commit_before_it() {
    let (root, log) = spool();
    let path = root.path().join("spool/journal");
    let mut places = std::collections::BTreeSet::new();
    for octets in damaged(&path) {
        fs::write(&path, octets).unwrap();
        match Reader::open(root.path()) {
            Err(Error::Damaged(damaged, _)) => assert_eq!(damaged, path),
            Err(error) => panic!("{error}"),
            Ok(reader) => {
                let next = reader.place().unwrap().next as usize;
                assert!(found(&reader).unwrap() == expected(&log[..next]));
                places.insert(next);
            }
        }
    }
    assert!(
        places.len() > 2 && places.range(log.len()..).next().is_none(),
        "{places:?}"
    );
}

#[test]
fn a_spool_whose_journal_was_damaged_goes_on_at_the_place_it_goes_back_to() {
    let (root, log) = spool();
    let path = root.path().join("spool/journal");
    let mut octets = fs::read(&path).unwrap();
    let middle = octets.len() - 20;
    octets[middle] ^= 1;
    fs::write(&path, octets).unwrap();
    let mut spool = open(root.path()).unwrap();
    assert_eq!(next(&spool), log.len() - 1);
    archive(&mut spool, &log).unwrap();
    check(root.path(), &log);
}

#[test]
fn damage_in_a_run_is_said_and_costs_no_row_of_another_block() {
    let (root, log) = spool();
    let path = root.path().join("spool/run-1");
    let rows = expected(&log).0;
    for octets in damaged(&path) {
        fs::write(&path, octets).unwrap();
        let reader = Reader::open(root.path()).unwrap();
        let mut count = 0;
        let mut each = |row: Row| {
            let mut octets = Vec::new();
            row.encode(&mut octets);
            assert!(rows.binary_search(&octets).is_ok());
            count += 1;
        };
        let result = reader.find(&Wanted::alive(Millis::MIN..=Millis::MAX), &mut each);
        assert!(matches!(result, Err(Error::Damaged(..))) && count < rows.len());
    }
}

#[test]
fn rows_that_cannot_be_read_again_are_a_gap_of_the_seal_and_their_run_is_kept() {
    for missing in [false, true] {
        let (root, log) = spool();
        let path = root.path().join("spool/run-1");
        let mut octets = fs::read(&path).unwrap();
        octets[3] ^= 1;
        fs::write(&path, octets).unwrap();
        if missing {
            fs::remove_file(&path).unwrap();
        }
        let seal = open(root.path()).unwrap().seal(Millis::MAX).unwrap();
        let rows = expected(&log).0.len() as u64;
        let sealed: u64 = seal.files.iter().map(|file| file.rows).sum();
        assert_eq!(sealed + seal.damaged, rows);
        assert!(seal.damaged > 0);
        let gap = seal.gaps.last().unwrap();
        assert_eq!(
            (gap.cause.as_str(), gap.lost),
            ("undelivered", Some(seal.damaged))
        );
        assert_eq!(path.with_extension("damaged").exists(), !missing);
    }
}

#[test]
fn a_journal_that_is_missing_is_said_while_there_are_runs() {
    let (root, _) = spool();
    fs::remove_file(root.path().join("spool/journal")).unwrap();
    let error = open(root.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("spool/journal is damaged: it is missing"),
        "{error}"
    );
}

#[test]
fn a_spool_has_one_writer() {
    let (root, _) = spool();
    let spool = open(root.path()).unwrap();
    assert!(matches!(open(root.path()), Err(Error::Locked(_))));
    drop(spool);
    open(root.path()).unwrap();
}

#[test]
fn a_directory_that_is_gone_costs_no_record_that_was_not_committed() {
    let (root, log) = spool();
    let mut spool = open(root.path()).unwrap();
    fs::remove_dir_all(root.path().join("spool")).unwrap();
    let Entry::Row(row) = log[0] else { panic!() };
    spool.push(&row);
    let error = spool.commit(place(14)).unwrap_err();
    assert!(error.is_gone(), "{error}");
    assert_eq!(next(&spool), 13);
    drop(spool);
    assert_eq!(open(root.path()).unwrap().place(), None);
}

#[test]
fn an_archive_whose_spool_was_lost_goes_on_counting_its_seals() {
    let root = TempDir::new().unwrap();
    let mut spool = open(root.path()).unwrap();
    archive(&mut spool, &log()).unwrap();
    let last = spool.manifest.sealed;
    drop(spool);
    fs::remove_dir_all(root.path().join("spool")).unwrap();
    let mut spool = open(root.path()).unwrap();
    assert_eq!(spool.seal(time(BEGIN + DAY)).unwrap().number, last + 1);
}

#[test]
fn a_spool_takes_the_new_name_of_its_gateway() {
    let (root, log) = spool();
    drop(Spool::open(root.path(), "other", time(BEGIN)).unwrap());
    let reader = Reader::open(root.path()).unwrap();
    assert_eq!(reader.gateway(), Some("other"));
    assert!(found(&reader).unwrap() == expected(&log));
}
