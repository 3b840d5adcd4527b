//! The properties that every test of a conversion checks: the loader accepts it, and it has each note as a comment.

#![allow(clippy::unwrap_used)]

use super::{Conversion, Note};
use crate::config::Config;

/// The result, as the loader reads it.
pub(super) fn load(conversion: &Conversion) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nattrail.toml");
    std::fs::write(&file, &conversion.toml).unwrap();
    let loaded = Config::load(Some(&file), std::iter::empty());
    loaded
        .unwrap_or_else(|error| panic!("{error}\n{}", conversion.toml))
        .config
}

/// The same, and the notes.
pub(super) fn loaded(conversion: &Conversion) -> (Config, Vec<String>) {
    let notes: Vec<_> = conversion.notes.iter().map(Note::to_string).collect();
    // The notes are broken into comment lines.
    let unbroken = conversion.toml.replace("\n#  ", "");
    for note in &notes {
        assert!(
            unbroken.contains(&format!("# - {}\n", note.replace('\n', " "))),
            "{note}\n{unbroken}"
        );
    }
    (load(conversion), notes)
}
