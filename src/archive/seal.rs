//! Sealing: the rows of the spool become sorted, immutable files, and a record says which.
//!
//! Runs are merged partition by partition, so that one file is written at a time; memory is that for one block of each run
//! and one row group. The files and their record go to their places after the spool's journal names them
//! ([`super::spool`] says what that means for crashes). Merging the files of a day uses the same steps, and so does
//! deleting sessions ([`purge`]).

mod merge;
mod purge;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use self::merge::{Damage, FileWriter, Kept, merge, unreadable};
use super::disk::{self, Output, create_directory, remove, rename, sync_directory};
use super::row::{Millis, Row};
use super::spool::{Change, Error, Head, Run, RunInfo, RunWriter, Spool};
use super::table::{self, Table};
use super::tree::{DAY, HOUR, Partition, Seal, SealedFile};
use crate::session::GapCause;

/// The first of the numbers that runs have while files are rewritten. No seal has so many files.
const RUNS: usize = 1 << 20;

/// Files are merged when they have fewer rows than this together.
const SMALL_DAY: u64 = 1_000_000;

const SCHEMA: u32 = 1;

impl Spool {
    /// Seals what was committed: rows that ended before `until`, up to which everything is known, and all gaps. Usually
    /// `until` is the end of an hour; it may be any time when the spool [is full](Self::is_full). There is a record even
    /// when there are no sessions.
    ///
    /// # Errors
    /// Then the same call later goes on with it.
    pub fn seal(&mut self, until: Millis) -> Result<Seal, Error> {
        if let Some(last) = self.finish_seal()?
            && last.replaces.is_empty()
            && last.until >= until
        {
            return Ok(last);
        }
        self.end_journal()?;
        let until = until.max(self.manifest.from);
        let (runs, merged) = self.write_seal(until).map_err(|error| self.undo(error))?;
        self.commit_seal(runs, merged)
    }

    /// Merges the small files of a past day, and those of its month for sessions of more than a day, into one of each kind.
    /// The records of the seals stay; new ones say which files were replaced.
    ///
    /// # Errors
    /// Then the same call later goes on with it.
    pub fn compact(&mut self, day: Millis) -> Result<Vec<Seal>, Error> {
        self.finish_seal()?;
        let hours = (0..24).map(|hour| Millis::new((day.get() / DAY * 24 + hour) * HOUR));
        let mut sessions: Vec<_> = hours.map(Partition::sessions).collect();
        sessions.push(Partition::days(day));
        let (long, longer) = (Partition::long(day), Partition::longer(day));
        let mut seals = Vec::new();
        for (from, to) in [
            (sessions, Partition::days(day)),
            (vec![long], long),
            (vec![longer], longer),
        ] {
            match self.write_merged(&from, to) {
                Ok(None) => {}
                Ok(Some(merged)) => {
                    self.end_journal()?;
                    seals.push(self.commit_seal(self.manifest.runs.clone(), merged)?);
                }
                Err(error) => return Err(self.undo(error)),
            }
        }
        Ok(seals)
    }

