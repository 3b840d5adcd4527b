//! A changed configuration, and removed files, while records wait.

use std::fs;

use rustix::process::Signal;

use crate::account::{Twice, assert_complete, assert_each};
use crate::ledger::Key;
use crate::read::{Item, Lines, line};
use crate::scene::Scene;
use crate::support::daemon::CAPTURE;

fn reload(scene: &Scene) {
    let said = || {
        let logged = scene.daemon().logged();
        let again = logged
            .iter()
            .filter(|line| line.contains("configuration read again"));
        again.count()
    };
    let before = said();
    scene.daemon().signal(Signal::HUP);
    scene.wait_for_status("the reload", |_| said() > before);
}

/// Two copies to one syslog server; `first` precedes the one from before.
fn copies(scene: &Scene, first: &str) {
    let copy =
        "[[syslog]]\ntarget = \"udp\"\naddress = \"192.0.2.129:514\"\nformat = \"rfc5424\"\n";
    let flush = "[pending]\nflush = \"100ms\"\n";
    scene
        .home
        .configure(&format!("{CAPTURE}{flush}{first}{copy}"));
}

#[test]
fn an_output_beside_another_does_not_take_its_place() {
    const OTHER: &str = "[[syslog]]\ntarget = \"udp\"\naddress = \"192.0.2.129:514\"\n\
         format = \"rfc5424\"\napp-name = \"other\"\n";
    let Some(mut scene) = Scene::new() else {
        return;
    };
    copies(&scene, "");
    scene.start();
    scene.make(200);
    copies(&scene, OTHER);
    reload(&scene);
    let early: Vec<Key> = scene.made.clone();
    scene.make(200);
    // The copy goes with its untaken records, and comes back as a new one; the same happens over a restart.
    copies(&scene, "");
    reload(&scene);
    scene.make(200);
    scene.take_daemon().terminate();
    copies(&scene, OTHER);
    scene.start();
    let since = scene.made.len();
    scene.make(200);
    scene.add_route();
    scene.listen();
    scene.wait_until_taken();
    scene.take_daemon().terminate();
    scene.close();
    let (of_other, of_first): (Vec<_>, Vec<_>) = scene
        .texts(3)
        .into_iter()
        .partition(|text| text.contains(" other "));
    let items = |texts: &[String]| -> Vec<Item> {
        texts
            .iter()
            .map(|text| line(Lines::Rfc5424, text))
            .collect()
    };
    assert!(!early.is_empty());
    assert_each("the first", &items(&of_first), &scene.made, Twice::Never);
    assert_each(
        "the other",
        &items(&of_other),
        &scene.made[since..],
        Twice::Never,
    );
}

#[test]
fn a_file_that_is_rotated_while_records_wait_goes_on_where_it_was() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.configure("", "");
    scene.add_route();
    scene.listen();
    scene.start();
    let rotated = |number: u32| scene.home.path().join(format!("records.json.{number}"));
    let rotated = [0, 1, 2, 3].map(rotated);
    for path in &rotated {
        // This happens in the middle of writing.
        scene.begin(2_000);
        scene.net.end_connections();
        scene.wait_for_status("the file", |_| scene.file().exists());
        fs::rename(scene.file(), path).unwrap();
        reload(&scene);
    }
    scene.end();
    scene.wait_until_taken();
    let mut whole = String::new();
    for path in rotated.iter().chain([&scene.file()]) {
        whole += &fs::read_to_string(path).unwrap();
    }
    fs::write(scene.file(), whole).unwrap();
    assert_complete(&scene, Twice::Never);
    scene.take_daemon().terminate();
}
