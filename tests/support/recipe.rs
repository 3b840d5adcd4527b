//! The recipe of nattrail-proof(7).

use std::fs;

const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/deb/man/nattrail-proof.7"
);

/// The program of the manual: all its examples, one after the other.
pub fn recipe() -> String {
    let page = fs::read_to_string(PAGE).unwrap();
    let examples = page.split("\n.EX\n").skip(1);
    let examples = examples.map(|rest| rest.split("\n.EE\n").next().unwrap());
    let program = examples.collect::<Vec<_>>().join("\n\n");
    program.replace("\\-", "-").replace("\\e", "\\") + "\n"
}
