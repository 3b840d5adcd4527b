//! An audit of an archive that is being written.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::archive::evidence::Evidence;
use crate::archive::row::Row;
use crate::archive::spool::{Place, Spool};
use crate::kernel::clock;
use crate::wire::samples::{delete, snat};

const HOUR: u64 = 3_600_000;

#[test]
fn an_archive_is_sound_while_it_is_written() {
    let root = TempDir::new().unwrap();
    let mut spool = Spool::open(root.path(), "gw", Millis::new(HOUR)).unwrap();
    let mut evidence = Evidence::new(root.path(), "gw");
    evidence.append(0, Wall::from_millis(HOUR)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for hour in 1..=60 {
                let end = hour * HOUR + 1;
                spool.push(&Row::of(&delete(snat(), end - 1, end)).unwrap());
                let place = Place { run: 1, next: hour };
                spool.commit(place).unwrap();
                spool.seal(Millis::new((hour + 1) * HOUR)).unwrap();
                let now = Wall::from_millis((hour + 1) * HOUR);
                if hour % 2 == 0 {
                    evidence.append(spool.sealed_number(), now).unwrap();
                }
                if hour % 12 == 0 {
                    spool.compact(Millis::new((hour - 1) * HOUR)).unwrap();
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let now = clock::read().wall;
        while !is_over.load(Ordering::Relaxed) {
            let audit = audit(root.path(), &Known::default(), now, &mut |_, _| ()).unwrap();
            assert_eq!(audit.findings, []);
        }
    });
}
