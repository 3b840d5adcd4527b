//! The paths of an archive directory, and the records of what was sealed.
//!
//! | below the root | |
//! |---|---|
//! | `sessions/date=YYYY-MM-DD/hour=HH/` | sessions of at most an hour, by the hour of their end |
//! | `days/date=YYYY-MM-DD/` | the same, after the files of a day were merged |
//! | `long/date=YYYY-MM-DD/` | sessions of more than an hour and at most a day, by the day of their end |
//! | `longer/month=YYYY-MM/` | those of more than a day or without a start, by the month of their end |
//! | `seals/date=YYYY-MM-DD/` | seal records, by the day of their end |
//! | `seals/long/` | seal records that tell about more than a day |
//! | `seals/purges/` | those of purges; the time in the name is that of the files that went |
//! | `log/GATEWAY/` | the evidence log ([`super::evidence`]) |
//! | `inbox/`, `acts/` | what people did with the archive ([`super::acts`]) |
//! | `spool/` | what is not sealed yet ([`super::spool`]) |
//!
//! Dates and hours are those of UTC. A file's name is `GATEWAY-SINCE-UNTIL-NUMBER-PART`: the time that its rows, or the
//! record, can tell about (to the second, rounded outwards), and the number of the seal that made it. No two files of one
//! gateway have the same name, so that the trees of many gateways can be copied into one.
//!
//! A session that was alive at a time T ended in the partition of T or in the next one (in any later one for those of more
//! than a day, which are few), and the name tells whether a file can have it. So a question about T opens a bounded number
//! of files, whatever the age of the archive.

use std::fmt;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::gather::gather;
use super::proof::merkle::Hash;
use super::row::{Millis, Row};
use crate::session::{Gap, GapCause};
use crate::time::Wall;

pub(super) const HOUR: u64 = 3_600_000;
pub(super) const DAY: u64 = 24 * HOUR;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// An archive directory.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

/// A directory of session files, named after the time at which its sessions ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Partition {
    /// By hours since 1970.
    Sessions(u32),
    /// By days since 1970, as the next one.
    Days(u32),
    Long(u32),
    /// By months since the year 0.
    Longer(u32),
}

/// What one seal made of the spool, or one merging of files.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seal {
    pub schema: u32,
    pub gateway: String,
    /// The version of the program.
    pub software: String,
    /// Counts the seals of the gateway in this archive.
    pub number: u64,
    /// Everything known of this interval is in the archive, in the files of this seal and of those before. The next seal
    /// goes on at `until`. It is empty for a merging of files.
    pub from: Millis,
    pub until: Millis,
    /// Creates and deletes that arrived since the seal before.
    pub begun: u64,
    pub ended: u64,
    /// Finished sessions that stay in the spool, since they ended later than `until`. Those that stayed before, and
    /// `ended`, are together as many as the rows of the files, `kept`, and `damaged`.
    pub kept: u64,
    /// Rows of the spool that could not be read again; a gap states them.
    pub damaged: u64,
    /// Records that were lost before they came here, as far as the gaps tell.
    pub lost: u64,
    /// The gaps that became known since the seal before.
    pub gaps: Vec<ArchivedGap>,
    pub files: Vec<SealedFile>,
    /// The files whose rows are in `files` now, but for those that a purge deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge: Option<Purge>,
}

/// The deletion of sessions whose time is over.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Purge {
    #[serde(flatten)]
    pub order: Order,
    /// The time that the deleted files could tell about, to the second.
    pub since: Millis,
    pub until: Millis,
    /// The sessions that were deleted.
    pub rows: u64,
}

/// Why sessions are deleted, and which.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Order {
    /// As people know it, such as "365d".
    pub rule: String,
    /// Sessions that ended before it are deleted, unless somebody holds them.
    pub before: Millis,
    /// When that was done.
    pub at: Millis,
    /// The act of the person who wanted it; `None` for the daily run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SealedFile {
    /// Relative to the root.
    pub path: String,
    pub rows: u64,
    /// The earliest start (1970 when a row has none) and the latest end.
    pub since: Millis,
    pub until: Millis,
    /// In hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
    /// The root over its rows ([`RowTree`](super::proof::rows::RowTree)).
    pub row_root: Hash,
}

/// A [`Gap`] that later versions can read, whatever causes they know.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ArchivedGap {
    /// [`GapCause::name`].
    pub cause: String,
    pub from: Millis,
    pub to: Millis,
    pub lost: Option<u64>,
}

