//! Exactly what is too old goes, whatever fails and whatever is held; and its records say how much.

use proptest::sample::Index;

use super::*;
use crate::archive::audit::{self, Known};
use crate::archive::evidence::Evidence;
use crate::archive::tree::{Order, Seal};

fn order(before: u64) -> Order {
    Order {
        rule: "30d".to_owned(),
        before: time(before),
        at: time(BEGIN + 99 * DAY),
        act: None,
    }
}

/// The session of the log with this number, at another time.
fn ended(index: u64, end: u64) -> Row {
    let row = row(index);
    let ago = |start: Millis| time(end - (row.end.get() - start.get()));
    Row {
        start: row.start.map(ago),
        end: time(end),
        ..row
    }
}

/// Sessions of four days, the last of which is in another month: some of an hour, some of a day, and some of more.
fn rows() -> Vec<Row> {
    let begin = BEGIN + 8 * DAY;
    let end = |index| begin + index / 12 * DAY + index % 3 * HOUR + index;
    (0..48).map(|index| ended(index, end(index))).collect()
}

/// The first day of them is over, and two sessions of it are held.
fn before() -> u64 {
    BEGIN + 9 * DAY
}

fn held() -> Vec<Wanted> {
    [1, 7].map(|index| of(&rows()[index])).to_vec()
}

fn of(row: &Row) -> Wanted {
    Wanted {
        post_src: Some(row.post.src),
        post_sport: Some(row.post.src_port),
        ..Wanted::alive(row.end..=row.end)
    }
}

fn filled(root: &Path) {
    let mut spool = open(root).unwrap();
    for row in &rows() {
        spool.push(row);
    }
    spool.commit(place(1)).unwrap();
    for day in 9..12 {
        spool.seal(time(BEGIN + day * DAY)).unwrap();
    }
    // These stay in the spool, and one that comes late.
    spool.push(&ended(48, BEGIN + 8 * DAY));
    spool.commit(place(2)).unwrap();
}

fn purge(root: &Path) -> Result<Vec<Seal>, Error> {
    open(root)?.purge(&order(before()), &held())
}

fn octets(rows: impl Iterator<Item = Row>) -> Vec<Vec<u8>> {
    expected(&rows.map(Entry::Row).collect::<Vec<_>>()).0
}

fn all() -> impl Iterator<Item = Row> {
    rows().into_iter().chain([ended(48, BEGIN + 8 * DAY)])
}

fn remaining() -> Vec<Vec<u8>> {
    let late = all().count() - 1;
    let stays = |(index, row): &(usize, Row)| {
        row.end >= time(before()) || held().iter().any(|it| it.accepts(row)) || *index == late
    };
    octets(all().enumerate().filter(stays).map(|(_, row)| row))
}

/// The sessions that purges deleted, by their records.
fn deleted(reader: &Reader) -> u64 {
    let seals = reader.seals(&(Millis::MIN..=Millis::MAX)).unwrap();
    let purges = seals.iter().filter_map(|seal| seal.purge.as_ref());
    purges.map(|purge| purge.rows).sum()
}

/// What stays is there, and as much has gone as the records say. Returns whether it was all.
fn consistent(reader: &Reader) -> Option<bool> {
    let (found, _) = found(reader)?;
    assert!(remaining().iter().all(|row| found.contains(row)));
    assert_eq!(found.len() as u64 + deleted(reader), all().count() as u64);
    Some(found == remaining())
}

fn at_every_operation(fault: Fault, first: u64, reboot: impl Fn(&Path)) {
    for at in faults::operations(first, 7) {
        let root = TempDir::new().unwrap();
        filled(root.path());
        faults::begin(at, fault);
        // A fault that passes leaves a spool that goes on.
        let _ = purge(root.path()).or_else(|_| purge(root.path()));
        let was_hit = faults::end();
        reboot(root.path());
        drop(open(root.path()).unwrap());
        consistent(&Reader::open(root.path()).unwrap()).unwrap();
        purge(root.path()).unwrap();
        assert_eq!(
            consistent(&Reader::open(root.path()).unwrap()),
            Some(true),
            "operation {at}"
        );
        assert_eq!(purge(root.path()).unwrap(), []);
        assert_eq!(leftovers(root.path()), [""; 0]);
        if !was_hit {
            assert!(at > 60, "only {at} operations");
            return;
        }
    }
}

