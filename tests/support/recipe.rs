//! The recipe of nattrail-proof(7).

use std::fs;

const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/deb/man/nattrail-proof.7"
);

/// The program of the manual: all examples of its section, one after the other.
pub fn recipe() -> String {
    let page = fs::read_to_string(PAGE).unwrap();
    let section = page.split("\n.SH CHECKING A PROOF\n").nth(1).unwrap();
    let section = section.split("\n.SH ").next().unwrap();
    let examples = section.split("\n.EX\n").skip(1);
    let examples = examples.map(|rest| rest.split("\n.EE\n").next().unwrap());
    let program = examples.collect::<Vec<_>>().join("\n\n");
    program.replace("\\-", "-").replace("\\e", "\\") + "\n"
}