/// The name of a file of the archive, less its extension.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    /// Characters that have a meaning in paths are percent-encoded.
    pub gateway: String,
    pub since: Wall,
    pub until: Wall,
    pub number: u64,
    /// Which file of the seal; 0 is its record.
    pub part: u32,
}

impl Tree {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// The sealed files that can have a session that was alive then. A file may be gone when it is opened, because its
    /// rows are in another one now: list them anew then. While the archive is being written, use
    /// [`Reader::sessions`](super::spool::Reader::sessions) instead, or rows of files that are being merged come twice.
    ///
    /// # Errors
    /// When a directory cannot be read; one that does not exist has no files.
    pub fn sessions(&self, alive: &RangeInclusive<Millis>) -> io::Result<Vec<PathBuf>> {
        let files = self.session_files(alive)?;
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }

    /// The seal records that can tell about the interval: whether everything known of it is in the archive, and which
    /// gaps it has.
    ///
    /// # Errors
    /// When a record cannot be read, or is not one.
    pub fn seals(&self, interval: &RangeInclusive<Millis>) -> io::Result<Vec<Seal>> {
        let (files, mut seals) = (self.seal_files(interval)?, Vec::new());
        gather(
            files.len(),
            |place, each| each((place, read_seal(&files[place].1))),
            &mut |seal| seals.push(seal),
        );
        seals.sort_unstable_by_key(|(place, _)| *place);
        seals.into_iter().map(|(_, seal)| seal).collect()
    }

    /// The files of one partition.
    pub(super) fn partition(&self, partition: Partition) -> io::Result<Vec<(Name, PathBuf)>> {
        let folder = partition.folder();
        self.list(&folder, &folder, &(Millis::default()..=Millis::MAX))
    }

    /// The files that can have sessions that ended before this time, each with its kind of partition. The oldest of a kind
    /// come first.
    pub(super) fn ended_before(&self, time: Millis) -> io::Result<Vec<(OfEnd, Name, PathBuf)>> {
        let all = Millis::MIN..=Millis::MAX;
        let Some(last) = time.get().checked_sub(1).map(Millis::new) else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for (partition, _) in Partition::ALL {
            let (first, last) = (partition(Millis::MIN), partition(last));
            let mut found = self.list(&first.folder(), &last.folder(), &all)?;
            found.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
            let found = found.into_iter();
            files.extend(found.map(|(name, path)| (partition, name, path)));
        }
        Ok(files)
    }

    pub(super) fn session_files(
        &self,
        alive: &RangeInclusive<Millis>,
    ) -> io::Result<Vec<(Name, PathBuf)>> {
        let mut files = Vec::new();
        for (partition, longest) in Partition::ALL {
            let last = Millis::new(alive.end().get().saturating_add(longest));
            let (first, last) = (partition(*alive.start()), partition(last));
            files.append(&mut self.list(&first.folder(), &last.folder(), alive)?);
        }
        Ok(files)
    }

    pub(super) fn seal_files(
        &self,
        interval: &RangeInclusive<Millis>,
    ) -> io::Result<Vec<(Name, PathBuf)>> {
        let last = Millis::new(interval.end().get().saturating_add(DAY));
        let (first, last) = (seal_folder(*interval.start()), seal_folder(last));
        let mut files = self.list(&first, &last, interval)?;
        for folder in [LONG_SEALS, PURGES] {
            files.append(&mut self.list(folder, folder, interval)?);
        }
        Ok(files)
    }

    /// The records of seals whose `until` is this or later, and those of all purges, by their numbers.
    pub(super) fn seal_files_since(&self, until: Millis) -> io::Result<Vec<(Name, PathBuf)>> {
        let mut files = self.seal_files(&(until..=Millis::MAX))?;
        files.append(&mut self.list(PURGES, PURGES, &(Millis::MIN..=until))?);
        files.sort_unstable_by(|(a, a_path), (b, b_path)| {
            (a.number, a_path).cmp(&(b.number, b_path))
        });
        files.dedup();
        Ok(files)
    }

    /// The records of that gateway's seals with higher numbers, in their order.
    ///
    /// # Errors
    /// As for [`Self::seals`].
    pub fn seals_after(&self, gateway: &str, number: u64) -> io::Result<Vec<Seal>> {
        let mut files = self.seal_files(&(Millis::default()..=Millis::MAX))?;
        files.retain(|(name, _)| name.is_of(gateway) && name.number > number);
        files.sort_unstable_by_key(|(name, _)| name.number);
        files.iter().map(|(_, path)| read_seal(path)).collect()
    }

