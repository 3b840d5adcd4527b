//! `nattrail convert`: the configuration of another program as nattrail's.
//!
//! What has no equivalent is said on the standard error, and stands in the result as a comment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Exit, complain, remark};
use crate::convert::{self, Conversion, Unfit};

/// More than any such file has.
const LONGEST: u64 = 1 << 20;

/// What else nfflowd could read: Config::Any goes by the name of the file.
const OTHER_FORMATS: [&str; 7] = ["yml", "yaml", "json", "jsn", "xml", "ini", "pl"];

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Program {
    /// nfflowd.conf, in the format of Perl's Config::General
    Nfflowd,
    /// Options of the kernel module, in a file of modprobe.d or sysctl.d
    IptNetflow,
}

/// Converts `file`, `-` for the standard input, and writes the result to `output`, which must not be there yet, or to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn run(
    program: Program,
    file: &Path,
    output: Option<&Path>,
    out: &mut impl Write,
) -> io::Result<Exit> {
    let text = match read(program, file) {
        Ok(text) => text,
        Err((exit, message)) => {
            complain(&format!("{}: {message}", file.display()));
            return Ok(exit);
        }
    };
    let Conversion { toml, notes } = match converted(program, &text, file) {
        Ok(conversion) => conversion,
        Err(unfit) => {
            complain(&format!("{}: {unfit}", file.display()));
            return Ok(Exit::Data);
        }
    };
    for note in &notes {
        remark(&format!("{}: {note}", file.display()));
    }
    let Some(output) = output else {
        out.write_all(toml.as_bytes())?;
        return Ok(Exit::Success);
    };
    if let Err(error) = create(output, &toml) {
        let advice = match error.kind() {
            io::ErrorKind::AlreadyExists => "; move it away, or choose another name",
            _ => "",
        };
        complain(&format!("{}: {error}{advice}", output.display()));
        return Ok(exit_of(&error));
    }
    writeln!(
        out,
        "{0} is written: \"nattrail check --config {0}\" says whether this machine has what it needs",
        output.display()
    )?;
    Ok(Exit::Success)
}

fn converted(program: Program, text: &str, file: &Path) -> Result<Conversion, Unfit> {
    let name = file.display().to_string();
    match program {
        Program::Nfflowd => convert::nfflowd::convert(text, &name),
        Program::IptNetflow => convert::ipt_netflow::convert(text, &name),
    }
}

fn read(program: Program, file: &Path) -> Result<String, (Exit, String)> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    if let Some(extension) = extension.filter(|_| program == Program::Nfflowd)
        && OTHER_FORMATS.contains(&extension)
    {
        let message = format!(
            "expected the format of Config::General (<flow_send> and so on), found .{extension}: write it down as nfflowd.conf"
        );
        return Err((Exit::Data, message));
    }
    let mut bytes = Vec::new();
    let result = if file == Path::new("-") {
        io::stdin().lock().take(LONGEST + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
    };
    result.map_err(|error| (exit_of(&error), error.to_string()))?;
    if bytes.len() as u64 > LONGEST {
        return Err((Exit::Data, "expected at most 1 MiB, found more".to_owned()));
    }
    // Comments may be in any character set.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a file that was not there.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn exit_of(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Unavailable,
    }
}
