//! Loading: a file in one of four formats, the environment on top, all mistakes at once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use config::{FileFormat, Format, Value};

use super::Config;
use super::build;
use super::document::Document;
use super::file::{self, Contents};
use super::keys::Section;
use super::nesting;
use super::problem::{Problem, Problems, cut};
use super::syntax;
use super::tree::Table;

/// Read when no other file is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/nattrail/nattrail.toml";

const STATE_VARIABLE: &str = "STATE_DIRECTORY";
const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/nattrail";
const RUNTIME_VARIABLE: &str = "RUNTIME_DIRECTORY";
const DEFAULT_RUNTIME_DIRECTORY: &str = "/run/nattrail";
/// Where a message says a value came from when there is no file.
const EMBEDDED: &str = "built-in configuration";
/// Most characters of a parser's message, which may quote as much of the file as it likes.
const LONGEST_MESSAGE: usize = 300;

/// A configuration, where it was read from, and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// The file; `None` when there is none and the built-in defaults hold.
    pub file: Option<PathBuf>,
    /// None of them is a reason not to start.
    pub warnings: Vec<Problem>,
}

/// Why there is no configuration. Its text has one line for each mistake.
#[derive(Debug)]
pub enum Error {
    Unreadable {
        file: PathBuf,
        error: io::Error,
    },
    /// It is larger, or another kind of file, than a configuration may be.
    Unfit {
        file: PathBuf,
        message: String,
    },
    UnknownFormat {
        file: PathBuf,
    },
    Syntax {
        file: PathBuf,
        message: String,
    },
    Invalid(Vec<Problem>),
}

impl Error {
    /// Each mistake by itself.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let (file, message) = match self {
            Self::Invalid(problems) => return problems.clone(),
            Self::Unreadable { file, error } => (
                file,
                format!("expected a readable text file, found: {error}"),
            ),
            Self::UnknownFormat { file } => {
                let message = "expected a name that ends in .toml, .yaml (.yml), .json or .ini";
                (file, message.to_owned())
            }
            Self::Syntax { file, message } | Self::Unfit { file, message } => {
                (file, message.clone())
            }
        };
        vec![about(file, message)]
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems().iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl Config {
    /// Reads `path`, or [`DEFAULT_FILE`] if that exists, or else nothing; then puts the variables of `environment` that
    /// begin with `NATTRAIL_` on top. `STATE_DIRECTORY` and `RUNTIME_DIRECTORY`, as systemd sets them, decide where
    /// the database and the control socket are by default.
    ///
    /// # Errors
    /// All mistakes of the file and of the environment, or the first reason why the file cannot be read.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, Error> {
        let file = match path {
            Some(path) => Some(path),
            None => standard_file(Path::new(DEFAULT_FILE))?,
        };
        let mut warnings = Vec::new();
        let (origin, root) = match file {
            Some(file) => {
                let (contents, root) = read(file)?;
                warnings.extend(mode_warning(file, contents.mode));
                (file.display().to_string(), root)
            }
            None => (EMBEDDED.to_owned(), HashMap::new()),
        };
        let config = assemble(root, &origin, environment).map_err(Error::Invalid)?;
        Ok(Loaded {
            config,
            file: file.map(Path::to_path_buf),
            warnings,
        })
    }
}

impl Default for Config {
    /// What holds without file and environment: NAT events as text on the standard output.
    fn default() -> Self {
        assemble(HashMap::new(), EMBEDDED, std::iter::empty())
            .expect("the table's presets are valid and do not contradict each other")
    }
}

