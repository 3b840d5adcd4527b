//! The examples of nattrail-archive(5), each of which begins with a comment that is its heading.

use std::fs;

const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/deb/man/nattrail-archive.5"
);

/// The example with that heading, without it.
pub fn example(heading: &str) -> String {
    let page = fs::read_to_string(PAGE).unwrap();
    let examples = page.split("\n.EX\n").skip(1);
    let examples = examples.map(|rest| rest.split("\n.EE\n").next().unwrap());
    let mut examples = examples.map(|it| it.replace("\\-", "-").replace("\\e", "\\"));
    let first = format!("-- {heading}\n");
    let found = examples.find_map(|it| Some(it.trim_start().strip_prefix(&first)?.to_owned()));
    found.unwrap_or_else(|| panic!("{PAGE} has no example {heading:?}"))
}
