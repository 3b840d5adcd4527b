//! The daemon ends in the middle of open connections and comes back: after a crash (kill -9) or a planned stop (SIGTERM).
//!
//! conntrack(8) listens all the while; both runs together print what it reports.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use support::conntrack::{Flow, Kind, Watch};
use support::daemon::{CAPTURE, Daemon, Ended, Home, PROGRAM, STDOUT_TEXT};
use support::gateway::{CLIENT, CLIENT6, Gateway, MASQUERADE, SERVER, SERVER6};
use support::record::{self, Fields, parse_millis};
use support::store::wait_until_all_is_taken;
use support::traffic::{Tcp, Udp, ping};
use support::wait_for;

/// A masquerading gateway with the daemon's first run on it.
struct Scene {
    net: Gateway,
    watch: Watch,
    home: Home,
}

impl Scene {
    fn new() -> Option<(Self, Daemon)> {
        Self::with_flush("100ms")
    }

    fn with_flush(interval: &str) -> Option<(Self, Daemon)> {
        let net = Gateway::new(&[])?;
        net.nft(MASQUERADE);
        let home = Home::new(&format!(
            "{CAPTURE}{STDOUT_TEXT}
             [pending]
             flush = \"{interval}\"
             "
        ));
        let daemon = Daemon::start(&net.gateway, &home);
        let watch = Watch::start(&net.gateway);
        Some((Self { net, watch, home }, daemon))
    }

    fn udp(&self, port: u16) -> Udp {
        let (client, server) = (&self.net.client, &self.net.server);
        Udp::open(client, (CLIENT, port), (SERVER, 53), server, (SERVER, 53))
    }

    /// Waits until the store holds this many sessions: a crash loses later ones.
    fn wait_until_stored(&self, sessions: usize) {
        wait_for(&format!("{sessions} sessions in the store"), || {
            let mut command = Command::new(PROGRAM);
            command.args(["pending", "--json", "--config"]);
            command.arg(self.home.config());
            command.env("STATE_DIRECTORY", self.home.state());
            let output = command.output().unwrap();
            let stored = String::from_utf8(output.stdout).unwrap().lines().count();
            (stored == sessions).then_some(())
        });
    }

    fn start_again(&self) -> Daemon {
        Daemon::start(&self.net.gateway, &self.home)
    }

    /// Ends all connections and waits for conntrack's report: the beginnings, then the ends.
    fn end_connections(&self) -> Vec<Flow> {
        self.watch.wait_for_new(&self.net.table());
        self.net.end_connections();
        let mut events = self.watch.wait_for_ends(|_| true);
        // The sort is stable: each kind stays in the kernel's order.
        events.sort_by_key(|event| event.kind == Kind::Destroy);
        events
    }
}

/// The records of a kind among the lines.
fn of_kind(lines: &[String], kind: &str) -> Vec<Fields> {
    let mut records: Vec<Fields> = lines.iter().map(|line| record::parse_text(line)).collect();
    records.retain(|record| record["event"] == kind);
    records
}

fn wait_for_kind(daemon: &Daemon, kind: &str, count: usize) -> Vec<Fields> {
    wait_for(&format!("{count} records of kind {kind}"), || {
        let records = of_kind(&daemon.printed(), kind);
        (records.len() >= count).then_some(records)
    })
}

/// Sessions stay open while the daemon is replaced; their ends are as if it had never been away.
fn open_sessions_outlive(the_daemon: impl FnOnce(Daemon) -> Ended) {
    let Some((scene, daemon)) = Scene::new() else {
        return;
    };
    let (client, server) = (&scene.net.client, &scene.net.server);
    let from = (CLIENT, 40_000);
    let mut tcp = Tcp::open(client, from, (SERVER, 443), server, (SERVER, 443));
    tcp.exchange(1000, 10_000);
    let mut udp = scene.udp(40_000);
    udp.exchange(100, 200);
    ping(client, CLIENT6, SERVER6, 4711, 2);
    let _ = daemon.wait_for_records(3, record::parse_text);
    scene.wait_until_stored(3);
    wait_until_all_is_taken(&scene.home);

    let first = the_daemon(daemon);
    // Nobody listens, and the kernel goes on counting.
    tcp.exchange(2000, 20_000);
    udp.exchange(300, 400);

    let daemon = scene.start_again();
    tcp.exchange(3000, 30_000);
    let events = scene.end_connections();
    let deletes = wait_for_kind(&daemon, "delete", 3);
    let second = daemon.terminate();

    let creates = of_kind(&first.stdout, "create");
    record::assert_records(&[creates, deletes].concat(), &events);
    assert_eq!(first.stdout.len(), 3, "only creates: {:#?}", first.stdout);
    assert_eq!(of_kind(&second.stdout, "create"), []);
    assert_eq!(of_kind(&second.stdout, "delete").len(), 3);
    scene.wait_until_stored(0);
}

