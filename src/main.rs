//! The `nattrail` command.

fn main() {}
