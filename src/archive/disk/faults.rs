//! Faults of the disk, for tests: the n-th operation fails, or it and all after it do, as if the program had ended there;
//! and what was not synced can be taken away, as by a loss of power. The state belongs to the thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Step;

thread_local! {
    static DISK: RefCell<Disk> = RefCell::default();
}

#[derive(Default)]
struct Disk {
    steps: u64,
    fault: Option<(u64, Fault)>,
    /// Files with writes that were not synced, by inode: what the disk has.
    unsynced: HashMap<u64, Vec<u8>>,
    /// Names that were not synced, in the order of the operations.
    names: Vec<Undo>,
    watch: Option<Box<dyn FnMut()>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The operation fails, and the next succeeds.
    Once,
    /// No operation succeeds any more.
    End,
}

struct Undo {
    /// Whose sync makes it durable.
    directory: PathBuf,
    operation: Operation,
}

enum Operation {
    Create(PathBuf),
    CreateDirectory(PathBuf),
    /// The files, and what was in them.
    Remove(Vec<(PathBuf, Vec<u8>)>),
    Rename(PathBuf, PathBuf, Option<Vec<u8>>),
}

/// The operations to stop at: each `step`-th from `first` on, or every one where `NATTRAIL_FAULTS` is set.
pub fn operations(first: u64, step: usize) -> impl Iterator<Item = u64> {
    let (first, step) = if tries_all() { (1, 1) } else { (first, step) };
    (first..).step_by(step)
}

/// The bits to flip: one of each octet, or every one where `NATTRAIL_FAULTS` is set.
pub fn bits(octets: usize) -> impl Iterator<Item = usize> {
    (0..octets * 8).filter(|bit| bit % 8 == bit / 8 % 8 || tries_all())
}

/// Whether a test tries all that can go wrong, and not some in turn.
pub fn tries_all() -> bool {
    std::env::var_os("NATTRAIL_FAULTS").is_some()
}

/// Forgets all that was, and makes operation `at` (from 1 on) fail.
pub fn begin(at: u64, fault: Fault) {
    DISK.set(Disk {
        fault: Some((at, fault)),
        ..Disk::default()
    });
}

/// No further operation fails. Whether one did.
pub fn end() -> bool {
    DISK.with_borrow_mut(|disk| {
        let fault = disk.fault.take();
        fault.is_some_and(|(at, _)| disk.steps >= at)
    })
}

/// Calls `watch` before each operation.
pub fn watch(watch: impl FnMut() + 'static) {
    DISK.set(Disk {
        watch: Some(Box::new(watch)),
        ..Disk::default()
    });
}

pub fn unwatch() {
    DISK.set(Disk::default());
}

/// Takes from the files below `root` what was not synced, and all but the first `kept` changes of names.
pub fn lose_power(root: &Path, kept: impl Fn(usize) -> usize) {
    let Disk {
        mut unsynced,
        mut names,
        ..
    } = DISK.take();
    restore(root, &mut unsynced);
    let kept = kept(names.len());
    for undo in names.drain(kept..).rev() {
        match undo.operation {
            Operation::Create(path) => drop(fs::remove_file(path)),
            Operation::CreateDirectory(path) => drop(fs::remove_dir_all(path)),
            Operation::Remove(files) => {
                for (path, octets) in files {
                    path.parent().map(fs::create_dir_all);
                    let _ = fs::write(path, octets);
                }
            }
            Operation::Rename(from, to, old) => {
                let _ = fs::rename(&to, from);
                old.map(|octets| fs::write(to, octets));
            }
        }
    }
}

pub fn step(step: Step<'_>) -> io::Result<()> {
    let watch = DISK.with_borrow_mut(|disk| disk.watch.take());
    if let Some(mut watch) = watch {
        watch();
        DISK.with_borrow_mut(|disk| disk.watch = Some(watch));
    }
    DISK.with_borrow_mut(|disk| disk.step(step))
}

impl Disk {
    fn step(&mut self, step: Step<'_>) -> io::Result<()> {
        self.steps += 1;
        let is_fault = self.fault.is_some_and(|(at, fault)| match fault {
            Fault::Once => self.steps == at,
            Fault::End => self.steps >= at,
        });
        // A part of a write that fails is written.
        if let Step::Write(file) | Step::Cut(file) = step {
            let inode = file.metadata()?.ino();
            self.unsynced.entry(inode).or_insert_with(|| contents(file));
        }
        if is_fault {
            return Err(io::Error::other("fault"));
        }
        match step {
            Step::Write(_) | Step::Cut(_) => {}
            Step::Sync(file) => {
                self.unsynced.remove(&file.metadata()?.ino());
            }
            Step::SyncDirectory(path) => self.names.retain(|undo| undo.directory != path),
            Step::Create(path) => self.note(path, Operation::Create(path.into())),
            Step::CreateDirectory(path) => {
                self.note(path, Operation::CreateDirectory(path.into()));
            }
            Step::Remove(path) => {
                let mut removed = Vec::new();
                files(path, &mut removed);
                self.note(path, Operation::Remove(removed));
            }
            Step::Rename(from, to) => {
                let old = fs::read(to).ok();
                self.note(to, Operation::Rename(from.into(), to.into(), old));
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &Path, operation: Operation) {
        let directory = path.parent().unwrap_or(path).to_owned();
        self.names.push(Undo {
            directory,
            operation,
        });
    }
}

fn contents(file: &File) -> Vec<u8> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut octets = vec![0; length as usize];
    drop(file.read_exact_at(&mut octets, 0));
    octets
}

/// A file, or all below a directory.
fn files(path: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        files(&entry.path(), found);
    }
    found.extend(fs::read(path).map(|octets| (path.to_owned(), octets)));
}

fn restore(directory: &Path, unsynced: &mut HashMap<u64, Vec<u8>>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            restore(&path, unsynced);
        } else if let Some(octets) = entry
            .metadata()
            .ok()
            .and_then(|it| unsynced.remove(&it.ino()))
        {
            drop(fs::write(path, octets));
        }
    }
}