#[test]
fn a_crash_costs_neither_start_times_nor_counters() {
    open_sessions_outlive(Daemon::kill);
}

#[test]
fn a_planned_restart_costs_neither_start_times_nor_counters() {
    open_sessions_outlive(Daemon::terminate);
}

#[test]
fn crash_after_crash_every_delete_has_one_create() {
    const RUNS: u16 = 4;
    let Some((scene, mut daemon)) = Scene::new() else {
        return;
    };
    let mut creates = Vec::new();
    for run in 0..RUNS {
        scene.udp(40_000 + run).exchange(1, 1);
        wait_for_kind(&daemon, "create", 1);
        scene.wait_until_stored(usize::from(run) + 1);
        wait_until_all_is_taken(&scene.home);
        creates.extend(of_kind(&daemon.kill().stdout, "create"));
        daemon = scene.start_again();
    }
    let events = scene.end_connections();
    let deletes = wait_for_kind(&daemon, "delete", usize::from(RUNS));
    creates.extend(of_kind(&daemon.terminate().stdout, "create"));
    record::assert_records(&[creates, deletes].concat(), &events);
}

/// Records leave after the commit that has them, and the next commit has the outputs' progress.
#[test]
fn a_crash_before_the_next_flush_repeats_records_as_they_were_and_nothing_else() {
    const SESSIONS: u16 = 5;
    let Some((scene, daemon)) = Scene::with_flush("2s") else {
        return;
    };
    for number in 0..SESSIONS {
        scene.udp(40_000 + number).exchange(1, 1);
    }
    wait_for_kind(&daemon, "create", SESSIONS.into());
    let first = daemon.kill();
    assert_eq!(first.stdout.len(), usize::from(SESSIONS));

    let daemon = scene.start_again();
    wait_for_kind(&daemon, "gap", 1);
    let events = scene.end_connections();
    let deletes = wait_for_kind(&daemon, "delete", SESSIONS.into());
    let second = daemon.terminate();
    record::assert_records(
        &[of_kind(&first.stdout, "create"), deletes].concat(),
        &events,
    );

    let is_create = |line: &&String| line.contains(" event=create ");
    let repeated: Vec<_> = second.stdout.iter().filter(is_create).collect();
    assert!(!repeated.is_empty(), "the crash came after the next commit");
    // Id, time and all else.
    for (index, line) in repeated.iter().enumerate() {
        assert!(first.stdout.contains(line), "{line}");
        assert!(!repeated[..index].contains(line), "twice: {line}");
    }
    assert_eq!(of_kind(&second.stdout, "gap").len(), 1);
    let others = usize::from(SESSIONS) + 1;
    assert_eq!(second.stdout.len(), repeated.len() + others);
}

#[test]
fn a_session_that_ended_meanwhile_gets_an_inferred_delete() {
    let Some((scene, daemon)) = Scene::new() else {
        return;
    };
    scene.udp(40_000).exchange(1, 1);
    let create = daemon.wait_for_records(1, record::parse_text).remove(0);
    scene.wait_until_stored(1);
    daemon.kill();
    let events = scene.end_connections();
    let daemon = scene.start_again();
    let delete = wait_for_kind(&daemon, "delete", 1).remove(0);
    let gap = wait_for_kind(&daemon, "gap", 1).remove(0);

    // It is the same session, as far as both records identify it.
    for (name, value) in &create {
        if !["event", "time"].contains(&name.as_str()) {
            assert_eq!(delete.get(name), Some(value), "{name}");
        }
    }
    assert_eq!(delete["inferred"], "yes");
    assert_eq!(delete["start"], create["time"]);
    // The true end is in the gap, and the stated one bounds it.
    let ended = i64::try_from(events[1].stop.unwrap() / 1_000_000).unwrap();
    assert!(parse_millis(&gap["from"]) <= ended);
    assert!(ended <= parse_millis(&gap["to"]));
    assert!(ended <= parse_millis(&delete["end"]));
    assert_eq!(gap["cause"], "restart");
    scene.wait_until_stored(0);
}

