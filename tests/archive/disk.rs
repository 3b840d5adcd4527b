//! A disk of the archive that is full, read-only, or not there: the log keeps the records meanwhile.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::scene::Scene;
use crate::support::status::ask;
use crate::support::wait_for;

const SESSIONS: u32 = 300;

/// A small file system in memory at the archive's directory.
struct Disk(PathBuf);

impl Disk {
    fn mount(archive: &Path) -> Self {
        fs::create_dir_all(archive).unwrap();
        let this = Self(archive.to_owned());
        this.run(&["-t", "tmpfs", "-o", "size=1m,mode=0750", "tmpfs"]);
        this
    }

    fn run(&self, arguments: &[&str]) {
        let status = Command::new("mount").args(arguments).arg(&self.0).status();
        assert!(status.unwrap().success());
    }

    fn remount(&self, option: &str) {
        self.run(&["-o", &format!("remount,{option}")]);
    }

    /// Leaves no room for another octet.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let mut octets = vec![0; 64 << 10];
        while !octets.is_empty() {
            if file.write_all(&octets).is_err() {
                octets.truncate(octets.len() / 2);
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Scene {
    fn on_a_small_disk() -> Option<(Self, Disk)> {
        let mut disk = None;
        let scene = Self::prepared("", |_, root| disk = Some(Disk::mount(root)))?;
        Some((scene, disk.unwrap()))
    }

    fn pass(&mut self, sessions: u32) {
        let _ = self.sessions.begin_all(&self.net, sessions, 0);
        self.net.end_connections();
    }

    /// Waits until the log of the daemon has so many records that the archive has not taken.
    fn wait_until_behind(&self, records: u64) {
        wait_for("the archive to be behind", || {
            let status = ask(&self.home);
            let outputs = status["outputs"].as_array()?;
            let archive = outputs.iter().find(|output| output["name"] == "archive")?;
            let behind = archive["behind"].as_u64();
            behind.filter(|&behind| behind >= records).map(drop)
        });
    }

    fn says(&self, part: &str) -> String {
        self.archiver.as_ref().unwrap().wait_for_message(part)
    }
}

#[test]
fn a_full_disk_costs_no_record_and_is_said_once() {
    let Some((mut scene, disk)) = Scene::on_a_small_disk() else {
        return;
    };
    scene.pass(16);
    scene.wait_until_archived();
    let filler = disk.fill();
    // More than the last page of the spool's journal may have room for.
    scene.pass(SESSIONS);
    let said = scene.says("trying again");
    assert!(said.contains("No space left on device"), "{said}");
    scene.pass(16);
    scene.wait_until_behind(2 * u64::from(SESSIONS + 16));
    fs::remove_file(filler).unwrap();
    scene.wait_until_archived();
    let _ = scene.says("records are archived again; none is lost");
    assert_eq!(scene.assert_archived_once().len(), 32 + SESSIONS as usize);
    assert_eq!(scene.gaps(), []);
    let logged = scene.archiver.as_ref().unwrap().logged();
    let said = logged.iter().filter(|line| line.contains("trying again"));
    assert_eq!(said.count(), 1, "{logged:#?}");
}

#[test]
fn a_disk_that_is_read_only_or_gone_for_a_while_costs_no_record() {
    let Some((mut scene, disk)) = Scene::on_a_small_disk() else {
        return;
    };
    scene.pass(16);
    scene.wait_until_archived();
    // Nobody may have a file open for writing then.
    scene.archiver.take().unwrap().kill();
    disk.remount("ro");
    scene.start_archiver();
    scene.pass(16);
    let said = scene.says("trying again");
    assert!(said.contains("Read-only file system"), "{said}");
    scene.wait_until_behind(32);
    disk.remount("rw");
    scene.wait_until_archived();

    scene.archiver.take().unwrap().kill();
    // Below a disk that is not mounted there is an empty directory.
    let hidden = Disk::mount(&disk.0);
    scene.start_archiver();
    scene.pass(16);
    let said = scene.says("trying again");
    assert!(said.contains("found none; mount it"), "{said}");
    assert_eq!(fs::read_dir(&hidden.0).unwrap().count(), 0);
    drop(hidden);
    scene.wait_until_archived();
    assert_eq!(scene.assert_archived_once().len(), 48);
    assert_eq!(scene.gaps(), []);
    let answer = scene.command(&["verify", "--json"]).output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["sound"], true, "{answer}");
}
