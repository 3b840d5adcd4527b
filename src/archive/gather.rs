//! Reads many files in parallel, and hands over what they have in one thread.

use std::iter;
use std::mem::take;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, available_parallelism, scope};

/// Each holds a few pages of a file.
const MOST_THREADS: usize = 8;
const BATCH: usize = 256;

/// Calls `read` with each of the places, in threads, and `each` with everything that it finds: the finds of one place in
/// their order, the places in any. What waits for `each` is bounded, however much is found.
pub fn gather<T: Send>(
    places: usize,
    read: impl Fn(usize, &mut dyn FnMut(T)) + Sync,
    each: &mut dyn FnMut(T),
) {
    let next = AtomicUsize::new(0);
    let read_on = |each: &mut dyn FnMut(T)| {
        let place = || next.fetch_add(1, Ordering::Relaxed);
        let left = iter::repeat_with(place).take_while(|place| *place < places);
        left.for_each(|place| read(place, each));
    };
    let threads = available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(MOST_THREADS).min(places);
    scope(|scope| {
        let (sender, receiver) = sync_channel(threads);
        for _ in (0..threads).filter(|_| threads > 1) {
            let (sender, read_on) = (sender.clone(), &read_on);
            let read_on = move || {
                let mut batch = Vec::new();
                // The receiver is there until the last of them has ended.
                read_on(&mut |found| {
                    batch.push(found);
                    if batch.len() == BATCH {
                        let _ = sender.send(take(&mut batch));
                    }
                });
                let _ = sender.send(batch);
            };
            // If it cannot be made, others do its part.
            let _ = Builder::new().spawn_scoped(scope, read_on);
        }
        drop(sender);
        receiver.into_iter().flatten().for_each(&mut *each);
    });
    read_on(each);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_place_is_read_once_and_its_finds_keep_their_order() {
        for places in [0, 1, 2, 100] {
            let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
            gather(
                places,
                |place, each| (0..place * 10).for_each(|find| each((place, find))),
                &mut |(place, find)| found.entry(place).or_default().push(find),
            );
            let expected = (1..places).map(|place| (place, (0..place * 10).collect()));
            assert_eq!(found, expected.collect());
        }
    }
}