fn leftovers(root: &Path) -> Vec<String> {
    let mut names = runs(&Tree::new(root).spool()).unwrap();
    names.retain(|name| name.starts_with("seal-"));
    names
}

#[test]
fn a_purge_that_ends_at_any_operation_deletes_what_is_too_old_and_nothing_else() {
    at_every_operation(Fault::End, 1, |_| {});
}

#[test]
fn an_operation_of_a_purge_that_fails_does_no_harm() {
    at_every_operation(Fault::Once, 2, |_| {});
}

#[test]
fn a_loss_of_power_in_a_purge_does_no_harm() {
    at_every_operation(Fault::End, 3, |root| faults::lose_power(root, |_| 0));
    at_every_operation(Fault::End, 4, |root| {
        faults::lose_power(root, |names| names / 2)
    });
}

#[test]
fn a_reader_finds_what_stays_at_any_operation_of_a_purge() {
    let root = TempDir::new().unwrap();
    filled(root.path());
    let path = root.path().to_owned();
    let (complete, mut readers) = (Rc::new(Cell::new(0)), Vec::new());
    let count = complete.clone();
    faults::watch(move || {
        readers.push(Reader::open(&path).unwrap());
        for ago in [1, 3, 9] {
            if let Some(index) = readers.len().checked_sub(ago)
                && consistent(&readers[index]).is_some()
            {
                count.set(count.get() + 1);
            }
        }
    });
    let purged = purge(root.path());
    faults::unwatch();
    assert!(purged.unwrap().len() > 1);
    assert!(complete.get() > 60, "{}", complete.get());
}

#[test]
fn a_file_of_which_nothing_is_to_go_is_not_touched_and_other_gateways_are_none_of_ours() {
    let root = TempDir::new().unwrap();
    let other = Spool::open(root.path(), "other", time(BEGIN)).and_then(|mut spool| {
        spool.push(&ended(1, BEGIN + DAY));
        spool.commit(place(1))?;
        spool.seal(time(BEGIN + 2 * DAY))
    });
    fs::remove_dir_all(root.path().join("spool")).unwrap();
    filled(root.path());
    let mut spool = open(root.path()).unwrap();
    let everything = [Wanted::alive(Millis::MIN..=Millis::MAX)];
    let end = BEGIN + 12 * DAY;
    assert_eq!(spool.purge(&order(end), &everything).unwrap(), []);
    let seals = spool.purge(&order(u64::MAX >> 16), &[]).unwrap();
    let purges = seals.iter().filter_map(|seal| seal.purge.as_ref());
    // Nothing is known of the time after the last seal.
    assert!(purges.clone().all(|it| it.order.before == time(end - DAY)));
    assert_eq!(purges.map(|it| it.rows).sum::<u64>(), 36);
    assert!(root.path().join(&other.unwrap().files[0].path).exists());
    // An hour's directory goes with its last file.
    assert!(!root.path().join("sessions/date=2025-11-28").exists());
}

#[test]
fn a_file_that_cannot_be_read_stays_and_the_others_go() {
    let root = TempDir::new().unwrap();
    filled(root.path());
    let tree = Tree::new(root.path());
    let (_, _, damaged) = tree.ended_before(time(before())).unwrap().remove(0);
    fs::write(&damaged, "PAR1").unwrap();
    for _ in 0..2 {
        let error = purge(root.path()).unwrap_err().to_string();
        assert!(error.starts_with(&damaged.display().to_string()), "{error}");
    }
    assert!(deleted(&Reader::open(root.path()).unwrap()) > 5);
    assert!(damaged.exists());
}

#[derive(Clone, Debug)]
enum Act {
    /// Sessions that end so many hours after the first day.
    Sessions(Vec<u64>),
    Seal(u64),
    Compact(u64),
    /// Before this hour; those of these sessions are held, and all within some hours of one of them.
    Purge(u64, Vec<Index>, Option<(Index, u64)>),
}

const HOURS: u64 = 45 * 24;

fn acts() -> impl Strategy<Value = Act> {
    let held = prop::collection::vec(any::<Index>(), 0..4);
    let near = prop::option::of((any::<Index>(), 0_u64..100));
    prop_oneof![
        3 => prop::collection::vec(0..HOURS, 1..25).prop_map(Act::Sessions),
        2 => (1..HOURS).prop_map(Act::Seal),
        1 => (0..HOURS / 24).prop_map(Act::Compact),
        2 => (0..HOURS + 99, held, near).prop_map(|(hour, held, near)| Act::Purge(hour, held, near)),
    ]
}

