//! Manual pages and completions: the files in the tree match the program, and render and load without a complaint.
//!
//! `nattrail.toml.5` follows from the table of keys and the completions from the command line. After a change of either,
//! `NATTRAIL_WRITE=1 cargo test` rewrites them and `conf/nattrail.toml`; review the difference before the commit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap_complete::{Shell, generate};
use nattrail::config::Config;
use nattrail::config::keys::{Key, Preset, Section};
use support::can_run;

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/man");
const COMPLETIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/completions");

/// The variable that asks for regeneration.
const WRITE: &str = "NATTRAIL_WRITE";

#[test]
fn the_completions_are_those_of_the_command_line() {
    for (shell, file) in [
        (Shell::Bash, "nattrail.bash"),
        (Shell::Zsh, "_nattrail"),
        (Shell::Fish, "nattrail.fish"),
    ] {
        let mut text = Vec::new();
        generate(shell, &mut nattrail::cli::command(), "nattrail", &mut text);
        let text = with_instances(&String::from_utf8(text).unwrap());
        assert_current(&Path::new(COMPLETIONS).join(file), text.as_bytes());
    }
}

/// The completions with the names for `--instance`, which clap does not know.
fn with_instances(text: &str) -> String {
    let names = r#"ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p""#;
    let line = |line: &str| match line {
        line if line.contains(" -l instance ") => format!("{line} -f -a '({names})'\n"),
        line => format!("{line}\n"),
    };
    let text: String = text.lines().map(line).collect();
    let (before, after) = ("--instance)\n", "COMPREPLY=($(compgen ");
    let bash = text.split(before).map(|part| match part.trim_start() {
        start if start.starts_with(after) => {
            let words = format!("{after}-W \"$({names})\" -- ");
            part.replacen(&format!("{after}-f "), &words, 1)
        }
        _ => part.to_owned(),
    });
    let bash: Vec<_> = bash.collect();
    let zsh = format!(":NAME:{{compadd -- $({names})}}");
    bash.join(before).replace(":NAME:_default", &zsh)
}

#[test]
fn the_page_of_the_configuration_is_that_of_the_table_of_keys() {
    let file = Path::new(PAGES).join("nattrail.toml.5");
    assert_current(&file, keys_page().as_bytes());
}

/// Compares a file with its expected content, or writes it.
fn assert_current(file: &Path, expected: &[u8]) {
    if std::env::var_os(WRITE).is_some() {
        fs::write(file, expected).unwrap();
    }
    let found = fs::read(file).unwrap_or_default();
    assert!(
        found == expected,
        "{} is not what follows from the program: run \"{WRITE}=1 cargo test --test manual\"",
        file.display()
    );
}

#[test]
fn the_manual_has_every_subcommand_and_every_option() {
    let page = page("nattrail.1");
    let mut missing = Vec::new();
    find_missing(&nattrail::cli::command(), "nattrail", &page, &mut missing);
    assert!(missing.is_empty(), "nattrail.1 lacks {missing:#?}");
}

/// Looks for the command's options in its section, and for its subcommands. Options of the program itself, which all
/// commands share, are in the section OPTIONS.
fn find_missing(command: &clap::Command, name: &str, page: &str, missing: &mut Vec<String>) {
    let heading = if name == "nattrail" {
        ".SH OPTIONS\n".to_owned()
    } else {
        format!(".SS {name}\n")
    };
    let Some((_, section)) = page.split_once(&heading) else {
        missing.push(format!("a section \"{}\"", heading.trim_end()));
        return;
    };
    // Commands with the same options share a section: a heading follows the other.
    let mut section = section;
    while section.starts_with(".SS ") {
        section = section.split_once('\n').map_or("", |(_, rest)| rest);
    }
    let end = [section.find("\n.SS "), section.find("\n.SH ")];
    let section = &section[..end.into_iter().flatten().min().unwrap_or(section.len())];
    let typed = plain(section);
    let options = command
        .get_arguments()
        .filter(|argument| name == "nattrail" || !argument.is_global_set())
        .filter(|argument| !argument.is_hide_set());
    for argument in options {
        let long = argument.get_long().map(|long| format!("--{long}"));
        let mut wanted: Vec<_> = long.into_iter().collect();
        wanted.extend(argument.get_short().map(|short| format!("-{short}")));
        if argument.get_action().takes_values() {
            let names = argument.get_value_names().unwrap_or_default();
            wanted.extend(names.iter().map(ToString::to_string));
            let values = argument.get_possible_values();
            wanted.extend(values.iter().map(|value| value.get_name().to_owned()));
        }
        let absent = wanted.into_iter().filter(|word| !has_word(&typed, word));
        missing.extend(absent.map(|word| format!("{word} of {name}")));
    }
    for subcommand in command.get_subcommands() {
        let name = format!("{name} {}", subcommand.get_name());
        find_missing(subcommand, &name, page, missing);
    }
}