    /// Finishes the last seal where that is left to do, and returns it then.
    pub(super) fn finish_seal(&mut self) -> Result<Option<Seal>, Error> {
        let Some(Change { seal, damaged }) = self.manifest.change.clone() else {
            return Ok(None);
        };
        self.settle()?;
        let record = self.sealed_path(seal.number, 0);
        let json =
            serde_json::to_vec_pretty(&seal).map_err(|error| Error::io(&record)(error.into()))?;
        Output::create(&record, disk::FILE)?
            .append(&json)
            .map_err(Error::io(&record))?;
        let record_path = seal.path();
        let parts = seal.files.iter().map(|file| &file.path).enumerate();
        let parts = parts.map(|(index, path)| (index + 1, path));
        // The record comes last: whoever finds it finds its files.
        let mut folders = BTreeSet::new();
        for (part, path) in parts.chain([(0, &record_path)]) {
            let (from, to) = (
                self.sealed_path(seal.number, part),
                self.tree.root().join(path),
            );
            if let Some(folder) = to.parent() {
                create_directory(folder, disk::DIRECTORY)?;
                folders.insert(folder.to_owned());
            }
            if fs::exists(&from).map_err(Error::io(&from))? {
                rename(&from, &to)?;
            }
        }
        folders
            .iter()
            .try_for_each(|folder| sync_directory(folder))?;
        folders.clear();
        for path in &seal.replaces {
            let path = self.tree.root().join(path);
            remove(&path)?;
            folders.extend(path.parent().map(Path::to_owned));
        }
        for number in damaged {
            let path = self.run_path(number);
            if fs::exists(&path).map_err(Error::io(&path))? {
                rename(&path, &path.with_extension("damaged"))?;
                folders.insert(self.directory.clone());
            }
        }
        folders
            .iter()
            .try_for_each(|folder| sync_directory(folder))?;
        self.remove_leftovers()?;
        self.append(Head::Finished, &[])?;
        // Only those that are empty go, and one that stays does no harm.
        for path in &seal.replaces {
            let folders = self.tree.root().join(path);
            for folder in folders.ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(folder);
            }
        }
        Ok(Some(seal))
    }

    /// `runs` are those that stay.
    fn commit_seal(&mut self, runs: Vec<RunInfo>, merged: Merged) -> Result<Seal, Error> {
        let Merged { seal, damaged } = merged;
        let mut manifest = self.manifest.clone();
        if seal.replaces.is_empty() {
            (manifest.begun, manifest.ended, manifest.gaps) = (0, 0, Vec::new());
        }
        manifest.sealed = seal.number;
        manifest.from = seal.until;
        manifest.next_run += 1;
        manifest.runs = runs;
        manifest.change = Some(Change { seal, damaged });
        if let Err(error) = self.replace_journal(manifest) {
            return Err(self.undo(error));
        }
        let directory = self.directory.clone();
        // It was just committed.
        self.finish_seal()?
            .ok_or(Error::Damaged(directory, "its last seal is gone"))
    }

    /// Makes room on a full disk, after a seal that failed before it was committed.
    fn undo(&self, error: Error) -> Error {
        if self.manifest.change.is_none() {
            let _ = self.remove_leftovers();
        }
        error
    }

    fn write_seal(&self, until: Millis) -> Result<(Vec<RunInfo>, Merged), Error> {
        let mut damage = Damage::default();
        let mut runs = Vec::new();
        for info in &self.manifest.runs {
            match Run::open(&self.run_path(info.number)) {
                Ok(run) => runs.push((info, run)),
                Err(error) if error.is_gone() || matches!(error, Error::Damaged(..)) => {
                    damage.note(info, info.rows);
                }
                Err(error) => return Err(error),
            }
        }
        let number = self.manifest.next_run;
        let mut kept = Kept::new(self.run_path(number), number);
        let mut seal = self.new_seal(until);
        let partitions: BTreeSet<_> = runs.iter().flat_map(|(_, run)| run.partitions()).collect();
        for partition in partitions {
            let mut cursors: Vec<_> = runs.iter().map(|(_, run)| run.cursor(partition)).collect();
            let mut file = None;
            merge(&mut cursors, |row, octets| {
                if row.end >= until {
                    return kept.push(partition, row, octets);
                }
                if file.is_none() {
                    file = Some(self.begin_file(&seal)?);
                }
                file.as_mut().map_or(Ok(()), |file| file.push(row))
            })?;
            seal.files
                .extend(file.map(|file| file.finish(partition, &seal)).transpose()?);
            for (cursor, (info, _)) in cursors.iter().zip(&runs) {
                damage.note(info, cursor.damaged);
            }
        }
        let runs: Vec<_> = kept.finish()?.into_iter().collect();
        seal.kept = runs.iter().map(|run| run.rows).sum();
        seal.damaged = damage.rows();
        seal.gaps.extend(damage.gaps());
        seal.lost = seal
            .gaps
            .iter()
            .filter(|gap| tells_of_records(&gap.cause))
            .filter_map(|gap| gap.lost)
            .sum();
        Ok((
            runs,
            Merged {
                seal,
                damaged: damage.runs(),
            },
        ))
    }

    /// `None` when there is nothing to merge.
    fn write_merged(&self, from: &[Partition], to: Partition) -> Result<Option<Merged>, Error> {
        let mut paths = Vec::new();
        for partition in from {
            let files = self
                .tree
                .partition(*partition)
                .map_err(Error::io(self.tree.root()))?;
            let ours = files
                .into_iter()
                .filter(|(name, _)| name.is_of(&self.manifest.gateway));
            paths.extend(ours.map(|(_, path)| path));
        }
        let mut tables = Vec::new();
        for path in &paths {
            tables.push(Table::open(path).map_err(unreadable(path))?);
        }
        let rows: u64 = tables.iter().map(|table| table.summary().rows).sum();
        if tables.len() < 2 || rows > SMALL_DAY {
            return Ok(None);
        }
        let mut seal = self.new_rewriting();
        let mut runs = Vec::new();
        for (table, path) in tables.iter_mut().zip(&paths) {
            let read = |each: &mut dyn FnMut(Row)| table.for_each(each);
            runs.push(self.write_run(&seal, runs.len(), to, path, read)?);
            self.replace(&mut seal, path);
        }
        let file = self.merge_runs(&seal, &runs, to)?;
        seal.files.push(file);
        Ok(Some(Merged::rewritten(seal)))
    }

    /// Notes that others have the rows of a file now.
    fn replace(&self, seal: &mut Seal, path: &Path) {
        let relative = path.strip_prefix(self.tree.root()).unwrap_or(path);
        seal.replaces.push(relative.display().to_string());
    }

    /// Writes the rows that `read` gives of the file `from`, sorted. `index` tells the runs of one new file apart.
    fn write_run(
        &self,
        seal: &Seal,
        index: usize,
        to: Partition,
        from: &Path,
        read: impl FnOnce(&mut dyn FnMut(Row)) -> Result<(), table::Error>,
    ) -> Result<Run, Error> {
        let path = self.sealed_path(seal.number, RUNS + index);
        let mut run = RunWriter::create(&path)?;
        let (mut octets, mut pushed) = (Vec::new(), Ok(()));
        let given = read(&mut |row| {
            if pushed.is_ok() {
                octets.clear();
                row.encode(&mut octets);
                pushed = run.push(to, &row.key(), &octets);
            }
        });
        given.map_err(unreadable(from))?;
        pushed?;
        run.finish()?;
        Run::open(&path)
    }

    /// Writes one file from runs that were just written.
    fn merge_runs(&self, seal: &Seal, runs: &[Run], to: Partition) -> Result<SealedFile, Error> {
        let mut cursors: Vec<_> = runs.iter().map(|run| run.cursor(to)).collect();
        let mut file = self.begin_file(seal)?;
        merge(&mut cursors, |row, _| file.push(row))?;
        if cursors.iter().any(|cursor| cursor.damaged > 0) {
            return Err(Error::Damaged(
                self.directory.clone(),
                "the disk changes what is written",
            ));
        }
        file.finish(to, seal)
    }

    /// Of files that are sealed already.
    fn new_rewriting(&self) -> Seal {
        Seal {
            begun: 0,
            ended: 0,
            gaps: Vec::new(),
            ..self.new_seal(self.manifest.from)
        }
    }

    fn new_seal(&self, until: Millis) -> Seal {
        let manifest = &self.manifest;
        Seal {
            schema: SCHEMA,
            gateway: manifest.gateway.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            number: manifest.sealed + 1,
            from: manifest.from,
            until,
            begun: manifest.begun,
            ended: manifest.ended,
            kept: 0,
            damaged: 0,
            lost: 0,
            gaps: manifest.gaps.clone(),
            files: Vec::new(),
            replaces: Vec::new(),
            purge: None,
        }
    }

    fn begin_file(&self, seal: &Seal) -> Result<FileWriter, Error> {
        let path = self.sealed_path(seal.number, seal.files.len() + 1);
        FileWriter::create(&path, &seal.gateway)
    }
}

/// Whether the number that such a gap has is one of records.
pub(super) fn tells_of_records(cause: &str) -> bool {
    let causes = [
        GapCause::Overflow,
        GapCause::Undecoded,
        GapCause::Undelivered,
    ];
    causes.iter().any(|it| it.name() == cause)
}

/// What is to be committed.
struct Merged {
    seal: Seal,
    /// Runs to set aside.
    damaged: Vec<u64>,
}

impl Merged {
    const fn rewritten(seal: Seal) -> Self {
        let damaged = Vec::new();
        Self { seal, damaged }
    }
}
