//! Tables against the rows that went in, against questions, and with cut or flipped octets.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tempfile::NamedTempFile;

use super::*;
use crate::archive::row::{Brief, Row, tests::rows};
use crate::archive::wanted::Wanted;
use crate::config::Prefix;
use crate::session::Protocol;

const GROUP: usize = 24;
const PAGE: usize = 4;

/// Rows with few addresses, ports and times, so that questions find some of them.
fn similar_rows() -> impl Strategy<Value = Vec<Row>> {
    let address = |value: u128, is_ipv6| {
        if is_ipv6 {
            IpAddr::from(value.to_be_bytes())
        } else {
            IpAddr::from((value as u32).to_be_bytes())
        }
    };
    let similar = (rows(), any::<[u8; 8]>()).prop_map(move |(mut row, few)| {
        let few = few.map(|number| number % 6);
        let is_ipv6 = few[0] == 0;
        let address = |number: u8| address(u128::from(number) << 6, is_ipv6);
        row.post.src = address(few[1]);
        row.post.src_port = few[2].into();
        row.pre.src = address(few[3]);
        row.pre.src_port = few[2].max(few[3]).into();
        (row.pre.dst, row.pre.dst_port) = (address(few[4]), few[4].into());
        (row.post.dst, row.post.dst_port) = (address(few[4].max(few[5])), few[4].into());
        row.protocol = Protocol(few[6]);
        row.start = row.start.map(|_| Millis::new(few[7].into()));
        row.end = Millis::new((few[7] + few[0]).into());
        row
    });
    prop::collection::vec(similar, 0..100)
}

/// A question that asks for some of the parts of a row.
fn question(row: &Row, parts: u16, length: u8) -> Wanted {
    let has = |part: u16| parts >> part & 1 == 1;
    let alive = if has(8) {
        row.end..=row.end
    } else {
        Millis::default()..=Millis::MAX
    };
    let bits = if row.pre.src.is_ipv6() { 128 } else { 32 };
    Wanted {
        protocol: has(0).then_some(row.protocol),
        post_src: has(1).then_some(row.post.src),
        post_sport: has(2).then_some(row.post.src_port),
        pre_src: has(3)
            .then(|| Prefix::parse(&format!("{}/{}", row.pre.src, bits - length), "").ok())
            .flatten(),
        pre_dst: has(4).then_some(row.pre.dst),
        pre_dport: has(5).then_some(row.pre.dst_port),
        post_dst: has(6).then_some(row.post.dst),
        post_dport: has(7).then_some(row.post.dst_port),
        has_dnat: has(9),
        ..Wanted::alive(alive)
    }
}

fn written(rows: &mut [Row]) -> (Vec<u8>, Summary) {
    rows.sort_by_key(Row::key);
    let mut writer = Writer::with_sizes(Vec::new(), "gw-1", GROUP, PAGE).unwrap();
    rows.iter().for_each(|row| writer.push(row).unwrap());
    writer.finish().unwrap()
}

fn file(octets: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), octets).unwrap();
    file
}

fn found(table: &mut Table, wanted: &Wanted) -> Result<Vec<Row>, Error> {
    let mut found = Vec::new();
    table.find(wanted, &mut |row| found.push(row))?;
    Ok(found)
}

fn everything() -> Wanted {
    Wanted::alive(Millis::default()..=Millis::MAX)
}

fn sample() -> Vec<u8> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let rows = prop::collection::vec(rows(), GROUP + 3).new_tree(&mut runner);
    written(&mut rows.unwrap().current()).0
}