/// The text without its fonts, and with plain hyphens.
fn plain(text: &str) -> String {
    let fonts = ["\\fB", "\\fI", "\\fR"];
    let unfonted = fonts
        .iter()
        .fold(text.to_owned(), |text, font| text.replace(font, ""));
    unfonted.replace("\\-", "-")
}

/// Whether the word occurs other than as the beginning or the end of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn every_page_is_of_this_version() {
    let version = concat!("\"nattrail ", env!("CARGO_PKG_VERSION"), "\"");
    for (name, text) in pages() {
        let title = text.lines().find(|line| line.starts_with(".TH ")).unwrap();
        assert!(
            title.contains(version),
            "{name}: expected {version} in {title}"
        );
    }
}

#[test]
fn every_page_that_a_page_refers_to_exists() {
    let own: Vec<_> = pages().into_iter().map(|(name, _)| name).collect();
    for (name, text) in pages() {
        for line in text.lines() {
            let plain = line
                .replace("\\-", "-")
                .replace("\\fB", "")
                .replace("\\fR", "");
            let plain = plain.replace(' ', "");
            for (at, _) in plain.match_indices("nattrail") {
                let Some((title, rest)) = plain[at..].split_once('(') else {
                    continue;
                };
                let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
                let Some((section, _)) = rest.split_once(')') else {
                    continue;
                };
                if title.chars().all(word) && section.len() == 1 {
                    let file = format!("{title}.{section}");
                    assert!(own.contains(&file), "{name} refers to {title}({section})");
                }
            }
        }
    }
}

#[test]
fn every_page_renders_without_a_warning() {
    if !can_run(&["man", "mandoc"]) {
        return;
    }
    for (name, _) in pages() {
        let file = Path::new(PAGES).join(&name);
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l"]).arg(&file);
        man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80");
        let rendered = man.output().unwrap();
        assert!(rendered.status.success(), "{name}");
        assert_eq!(text(&rendered.stderr), "", "{name}");
        let mut lint = Command::new("mandoc");
        let lint = lint
            .args(["-T", "lint", "-W", "warning"])
            .arg(&file)
            .output();
        let lint = lint.unwrap();
        assert_eq!(text(&lint.stdout), "", "{name}");
    }
}

#[test]
fn every_configuration_in_a_page_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nattrail.toml");
    let mut count = 0;
    for (name, text) in pages() {
        for example in text.split("\n.EX\n").skip(1) {
            let example = example.split("\n.EE\n").next().unwrap();
            let example = example.replace("\\-", "-").replace("\\e", "\\");
            if !example
                .lines()
                .any(|line| line.starts_with('[') && line.ends_with(']'))
            {
                continue;
            }
            // Units and the like also have sections in brackets, but not these.
            if !Section::ALL
                .iter()
                .any(|section| example.contains(&format!("[{}]", section.name())))
            {
                continue;
            }
            fs::write(&file, &example).unwrap();
            if let Err(error) = Config::load(Some(&file), std::iter::empty()) {
                panic!("{name}: {error}\n{example}");
            }
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} found");
}

#[test]
fn the_completions_load_and_complete_in_bash() {
    if !can_run(&["bash"]) {
        return;
    }
    let script = format!(
        "set -u; source {COMPLETIONS}/nattrail.bash; complete -p nattrail; \
         COMP_WORDS=(nattrail sta); COMP_CWORD=1; _nattrail nattrail sta nattrail; echo \"${{COMPREPLY[*]}}\"; \
         ls() {{ echo blue.toml; echo nattrail.toml; }}; \
         COMP_WORDS=(nattrail tail --instance b); COMP_CWORD=3; _nattrail nattrail b --instance; echo \"${{COMPREPLY[*]}}\"; \
         COMP_WORDS=(nattrail tail --event d); COMP_CWORD=3; _nattrail nattrail d --event; echo \"${{COMPREPLY[*]}}\""
    );
    let output = run(Command::new("bash").args(["--norc", "-c", &script]));
    assert_completes(&output, "status\nblue\ndelete\n");
}

