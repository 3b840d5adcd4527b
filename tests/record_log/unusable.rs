//! A database that is unusable for a whole run: the records leave from memory, and gaps cover the unknown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use crate::ledger::{Ledger, now};
use crate::scene::Scene;
use crate::support::netns::succeed;
use crate::support::status::{ask, number};

/// A separate file system for the state directory, gone on drop.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(scene: &Scene) -> Self {
        let path = scene.home.state();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "nattrail-test"]);
        succeed(mount.arg(&path), "");
        Self(path)
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]).arg(&self.0);
        succeed(&mut mount, "");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_run_without_its_database_is_a_gap_since_the_last_commit_before_it() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let disk = Disk::mount(&scene);
    scene.configure("", "");
    scene.add_route();
    scene.listen();
    scene.start_managed();
    scene.make(50);
    scene.wait_until_taken();
    let ending = now();
    scene.take_daemon().terminate();
    let ended = now();

    disk.remount("ro");
    scene.start_managed();
    let _ = scene.daemon().wait_for_message("is not available");
    // With the kept socket, nobody would know how far it was read.
    let _ = scene
        .daemon()
        .wait_for_message("which records how far it was read, cannot be used");
    scene
        .made
        .extend(scene.sessions.begin_all(&scene.net, 50, 0));
    scene.net.end_connections();
    scene.wait_for_status("all outputs to have them", |status| {
        number(status, "/sessions/deletes") == 50
            && (0..7).all(|index| number(status, &format!("/outputs/{index}/behind")) == 0)
    });
    assert_eq!(ask(&scene.home)["store"]["available"], false);
    scene.take_daemon().terminate();
    assert_eq!(scene.manager.stored(), [] as [String; 0]);

    disk.remount("rw");
    scene.start_managed();
    scene.make(50);
    scene.wait_until_taken();
    scene.take_daemon().terminate();
    scene.close();
    crate::account::assert_complete(&scene, crate::account::Twice::Never);
    let ledger = Ledger::read(&scene.file());
    assert_eq!(ledger.gaps.len(), 2, "{:?}", ledger.gaps);
    for gap in &ledger.gaps {
        assert_eq!(gap.cause, "restart");
        let from = gap.from;
        assert!(
            (ending..=ended).contains(&from),
            "{gap:?} from {ending} to {ended}"
        );
    }
    assert!(ledger.gaps[0].to < ledger.gaps[1].to);
}

#[test]
fn what_a_database_held_that_is_opened_late_is_stated_once_however_often_that_fails() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.configure("", "");
    scene.start();
    scene.make(50);
    scene.take_daemon().terminate();

    let database = scene.home.state().join("pending.db");
    let parked = scene.home.state().join("parked.db");
    fs::rename(&database, &parked).unwrap();
    fs::create_dir(&database).unwrap();
    scene.start();
    let _ = scene.daemon().wait_for_message("is not available");
    // It can be opened, but not written.
    let other = Connection::open(&parked).unwrap();
    let mode = other.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
    assert_eq!(mode.unwrap(), "wal");
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    fs::remove_dir(&database).unwrap();
    for suffix in ["-wal", "-shm", ""] {
        let of = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        fs::rename(of(&parked), of(&database)).unwrap();
    }
    let failed = number(&ask(&scene.home), "/store/failed");
    scene.wait_for_status("some attempts", |status| {
        number(status, "/store/failed") >= failed + 5
    });
    other.execute_batch("ROLLBACK").unwrap();
    let _ = scene.wait_for_status("the database", |status| {
        status["store"]["available"] == true
    });
    // The gap is counted in the turn after the one in which the database became available.
    let count = number(&ask(&scene.home), "/gaps/undelivered/count");
    assert_eq!(count, 1);
    scene.take_daemon().terminate();
}

#[test]
fn a_full_disk_costs_nothing_as_long_as_the_daemon_runs() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let disk = Disk::mount(&scene);
    scene.configure("", "");
    scene.start();
    scene.make(50);
    let filler = disk.0.join("filler");
    let mut fill = Command::new("sh");
    fill.args(["-c", "cat /dev/zero > \"$0\" 2>/dev/null; true"])
        .arg(&filler);
    succeed(&mut fill, "");
    // The log's file has no room for these without growing.
    let made = scene.sessions.begin_all(&scene.net, 3_000, 0);
    scene.made.extend(made);
    let _ = scene.daemon().wait_for_message("is not available");
    scene.net.end_connections();
    scene.wait_for_status("the file to have them", |status| {
        number(status, "/sessions/deletes") == 3_050 && number(status, "/outputs/5/behind") == 0
    });
    std::fs::remove_file(filler).unwrap();
    let _ = scene.daemon().wait_for_message("is available again");
    scene.make(50);
    // The records that the far outputs have not taken are in the database.
    scene.take_daemon().terminate();
    scene.add_route();
    scene.listen();
    scene.start();
    scene.wait_until_taken();
    scene.take_daemon().terminate();
    scene.close();
    crate::account::assert_complete(&scene, crate::account::Twice::Never);
}
