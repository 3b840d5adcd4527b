//! The command line of the real binary: exit statuses and messages.

#![allow(clippy::unwrap_used)]

#[path = "support/answer.rs"]
mod answer;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use self::answer::{status, stderr, stdout};

/// The binary without the variables of the user who runs the tests.
fn nattrail(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nattrail"));
    command.args(arguments);
    // This hides a systemd that might know an installed nattrail.
    command.env("PATH", "/nonexistent");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("NATTRAIL_")
            || matches!(name.as_str(), "STATE_DIRECTORY" | "RUNTIME_DIRECTORY")
        {
            command.env_remove(name);
        }
    }
    command
}

/// A directory with one configuration file in it.
fn configuration(name: &str, text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.display().to_string();
    (directory, file)
}

fn check(name: &str, text: &str) -> (i32, String) {
    let (_directory, file) = configuration(name, text);
    let output = nattrail(&["check", "-c", &file]).output().unwrap();
    (status(&output), stdout(&output).replace(&file, "FILE"))
}

fn line_about<'a>(text: &'a str, object: &str) -> &'a str {
    let line = text.lines().find(|line| line.contains(object));
    line.unwrap_or_else(|| panic!("nothing about {object} in:\n{text}"))
}

#[test]
fn version_is_one_line() {
    let output = nattrail(&["version"]).output().unwrap();
    assert_eq!(status(&output), 0);
    let expected = format!("nattrail {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&output), expected);
    assert!(output.stderr.is_empty());
}

#[test]
fn help_names_the_commands_on_the_standard_output() {
    for argument in ["help", "--help"] {
        let output = nattrail(&[argument]).output().unwrap();
        assert_eq!(status(&output), 0);
        for command in [
            "run", "start", "stop", "restart", "reload", "install", "check", "pending", "status",
            "tail", "convert", "who", "version", "help", "--config",
        ] {
            assert!(stdout(&output).contains(command), "{command}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let cases: [(&[&str], &str); 4] = [
        (&[], "Usage: nattrail"),
        (&["chek"], "check"),
        (&["check", "--jsn"], "--json"),
        (&["check", "-c"], "--config"),
    ];
    for (arguments, expected) in cases {
        let output = nattrail(arguments).output().unwrap();
        assert_eq!(status(&output), 64, "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn each_mistake_of_a_configuration_is_a_line() {
    let text = "[capture]\nlog = \"natt\"\nmark = \"0x1f0/0xff\"\n[pending]\nttk = \"7d\"\n";
    let (status, found) = check("n.toml", text);
    assert_eq!(status, 78);
    assert_eq!(
        found,
        "\
error   FILE: capture.log: expected \"nat\" or \"all\", found \"natt\"
error   FILE: capture.mark: expected a value whose bits are all in the mask, such as 0xf0/0xff, found \"0x1f0/0xff\"
error   FILE: pending.ttk: unknown key, did you mean \"ttl\"
"
    );
}

#[test]
fn run_refuses_a_wrong_configuration_with_its_lines_on_the_standard_error() {
    let (_directory, file) = configuration("n.toml", "[capture]\nlog = 1\nmarc = 2\n");
    let mut command = nattrail(&["run", "-c", &file]);
    let output = command.env_remove("JOURNAL_STREAM").output().unwrap();
    assert_eq!(status(&output), 78);
    assert_eq!(
        stderr(&output).replace(&file, "FILE"),
        "\
error: FILE: capture.log: expected \"nat\" or \"all\", found 1
error: FILE: capture.marc: unknown key, did you mean \"mark\"
"
    );
    let mut command = nattrail(&["run", "-c", &file]);
    let output = command.env("JOURNAL_STREAM", "8:1").output().unwrap();
    assert!(stderr(&output).lines().all(|line| line.starts_with("<3>")));
}

#[test]
fn a_contradiction_is_a_configuration_error() {
    let text = "[[collector]]\naddress = \"192.0.2.1\"\nversion = \"v5\"\ningress-vrf = true\n";
    let (status, found) = check("n.toml", text);
    assert_eq!(status, 78);
    assert_eq!(
        found,
        "error   FILE: line 1: collector[0].ingress-vrf: expected false with version \"v5\", whose records have no room for it, found \
         true\n"
    );
}

#[test]
fn a_configuration_of_another_format_is_refused() {
    let (status, found) = check("n.conf", "");
    assert_eq!(status, 78);
    assert_eq!(
        found,
        "error   FILE: expected a name that ends in .toml, .yaml (.yml), .json or .ini\n"
    );
}

#[test]
fn a_configuration_that_is_not_there_is_a_configuration_error() {
    let output = nattrail(&["check", "--config", "/nonexistent/n.toml"]).output();
    let output = output.unwrap();
    assert_eq!(status(&output), 78);
    assert_eq!(
        stdout(&output),
        "error   /nonexistent/n.toml: expected a readable text file, found: No such file or directory (os error 2)\n"
    );
    let output = nattrail(&["check", "-c", "/nope"]).output().unwrap();
    assert_eq!(
        stdout(&output),
        "error   /nope: expected a readable text file, found: No such file or directory (os error 2)\n"
    );
}

#[test]
fn the_environment_names_the_file_and_the_option_goes_before_it() {
    let (_directory, file) = configuration("n.toml", "[capture]\nlog = 1\n");
    let mut command = nattrail(&["check"]);
    let output = command.env("NATTRAIL_CONFIG", &file).output().unwrap();
    assert_eq!(status(&output), 78);
    assert!(stdout(&output).contains("capture.log"));
    let mut command = nattrail(&["check", "-c", "/nonexistent/n.toml"]);
    let output = command.env("NATTRAIL_CONFIG", &file).output().unwrap();
    assert!(stdout(&output).contains("/nonexistent/n.toml"));
}

#[test]
fn a_misspelt_variable_is_a_configuration_error() {
    let (_directory, file) = configuration("n.toml", "");
    let mut command = nattrail(&["check", "-c", &file]);
    let output = command.env("NATTRAIL_PENDING_TTTL", "7d").output().unwrap();
    assert_eq!(status(&output), 78);
    assert_eq!(
        stdout(&output),
        "error   NATTRAIL_PENDING_TTTL: unknown variable, did you mean NATTRAIL_PENDING_TTL\n"
    );
}

#[test]
fn check_has_a_line_for_every_object() {
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let text = format!(
        "[pending]\ndatabase = \"{0}/pending.db\"\n\
         [[collector]]\naddress = \"127.0.0.1:2055\"\n\
         [[collector]]\naddress = \"127.0.0.1:2056\"\nsource-address = \"240.0.0.1\"\n\
         [[syslog]]\ntarget = \"file\"\npath = \"{0}/nat.csv\"\n\
         [[syslog]]\ntarget = \"local\"\npath = \"{0}/none\"\n",
        state.path().display()
    );
    let (status, found) = check("n.toml", &text);
    assert!(line_about(&found, "configuration").starts_with("ok "));
    assert!(line_about(&found, "state directory").contains("writable, mode 0750"));
    let privileged = line_about(&found, "CAP_NET_ADMIN").starts_with("ok ");
    assert_eq!(status, if privileged { 69 } else { 77 }, "{found}");
    assert!(
        line_about(&found, "collector 127.0.0.1:2055")
            .ends_with("there is a route, from 127.0.0.1")
    );
    assert!(line_about(&found, "collector 127.0.0.1:2056").starts_with("error "));
    assert!(line_about(&found, "/nat.csv").starts_with("ok "));
    assert!(line_about(&found, "/none").starts_with("error "));
}

#[test]
fn check_as_json_is_an_array_of_objects() {
    let (_directory, file) = configuration("n.toml", "[capture]\nlog = 1\n");
    let output = nattrail(&["check", "--json", "-c", &file])
        .output()
        .unwrap();
    assert_eq!(status(&output), 78);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(findings[0]["verdict"], "error");
    assert_eq!(findings[0]["object"], format!("{file}: capture.log"));
    assert_eq!(
        findings[0]["finding"],
        "expected \"nat\" or \"all\", found 1"
    );
}

#[test]
fn check_says_when_the_archive_never_deletes() {
    let said = |text: &str| {
        let (_directory, file) = configuration("n.toml", text);
        let output = nattrail(&["check", "-c", &file]).output().unwrap();
        let lines = stdout(&output);
        lines
            .lines()
            .find(|line| line.contains("archive.keep: "))
            .map(str::to_owned)
    };
    let never = "ok      archive.keep: not set: the archive never deletes a connection";
    assert_eq!(said("").as_deref(), Some(never));
    assert_eq!(said("[archive]\nkeep = \"365d\"\n"), None);
}

#[test]
fn a_configuration_that_others_can_write_is_a_warning() {
    let (_directory, file) = configuration("n.toml", "");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let output = nattrail(&["check", "-c", &file]).output().unwrap();
    let found = stdout(&output);
    let line = line_about(&found, "found mode 0666");
    assert!(line.starts_with("warning "), "{line}");
}

#[test]
fn without_privileges_the_missing_capability_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let readable = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    readable(directory.path());
    let file = directory.path().join("n.toml");
    fs::write(&file, "[capture]\nnamespace = \"none\"\n").unwrap();
    readable(&file);
    // The build directory may be closed to others, so the other user gets a copy. Another process makes it: a file
    // opened for writing here could still be open in the child of another test, and could then not be executed.
    let binary = directory.path().join("nattrail");
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_nattrail")).arg(&binary);
    assert!(copy.status().unwrap().success());
    readable(&binary);
    let run = |command: &str| {
        let mut program = Command::new(&binary);
        program.env_clear().arg(command).arg("-c").arg(&file);
        program.env("STATE_DIRECTORY", directory.path().join("state"));
        if rustix::process::geteuid().is_root() {
            program.uid(65534).gid(65534);
        }
        program.output().unwrap()
    };
    let output = run("check");
    assert_eq!(status(&output), 77, "{}", stdout(&output));
    let found = stdout(&output);
    let line = line_about(&found, "CAP_NET_ADMIN");
    assert!(line.starts_with("error "), "{line}");
    assert!(line.contains("run this as root"), "{line}");
    assert!(line_about(&found, "CAP_SYS_ADMIN").starts_with("error "));
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o750)).unwrap();
    let output = run("pending");
    assert_eq!(status(&output), 77);
    assert_eq!(
        stderr(&output),
        format!(
            "error: database \"{}/pending.db\": Permission denied (os error 13): run as root\n",
            state.display()
        )
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for command in ["check", "pending", "status", "tail", "run"] {
        let output = run(command);
        assert_eq!(status(&output), 77, "{command}");
        let said = stdout(&output) + &stderr(&output);
        assert!(
            said.contains("Permission denied (os error 13): run as root"),
            "{said}"
        );
    }
}

#[test]
fn an_instance_is_named_for_every_command() {
    let (_directory, file) = configuration("n.toml", "");
    let said = |arguments: &[&str]| {
        let output = nattrail(arguments).output().unwrap();
        (status(&output), stdout(&output) + &stderr(&output))
    };
    for command in ["run", "check", "pending", "status", "tail", "start"] {
        let (code, found) = said(&[command, "--instance", "no-such"]);
        assert_eq!(code, 78, "{command}: {found}");
        assert!(
            found.contains("/etc/nattrail/no-such.toml: expected a readable"),
            "{found}"
        );
    }
    for command in ["status", "tail"] {
        let (code, found) = said(&["--instance", "no-such", command, "-c", &file]);
        assert_eq!(code, 69, "{found}");
        assert!(
            found.contains("\"/run/nattrail@no-such/control.sock\""),
            "{found}"
        );
    }
    let (code, found) = said(&["pending", "--instance", "no-such", "-c", &file]);
    assert_eq!(code, 69, "{found}");
    assert!(
        found.contains("\"/var/lib/nattrail@no-such/pending.db\""),
        "{found}"
    );
    assert_eq!(said(&["status", "--instance", "../x"]).0, 64);
}

#[test]
fn the_configuration_can_be_checked_alone() {
    let (_directory, file) = configuration("n.toml", "[capture]\nnamespace = \"none\"\n");
    let run = |arguments: &[&str]| {
        let mut command = nattrail(&["check", "--config-only", "-c", &file]);
        let output = command
            .args(arguments)
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        (status(&output), stdout(&output))
    };
    let line = format!("ok      configuration: {file}\n");
    assert_eq!(run(&[]), (0, line.clone()));
    let painted = line.replace("ok ", "\x1b[32mok\x1b[0m ");
    assert_eq!(run(&["--color=always"]), (0, painted));
    fs::write(&file, "[capture]\nnamspace = \"none\"\n").unwrap();
    let (code, found) = run(&["--color=always"]);
    assert_eq!(code, 78);
    assert!(
        found.starts_with("\x1b[1;37;41merror\x1b[0m   "),
        "{found:?}"
    );
}

#[test]
fn a_database_that_is_another_file_is_said_to_be_one() {
    let (directory, file) = configuration("n.toml", "");
    let database = directory.path().join("pending.db");
    let found = || {
        let mut command = nattrail(&["check", "-c", &file]);
        let output = command.env("STATE_DIRECTORY", directory.path()).output();
        line_about(&stdout(&output.unwrap()), "pending.db").to_owned()
    };
    for foreign in ["a text", "SQLite format 3\0 of another program"] {
        fs::write(&database, foreign).unwrap();
        let expected = "expected a database of nattrail, found another file: move it away";
        assert!(found().contains(expected), "{}", found());
        assert!(found().starts_with("error "), "{}", found());
    }
    fs::write(&database, "").unwrap();
    assert!(found().starts_with("ok "), "{}", found());
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = nattrail(&["version"]);
    let child = command.stdout(writer).stderr(std::process::Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(status(&output), 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_full_standard_output_is_an_error_of_the_system() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = nattrail(&["version"]);
    let child = command
        .stdout(full.unwrap())
        .stderr(std::process::Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(status(&output), 71);
    assert_eq!(
        stderr(&output),
        "error: standard output: No space left on device (os error 28)\n"
    );
}

#[test]
fn a_converted_configuration_is_one_that_check_accepts() {
    let sender = "<flow_send>\nargs 0\nargs 127.0.0.1\nargs 2055\n</flow_send>\n<ptee>\n<conf>\ndispatchers screen\n</conf>\n</ptee>\n";
    let (directory, file) = configuration("nfflowd.conf", sender);
    let result = directory.path().join("nattrail.toml");
    let result = result.to_str().unwrap();
    let convert = || {
        let output = nattrail(&["convert", "nfflowd", &file, "--output", result]).output();
        output.unwrap()
    };
    let output = convert();
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let found = nattrail(&["check", "-c", result]).output().unwrap();
    let found = stdout(&found);
    let expected = format!("ok      configuration: {result}");
    assert_eq!(line_about(&found, "configuration"), expected);
    assert!(
        line_about(&found, "collector 127.0.0.1:2055").starts_with("ok "),
        "{found}"
    );
    // A second run does not overwrite it.
    let output = convert();
    assert_eq!(status(&output), 69);
    assert!(
        stderr(&output).contains("move it away"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_cannot_be_converted_is_said_with_its_line() {
    let options = "options ipt_NETFLOW destination=127.0.0.1 natevents=1 \\\n hashsize=1\n";
    let (_directory, file) = configuration("ipt_NETFLOW.conf", options);
    let output = nattrail(&["convert", "ipt-netflow", &file])
        .output()
        .unwrap();
    assert_eq!(status(&output), 0);
    let expected = format!("warning: {file}: line 2: hashsize: no equivalent");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    assert!(stdout(&output).contains("# - line 2: hashsize: no equivalent"));
    let output = nattrail(&["convert", "nfflowd", &file]).output().unwrap();
    assert_eq!(status(&output), 65, "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[test]
fn strict_makes_a_warning_fail() {
    let (directory, file) = configuration("n.toml", "");
    let checked = |arguments: &[&str]| {
        let mut command = nattrail(arguments);
        command.args(["check", "-c", &file]);
        // A directory readable by others is a warning.
        command.env("STATE_DIRECTORY", directory.path());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        command
    };
    let status_of = |more: &[&str]| status(&checked(&[]).args(more).output().unwrap());
    let plain = status_of(&[]);
    if plain == 0 {
        assert_eq!(status_of(&["--strict"]), 69);
    } else {
        // The machine lacks more than that, and --strict does not hide it.
        assert_eq!(status_of(&["--strict"]), plain);
    }
}

/// The findings of `check` where `systemctl show` prints these properties of the unit, and its exit status.
fn check_with_unit(directory: &Path, properties: &str, file: &str) -> (i32, String) {
    let programs = directory.join("bin");
    fs::create_dir_all(&programs).unwrap();
    let systemctl = programs.join("systemctl");
    let script =
        format!("#!/bin/sh\ntest \"$1 $3\" = 'show nattrail.service' && echo '{properties}'\n");
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let output = nattrail(&["check", "-c", file]).env("PATH", path).output();
    let output = output.unwrap();
    (status(&output), stdout(&output))
}

#[test]
fn check_judges_files_by_the_rights_of_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let copies = directory.path().join("copies");
    fs::create_dir(&copies).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(directory.path(), 0o755);
    let text = format!(
        "[pending]\ndatabase = \"{0}/pending.db\"\n\
         [[syslog]]\ntarget = \"file\"\npath = \"{0}/nat.csv\"\n",
        copies.display()
    );
    let (_configuration, file) = configuration("n.toml", &text);
    let unit = |more: &str| {
        format!("LoadState=loaded\nUser=nobody\nProtectHome=yes\nPrivateTmp=no\n{more}")
    };
    let strict = unit("ProtectSystem=strict");
    let open = unit(&format!(
        "ProtectSystem=strict\nReadWritePaths={}",
        copies.display()
    ));
    let copy_with = |properties: &str| {
        let (status, found) = check_with_unit(directory.path(), properties, &file);
        (status, line_about(&found, "/nat.csv").to_owned(), found)
    };

    mode(&copies, 0o777);
    let (status, copy, found) = copy_with(&strict);
    assert_eq!(status, 77, "{found}");
    assert!(
        copy.starts_with("error ") && copy.contains("ProtectSystem=strict of nattrail.service"),
        "{copy}"
    );
    let rights = line_about(&found, "rights to files");
    assert!(
        rights.contains("nattrail.service") && rights.contains("user nobody"),
        "{rights}"
    );
    let (_, copy, _) = copy_with(&open);
    assert!(copy.starts_with("ok "), "{copy}");

    mode(&copies, 0o755);
    let (status, copy, found) = copy_with(&open);
    assert_eq!(status, 77, "{found}");
    assert!(
        copy.starts_with("error ") && copy.contains("owner and mode"),
        "{copy}"
    );
    mode(directory.path(), 0o700);
    mode(&copies, 0o777);
    let (_, copy, _) = copy_with(&open);
    assert!(copy.contains("is closed to user nobody"), "{copy}");

    let (_, copy, found) = copy_with("LoadState=not-found");
    assert!(copy.starts_with("ok "), "{copy}");
    assert!(
        line_about(&found, "rights to files").contains("the caller"),
        "{found}"
    );
}
