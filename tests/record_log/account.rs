//! Compares the records that must have arrived with those that did.

use std::collections::BTreeMap;

use crate::ledger::Key;
use crate::read::{Event, Header, Item};
use crate::scene::{OUTPUTS, Scene};
use crate::support::gateway::CLIENT;
use crate::support::wait_until;

/// Whether a record may occur twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Twice {
    Never,
    /// Yes, with the same time and id.
    Alike,
    /// The same, for at most this many records.
    AlikeAtMost(usize),
}

/// The occurrences of each record of each session.
type Tally<'a> = BTreeMap<(Key, Event), Vec<&'a str>>;

fn tally(items: &[Item]) -> Tally<'_> {
    let mut tally = Tally::new();
    for item in items {
        let Item::Event {
            event,
            protocol,
            source,
            key,
            identity,
            inferred,
        } = item
        else {
            continue;
        };
        assert_eq!((*protocol, *source), (17, CLIENT), "{item:?}");
        assert!(!inferred, "{item:?}");
        tally.entry((*key, *event)).or_default().push(identity);
    }
    tally
}

/// The records of these sessions that the items lack.
pub fn missing(items: &[Item], made: &[Key]) -> Vec<(Key, Event)> {
    let tally = tally(items);
    let wanted = made
        .iter()
        .flat_map(|key| [(*key, Event::Create), (*key, Event::Delete)]);
    wanted.filter(|one| !tally.contains_key(one)).collect()
}

/// Waits until every output has every create and every delete, and no other records.
///
/// # Panics
/// When one has not, or has a record twice that may not be.
pub fn assert_complete(scene: &Scene, twice: Twice) {
    for (index, output) in OUTPUTS.iter().enumerate() {
        let deadline = std::time::Instant::now() + crate::support::PATIENCE;
        let _ = wait_until(deadline, || {
            missing(&scene.items(index), &scene.made)
                .is_empty()
                .then_some(())
        });
        assert_each(output, &scene.items(index), &scene.made, twice);
    }
}

/// # Panics
/// See [`assert_complete`].
pub fn assert_each(output: &str, items: &[Item], made: &[Key], twice: Twice) {
    let missing = missing(items, made);
    assert!(
        missing.is_empty(),
        "{output}: {} of {} records are missing, among them {:?}",
        missing.len(),
        2 * made.len(),
        &missing[..missing.len().min(5)]
    );
    assert_eq!(tally(items).len(), 2 * made.len(), "{output} has others");
    assert_alike(output, items, twice);
}

/// # Panics
/// When a record occurs twice that may not.
pub fn assert_alike(output: &str, items: &[Item], twice: Twice) {
    let mut repeated = 0;
    for (record, identities) in tally(items) {
        let is_alike = identities.iter().all(|one| *one == identities[0]);
        assert!(is_alike, "{output}: {record:?} {identities:?}");
        repeated += identities.len() - 1;
    }
    let most = match twice {
        Twice::Never => 0,
        Twice::Alike => usize::MAX,
        Twice::AlikeAtMost(most) => most,
    };
    assert!(
        repeated <= most,
        "{output}: {repeated} records are repeated"
    );
}

/// The causes of the gaps, with the number of events before each.
pub fn gaps(items: &[Item]) -> Vec<(String, usize)> {
    let mut events = 0;
    let mut gaps = Vec::new();
    for item in items {
        match item {
            Item::Event { .. } => events += 1,
            Item::Gap { cause, .. } => gaps.push((cause.clone(), events)),
        }
    }
    gaps
}

/// Asserts one continuous exporter: the same port, and sequence numbers without a break.
///
/// # Panics
/// When there is a break.
pub fn assert_continued(headers: &[Header]) {
    for pair in headers.windows(2) {
        assert_eq!(pair[0].from, pair[1].from, "another exporter: {pair:?}");
        assert_eq!(
            pair[0].sequence + pair[0].counts,
            pair[1].sequence,
            "{pair:?}"
        );
    }
}