    /// The number of the latest seal of that gateway; 0 when there is none.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn last_number(&self, gateway: &str) -> io::Result<u64> {
        let gateway = encoded(gateway);
        let files = self.seal_files(&(Millis::default()..=Millis::MAX))?;
        let ours = files.iter().filter(|(name, _)| name.gateway == gateway);
        Ok(ours.map(|(name, _)| name.number).max().unwrap_or(0))
    }

    /// The files in the folders from `first` to `last` that can tell about `interval`. Folders sort by time.
    fn list(
        &self,
        first: &str,
        last: &str,
        interval: &RangeInclusive<Millis>,
    ) -> io::Result<Vec<(Name, PathBuf)>> {
        let top = first.split_once('/').map_or(first, |(top, _)| top);
        let second = |time: &Millis| Wall::from_secs(time.wall().as_secs());
        let interval = second(interval.start())..=second(interval.end());
        let (mut files, mut folders) = (Vec::new(), vec![top.to_owned()]);
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            let is_leaf = folder.matches('/').count() == first.matches('/').count();
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                // Other programs' files may have any name.
                let Some(name) = name.to_str() else { continue };
                if is_leaf {
                    let name = name
                        .rsplit_once('.')
                        .and_then(|(name, _)| Name::parse(name));
                    let found = name.filter(|name| {
                        name.since <= *interval.end() && name.until >= *interval.start()
                    });
                    files.extend(found.map(|name| (name, entry.path())));
                } else {
                    let inner = format!("{folder}/{name}");
                    let bounds = [first, last].map(|bound| bound.get(..inner.len()));
                    if let [Some(first), Some(last)] = bounds
                        && (first..=last).contains(&inner.as_str())
                    {
                        folders.push(inner);
                    }
                }
            }
        }
        Ok(files)
    }
}

/// A kind of partition: that of a session by its end.
pub(super) type OfEnd = fn(Millis) -> Partition;

const LONG_SEALS: &str = "seals/long";
const PURGES: &str = "seals/purges";

impl Partition {
    /// All of them by the end of a session, each with the longest life of its sessions.
    const ALL: [(OfEnd, u64); 4] = [
        (Self::sessions, HOUR),
        (Self::days, HOUR),
        (Self::long, DAY),
        (Self::longer, u64::MAX),
    ];

    pub fn of(row: &Row) -> Self {
        match row
            .start
            .map(|start| row.end.get().saturating_sub(start.get()))
        {
            Some(..=HOUR) => Self::sessions(row.end),
            Some(..=DAY) => Self::long(row.end),
            _ => Self::longer(row.end),
        }
    }

    // Hours and days of 48 bits of milliseconds fit 32 bits.
    pub(super) fn sessions(end: Millis) -> Self {
        Self::Sessions((end.get() / HOUR) as u32)
    }

    pub(super) fn days(end: Millis) -> Self {
        Self::Days((end.get() / DAY) as u32)
    }

    pub(super) fn long(end: Millis) -> Self {
        Self::Long((end.get() / DAY) as u32)
    }

    pub(super) fn longer(end: Millis) -> Self {
        let date = end.wall().to_utc();
        Self::Longer(date.year().unsigned_abs() * 12 + u32::from(u8::from(date.month())) - 1)
    }

    /// Relative to the root.
    pub fn folder(self) -> String {
        let date = |days: u32| format(Millis::new(u64::from(days) * DAY), DATE);
        match self {
            Self::Sessions(hours) => {
                let time = Millis::new(u64::from(hours) * HOUR);
                let hour = time.wall().to_utc().hour();
                format!("sessions/date={}/hour={hour:02}", format(time, DATE))
            }
            Self::Days(days) => format!("days/date={}", date(days)),
            Self::Long(days) => format!("long/date={}", date(days)),
            Self::Longer(months) => {
                format!("longer/month={:04}-{:02}", months / 12, months % 12 + 1)
            }
        }
    }

    /// As the index of a run has it.
    pub(super) const fn to_octets(self) -> [u8; 5] {
        let (kind, number) = match self {
            Self::Sessions(number) => (0, number),
            Self::Days(number) => (1, number),
            Self::Long(number) => (2, number),
            Self::Longer(number) => (3, number),
        };
        let [a, b, c, d] = number.to_be_bytes();
        [kind, a, b, c, d]
    }

