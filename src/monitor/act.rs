//! One act of setting up or taking down: a command of the system's, or a kernel parameter to write, in a network namespace.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::config::Namespace;
use crate::kernel::namespace::{is_same, path_of, within};

const PARAMETERS: &str = "/proc/sys";

/// Stands for this process among the arguments of `ip`, as in a shell: for the network namespace in which it runs.
pub(super) const HERE: &str = "$$";

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Act {
    /// The file of the namespace; `None` for the one in which nattrail runs.
    namespace: Option<PathBuf>,
    what: What,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum What {
    Run {
        program: String,
        arguments: Vec<String>,
        input: String,
    },
    /// `path` is below `/proc/sys`. A parameter that is not there needs no value.
    Set { path: String, value: String },
}

/// Why an act failed.
#[derive(Debug)]
pub(crate) struct Failed {
    message: String,
    /// Whether its object is not there, so that there is nothing to undo.
    pub(super) is_gone: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Act {
    /// The words of a command line, which has no quotes.
    pub(super) fn run(namespace: Option<&Namespace>, line: &str) -> Self {
        Self::run_with(namespace, line, "")
    }

    /// The same with a standard input.
    pub(super) fn run_with(namespace: Option<&Namespace>, line: &str, input: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        Self {
            namespace: namespace.map(path_of),
            what: What::Run {
                program: words.next().unwrap_or_default(),
                arguments: words.collect(),
                input: input.to_owned(),
            },
        }
    }

    pub(super) fn set(namespace: Option<&Namespace>, path: &str, value: &str) -> Self {
        Self {
            namespace: namespace.map(path_of),
            what: What::Set {
                path: path.to_owned(),
                value: value.to_owned(),
            },
        }
    }

    /// For a parameter, the act that gives it back its present value.
    pub(super) fn restoring(&self) -> Option<Self> {
        let What::Set { path, .. } = &self.what else {
            return None;
        };
        let read = self.within(|| fs::read_to_string(Path::new(PARAMETERS).join(path)));
        let value = read.ok()?.ok()?.trim().to_owned();
        let path = path.clone();
        Some(Self {
            namespace: self.namespace.clone(),
            what: What::Set { path, value },
        })
    }

    /// Whether both set one parameter of one namespace.
    pub(super) fn is_same_parameter(&self, other: &Self) -> bool {
        match (&self.what, &other.what) {
            (
                What::Set { path: one, .. },
                What::Set {
                    path: other_one, ..
                },
            ) => {
                // A name and a path may lead to one namespace.
                let [one_place, other_place] =
                    [self, other].map(|act| act.namespace.clone().map(Namespace));
                one == other_one && is_same(one_place.as_ref(), other_place.as_ref())
            }
            _ => false,
        }
    }

    pub(super) fn perform(&self) -> Result<(), Failed> {
        match &self.what {
            What::Run { .. } => self.output().map(|_| ()),
            What::Set { path, value } => {
                let file = Path::new(PARAMETERS).join(path);
                // This does not make the file. The kernel takes the value of one write.
                let open = || fs::OpenOptions::new().write(true).open(&file);
                let write = || open().and_then(|mut file| file.write_all(value.as_bytes()));
                match self.within(write).and_then(|written| written) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failed {
                        message: format!("{path}: {error}"),
                        is_gone: false,
                    }),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Runs the command, and returns its standard output.
    pub(super) fn output(&self) -> Result<String, Failed> {
        let What::Run {
            program,
            arguments,
            input,
        } = &self.what
        else {
            return Ok(String::new());
        };
        let own = std::process::id().to_string();
        let arguments = arguments
            .iter()
            .map(|it| if it == HERE { &own } else { it });
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C");
        let output = self.within(|| communicate(&mut command, input))?;
        let output = output.map_err(|error| Failed {
            message: match error.kind() {
                io::ErrorKind::NotFound => format!("the program {program} is not there"),
                _ => format!("{program}: {error}"),
            },
            is_gone: false,
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let gone = [
            "Cannot find device",
            "No such file or directory",
            "No such device",
            "does not exist",
            "Invalid handle",
        ];
        // The first line has the reason; those of nft go on with the place.
        let line = said.lines().find(|line| !line.trim().is_empty());
        Err(Failed {
            message: format!(
                "{program} says: {}",
                line.unwrap_or("nothing").trim().trim_end_matches('.')
            ),
            is_gone: gone.iter().any(|words| said.contains(words)),
        })
    }

    /// In a thread of its own: this process as such, for which [`HERE`] stands, stays where it is.
    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let namespace = self.namespace.clone().map(Namespace);
        thread::scope(|scope| {
            let thread = scope.spawn(|| within(namespace.as_ref(), work));
            let panicked = |_| Err(io::Error::other("a thread panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self {
            is_gone: error.kind() == io::ErrorKind::NotFound,
            message: error.to_string(),
        }
    }
}

/// As a command for a shell.
impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "nsenter --net={} ", namespace.display())?;
        }
        match &self.what {
            What::Run {
                program,
                arguments,
                input,
            } => {
                write!(f, "{program} {}", arguments.join(" "))?;
                match input.as_str() {
                    "" => Ok(()),
                    input => write!(f, " <<'END'\n{input}END"),
                }
            }
            What::Set { path, value } => write!(f, "sysctl -w {path}={value}"),
        }
    }
}

fn communicate(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // All of it fits into the pipe. A program that does not read says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}
