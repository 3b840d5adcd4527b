//! `nattrail convert`: the configuration of another program as nattrail's, or the leases of a DHCP server as a list of
//! subscribers.
//!
//! A setting without an equivalent is named on the standard error, and stands in the result as a comment.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Exit, Failure, exit_of, tell};
use crate::config::values;
use crate::convert::{self, Conversion};

/// The program whose file is converted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Program {
    /// nfflowd.conf, in the format of Perl's Config::General
    Nfflowd,
    /// Options of the kernel module, in a file of modprobe.d or sysctl.d
    IptNetflow,
    /// Leases of Kea, kea-leases4.csv or kea-leases6.csv, as a list for "nattrail who --subscribers"
    KeaLeases,
    /// dnsmasq.leases, as such a list
    DnsmasqLeases,
}

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The program whose file it is
    program: Program,
    /// Its file; - for the standard input
    file: PathBuf,
    /// How long the leases of dnsmasq last, as in its dhcp-range
    #[arg(long, value_name = "DURATION", required_if_eq("program", "dnsmasq-leases"), value_parser = parse_length)]
    lease_time: Option<Duration>,
    /// Write to this file, which must not exist, instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Converts the file, and writes the result.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<Exit, Failure> {
    let file = &options.file;
    let name = file.display().to_string();
    let text = read(file).map_err(|error| unusable(file, &error))?;
    let list = |list| Conversion {
        toml: list,
        notes: Vec::new(),
    };
    let converted = match options.program {
        Program::Nfflowd => convert::nfflowd::convert(&text, &name),
        Program::IptNetflow => convert::ipt_netflow::convert(&text, &name),
        Program::KeaLeases => convert::leases::kea(&text).map(list),
        Program::DnsmasqLeases => {
            let length = options.lease_time.unwrap_or_default();
            convert::leases::dnsmasq(&text, length).map(list)
        }
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
    let output = output.display();
    match options.program {
        Program::Nfflowd | Program::IptNetflow => writeln!(
            out,
            "{output} is written: \"nattrail check --config {output}\" says whether this machine has what it needs"
        )?,
        Program::KeaLeases | Program::DnsmasqLeases => writeln!(
            out,
            "{output} is written: \"nattrail who --subscribers {output}\" names the clients"
        )?,
    }
    Ok(Exit::Success)
}

fn parse_length(text: &str) -> Result<Duration, String> {
    values::at_least_a_second(text).map_err(|_| "expected a duration such as 12h".to_owned())
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
