//! A page in headless Chromium, at the width of a telephone and on A4.
//!
//! What Chromium says of the page comes from a frame of that width in a page of the test, because the page itself has no
//! script and is to be read as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::archive::Archive;
use crate::support::can_run;

const PROGRAMS: [&str; 3] = ["chromium", "pdfinfo", "pdftotext"];

/// In CSS pixels.
const TELEPHONE: f64 = 400.0;
/// In points, with those of rounding.
const A4: (f64, f64) = (596.0, 842.5);
/// The size in points of a line in the smallest print that is read with ease.
const SMALLEST_LINE: f64 = 8.0;

/// Expects a page that is readable at both sizes, needs nothing but itself, and shows these texts whole on paper.
fn assert_readable(page: &Path, texts: &[&str]) {
    let seen = seen_in_a_frame(page);
    assert!(seen["width"].as_f64().unwrap() <= TELEPHONE, "{seen:#}");
    for none in ["beyond", "requests", "scripts", "handlers", "references"] {
        assert_eq!(seen[none], Value::Array(Vec::new()), "{none}: {seen:#}");
    }
    assert!(seen["height"].as_f64().unwrap() > 200.0, "{seen:#}");
    assert_printed_on_a4(page, texts);
}

fn seen_in_a_frame(page: &Path) -> Value {
    let name = page.file_name().unwrap().to_str().unwrap();
    let frame = page.with_extension("frame.html");
    let html = include_str!("frame.html").replace("PAGE", name);
    fs::write(&frame, html.replace("WIDTH", &TELEPHONE.to_string())).unwrap();
    let dom = chromium(&["--allow-file-access-from-files", "--dump-dom"], &frame);
    let begin = dom.find("<pre>").unwrap_or_else(|| panic!("{dom}")) + "<pre>".len();
    let json = &dom[begin..begin + dom[begin..].find("</pre>").unwrap()];
    serde_json::from_str(&unescaped(json)).unwrap_or_else(|error| panic!("{error}: {dom}"))
}

fn assert_printed_on_a4(page: &Path, texts: &[&str]) {
    let pdf = page.with_extension("pdf");
    let print = format!("--print-to-pdf={}", pdf.display());
    chromium(&["--no-pdf-header-footer", &print], page);
    let info = run(Command::new("pdfinfo").arg(&pdf));
    assert!(info.contains("(A4)"), "{info}");
    let boxes = run(Command::new("pdftotext").arg("-bbox").arg(&pdf).arg("-"));
    let number = |line: &str, name: &str| -> f64 {
        let begin = line.find(name).unwrap() + name.len() + 2;
        let rest = &line[begin..];
        rest[..rest.find('"').unwrap()].parse().unwrap()
    };
    let mut printed = String::new();
    for line in boxes.lines().filter(|line| line.contains("<word ")) {
        let (left, right) = (number(line, "xMin"), number(line, "xMax"));
        let (top, bottom) = (number(line, "yMin"), number(line, "yMax"));
        assert!(0.0 <= left && right <= A4.0, "{line} is cut off");
        assert!(0.0 <= top && bottom <= A4.1, "{line} is cut off");
        assert!(bottom - top >= SMALLEST_LINE, "{line} is too small");
        let word = &line[line.find('>').unwrap() + 1..line.rfind("</word>").unwrap()];
        printed += &unescaped(word);
    }
    for text in texts {
        let text = text.replace(' ', "");
        assert!(printed.contains(&text), "{text} is not in {printed}");
    }
}

