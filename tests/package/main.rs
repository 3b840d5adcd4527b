//! The Debian package on a real system: built twice, examined by Debian's own tools, and installed in a container with
//! its own systemd, where it is upgraded under load, killed, starved, rebooted and removed.
//!
//! The sessions that the kernel made there are compared with the records in the journal.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "how long a real system takes needs the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod built;
mod container;
mod load;

use std::fs;
use std::path::Path;
use std::process::Command;

use built::Built;
use container::{Container, Release};
use load::{Account, NETWORK};
use support::can_run;
use support::netns::succeed;

/// The programs that building needs.
const BUILD: [&str; 4] = ["dh", "dpkg-buildpackage", "dpkg-deb", "pkg-config"];

#[test]
fn two_builds_are_the_same_bytes_and_lintian_has_nothing_to_say() {
    if !can_run(&[&BUILD[..], &["lintian"]].concat()) {
        return;
    }
    let (first, second) = (Built::shared(), Built::again());
    assert_eq!(first.debs(), second.debs());
    for deb in first.debs() {
        let same = fs::read(first.directory.join(&deb)).unwrap()
            == fs::read(second.directory.join(&deb)).unwrap();
        assert!(same, "{deb}: see diffoscope");
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--allow-root"]);
    assert_eq!(succeed(lintian.arg(first.changes()), ""), "");
}

#[test]
fn installed_upgraded_and_purged_it_leaves_nothing_behind() {
    if !can_run(&[&BUILD[..], &["piuparts"]].concat()) || !container::is_possible() {
        return;
    }
    let release = Release::of_this_machine();
    let mut piuparts = Command::new("piuparts");
    piuparts.arg("--basetgz").arg(release.archive());
    piuparts.args(["--distribution", &release.codename]);
    piuparts.args(["--mirror", &format!("{} main", release.mirror)]);
    piuparts.args(["--no-eatmydata", "--warn-on-others"]);
    // It tries the package's logrotate snippet, which makes logrotate write a state file.
    piuparts.args(["--ignore", "/var/lib/logrotate/status"]);
    succeed(piuparts.arg(Built::shared().deb()), "");
}

#[test]
fn it_serves_and_goes_on_a_real_system() {
    if !can_run(&[&BUILD[..], &["conntrack"]].concat()) || !container::is_possible() {
        return;
    }
    let built = Built::shared();
    let mut container = Container::boot(&Release::of_this_machine().archive());
    install(&container, &built.deb());

    logs_at_once(&container);
    archive::answers(&container);
    check_knows_the_sandbox(&container);
    units_are_tight_and_sound(&container);
    shipped_configurations_are_accepted(&container);
    rsyslog_has_files_of_its_own(&container);
    instances_stand_beside_it(&container);

    container.run(NETWORK);
    a_converted_nfflowd_has_files_of_its_own(&container);
    restarts_and_upgrades_lose_nothing(&container, built);
    crashes_are_stated(&container);
    a_full_disk_does_not_end_it(&container);
    a_wrong_configuration_changes_nothing(&container);
    a_reboot_ends_what_was_open(&mut container);
    archive::acts_have_their_authors(&container);
    goes_cleanly(&container);
}

/// Installs as an operator does, without a network: the dependencies are there.
fn install(container: &Container, deb: &Path) {
    let name = deb.file_name().unwrap().to_str().unwrap();
    fs::copy(deb, container.path("/root").join(name)).unwrap();
    container.run(&format!(
        "apt-get install --quiet --yes --allow-downgrades /root/{name}"
    ));
}

/// The service runs, nothing is wrong, and a translation is in the journal: the autopkgtest checks this.
fn logs_at_once(container: &Container) {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/tests");
    fs::copy(
        Path::new(directory).join("traffic"),
        container.path("/root/traffic"),
    )
    .unwrap();
    container.run("/root/traffic");
    assert_eq!(warnings(container), "");
    let settings = "cd /proc/sys/net/netfilter; cat nf_conntrack_events nf_conntrack_acct nf_conntrack_timestamp";
    assert_eq!(container.run(settings), "1\n1\n1\n");
    let owner = "stat --format '%U %a' /var/lib/nattrail /run/nattrail";
    assert_eq!(container.run(owner), "nattrail 750\nnattrail 750\n");
}

/// This uses the real unit of systemd.
fn check_knows_the_sandbox(container: &Container) {
    container.run(
        r#"nattrail check | grep '^ok *rights to files: .*nattrail.service.* user nattrail, ProtectSystem=strict'
cd /root; for path in /var/log/nattrail/a.csv /var/log/a.csv; do
printf '[[syslog]]\ntarget = "file"\npath = "%s"\n' $path >copy.toml
nattrail check --config copy.toml; done | grep ' file /var/' >found
test "$(cut -c -5 <found)" = "$(printf 'ok   \nerror')"
grep 'ProtectSystem=strict of nattrail.service' found
rm copy.toml found"#,
    );
}

fn warnings(container: &Container) -> String {
    container.run("journalctl --quiet --boot --unit='nattrail*' --priority=warning")
}

fn units_are_tight_and_sound(container: &Container) {
    let units = "/lib/systemd/system/nattrail.service /lib/systemd/system/nattrail@.service /lib/systemd/system/nattrail-archive.service /lib/systemd/system/nattrail-archive@.service /lib/systemd/system/nattrail-timestamp.timer /lib/systemd/system/nattrail-monitor@.service";
    let verified = container.attempt(&format!("systemd-analyze verify --man=no {units}"));
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
    assert!(verified.status.success());
    // The threshold is in tenths.
    let threshold = "systemd-analyze security --no-pager --offline=true --threshold=19";
    for unit in [
        "nattrail.service",
        "nattrail@.service",
        "nattrail-archive.service",
        "nattrail-archive@.service",
        "nattrail-timestamp.service",
        "nattrail-monitor@.service",
    ] {
        container.run(&format!("{threshold} {unit}"));
    }
}

fn shipped_configurations_are_accepted(container: &Container) {
    let shipped = "dpkg --listfiles nattrail | grep -e '\\.toml$' -e '\\.yaml$' -e '\\.json$' -e '\\.ini$' | grep -v /examples/";
    let files = container.run(shipped);
    assert!(files.contains("/etc/nattrail/nattrail.toml"), "{files}");
    for file in files.lines() {
        container.run(&format!("nattrail check --config {file}"));
    }
}

/// One file has the lines from the socket that only root and nattrail can reach, one those from the socket open to
/// everybody, one the RFC 5424 records as sent.
fn rsyslog_has_files_of_its_own(container: &Container) {
    container.run("rsyslogd -N1");
    let port = "ss --udp --listening --numeric --no-header 'sport = 5514'";
    assert_eq!(container.run(port), "", "nobody has asked for it");
    container.run(
        "cp /etc/nattrail/nattrail.toml /etc/rsyslog.d/20-nattrail.conf /root
sed -i '/^#module/,$s/^#//' /etc/rsyslog.d/20-nattrail.conf
rsyslogd -N1
systemctl restart rsyslog
cat >>/etc/nattrail/nattrail.toml <<'EOF'
[[syslog]]
target = \"local\"
path = \"/run/nattrail-rsyslog/socket\"
format = \"text\"
[[syslog]]
target = \"udp\"
address = \"127.0.0.1:5514\"
format = \"rfc5424\"
EOF
nattrail check
systemctl reload nattrail
/root/traffic",
    );
    let line =
        r#"^<182>1 [^ ]+Z gateway nattrail [0-9]+ SADD \[nsess ISADDR="192.0.2.2" .*PROTO="17"\]$"#;
    container.wait_for(&format!("grep -E '{line}' /var/log/nattrail-rfc5424.log"));
    container
        .wait_for("grep 'nattrail.* event=create .* pre_src=192.0.2.2 ' /var/log/nattrail.log");
    forged_records_are_told_apart(container);
    let modes = "stat --format '%U %G %a' /run/nattrail-rsyslog /var/log/nattrail*.log";
    let file = "root adm 640\n";
    let expected = format!("root nattrail 750\n{}", file.repeat(3));
    assert_eq!(container.run(modes), expected);
    assert!(!container.holds("grep event= /var/log/syslog"));
    container.run("logrotate --force /etc/logrotate.d/nattrail; test -e /var/log/nattrail.log-*");
    container.run(
        "cp /root/20-nattrail.conf /etc/rsyslog.d/; systemctl restart rsyslog
        cp /root/nattrail.toml /etc/nattrail/; systemctl reload nattrail",
    );
    assert_eq!(warnings(container), "");
}

/// No file and no answer of nattrail's contains lines that another user writes in its name.
fn forged_records_are_told_apart(container: &Container) {
    let other = "setpriv --reuid nobody --regid nogroup --clear-groups";
    let journal = "/run/systemd/journal";
    container.run(&format!(
        "{other} logger -t nattrail -p local6.info 'event=create post_src=203.0.113.66'
        printf 'MESSAGE=x\nSYSLOG_IDENTIFIER=nattrail\nNAT_POST_SRC=203.0.113.66\n' >entry
        unshare --mount sh -c 'mount --bind {journal}.nattrail/socket {journal}/socket; {other} logger --journald <entry'
        rm entry"
    ));
    let socket = "/run/nattrail-rsyslog/socket";
    assert!(!container.holds(&format!(
        "{other} logger --socket-errors=on --socket {socket} -t nattrail x"
    )));
    container.wait_for("grep post_src=203.0.113.66 /var/log/nattrail-unverified.log");
    assert!(!container.holds("grep 203.0.113.66 /var/log/nattrail.log"));
    let asked = |of: &str| {
        container.run(&format!(
            "journalctl --namespace=nattrail --quiet {of} NAT_POST_SRC=203.0.113.66"
        ))
    };
    assert_ne!(asked("--identifier nattrail"), "");
    assert_eq!(asked("--unit nattrail"), "");
    assert!(container.holds(
        "journalctl --namespace=nattrail --quiet --unit nattrail NAT_PRE_SRC=192.0.2.2 | grep ."
    ));
}

/// Its lines are in files of their own: rsyslog writes the syslog lines, and the file is where the sandbox lets the
/// service write, with the logrotate rules from the notes.
fn a_converted_nfflowd_has_files_of_its_own(container: &Container) {
    container.run(
        r#"cd /root; cat >nfflowd.conf <<'EOF'
<flow_send>
 args 0
 args 127.0.0.1
 args 9995
</flow_send>
<ptee>
 <conf>
  dispatchers screen syslog book
  <book>
   class Log::Dispatch::FileRotate
   filename /srv/flows
   mode append
   DatePattern yyyy-MM-dd
   max 30
  </book>
 </conf>
</ptee>
EOF
nattrail convert nfflowd nfflowd.conf --output new.toml 2>&1 | grep 'filename: the unit lets'
sed -n '/^#   "/,/^#   }/s/^#   //p' new.toml >/etc/logrotate.d/local-nattrail
grep 'rotate 30' /etc/logrotate.d/local-nattrail
nattrail check --config new.toml | grep '^ok .*/var/log/nattrail/flows.csv'
install -m 644 new.toml /etc/nattrail/nattrail.toml
nattrail restart
ip netns exec client bash -c 'echo x >/dev/udp/203.0.113.7/7776'"#,
    );
    container.with_network("conntrack", &["--delete", "--orig-src", "10.1.2.3"]);
    // Before translation, after it, and on the return path.
    for tuple in [
        "10.1.2.3,203.0.113.7",
        "203.0.113.9,203.0.113.7",
        "203.0.113.7,203.0.113.9",
    ] {
        container.wait_for(&format!("grep -F ,{tuple}, /var/log/nattrail/flows.csv"));
        container.wait_for(&format!(
            "grep -F ,{tuple}, /var/log/nfflowd-unverified.log"
        ));
    }
    assert!(!container.holds("grep -F ,203.0.113.7, /var/log/syslog"));
    let rotated = container.run(
        "rm /var/log/nattrail*-2*
        logrotate --force /etc/logrotate.conf
        stat --format '%U %a' /var/log/nattrail/flows.csv-2*",
    );
    assert_eq!(rotated, "nattrail 640\n");
    // The signal makes nattrail begin it anew.
    container.wait_for("test -e /var/log/nattrail/flows.csv");
    container.run(
        "rm /etc/logrotate.d/local-nattrail
        cp /root/nattrail.toml /etc/nattrail/; nattrail restart",
    );
}

/// One in the same network, one for a namespace from outside, one inside a namespace, by the shipped drop-ins.
fn instances_stand_beside_it(container: &Container) {
    container.run(
        "ip netns add red; ip netns add blue
        examples=/usr/share/doc/nattrail/examples units=/etc/systemd/system
        install -D -m 644 $examples/capture-namespace.conf $units/nattrail@red.service.d/x.conf
        install -D -m 644 $examples/inside-namespace.conf $units/nattrail@blue.service.d/x.conf
        echo 'capture.table = \"green\"
[archive]
directory = \"/var/lib/nattrail-archive@green\"
gateway = \"green\"' >/etc/nattrail/green.toml
        cp /etc/nattrail/green.toml /root
        printf '[capture]\\nset-sysctls = true\\nnamespace = \"red\"\\n' >/etc/nattrail/red.toml
        printf '[capture]\\nset-sysctls = true\\n' >/etc/nattrail/blue.toml
        systemctl daemon-reload
        systemctl start nattrail@green nattrail@red nattrail@blue nattrail-archive@green",
    );
    for name in ["green", "red", "blue"] {
        container.run(&format!(
            "nattrail status --instance {name}
            test -e /var/lib/nattrail@{name}/pending.db"
        ));
    }
    for name in ["red", "blue"] {
        container.run(&format!(
            "ip netns exec {name} nft list table inet nattrail
            test $(ip netns exec {name} cat /proc/sys/net/netfilter/nf_conntrack_acct) = 1"
        ));
    }
    let archive = "/var/lib/nattrail-archive@green";
    container.wait_for(&format!("test -d {archive}/spool -a -d {archive}/inbox"));
    let owners = format!("stat --format '%U %G %a' {archive} {archive}/inbox");
    let owner = "nattrail-archive nattrail-audit";
    assert_eq!(
        container.run(&owners),
        format!("{owner} 2750\n{owner} 3770\n")
    );
    container.run("/root/traffic");
    container.wait_for("nattrail status --instance green | grep 'Output: *archive,.* behind 0,'");
    let ask = "nattrail who 198.51.100.1 --instance green --from @$(($(date +%s) - 60)) --until @$(date +%s)";
    container.run(&format!("{ask} | grep '192.0.2.2'"));
    container.wait_for(&format!("ls {archive}/acts/lookups/*/green-1.json"));
    container.run(
        "systemctl stop nattrail@red nattrail@blue; ip netns delete red; ip netns delete blue
        rm -r /etc/systemd/system/nattrail@*.d; systemctl daemon-reload",
    );
    assert_eq!(warnings(container), "");
}

fn a_wrong_configuration_changes_nothing(container: &Container) {
    container.run(
        "systemctl start nattrail@green
        echo 'capture.tabel = \"green\"' >/etc/nattrail/green.toml
        if systemctl reload nattrail@green; then exit 1; fi
        journalctl --quiet --boot --unit=nattrail@green | grep 'did you mean \"table\"'
        cp /root/green.toml /etc/nattrail/
        systemctl reload nattrail@green
        chmod 600 /etc/nattrail/green.toml
        if nattrail restart --instance green 2>refusal; then exit 1; fi
        grep 'expected the service to be able to read it' refusal
        systemctl is-active nattrail@green
        chmod 644 /etc/nattrail/green.toml
        nattrail restart --instance green",
    );
}

fn restarts_and_upgrades_lose_nothing(container: &Container, built: &Built) {
    let process = |unit: &str| container.run(&format!("systemctl show --property=MainPID {unit}"));
    let restart = || drop(container.run("systemctl restart nattrail"));
    Account::of(container, restart).assert_lossless();
    for version in ["99.0", "0.0.1"] {
        let deb = built.with_version(version);
        let units = ["nattrail", "nattrail@green", "nattrail-archive@green"];
        let before = units.map(process);
        let upgrade = || install(container, &deb);
        Account::of(container, upgrade).assert_lossless();
        let installed = "dpkg-query --show --showformat '${Version}' nattrail";
        assert_eq!(container.run(installed), version);
        for (unit, before) in units.into_iter().zip(before) {
            assert_ne!(process(unit), before);
        }
    }
    assert_eq!(warnings(container), "");
    container.run("systemctl stop nattrail@green nattrail-archive@green");
}

fn crashes_are_stated(container: &Container) {
    let restarts = || {
        let count = container.run("systemctl show --property=NRestarts --value nattrail");
        count.trim().parse::<u32>().unwrap()
    };
    container.run(
        "mkdir /run/systemd/system/nattrail.service.d
        printf '[Service]\\nWatchdogSec=2s\\n' >/run/systemd/system/nattrail.service.d/x.conf
        systemctl daemon-reload; systemctl restart nattrail",
    );
    for signal in ["KILL", "STOP"] {
        let before = restarts();
        let crash = || {
            container.run(&format!(
                "systemctl kill --kill-who=main --signal={signal} nattrail"
            ));
            container.wait_for(&format!(
                "test $(systemctl show --property=NRestarts --value nattrail) -gt {before}"
            ));
            container.wait_for("systemctl is-active nattrail");
        };
        Account::of(container, crash).assert_crash_is_stated();
        assert_eq!(restarts(), before + 1);
    }
    container.run("rm -r /run/systemd/system/nattrail.service.d; systemctl daemon-reload");
}

/// The records go on while the database cannot, even when the service starts like that; it recovers once there is room.
fn a_full_disk_does_not_end_it(container: &Container) {
    container.run(
        "systemctl stop nattrail
        mount -t tmpfs -o size=4m,mode=750 tmpfs /var/lib/nattrail
        chown nattrail:nattrail /var/lib/nattrail
        systemctl start nattrail",
    );
    let fill = "! dd if=/dev/zero of=/var/lib/nattrail/fill bs=64k 2>/dev/null";
    Account::of(container, || drop(container.run(fill))).assert_lossless();
    container.run("systemctl is-active nattrail");
    container.wait_for("nattrail status | grep '^Database: .*failed [1-9]'");
    container.run("rm /var/lib/nattrail/fill");
    container.wait_for("nattrail status | grep '^Database: *available'");

    container.run(&format!(
        "systemctl stop nattrail; rm /var/lib/nattrail/*; {fill}; systemctl start nattrail
        nattrail status | grep '^Database: *not available'"
    ));
    let free = || drop(container.run("rm /var/lib/nattrail/fill"));
    // The gap between the two runs is stated once the database is available.
    Account::of(container, free).assert_each_once();
    container.wait_for("nattrail status | grep '^Database: *available'");
    container.run("systemctl stop nattrail; umount /var/lib/nattrail; systemctl start nattrail");
    // The journal has received more than its usual limit within its usual interval.
    assert!(!container.holds("journalctl --namespace=+nattrail | grep Suppressed"));
}

/// A connection from before is closed once, as inferred; the service and the kernel's settings are restored.
fn a_reboot_ends_what_was_open(container: &mut Container) {
    container.run("ip netns exec client bash -c 'echo x >/dev/udp/203.0.113.7/7777'");
    container.wait_for(
        "journalctl --namespace=nattrail --quiet NAT_EVENT=create NAT_PRE_DPORT=7777 | grep .",
    );
    container.wait_for("nattrail pending | grep 203.0.113.7:7777");
    container.reboot();
    container.run("systemctl is-active nattrail; nattrail check");
    let find =
        "journalctl --namespace=nattrail --quiet --output=cat NAT_PRE_DPORT=7777 NAT_EVENT=delete";
    container.wait_for(&format!("{find} | grep inferred=yes"));
    assert_eq!(container.run(find).lines().count(), 1);
    container.wait_for("! nattrail pending | grep 203.0.113.7:7777");
    container.run("/root/traffic");
}

fn goes_cleanly(container: &Container) {
    container.run("systemctl start nattrail@green nattrail-archive@green; apt-get remove --quiet --yes nattrail");
    assert!(!container.holds(
        "systemctl is-active nattrail nattrail@green nattrail-archive nattrail-archive@green"
    ));
    assert_eq!(container.run("nft list tables inet"), "");
    // The remaining files of the package must not make logrotate fail.
    container.run(
        "rm -f /var/log/nattrail*-2*
        setpriv --reuid nattrail --regid nattrail --clear-groups sh -c 'echo x >/var/log/nattrail/nat.csv'
        logrotate --force /etc/logrotate.d/nattrail
        test -e /var/log/nattrail/nat.csv-*",
    );
    container.run("test -e /var/lib/nattrail/pending.db; test -e /etc/nattrail/green.toml");
    let said = container.run("apt-get purge --quiet --yes nattrail");
    let find = "find / -xdev -name '*nattrail*' -not -path '/root/*' -not -path '/proc/*' -not -path '/tmp/*'";
    let left = container.run(find);
    // Only the records remain, and the message names their place.
    for path in left.lines() {
        let kept = [
            "/var/log/nattrail",
            "/var/log/journal",
            "/var/lib/nattrail-archive",
        ];
        assert!(kept.iter().any(|kept| path.starts_with(kept)), "{path}");
        let named = said.lines().any(|line| line.trim() == path);
        assert!(named, "{path}: {said}");
    }
    container.run("grep x /var/log/nattrail/nat.csv-*");
    assert_eq!(container.run("systemctl --failed --plain --no-legend"), "");
}