/// What an archive has to have.
#[derive(Default)]
struct Model {
    /// Those that are sealed come with `true`.
    rows: Vec<(Row, bool)>,
    pushed: u64,
    deleted: u64,
}

impl Model {
    fn held(&self, held: &[Index], near: Option<&(Index, u64)>) -> Vec<Wanted> {
        let Some(last) = self.rows.len().checked_sub(1) else {
            return Vec::new();
        };
        let row = |index: &Index| &self.rows[index.index(last + 1)].0;
        let wide = near.map(|(index, hours)| {
            let end = row(index).end;
            Wanted::alive(end..=time(end.get() + hours * HOUR))
        });
        held.iter().map(|it| of(row(it))).chain(wide).collect()
    }

    fn purge(&mut self, before: Millis, held: &[Wanted]) {
        let count = self.rows.len();
        let before = time(before.get() / DAY * DAY);
        self.rows.retain(|(row, is_sealed)| {
            !is_sealed || row.end >= before || held.iter().any(|it| it.accepts(row))
        });
        self.deleted += (count - self.rows.len()) as u64;
    }
}

/// Does it with an end of the process at an operation, and then again.
fn killed<T>(root: &Path, at: u64, mut act: impl FnMut(&mut Spool) -> Result<T, Error>) {
    faults::begin(at, Fault::End);
    let _ = open(root).and_then(|mut spool| act(&mut spool));
    faults::end();
    act(&mut open(root).unwrap()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn exactly_the_rows_that_should_remain_remain(
        acts in prop::collection::vec((acts(), 1_u64..80), 1..25)
    ) {
        let root = TempDir::new().unwrap();
        let root = root.path();
        let mut model = Model::default();
        let mut until = open(root).unwrap().sealed_until();
        let mut evidence = Evidence::new(root, GATEWAY);
        let now = Wall::from_millis(BEGIN + 60 * DAY);
        for (act, kill) in acts {
            match act {
                Act::Sessions(ends) => {
                    let mut spool = open(root).unwrap();
                    for hour in ends {
                        let row = ended(model.pushed, BEGIN + hour * HOUR + model.pushed);
                        spool.push(&row);
                        model.rows.push((row, false));
                        model.pushed += 1;
                    }
                    spool.commit(place(model.pushed as usize)).unwrap();
                }
                Act::Seal(hour) => {
                    until = until.max(time(BEGIN + hour * HOUR));
                    killed(root, kill, |spool| spool.seal(until));
                    for (row, is_sealed) in &mut model.rows {
                        *is_sealed |= row.end < until;
                    }
                }
                Act::Compact(day) => {
                    killed(root, kill, |spool| spool.compact(time(BEGIN + day * DAY)));
                }
                Act::Purge(hour, held, near) => {
                    let before = time(BEGIN + hour * HOUR);
                    let held = model.held(&held, near.as_ref());
                    killed(root, kill, |spool| spool.purge(&order(before.get()), &held));
                    model.purge(before.min(until), &held);
                }
            }
            let reader = Reader::open(root).unwrap();
            let rows = octets(model.rows.iter().map(|(row, _)| *row));
            prop_assert!(found(&reader).unwrap().0 == rows);
            prop_assert_eq!(deleted(&reader), model.deleted);
            let sealed = open(root).unwrap().sealed_number();
            while !evidence.append(sealed, now).unwrap() {}
        }
        let audit = audit::audit(root, &Known::default(), now, &mut |_, _| ()).unwrap();
        prop_assert_eq!(&audit.findings, &[]);
        let deleted = audit.logs.iter().map(|log| log.deleted).sum::<u64>();
        prop_assert_eq!(deleted, model.deleted);
        prop_assert_eq!((audit.replaced, audit.purged, audit.unsigned), (0, 0, 0));
    }
}

#[test]
fn a_reader_from_before_a_purge_does_not_take_what_is_left_for_all() {
    let root = TempDir::new().unwrap();
    filled(root.path());
    let reader = Reader::open(root.path()).unwrap();
    assert!(reader.sessions(&(Millis::MIN..=Millis::MAX)).is_ok());
    purge(root.path()).unwrap();
    let error = reader.sessions(&(Millis::MIN..=Millis::MAX)).unwrap_err();
    assert!(error.is_gone());
}
