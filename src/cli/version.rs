//! `nattrail version`.

use std::io::{self, Write};

use super::Exit;

/// Prints name and version.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn run(out: &mut impl Write) -> io::Result<Exit> {
    writeln!(out, "nattrail {}", env!("CARGO_PKG_VERSION"))?;
    Ok(Exit::Success)
}
