//! Pages to print or to attach: no script, nothing from outside, readable on a telephone and on A4.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Failure, cannot};

const STYLE: &str = "\
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:16px/1.45 system-ui,sans-serif;color:#111;background:#fff;max-width:60em;margin:0 auto;padding:1em;overflow-wrap:anywhere}
h1{font-size:1.4em;margin:0 0 .5em}
h1,h2,h3{break-after:avoid}
h2{font-size:1.15em;margin:1.5em 0 .5em}
h3{font-size:1em;margin:1em 0 .3em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em;margin:.5em 0}
dt{color:#555}
dd{margin:0}
.verdict{border-left:.4em solid #555;background:#f3f3f3;padding:.6em .8em;font-weight:600}
.one,.listed{border-color:#1a7f37}
.several{border-color:#bf8700}
.none-gap{border-color:#b3261e}
article,figure,tr{break-inside:avoid}
figure{margin:0}
article{break-inside:avoid;border:1px solid #bbb;padding:.5em .8em;margin:.6em 0}
article h4{font-size:1em;margin:0}
pre{white-space:pre-wrap;font-size:.85em}
footer{margin-top:2em;border-top:1px solid #bbb;padding-top:.5em;color:#555;font-size:.9em}
svg{display:block;width:100%;max-width:40em;height:auto;margin:.5em 0}
svg text{font:13px system-ui,sans-serif;fill:#111}
table{border-collapse:collapse;width:100%;font-size:.85em;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.2em .8em .2em 0;border-bottom:1px solid #ddd;overflow-wrap:normal}
td.n,th.n{text-align:right;white-space:nowrap}
.wide{overflow-x:auto}
@media(max-width:30em){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4em}}
@page{size:A4;margin:18mm}
@media print{body{font-size:10.5pt;max-width:none;padding:0}}
";

/// Creates a file that has personal data. For a page this comes before the work, which may be long.
pub(super) fn create(path: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    options
        .open(path)
        .map_err(|error| cannot(path, "be written", &error))
}

pub(super) fn write(path: &Path, mut file: File, page: &str) -> Result<(), Failure> {
    let written = file
        .write_all(page.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| cannot(path, "be written", &error))
}

/// `body` is HTML, title and footer are text.
pub(super) fn page(title: &str, body: &str, footer: &str) -> String {
    let (title, footer) = (escaped(title), escaped(footer));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\
         <footer>All times are UTC. {footer}</footer>\n</body>\n</html>\n"
    )
}

pub(super) fn list(facts: &[(&str, String)]) -> String {
    let mut html = String::from("<dl>\n");
    for (name, value) in facts {
        // Writing into a string cannot fail.
        let _ = writeln!(
            html,
            "<dt>{}</dt><dd>{}</dd>",
            escaped(name),
            escaped(value)
        );
    }
    html + "</dl>\n"
}

pub(super) fn heading(level: &str, text: &str, html: &mut String) {
    let _ = writeln!(html, "<{level}>{}</{level}>", escaped(text));
}

pub(super) fn paragraph(class: Option<&str>, text: &str, html: &mut String) {
    let class = class
        .map(|class| format!(" class=\"{class}\""))
        .unwrap_or_default();
    let _ = writeln!(html, "<p{class}>{}</p>", escaped(text));
}

pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            c if c.is_control() => html.push(' '),
            c => html.push(c),
        }
    }
    html
}
