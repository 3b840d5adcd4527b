//! The package's archive: who may read it, ask it and give it orders, and who is written down for it.

use crate::container::Container;
use crate::warnings;

/// The archive is on, belongs to a user of its own, and answers those who may ask, and nobody else.
///
/// # Panics
/// When that does not hold.
pub fn answers(container: &Container) {
    container.run("systemctl is-active nattrail-archive");
    let owner = "stat --format '%U %G %a' /var/lib/nattrail-archive";
    assert_eq!(
        container.run(owner),
        "nattrail-archive nattrail-audit 2750\n"
    );
    // The session has ended by now.
    let ask =
        "nattrail who 198.51.100.1 --proto udp --from @$(($(date +%s) - 60)) --until @$(date +%s)";
    container.wait_for("nattrail status | grep 'Output: *archive,.* behind 0,'");
    container.run(&format!("{ask} | grep '192.0.2.2'"));
    let other = "setpriv --reuid nobody --regid nogroup";
    container.run(&format!(
        "{other} --groups nattrail,nattrail-audit {ask} | grep '192.0.2.2'"
    ));
    assert!(!container.holds(&format!("{other} --clear-groups {ask}")));
    let daemon = "setpriv --reuid nattrail --regid nattrail --init-groups";
    assert!(!container.holds(&format!("{daemon} ls /var/lib/nattrail-archive")));
    // An archive that is stopped for a while lacks nothing.
    container
        .run("systemctl stop nattrail-archive; /root/traffic; systemctl start nattrail-archive");
    container.wait_for("nattrail status | grep 'Output: *archive,.* behind 0,'");
    assert_eq!(warnings(container), "");
}

/// Members of the group ask and hold, nobody else asks, only root releases and deletes, and each act has its author.
///
/// # Panics
/// When that does not hold.
pub fn acts_have_their_authors(container: &Container) {
    let archive = "/var/lib/nattrail-archive";
    container.run(
        "useradd --no-create-home --groups nattrail-audit auditor; useradd --no-create-home stranger",
    );
    let by = |user: &str, command: &str| {
        let done = container.attempt(&format!("runuser --user {user} -- {command}"));
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let selection = "198.51.100.1 --proto udp --from @$(($(date +%s) - 600)) --until @$(date +%s)";
    let ask = format!("nattrail who {selection} --case 7");
    container.wait_for("nattrail status | grep 'Output: *archive,.* behind 0,'");
    let (status, answer, said) = by("stranger", &ask);
    assert_eq!((status, answer.as_str()), (Some(77), ""), "{said}");
    assert!(
        said.contains("ask as root, or as a member of its group"),
        "{said}"
    );
    let (_, answer, said) = by("auditor", &ask);
    assert!(answer.contains("192.0.2.2"), "{answer}{said}");
    // The group nattrail reads the daemon's database.
    assert!(
        answer.contains("pending.db\" cannot be read: Permission denied"),
        "{answer}"
    );

    let lookup = format!(
        "grep --files-with-matches '\"uid\": '$(id --user auditor), {archive}/acts/lookups/*/*.json"
    );
    container.wait_for(&lookup);
    let owners = format!("stat --format '%U %G %a' {archive}/inbox $({lookup})");
    let owner = "nattrail-archive nattrail-audit";
    assert_eq!(
        container.run(&owners),
        format!("{owner} 3770\n{owner} 640\n")
    );
    // While nobody takes it, the notice of another is no more the auditor's to delete than the record is.
    container.run(&format!(
        "systemctl stop nattrail-archive; {ask} | grep 192.0.2.2"
    ));
    for file in [format!("$({lookup})"), format!("{archive}/inbox/*.json")] {
        container.run(&format!("ls {file}"));
        assert_ne!(
            by("auditor", &format!("rm --force {file}")).0,
            Some(0),
            "{file}"
        );
    }

    let notice =
        r#"{"nonce": "00", "time": "2026-11-20T14:30:00.000Z", "case": "7", "act": "release"}"#;
    container.run(&format!(
        "echo '{notice}' >release; chmod 644 release
        runuser --user auditor -- cp $PWD/release {archive}/inbox/forged.json
        runuser --user auditor -- mkdir {archive}/inbox/0
        systemctl start nattrail-archive"
    ));
    let log = "journalctl --quiet --boot --output=cat --unit=nattrail-archive";
    container.wait_for(&format!(
        "{log} | grep 'forged.json.* of the user .* only root'"
    ));
    let (status, _, said) = by(
        "auditor",
        &format!("nattrail archive hold {selection} --case 7"),
    );
    assert_eq!(status, Some(0), "{said}");
    for order in ["release --case 7", "purge --keep 1d"] {
        let (status, answer, said) = by("auditor", &format!("nattrail archive {order}"));
        assert_eq!((status, answer.as_str()), (Some(77), ""), "{said}");
        assert!(said.contains("expected root"), "{said}");
    }
    container.run("nattrail archive holds | grep ^7");
    for (order, answer) in [
        ("purge --keep 1d", "nothing was deleted"),
        (
            "release --case 7",
            "the case 7 holds no sessions any more (holds that ended: 1)",
        ),
        ("holds", "no session is held"),
    ] {
        container.run(&format!("nattrail archive {order} | grep '{answer}'"));
    }
    for (act, user) in [("hold", "auditor"), ("purge", "root"), ("release", "root")] {
        container.run(&format!(
            "{log} | grep \"a {act} of the user $(id --user {user}):\""
        ));
    }
    container.run("nattrail verify; nattrail report --day $(date +%F) | grep '192.0.2.2'");
}