fn unescaped(text: &str) -> String {
    let pairs = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ];
    pairs
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Runs it without any network, and returns its output.
fn chromium(arguments: &[&str], page: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    run(command.args(arguments).arg(page))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Values as long as they come, without a blank at which they could be broken.
const CASE: &str = "StA-Musterstadt/2026/000000000000471100000000000000-Js-000000000815-UJs";
const SUBSCRIBER: &str =
    "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6@customers.subscribers.example.net";
const REASON: &str = "order&of<the>court";

fn answer(archive: &Archive, archive_of: &str, question: &[&str]) -> PathBuf {
    let page = archive.path("answer.html");
    let list = archive.path("subscribers.csv");
    fs::write(
        &list,
        format!("10.1.0.0/16,,,{SUBSCRIBER}\n2001:db8::/32,,,{SUBSCRIBER}\n"),
    )
    .unwrap();
    let [page_argument, list] = [&page, &list].map(|path| path.to_str().unwrap());
    let more = [
        "--html",
        page_argument,
        "--subscribers",
        list,
        "--case",
        CASE,
        "--reason",
        REASON,
    ];
    archive.ask(archive_of, &[question, &more].concat());
    page
}

#[test]
#[ignore = "large: `make engines` runs it"]
fn the_page_of_an_answer_is_readable_on_a_telephone_and_on_paper() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let archive = Archive::new();
    let proof = archive.path("the-proof-of-an-answer-in-a-file-with-a-long-name.proof");
    let question = [
        "[2001:db8::9]:50520",
        "--at",
        "2026-11-20 14:30:00",
        "--proof",
        proof.to_str().unwrap(),
    ];
    let page = answer(&archive, "gw-2", &question);
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("The first public key of the log is "),
        "{html}"
    );
    assert_readable(&page, &[CASE, SUBSCRIBER, REASON, "[2001:db8::c:9]:40356"]);
}

#[test]
#[ignore = "large: `make engines` runs it"]
fn the_page_of_a_batch_is_readable_on_a_telephone_and_on_paper() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let archive = Archive::new();
    let batch = archive.path("batch.txt");
    let unreadable = "203.0.113.9:50520=".repeat(9);
    let lines = format!(
        "203.0.113.9:50520 2026-11-20 14:30:00\n{unreadable}\n[2001:db8::9]:1 2026-11-20 14:30:00\n"
    );
    fs::write(&batch, lines).unwrap();
    let page = answer(&archive, "copy", &["--batch", batch.to_str().unwrap()]);
    assert_readable(&page, &[CASE, SUBSCRIBER, "10.1.2.11:443", &unreadable]);
}

#[test]
#[ignore = "large: `make engines` runs it"]
fn the_page_of_a_report_is_readable_on_a_telephone_and_on_paper() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let archive = Archive::new();
    let page = archive.path("report.html");
    let [page_argument, list] =
        [&page, &archive.path("subscribers.csv")].map(|path| path.to_str().unwrap().to_owned());
    fs::write(&list, format!("10.0.0.0/8,,,{SUBSCRIBER}\n")).unwrap();
    let day = [
        "--day",
        "2026-11-20",
        "--html",
        &page_argument,
        "--subscribers",
        &list,
    ];
    let output = archive.run("report", "copy", &day);
    assert!(page.metadata().unwrap().len() > 10_000, "{output:?}");
    assert_readable(&page, &["gw-1", SUBSCRIBER, "Ports in use"]);
}

/// Or else the tests above would show nothing.
#[test]
#[ignore = "large: `make engines` runs it"]
fn a_page_that_is_too_wide_or_needs_more_than_itself_is_noticed() {
    if !can_run(&PROGRAMS) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let html = "<!DOCTYPE html><title>x</title><p style=\"width:900px\" onclick=\"x()\">x</p><script>1</script>\
                <style>p{background:url(http://192.0.2.1/y.png)}</style><img alt=\"\" src=\"http://192.0.2.1/x.png\">";
    fs::write(&page, html).unwrap();
    let seen = seen_in_a_frame(&page);
    assert!(seen["width"].as_f64().unwrap() > TELEPHONE, "{seen:#}");
    for (found, number) in [
        ("requests", 2),
        ("scripts", 1),
        ("handlers", 1),
        ("references", 1),
    ] {
        assert_eq!(
            seen[found].as_array().unwrap().len(),
            number,
            "{found}: {seen:#}"
        );
    }
    assert!(!seen["beyond"].as_array().unwrap().is_empty(), "{seen:#}");
}
