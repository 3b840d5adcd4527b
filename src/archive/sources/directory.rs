//! An archive directory, with the database of its daemon where that is on this host.
//!
//! The database is read first and the spool is opened after it, so that a record that the archive takes meanwhile is in
//! one of them, or in both. If the archive puts another file in the place of one that is to be read, all of it is read
//! anew; what comes twice counts once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::database::{self, Database, Heard};
use crate::archive::answer::{Coverage, Found, Source};
use crate::archive::gather::gather;
use crate::archive::row::{Millis, Row};
use crate::archive::spool::Reader;
use crate::archive::table::{self, Table};
use crate::archive::tree::Seal;
use crate::archive::wanted::Wanted;

/// How often the archive may replace a file that is to be read.
const TRIES: usize = 20;

#[derive(Debug)]
pub(super) struct Directory<'a> {
    root: &'a Path,
    /// The database, and the gateway's name.
    database: Option<(&'a Database, &'a Rc<str>)>,
    /// As the first question found it.
    first: Option<(Option<Heard>, Option<Reader>)>,
}

impl<'a> Directory<'a> {
    pub(super) const fn new(root: &'a Path, database: Option<(&'a Database, &'a Rc<str>)>) -> Self {
        Self {
            root,
            database,
            first: None,
        }
    }

    /// One whose database and files were read already.
    pub(super) const fn read_before(
        root: &'a Path,
        database: Option<(&'a Database, &'a Rc<str>)>,
        heard: Option<Heard>,
        reader: Option<Reader>,
    ) -> Self {
        let first = Some((heard, reader));
        Self {
            root,
            database,
            first,
        }
    }

    pub(super) const fn root(&self) -> &Path {
        self.root
    }

    pub(super) fn reader(&self) -> Option<&Reader> {
        self.first.as_ref()?.1.as_ref()
    }

    /// The gateway of the spool and of the database.
    pub(super) fn gateway(&self, reader: Option<&Reader>) -> Option<Rc<str>> {
        let spool = reader.and_then(|reader| reader.gateway()).map(Rc::from);
        spool.or_else(|| self.database.map(|(_, name)| name.clone()))
    }

    /// Hands over what the spool and the sealed files have. Returns whether a file was gone.
    fn read(
        &self,
        reader: &Reader,
        wanted: &[Wanted],
        each: &mut dyn FnMut(Found),
        problems: &mut Vec<String>,
    ) -> bool {
        let mut hand = |gateway: &Rc<str>, row: Row| {
            let gateway = gateway.clone();
            each(Found {
                gateway,
                row,
                is_open: false,
            });
        };
        let (mut gateways, mut is_gone) = (HashMap::new(), false);
        let mut paths: BTreeMap<PathBuf, Vec<&Wanted>> = BTreeMap::new();
        for wanted in wanted {
            if let Some(gateway) = self.gateway(Some(reader)) {
                let found = reader.find(wanted, &mut |row| hand(&gateway, row));
                problems.extend(found.err().map(|error| error.to_string()));
            }
            match reader.sessions(&wanted.alive) {
                Ok(found) => found
                    .into_iter()
                    .for_each(|path| paths.entry(path).or_default().push(wanted)),
                Err(error) if error.is_gone() => return true,
                Err(error) => problems.push(error.to_string()),
            }
        }
        let paths: Vec<_> = paths.into_iter().collect();
        gather(
            paths.len(),
            |place, each| {
                let (path, wanted) = &paths[place];
                find(path, wanted, &mut |find| each((place, find)));
            },
            &mut |(place, find)| match find {
                Find::Gateway(name) => {
                    gateways.insert(place, Rc::from(name));
                }
                Find::Row(row) => hand(&gateways[&place], row),
                Find::Problem(problem) => problems.push(problem),
                Find::Gone => is_gone = true,
            },
        );
        is_gone
    }
}

/// What comes of a file.
enum Find {
    /// The first of all.
    Gateway(String),
    Row(Row),
    Problem(String),
    Gone,
}

fn find(path: &Path, wanted: &[&Wanted], each: &mut dyn FnMut(Find)) {
    let mut table = match Table::open(path) {
        Ok(table) => table,
        Err(error) if is_gone(&error) => return each(Find::Gone),
        Err(error) => return each(Find::Problem(explain(path, &error))),
    };
    each(Find::Gateway(table.gateway().to_owned()));
    for wanted in wanted {
        if let Err(error) = table.find(wanted, &mut |row| each(Find::Row(row))) {
            each(Find::Problem(explain(path, &error)));
        }
    }
}

