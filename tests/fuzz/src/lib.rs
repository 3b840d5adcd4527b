//! The common parts of the fuzz targets. `make fuzz` runs them with libFuzzer, each on the directory of its corpus. A target that
//! failed names the file with the input; run with that file in place of the directory, it fails again.

#![allow(clippy::unwrap_used, reason = "a target that cannot begin has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use nattrail::config::{Config, keys::Section};
use tempfile::TempDir;

/// Puts the seeds into the corpus, and beside it a dictionary (`CORPUS.dict`) of the words.
pub fn prepare<W: AsRef<str>>(
    seeds: impl IntoIterator<Item = impl AsRef<[u8]>>,
    words: impl IntoIterator<Item = W>,
) {
    let corpus = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let corpus = PathBuf::from(corpus.expect("the directory of the corpus is an argument"));
    if corpus.is_file() {
        return;
    }
    fs::create_dir_all(&corpus).unwrap();
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number}")), seed).unwrap();
    }
    let words = words
        .into_iter()
        .map(|word| format!("\"{}\"\n", word.as_ref()));
    let dictionary: String = std::iter::once("# words\n".to_owned())
        .chain(words)
        .collect();
    fs::write(corpus.with_extension("dict"), dictionary).unwrap();
}

/// Every section, key and preset of the configuration.
pub fn words() -> Vec<String> {
    let mut words = Vec::new();
    for section in Section::ALL {
        words.push(section.name().to_owned());
        for key in section.keys() {
            words.push(key.name.to_owned());
            words.push(key.preset.sample().trim_matches(['"', '[', ']']).to_owned());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A directory for configurations.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The configuration of this text, or one line for each mistake in it.
    pub fn load(
        &self,
        extension: &str,
        text: &[u8],
        environment: &[(String, String)],
    ) -> Result<Config, String> {
        let file = self.path().join("nattrail").with_extension(extension);
        fs::write(&file, text).unwrap();
        let loaded = Config::load(Some(&file), environment.iter().cloned());
        loaded
            .map(|loaded| loaded.config)
            .map_err(|error| error.to_string())
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// A message for people: it says something, and nothing that a terminal would obey.
pub fn check_message(message: &str) {
    let is_control = |c: char| c.is_control() && c != '\n';
    assert!(
        !message.trim().is_empty() && !message.contains(is_control),
        "{message:?}"
    );
}