/// What a reader does with a file. It is enough that it returns.
fn read(octets: &[u8], wanted: &[Wanted]) -> Result<(), Error> {
    let file = file(octets);
    let mut table = Table::open(file.path())?;
    Scan::new(Table::open(file.path())?, everything().alive).try_for_each(|row| row.map(drop))?;
    wanted
        .iter()
        .try_for_each(|wanted| found(&mut table, wanted).map(drop))
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were_written(mut rows in prop::collection::vec(rows(), 0..60)) {
        let (octets, summary) = written(&mut rows);
        let mut table = Table::open(file(&octets).path()).unwrap();
        prop_assert_eq!(table.summary(), summary);
        prop_assert_eq!(table.gateway(), "gw-1");
        let mut all = Vec::new();
        table.for_each(&mut |row| all.push(row)).unwrap();
        prop_assert_eq!(all, rows);
    }

    #[test]
    fn a_question_finds_the_rows_that_it_accepts(
        mut rows in similar_rows(), parts in any::<u16>(), at in any::<prop::sample::Index>(), length in 0_u8..8,
    ) {
        let (octets, _) = written(&mut rows);
        let mut table = Table::open(file(&octets).path()).unwrap();
        if !rows.is_empty() {
            let wanted = question(at.get(&rows), parts, length);
            let accepted: Vec<_> = rows.iter().filter(|row| wanted.accepts(row)).copied().collect();
            prop_assert_eq!(found(&mut table, &wanted).unwrap(), accepted);
        }
    }

    #[test]
    fn a_scan_has_the_part_of_each_row_that_was_alive(
        mut rows in prop_oneof![similar_rows(), prop::collection::vec(rows(), 0..60)],
        from in prop_oneof![0_u64..12, 0_u64..1 << 48], length in prop_oneof![0_u64..12, 0_u64..1 << 48],
    ) {
        let (octets, _) = written(&mut rows);
        let table = Table::open(file(&octets).path()).unwrap();
        let alive = Millis::new(from)..=Millis::new(from + length);
        let is_alive = |it: &Brief| it.life().start() <= alive.end() && it.life().end() >= alive.start();
        let expected: Vec<_> = rows.iter().map(Brief::from).filter(is_alive).collect();
        let scanned: Result<Vec<_>, _> = Scan::new(table, alive.clone()).collect();
        prop_assert_eq!(scanned.unwrap(), expected);
    }

    #[test]
    fn the_summary_has_the_first_and_the_last_time(mut rows in prop::collection::vec(rows(), 1..30)) {
        let (_, summary) = written(&mut rows);
        prop_assert_eq!(summary.rows, rows.len() as u64);
        let begins = rows.iter().map(|row| row.start.unwrap_or(row.end));
        prop_assert_eq!(Some(summary.since), begins.min());
        prop_assert_eq!(Some(summary.until), rows.iter().map(|row| row.end).max());
    }
}

#[test]
fn a_row_before_the_last_one_is_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut row = rows().new_tree(&mut runner).unwrap().current();
    let mut writer = Writer::new(Vec::new(), "gw-1").unwrap();
    row.protocol = Protocol(2);
    writer.push(&row).unwrap();
    row.protocol = Protocol(1);
    assert!(matches!(writer.push(&row), Err(Error::Io(_))));
}

#[test]
fn a_file_that_is_cut_short_is_damaged() {
    let octets = sample();
    for length in (0..octets.len()).step_by(3) {
        let error = read(&octets[..length], &[]).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{length}: {error}");
    }
}

#[test]
fn flipped_octets_do_no_harm() {
    let (mut octets, mut failed) = (sample(), 0);
    let wanted = Wanted {
        post_dst: Some([203, 0, 113, 9].into()),
        pre_src: Some(Prefix::parse("10.0.0.1", "").unwrap()),
        ..everything()
    };
    for place in (0..octets.len()).step_by(29) {
        let flipped = 1 << (place % 8);
        octets[place] ^= flipped;
        failed += usize::from(read(&octets, &[everything(), wanted.clone()]).is_err());
        octets[place] ^= flipped;
    }
    assert!(failed > octets.len() / 29 / 4, "{failed}");
}

#[test]
fn a_file_of_another_program_is_foreign() {
    let another = "message m { required int32 post_src; }";
    let schema = parquet::schema::parser::parse_message_type(another).unwrap();
    let writer = parquet::file::writer::SerializedFileWriter::new(
        Vec::new(),
        schema.into(),
        Default::default(),
    );
    let later = {
        let mut octets = sample();
        let key = b"nattrail.schema";
        let at = octets
            .windows(key.len())
            .rposition(|found| found == key)
            .unwrap()
            + key.len();
        let version = octets[at..]
            .iter()
            .position(|octet| *octet == b'1')
            .unwrap();
        octets[at + version] = b'2';
        octets
    };
    for (octets, expected) in [
        (b"# not a table\n".to_vec(), "it is not Parquet"),
        (
            writer.unwrap().into_inner().unwrap(),
            "another program has written it",
        ),
        (later, "its schema is version 2, and this program reads 1"),
    ] {
        match read(&octets, &[]).unwrap_err() {
            Error::Foreign(why) => assert_eq!(why, expected),
            error => panic!("{error}"),
        }
    }
}