#[test]
fn a_session_that_began_meanwhile_is_adopted_with_its_true_start() {
    let Some((scene, daemon)) = Scene::new() else {
        return;
    };
    daemon.terminate();
    let mut udp = scene.udp(40_000);
    udp.exchange(10, 20);
    let entry = scene.net.table().remove(0);

    let daemon = scene.start_again();
    let create = wait_for_kind(&daemon, "create", 1).remove(0);
    assert_eq!(create["inferred"], "yes");
    assert_eq!(
        create["time"],
        record::rfc3339(entry.start.unwrap() / 1_000_000)
    );
    assert_eq!(create["pre_sport"], "40000");

    udp.exchange(30, 40);
    let events = scene.end_connections();
    let deletes = wait_for_kind(&daemon, "delete", 1);
    record::assert_records(&deletes, &events[1..]);
}

#[test]
fn a_session_older_than_the_first_run_is_adopted_too() {
    let Some(net) = Gateway::new(&[]) else {
        return;
    };
    net.nft(MASQUERADE);
    net.keep_accounts();
    let watch = Watch::start(&net.gateway);
    ping(&net.client, CLIENT, SERVER, 1, 1);
    watch.wait_for_new(&net.table());
    let home = Home::new(STDOUT_TEXT);
    let daemon = Daemon::start(&net.gateway, &home);
    wait_for_kind(&daemon, "create", 1);
    net.end_connections();
    let events = watch.wait_for_ends(|_| true);
    let deletes = wait_for_kind(&daemon, "delete", 1);
    record::assert_records(&deletes, &events[1..]);
    assert_eq!(daemon.printed().len(), 2, "a first run has no gap");
}

/// Whatever replaces a database in use: the sessions are those of the running daemon.
fn a_database_is_moved(back: impl Fn(&Scene, &Daemon, &Path, &Path)) {
    let Some((scene, daemon)) = Scene::new() else {
        return;
    };
    scene.udp(40_000).exchange(1, 1);
    wait_for_kind(&daemon, "create", 1);
    scene.wait_until_stored(1);
    let aside = scene.home.path().join("aside");
    back(&scene, &daemon, &scene.home.state(), &aside);
    let _ = daemon.wait_for_message("nattrail begins a new one");
    let _ = daemon.wait_for_message("the file that was in the place of the database is now");
    scene.wait_until_stored(1);
    let events = scene.end_connections();
    wait_for_kind(&daemon, "delete", 1);
    scene.wait_until_stored(0);
    let first = daemon.terminate();
    let second = scene.start_again();
    let _ = second.wait_for_message("started");
    let ended = [first, second.terminate()];
    let printed: Vec<_> = ended.iter().flat_map(|run| run.stdout.clone()).collect();
    let all = [of_kind(&printed, "create"), of_kind(&printed, "delete")].concat();
    record::assert_records(&all, &events);
}

#[test]
fn an_older_copy_in_the_place_of_the_database_ends_no_session_twice() {
    a_database_is_moved(|_, _, state, aside| {
        fs::copy(state.join("pending.db"), aside).unwrap();
        fs::copy(state.join("pending.db-wal"), state.join("copy-wal")).unwrap();
        fs::rename(state.join("copy-wal"), state.join("pending.db-wal")).unwrap();
        fs::rename(aside, state.join("pending.db")).unwrap();
    });
}

#[test]
fn a_state_directory_that_goes_and_comes_back_ends_no_session_twice() {
    a_database_is_moved(|scene, daemon, state, aside| {
        fs::rename(state, aside).unwrap();
        let _ = daemon.wait_for_message("nattrail begins a new one");
        // The daemon makes the directory again; the new one is in use once it holds the session.
        scene.wait_until_stored(1);
        renameat_with(CWD, aside, CWD, state, RenameFlags::EXCHANGE).unwrap();
    });
}