#[test]
fn the_completions_load_and_complete_in_zsh() {
    if !can_run(&["zsh"]) {
        return;
    }
    // A user's setup: compinit finds it in fpath, by the name after the underscore.
    let script = format!(
        "fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -D -u; print $_comps[nattrail]; \
         autoload -Uz +X _nattrail && functions _nattrail_commands >/dev/null; zsh -n {COMPLETIONS}/_nattrail"
    );
    let output = run(Command::new("zsh").args(["-f", "-c", &script]));
    assert_completes(&output, "_nattrail");
}

#[test]
fn the_completions_load_and_complete_in_fish() {
    if !can_run(&["fish"]) {
        return;
    }
    let script = format!(
        "source {COMPLETIONS}/nattrail.fish; complete -C 'nattrail sta'; function ls; echo blue.toml; echo nattrail.toml; end; \
         complete -C 'nattrail tail --instance '; complete -C 'nattrail tail --event d'"
    );
    let home = tempfile::tempdir().unwrap();
    let mut fish = Command::new("fish");
    let output = run(fish
        .args(["--no-config", "-c", &script])
        .env("HOME", home.path()));
    for word in ["status\t", "\nblue\t", "\ndelete\n"] {
        assert_completes(&output, word);
    }
}

fn run(command: &mut Command) -> Output {
    command.env("TERM", "dumb").output().unwrap()
}

fn assert_completes(output: &Output, expected: &str) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(stderr, "", "{stdout}");
    assert!(output.status.success(), "{}: {stdout}", output.status);
    assert!(stdout.contains(expected), "{stdout}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(PAGES).join(name)).unwrap()
}

/// All pages, by name.
fn pages() -> Vec<(String, String)> {
    let files = fs::read_dir(PAGES)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    files
        .iter()
        .map(|file| (name(file), page(&name(file))))
        .collect()
}

/// The `nattrail.toml.5` that follows from the table of keys.
fn keys_page() -> String {
    let mut page = String::from(KEYS_BEFORE);
    for section in Section::ALL {
        let name = section.name();
        let heading = if section.is_list() {
            format!("[[{name}]]")
        } else {
            format!("[{name}]")
        };
        writeln!(page, ".SS {heading}\n{}", roff(section.introduction())).unwrap();
        for key in section.keys() {
            write_key(key, &mut page);
        }
    }
    page += KEYS_AFTER;
    page
}

fn write_key(key: &Key, page: &mut String) {
    writeln!(page, ".TP\n.B {}\n{}", typed(key.name), roff(key.doc)).unwrap();
    writeln!(page, ".br\nExpected: {}.", roff(key.expected)).unwrap();
    if key.is_fixed() {
        writeln!(page, ".br\nA change needs a restart.").unwrap();
    }
    // The sentence above states a default that follows from something else.
    let said = key.doc.contains("Default: ");
    let default = match key.preset {
        Preset::Required(example) => format!(
            "No default; for example:\n.BR \"{}\" .",
            typed(&quoted(example))
        ),
        _ if said => return,
        preset => format!("Default:\n.BR \"{}\" .", typed(&quoted(preset.sample()))),
    };
    writeln!(page, ".br\n{default}").unwrap();
}

/// Escapes a macro argument in quotation marks.
fn quoted(argument: &str) -> String {
    argument.replace('"', "\"\"")
}

/// Escapes literal text, whose hyphens must not become typographic.
fn typed(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Escapes running text, which may stand at the beginning of a line.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e");
    let mut lines = String::new();
    for sentence in text.split_inclusive(". ") {
        let mark = if sentence.starts_with(['.', '\'']) {
            "\\&"
        } else {
            ""
        };
        writeln!(lines, "{mark}{}", sentence.trim_end()).unwrap();
    }
    lines.trim_end().to_owned()
}

const KEYS_BEFORE: &str = include_str!("manual/before.5");
const KEYS_AFTER: &str = include_str!("manual/after.5");