impl Directory<'_> {
    /// Looks for files that can have a session of that time, and that neither exist nor were replaced.
    fn find_missing(
        &self,
        seals: &[Seal],
        time: &RangeInclusive<Millis>,
        problems: &mut Vec<String>,
    ) {
        let replaced: HashSet<_> = seals.iter().flat_map(|seal| &seal.replaces).collect();
        // The files of the last seal may still be on their way to their places.
        let is_last = |seal: &&Seal| {
            let mut others = seals.iter();
            !others.any(|other| other.gateway == seal.gateway && other.number > seal.number)
        };
        for seal in seals.iter().filter(|seal| !is_last(seal)) {
            let files = seal.files.iter().filter(|file| file.until >= *time.start());
            for file in files.filter(|file| !replaced.contains(&file.path)) {
                let path = self.root.join(&file.path);
                if !path.exists() {
                    let path = path.display();
                    problems.push(format!(
                        "\"{path}\" is missing, and its {} sessions with it: it was deleted, or not copied",
                        file.rows
                    ));
                }
            }
        }
    }
}

impl Source for Directory<'_> {
    fn find(&mut self, wanted: &[Wanted], each: &mut dyn FnMut(Found), problems: &mut Vec<String>) {
        let heard = self.database.and_then(|(path, _)| {
            let reader = Reader::open(self.root).ok();
            let gateway = self.gateway(reader.as_ref())?;
            let found = database::find(path, &gateway, wanted, each);
            found.map_err(|problem| problems.push(problem)).ok()
        });
        let known = problems.len();
        let mut reader = None;
        for _ in 0..TRIES {
            problems.truncate(known);
            match Reader::open(self.root) {
                Ok(opened) => {
                    let is_gone = self.read(&opened, wanted, each, problems);
                    reader = Some(opened);
                    if !is_gone {
                        break;
                    }
                    let root = self.root.display();
                    problems.push(format!(
                        "archive \"{root}\": its files are replaced too fast; ask again"
                    ));
                }
                Err(error) => {
                    problems.push(error.to_string());
                    break;
                }
            }
        }
        self.first.get_or_insert((heard, reader));
    }

    fn coverage(
        &mut self,
        time: &RangeInclusive<Millis>,
        problems: &mut Vec<String>,
    ) -> Vec<Coverage> {
        let Some((heard, reader)) = &self.first else {
            return Vec::new();
        };
        let mut coverages = Vec::new();
        if let Some(reader) = reader {
            match reader.seals(time) {
                Ok(seals) => {
                    if *time.end() == Millis::MAX {
                        self.find_missing(&seals, time, problems);
                    }
                    coverages.extend(seals.into_iter().map(|seal| Coverage {
                        gateway: seal.gateway.as_str().into(),
                        known: vec![seal.from..seal.until],
                        gaps: seal.gaps.iter().filter_map(|gap| gap.gap()).collect(),
                        open: None,
                        purges: seal.purge.into_iter().collect(),
                    }));
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let Some(gateway) = self.gateway(reader.as_ref()) {
            let sealed = reader.as_ref().and_then(|reader| reader.sealed_until());
            let gaps = reader.as_ref().map_or(&[][..], |reader| reader.gaps());
            let mut gaps: Vec<_> = gaps.iter().filter_map(|gap| gap.gap()).collect();
            let until = heard.as_ref().map(|heard| heard.until);
            gaps.extend(heard.iter().flat_map(|heard| &heard.gaps));
            let known = sealed.zip(until).map(|(from, until)| from..until);
            coverages.push(Coverage {
                gateway,
                known: known.into_iter().collect(),
                gaps,
                open: until,
                purges: Vec::new(),
            });
        }
        coverages
    }
}

pub(super) fn is_gone(error: &table::Error) -> bool {
    matches!(error, table::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound)
}

pub(super) fn explain(path: &Path, error: &table::Error) -> String {
    let remedy = match error {
        table::Error::Foreign(_) => {
            "move it out of the archive, or ask with the version of nattrail that made it"
        }
        table::Error::Io(_) | table::Error::Damaged(_) => "restore the file from a copy",
    };
    format!(
        "\"{}\" {error}; its sessions are left out: {remedy}",
        path.display()
    )
}
