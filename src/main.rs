//! The `nattrail` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    nattrail::cli::main()
}
