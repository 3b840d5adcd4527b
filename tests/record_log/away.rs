//! Far receivers are away while sessions begin and end, and the daemon changes meanwhile.

use rustix::process::Signal;

use crate::account::{Twice, assert_complete, assert_continued, gaps};
use crate::scene::{OUTPUTS, Scene};
use crate::support::status::{ask, number};

const BEFORE: u32 = 50;
const WHILE_AWAY: u32 = 5_000;
const AFTER: u32 = 200;

const COLLECTOR: &str = "export-delay = \"100ms\"";
const CHANGED: &str = "export-delay = \"50ms\"\nmtu = 1300\nsend-buffer = \"1MiB\"";

/// The way in which the receivers are away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Away {
    NoRoute,
    NoListener,
}

/// The fate of the daemon meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    /// A restart under a service manager that keeps the event socket.
    Managed,
    Terminated,
    Reloaded,
    /// Killed once the database knows the outputs' progress.
    Killed,
}

fn survive(away: Away, change: Change) {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.configure(COLLECTOR, "");
    scene.add_route();
    scene.listen();
    start(&mut scene, change);
    scene.make(BEFORE);
    scene.wait_until_taken();
    let first = [0, 1, 2].map(|index| scene.far(index).0.len());

    scene.close();
    if away == Away::NoRoute {
        scene.delete_route();
    }
    scene.make(WHILE_AWAY);
    scene.wait_until_committed(&["file", "local.sock", "journal"]);
    replace(&mut scene, change);
    scene.make(AFTER);

    if away == Away::NoRoute {
        scene.add_route();
    }
    scene.listen();
    scene.wait_until_taken();
    let twice = match change {
        Change::Killed => Twice::Alike,
        _ => Twice::Never,
    };
    assert_complete(&scene, twice);
    assert_gaps(&scene, change);
    for (index, first) in first.into_iter().enumerate() {
        assert_wire_sessions(&scene, index, first, change);
    }
    let status = ask(&scene.home);
    assert_eq!(number(&status, "/gaps/undelivered/count"), 0);
    for output in status["outputs"].as_array().unwrap() {
        assert_eq!(number(output, "/lost"), 0, "{output:#}");
    }
    scene.take_daemon().terminate();
}

fn start(scene: &mut Scene, change: Change) {
    match change {
        Change::Managed => scene.start_managed(),
        _ => scene.start(),
    }
}

fn replace(scene: &mut Scene, change: Change) {
    match change {
        Change::Managed => {
            scene.take_daemon().terminate();
            scene.start_managed();
        }
        Change::Terminated => {
            scene.take_daemon().terminate();
            scene.start();
        }
        Change::Reloaded => {
            scene.configure(CHANGED, "");
            scene.daemon().signal(Signal::HUP);
            let _ = scene.daemon().wait_for_message("configuration read again");
        }
        Change::Killed => {
            scene.take_daemon().kill();
            scene.start();
        }
    }
}

/// The gap between two runs separates the records of the one from those of the other.
fn assert_gaps(scene: &Scene, change: Change) {
    let between = usize::try_from(2 * (BEFORE + WHILE_AWAY)).unwrap();
    for (index, output) in OUTPUTS.iter().enumerate() {
        let found = gaps(&scene.items(index));
        let expected = match change {
            Change::Managed | Change::Reloaded => vec![],
            // The format has no record for a gap.
            _ if *output == "v5" => vec![],
            Change::Terminated | Change::Killed => vec![("restart".to_owned(), between)],
        };
        assert_eq!(found, expected, "{output}");
    }
}

/// The sessions as a collector knows them: by address and port, sequence numbers and templates.
fn assert_wire_sessions(scene: &Scene, index: usize, first: usize, change: Change) {
    let headers = scene.far(index).0;
    assert!(first > 0);
    if change != Change::Killed {
        return assert_continued(&headers);
    }
    let (before, after) = headers.split_at(first);
    assert_continued(before);
    assert_continued(after);
    let begin = after[0];
    assert_ne!(before[0].from, begin.from, "a crash begins a new session");
    assert_eq!(begin.sequence, 0);
    assert_eq!(begin.begins_with_templates, begin.version != 5);
}

#[test]
fn a_restart_under_a_manager_without_a_route() {
    survive(Away::NoRoute, Change::Managed);
}

#[test]
fn a_restart_under_a_manager_without_a_listener() {
    survive(Away::NoListener, Change::Managed);
}

#[test]
fn stop_and_start_without_a_route() {
    survive(Away::NoRoute, Change::Terminated);
}

#[test]
fn stop_and_start_without_a_listener() {
    survive(Away::NoListener, Change::Terminated);
}

#[test]
fn a_reload_without_a_route() {
    survive(Away::NoRoute, Change::Reloaded);
}

#[test]
fn a_reload_without_a_listener() {
    survive(Away::NoListener, Change::Reloaded);
}

#[test]
fn a_crash_without_a_route() {
    survive(Away::NoRoute, Change::Killed);
}

#[test]
fn a_crash_without_a_listener() {
    survive(Away::NoListener, Change::Killed);
}

/// The kill comes as soon as the database has the records, wherever the outputs are.
#[test]
fn a_crash_while_records_leave_repeats_them_at_most() {
    const ROUND: u32 = 1_000;
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.configure(COLLECTOR, "");
    scene.add_route();
    scene.listen();
    for _ in 0..5 {
        scene.start();
        scene.make(ROUND);
        scene.take_daemon().kill();
    }
    scene.start();
    scene.wait_until_taken();
    assert_complete(&scene, Twice::Alike);
    for (index, output) in OUTPUTS.iter().enumerate() {
        let items = scene.items(index);
        let restarts = gaps(&items).len();
        let events = items.len() - restarts;
        // Every record of every round came at most twice.
        assert!(events <= 2 * 2 * scene.made.len(), "{output}: {events}");
    }
    let status = ask(&scene.home);
    assert_eq!(number(&status, "/gaps/undelivered/count"), 0);
    scene.take_daemon().terminate();
}
