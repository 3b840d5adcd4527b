//! A bundle convinces somebody who has the first public key and nothing else, and only of the truth.

use super::super::bundle::{Bundle, Flaw};
use super::super::rows::{RowPath, RowProof, RowTree};
use super::*;
use crate::archive::disk::faults::bits;
use crate::archive::row::Row;
use crate::wire::samples::{delete, snat};

fn rows() -> Vec<Row> {
    (0..11)
        .map(|n| Row::of(&delete(snat(), n * 1_000, n * 2_000)).unwrap())
        .collect()
}

fn proof(index: u64) -> RowProof {
    let rows = rows();
    let mut path = RowPath::new(index, rows.len() as u64).unwrap();
    rows.iter().for_each(|row| path.push(row));
    path.finish().unwrap()
}

/// Three days with an entry for a file of [`rows`] on each.
fn sealed() -> (Place, Vec<u64>) {
    let mut tree = RowTree::default();
    rows().iter().for_each(|row| tree.push(row));
    let entry = format!(
        "{{\"files\":[{{\"rows\":{},\"row_root\":\"{}\"}}]}}",
        tree.rows(),
        tree.root()
    );
    let place = Place::new();
    let mut log = place.open(at(0, 0));
    let indices = (0..3).map(|day| log.append(entry.as_bytes(), at(day, 1)).unwrap());
    let indices = indices.collect();
    drop(log);
    (place, indices)
}

#[test]
fn every_row_of_every_day_can_be_shown() {
    let (place, indices) = sealed();
    let first = place.first_key();
    for (day, index) in (0..).zip(indices) {
        for row in 0..rows().len() {
            let bundle = Bundle::make(&place.reader(), index, Some(proof(row as u64))).unwrap();
            let bundle: Bundle = bundle.to_string().parse().unwrap();
            let shown = bundle.check(&first).unwrap();
            assert_eq!(
                (shown.row, shown.since),
                (Some(rows()[row]), at(day, u64::from(day > 0)))
            );
        }
    }
}

#[test]
fn any_flipped_bit_of_a_bundle_is_found() {
    let (place, indices) = sealed();
    let first = place.first_key();
    let bundle = Bundle::make(&place.reader(), indices[1], Some(proof(3)))
        .unwrap()
        .to_string();
    for bit in bits(bundle.len()) {
        let mut octets = bundle.as_bytes().to_vec();
        octets[bit / 8] ^= 1 << (bit % 8);
        let read = String::from_utf8(octets).ok();
        let read = read.and_then(|text| text.parse::<Bundle>().ok());
        assert!(
            read.is_none_or(|bundle| bundle.check(&first).is_err()),
            "bit {bit}"
        );
    }
}

#[test]
fn a_bundle_is_not_for_another_key() {
    let (place, indices) = sealed();
    let bundle = Bundle::make(&place.reader(), indices[2], None).unwrap();
    let other = sealed().0.first_key();
    assert_eq!(bundle.check(&other), Err(Flaw::FirstKey));
}

#[test]
fn a_row_of_another_file_is_not_shown() {
    let (place, indices) = sealed();
    let mut other = proof(4);
    other.index = 5;
    for row in [
        other,
        RowProof {
            rows: 12,
            ..proof(0)
        },
    ] {
        let bundle = Bundle::make(&place.reader(), indices[2], Some(row)).unwrap();
        assert_eq!(bundle.check(&place.first_key()), Err(Flaw::Row));
    }
}

#[test]
fn a_later_key_cannot_show_an_earlier_entry() {
    let (place, indices) = sealed();
    let early = Bundle::make(&place.reader(), indices[0], None)
        .unwrap()
        .to_string();
    let late = Bundle::make(&place.reader(), indices[2], None)
        .unwrap()
        .to_string();
    // The entry of the first day under the checkpoint and the keys of the last.
    let (early, late): (Bundle, Bundle) = (early.parse().unwrap(), late.parse().unwrap());
    let path = place
        .reader()
        .inclusion(indices[0], place.reader().size())
        .unwrap();
    let forged = late.with_entry_of(&early, path);
    assert_eq!(forged.check(&place.first_key()), Err(Flaw::Epoch));
}

#[test]
fn no_bundle_is_made_for_a_key_entry() {
    let (place, _) = sealed();
    Bundle::make(&place.reader(), 0, None).unwrap_err();
    Bundle::make(&place.reader(), 99, None).unwrap_err();
}
