//! The recipes of the manual pages.

use std::fs;

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/man");

/// The program of nattrail-proof(7): all examples of its section, one after the other.
pub fn recipe() -> String {
    examples("nattrail-proof.7", "CHECKING A PROOF").join("\n\n") + "\n"
}

/// The examples of a section.
pub fn examples(page: &str, section: &str) -> Vec<String> {
    let page = fs::read_to_string(format!("{PAGES}/{page}")).unwrap();
    let section = page.split(&format!("\n.SH {section}\n")).nth(1).unwrap();
    let section = section.split("\n.SH ").next().unwrap();
    let examples = section.split("\n.EX\n").skip(1);
    let examples = examples.map(|rest| rest.split("\n.EE\n").next().unwrap());
    examples
        .map(|text| text.replace("\\-", "-").replace("\\e", "\\"))
        .collect()
}