    pub(super) fn from_octets([kind, a, b, c, d]: [u8; 5]) -> Option<Self> {
        let number = u32::from_be_bytes([a, b, c, d]);
        let kinds = [Self::Sessions, Self::Days, Self::Long, Self::Longer];
        kinds.get(usize::from(kind)).map(|kind| kind(number))
    }
}

impl Seal {
    pub fn name(&self) -> Name {
        // A gap may have begun long before it became known.
        let gaps = self.gaps.iter().map(|gap| gap.from.min(gap.to));
        let reach = match &self.purge {
            Some(purge) => purge.since..=purge.until,
            None => gaps.fold(self.from, Millis::min)..=self.until,
        };
        Name::new(&self.gateway, reach, self.number, 0)
    }

    /// Relative to the root.
    pub fn path(&self) -> String {
        let name = self.name();
        let reach = name.until.as_millis() - name.since.as_millis();
        let folder = match reach {
            _ if self.purge.is_some() => PURGES.to_owned(),
            ..=DAY => seal_folder(self.until),
            _ => LONG_SEALS.to_owned(),
        };
        format!("{folder}/{name}.json")
    }
}

impl From<&Gap> for ArchivedGap {
    fn from(gap: &Gap) -> Self {
        Self {
            cause: gap.cause.name().to_owned(),
            from: gap.from.into(),
            to: gap.to.into(),
            lost: gap.lost,
        }
    }
}

impl ArchivedGap {
    /// `None` for a cause of a later version.
    pub fn gap(&self) -> Option<Gap> {
        let cause = GapCause::ALL
            .into_iter()
            .find(|cause| cause.name() == self.cause)?;
        Some(Gap {
            cause,
            from: self.from.wall(),
            to: self.to.wall(),
            lost: self.lost,
        })
    }
}

impl Name {
    pub(super) fn new(
        gateway: &str,
        reach: RangeInclusive<Millis>,
        number: u64,
        part: u32,
    ) -> Self {
        let seconds = Wall::from_millis(reach.end().get().saturating_add(999)).as_secs();
        Self {
            gateway: encoded(gateway),
            since: Wall::from_secs(reach.start().wall().as_secs()),
            until: Wall::from_secs(seconds),
            number,
            part,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(5, '-');
        let mut next = || parts.next();
        let (part, number, until, since) = (next()?, next()?, next()?, next()?);
        Some(Self {
            gateway: next()?.to_owned(),
            since: parse_stamp(since)?,
            until: parse_stamp(until)?,
            number: number.parse().ok()?,
            part: part.parse().ok()?,
        })
    }

    pub(super) fn is_of(&self, gateway: &str) -> bool {
        self.gateway == encoded(gateway)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = |time: Wall| time.to_utc().format(STAMP).map_err(|_| fmt::Error);
        let (since, until) = (stamp(self.since)?, stamp(self.until)?);
        let (gateway, number, part) = (&self.gateway, self.number, self.part);
        write!(f, "{gateway}-{since}-{until}-{number}-{part}")
    }
}

fn parse_stamp(text: &str) -> Option<Wall> {
    let time = PrimitiveDateTime::parse(text, STAMP).ok()?.assume_utc();
    Some(Wall::from_secs(time.unix_timestamp().try_into().ok()?))
}

fn read_seal(path: &Path) -> io::Result<Seal> {
    let wrong = |reason: &dyn fmt::Display| {
        io::Error::other(format!("{}: not a seal record: {reason}", path.display()))
    };
    let text = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    serde_json::from_slice(&text).map_err(|error| wrong(&error))
}

fn seal_folder(until: Millis) -> String {
    format!("seals/date={}", date(until))
}

/// As names of directories have it, in UTC.
pub(super) fn date(time: Millis) -> String {
    format(time, DATE)
}

fn format(time: Millis, format: &[BorrowedFormatItem<'_>]) -> String {
    let time: OffsetDateTime = time.wall().to_utc();
    // A date in the years from 1970 to 2554 has every component.
    time.format(format).unwrap_or_default()
}

/// As names of files have it.
pub(super) fn encoded(gateway: &str) -> String {
    let mut name = String::new();
    for octet in gateway.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                name.push(octet.into());
            }
            _ => name.push_str(&format!("%{octet:02X}")),
        }
    }
    name
}

#[cfg(test)]
mod tests;
