//! Engines out of the Python package index, each in a virtual environment below the target directory, so that it is
//! fetched once.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{did_not_run, find_program};

/// Rows of cells; null is empty, and an address is in its canonical form.
pub type Answer = Vec<Vec<String>>;

pub struct Engine {
    name: &'static str,
    python: PathBuf,
    /// Where it keeps its own tables.
    place: Option<PathBuf>,
}

impl Engine {
    /// `None` where it cannot run.
    pub fn new(name: &'static str, packages: &[&str], programs: &[&str]) -> Option<Self> {
        let missing = programs.iter().find(|it| find_program(it).is_none());
        let python = match missing {
            Some(program) => Err(format!("the program {program}")),
            None => environment(name, packages),
        };
        match python {
            Ok(python) => Some(Self {
                name,
                python,
                place: None,
            }),
            Err(missing) => {
                did_not_run(&missing);
                None
            }
        }
    }

    pub fn with_place(self, place: PathBuf) -> Self {
        Self {
            place: Some(place),
            ..self
        }
    }

    /// That of its definitions in the manual.
    pub fn heading(&self) -> &'static str {
        match self.name {
            "duckdb" => "DuckDB",
            "clickhouse" => "ClickHouse",
            _ => "Spark",
        }
    }

    /// The rows of each question, asked in a time zone that is not UTC.
    pub fn ask(&self, setup: &[String], questions: &[String]) -> Vec<Answer> {
        let directory = tempfile::tempdir().unwrap();
        let answers = directory.path().join("answers.json");
        let mut command = Command::new(&self.python);
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/ask.py"))
            .arg(self.name)
            .arg(&answers)
            .args(&self.place)
            // Engines leave files of their own where they run.
            .current_dir(&directory)
            .env("TZ", "America/New_York")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let script = json!({"setup": setup, "questions": questions}).to_string();
        let mut input = child.stdin.take().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", self.name);
        let answers = fs::read(&answers).unwrap();
        let answers: Vec<Vec<Vec<Value>>> = serde_json::from_slice(&answers).unwrap();
        let rows = |rows: Vec<Vec<Value>>| {
            let rows = rows.iter();
            rows.map(|row| row.iter().map(cell).collect()).collect()
        };
        answers.into_iter().map(rows).collect()
    }
}

pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => text.clone(),
        },
        other => other.to_string(),
    }
}

/// The Python of an environment with these packages, or what it needs to be made.
fn environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let versions = packages.join(" ");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("engine-{name}"));
    let python = directory.join("bin/python");
    // Written last.
    let complete = directory.join("complete");
    // Tests of one engine may come side by side.
    let lock = fs::File::create(directory.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if fs::read_to_string(&complete).is_ok_and(|text| text == versions) {
        return Ok(python);
    }
    let run = |command: &mut Command, needs: &str| {
        let output = command
            .output()
            .map_err(|error| format!("{needs}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim_end().lines().next_back().unwrap_or_default();
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{needs}: {last}")),
        }
    };
    let mut venv = Command::new("python3");
    let venv = venv.args(["-m", "venv", "--clear"]).arg(&directory);
    run(venv, "python3 with its module venv")?;
    let mut pip = Command::new(&python);
    let pip = pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    run(
        pip.args(packages),
        &format!("{versions} from the Python package index"),
    )?;
    fs::write(&complete, versions).unwrap();
    // Root may run the tests, and the owner of the directory cleans it.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut chown = Command::new("chown");
    chown
        .args(["-R", "--reference"])
        .arg(target)
        .arg(&directory);
    run(&mut chown, "chown")?;
    Ok(python)
}
