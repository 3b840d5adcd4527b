//! What `nattrail who` and `nattrail report` read: the database of the daemon beside it, and archive directories.

mod database;
mod day;
mod directory;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use self::database::Database;
use self::directory::Directory;
use super::answer::Source;
use crate::config::Config;
use crate::kernel::host_name;

/// The database and the directories, to be opened for each question.
#[derive(Debug)]
pub struct Sources {
    database: Option<Database>,
    /// The first one is that of the database's daemon.
    directories: Vec<PathBuf>,
    gateway: Rc<str>,
}

impl Sources {
    /// Those of this host, as far as they are there, and `others`.
    ///
    /// # Errors
    /// When there is none: the objects, what was expected, and what to do.
    pub fn new(config: &Config, others: &[PathBuf]) -> Result<Self, String> {
        let database = &config.pending.database;
        let own = &config.archive.directory;
        for path in others {
            if !path.is_dir() {
                let path = path.display();
                return Err(format!(
                    "archive \"{path}\": expected a directory, found none; see --archive"
                ));
            }
        }
        // One in a directory that the user cannot enter may be there: reading it says so.
        let is_there = |path: &Path| match path.symlink_metadata() {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::PermissionDenied,
        };
        let database = is_there(database).then(|| Database::new(config));
        let mut directories = vec![own.clone()];
        directories.extend(others.iter().filter(|path| *path != own).cloned());
        if database.is_none() && others.is_empty() && !is_there(own) {
            return Err(format!(
                "expected the database \"{}\" or the archive \"{}\", found neither: ask where the daemon runs, or name a copy of \
                 an archive (--archive)",
                config.pending.database.display(),
                own.display()
            ));
        }
        let gateway = config.archive.gateway.clone().unwrap_or_else(host_name);
        Ok(Self {
            database,
            directories,
            gateway: gateway.into(),
        })
    }

    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// All of them, for one question.
    pub fn open(&self) -> Vec<Box<dyn Source + '_>> {
        let opened = self.places();
        let opened = opened.map(|(root, database)| Directory::new(root, database));
        opened
            .map(|source| Box::new(source) as Box<dyn Source>)
            .collect()
    }

    /// The directories, each with the database that belongs to it, and the name of its gateway.
    fn places(&self) -> impl Iterator<Item = (&Path, Option<(&Database, &Rc<str>)>)> {
        let database = self.database.as_ref().map(|it| (it, &self.gateway));
        let databases = std::iter::once(database).chain(std::iter::repeat(None));
        self.directories.iter().map(PathBuf::as_path).zip(databases)
    }
}
