//! `nattrail convert`: the configuration of another program as nattrail's.
//!
//! A setting without an equivalent is named on the standard error, and stands in the result as a comment.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{Exit, Failure, exit_of, tell};
use crate::convert::{self, Conversion};

/// The program whose configuration is converted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Program {
    /// nfflowd.conf, in the format of Perl's Config::General
    Nfflowd,
    /// Options of the kernel module, in a file of modprobe.d or sysctl.d
    IptNetflow,
}

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The program whose configuration it is
    program: Program,
    /// Its configuration file; - for the standard input
    file: PathBuf,
    /// Write to this file, which must not exist, instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Converts the file, and writes the result.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<Exit, Failure> {
    let file = &options.file;
    let name = file.display().to_string();
    let text = read(file).map_err(|error| unusable(file, &error))?;
    let converted = match options.program {
        Program::Nfflowd => convert::nfflowd::convert(&text, &name),
        Program::IptNetflow => convert::ipt_netflow::convert(&text, &name),
    };
    let Conversion { toml, notes } =
        converted.map_err(|note| Failure::new(Exit::Data, format!("{name}: {note}")))?;
    for note in &notes {
        // Lines below the first are for another file; the result has them in a comment.
        let note = note.to_string();
        tell(
            "warning",
            &format!("{name}: {}", note.lines().next().unwrap_or_default()),
        );
    }
    let Some(output) = &options.output else {
        out.write_all(toml.as_bytes())?;
        return Ok(Exit::Success);
    };
    // This does not overwrite an existing file.
    let file = File::create_new(output).and_then(|mut file| file.write_all(toml.as_bytes()));
    file.map_err(|error| unusable(output, &error))?;
    writeln!(
        out,
        "{0} is written: \"nattrail check --config {0}\" says whether this machine has what it needs",
        output.display()
    )?;
    Ok(Exit::Success)
}

/// Comments may be in any character set.
fn read(file: &Path) -> io::Result<String> {
    let bytes = match file == Path::new("-") {
        true => io::stdin().lock().bytes().collect::<io::Result<_>>()?,
        false => fs::read(file)?,
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unusable(file: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::AlreadyExists => "; move it away, or choose another name",
        _ => "",
    };
    let message = format!("{}: {error}{advice}", file.display());
    Failure::new(exit_of(error), message)
}