fn assemble(
    root: HashMap<String, Value>,
    origin: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Vec<Problem>> {
    let environment: Vec<_> = environment.collect();
    let state_directory = systemd_directory(&environment, STATE_VARIABLE, DEFAULT_STATE_DIRECTORY);
    let runtime_directory = runtime_directory(&environment);
    let mut problems = Problems::default();
    let mut document = Document::new(root, origin, &mut problems);
    document.overlay(environment.iter().cloned(), &mut problems);
    if document.collectors.is_empty() && document.syslog.is_empty() {
        document.syslog.push(standard_output());
    }
    let capture = build::capture(document.capture, &mut problems);
    let pending = build::pending(document.pending, &state_directory, &mut problems);
    let log = build::log(document.log, &mut problems);
    let control = build::control(document.control, &runtime_directory, &mut problems);
    let collectors = build::collectors(document.collectors, &mut problems);
    let syslog = build::syslog(document.syslog, &mut problems);
    match (capture, pending, log, control) {
        (Some(capture), Some(pending), Some(log), Some(control)) if problems.is_empty() => {
            Ok(Config {
                capture,
                pending,
                log,
                control,
                collectors,
                syslog,
            })
        }
        _ => Err(problems.into_vec(origin)),
    }
}

/// The target that records have when the configuration names none.
fn standard_output() -> Table {
    let target = Value::new(None, "stdout");
    let entries = HashMap::from([("target".to_owned(), target)]);
    Table::new(Section::Syslog, "syslog".to_owned(), EMBEDDED, entries)
}

/// Where the control socket is by default, and a pid file: as `environment` says, or `/run/nattrail`.
#[must_use]
pub fn runtime_directory(environment: &[(String, String)]) -> PathBuf {
    systemd_directory(environment, RUNTIME_VARIABLE, DEFAULT_RUNTIME_DIRECTORY)
}

/// The first of the directories that systemd names in a variable (systemd.exec(5): several are separated by colons).
fn systemd_directory(
    environment: &[(String, String)],
    variable: &str,
    default: &'static str,
) -> PathBuf {
    environment
        .iter()
        .find(|(name, _)| name == variable)
        .and_then(|(_, list)| list.split(':').next())
        .filter(|path| path.starts_with('/'))
        .unwrap_or(default)
        .into()
}

/// A file that may be there but cannot be looked at is a mistake, not a reason to run without it.
fn standard_file(file: &Path) -> Result<Option<&Path>, Error> {
    match file.try_exists() {
        Ok(exists) => Ok(exists.then_some(file)),
        Err(error) => Err(Error::Unreadable {
            file: file.to_path_buf(),
            error,
        }),
    }
}

fn read(file: &Path) -> Result<(Contents, HashMap<String, Value>), Error> {
    let Some(format) = format_of(file) else {
        // A name that is mistyped has no file; what ends it is then beside the point.
        file::read(file)?;
        return Err(Error::UnknownFormat {
            file: file.to_path_buf(),
        });
    };
    let contents = file::read(file)?;
    let root = parse(format, &contents.text).map_err(|message| Error::Syntax {
        file: file.to_path_buf(),
        message: cut(&message, LONGEST_MESSAGE).into_owned(),
    })?;
    Ok((contents, root))
}

fn format_of(file: &Path) -> Option<FileFormat> {
    match file.extension()?.to_str()? {
        "toml" => Some(FileFormat::Toml),
        "yaml" | "yml" => Some(FileFormat::Yaml),
        "json" => Some(FileFormat::Json),
        "ini" => Some(FileFormat::Ini),
        _ => None,
    }
}

fn parse(format: FileFormat, text: &str) -> Result<HashMap<String, Value>, String> {
    nesting::check(format, text)?;
    let root = format
        .parse(None, text)
        .map_err(|error| syntax::explain(format, text, one_line(&error.to_string())))?;
    if format != FileFormat::Ini {
        return Ok(root);
    }
    // The crate keeps the last of two sections or keys of a name and drops the first without a word.
    match ini_duplicate(text) {
        Some(message) => Err(message),
        None => Ok(nested(root)),
    }
}

/// A parser's message without the drawing of the line it is about.
fn one_line(message: &str) -> String {
    let drawn = |line: &&str| {
        let number = |c: char| c.is_ascii_digit() || c.is_whitespace();
        !line.trim_start_matches(number).starts_with('|')
    };
    let lines: Vec<_> = message
        .lines()
        .filter(drawn)
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(": ")
}

fn ini_duplicate(text: &str) -> Option<String> {
    let mut seen = HashSet::new();
    let mut section = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let header = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (name, object) = if let Some((name, _)) = header {
            section = name.trim();
            ("", format!("section [{section}]"))
        } else if line.starts_with([';', '#']) {
            continue;
        } else if let Some((name, _)) = line.split_once(['=', ':']) {
            (name.trim(), format!("key {} of [{section}]", name.trim()))
        } else {
            continue;
        };
        if !seen.insert((section, name)) {
            return Some(format!(
                "line {}: expected each section and key once, found {object} again",
                index + 1
            ));
        }
    }
    None
}

/// INI has no tables in tables: `[collector.NAME]` is one by its name.
fn nested(root: HashMap<String, Value>) -> HashMap<String, Value> {
    let mut nested = HashMap::new();
    let mut lists: HashMap<String, HashMap<String, Value>> = HashMap::new();
    for (name, value) in root {
        let list = name.split_once('.').filter(|(section, _)| {
            let mut all = Section::ALL.into_iter();
            all.any(|known| known.is_list() && known.name() == *section)
        });
        match list {
            Some((section, entry)) => {
                let list = lists.entry(section.to_owned()).or_default();
                list.insert(entry.to_owned(), value);
            }
            None => {
                nested.insert(name, value);
            }
        }
    }
    for (section, entries) in lists {
        let table = nested
            .entry(section)
            .or_insert_with(|| Value::new(None, HashMap::<String, Value>::new()));
        if let config::ValueKind::Table(table) = &mut table.kind {
            table.extend(entries);
        }
    }
    nested
}

/// Who may write the configuration decides what is logged.
fn mode_warning(file: &Path, mode: u32) -> Option<Problem> {
    let message = format!(
        "expected a file that only its owner can write, found mode {mode:04o}: run chmod go-w on it"
    );
    (mode & 0o022 != 0).then(|| about(file, message))
}

fn about(file: &Path, message: String) -> Problem {
    Problem {
        origin: file.display().to_string(),
        key: String::new(),
        message,
    }
}

#[cfg(test)]
mod tests;
