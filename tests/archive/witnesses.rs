//! The newest checkpoint of the archive's log comes into every copy, and is a witness there.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use nattrail::archive::row::Millis;
use nattrail::archive::spool::Spool;
use serde_json::Value;

use crate::scene::Scene;
use crate::support::wait_for;

const SERVER: &str = "127.0.0.1:5140";

/// The checkpoints in the copy in a file.
fn in_file(scene: &Scene) -> Vec<Value> {
    let text = fs::read_to_string(scene.file()).unwrap_or_default();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let is_checkpoint = |record: &Value| record["event"] == "checkpoint";
    records.filter(is_checkpoint).collect()
}

/// The messages of checkpoints that the syslog server has received.
fn at_server(server: &UdpSocket) -> Vec<String> {
    let mut room = [0; 2048];
    let received = std::iter::from_fn(|| {
        server
            .recv(&mut room)
            .ok()
            .map(|length| room[..length].to_vec())
    });
    let messages = received.map(|message| String::from_utf8(message).unwrap());
    messages
        .filter(|message| message.contains("CHECKPOINT"))
        .collect()
}

#[test]
fn each_checkpoint_comes_into_every_copy_once_and_can_be_verified_there() {
    let mut server = None;
    let copy = format!("[[syslog]]\ntarget = \"udp\"\naddress = \"{SERVER}\"\nformat = \"text\"\n");
    let scene = Scene::prepared(&copy, |net, root| {
        let socket = net.gateway.run(|| UdpSocket::bind(SERVER).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        server = Some(socket);
        // An archive that has sealed nothing for some hours does that first.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        drop(Spool::open(root, "gw-1", Millis::new(now - 3 * 3_600_000)).unwrap());
    });
    let (Some(mut scene), Some(server)) = (scene, server) else {
        return;
    };
    let mut messages = Vec::new();
    wait_for("the checkpoint in both copies", || {
        messages.append(&mut at_server(&server));
        (!messages.is_empty() && !in_file(&scene).is_empty()).then_some(())
    });
    // A restart of both repeats none, and later records come after it.
    scene.archiver.take().unwrap().kill();
    let _ = scene.daemon.take().unwrap().terminate();
    scene.start_daemon();
    scene.start_archiver();
    // The kernel also has the connection to the syslog server, so sessions are counted in the copy.
    let keys = scene.sessions.begin(8);
    wait_for("the sessions in the copy", || {
        let text = fs::read_to_string(scene.file()).unwrap();
        scene.sessions.send(&keys);
        (text.matches("\"event\":\"create\"").count() == 8).then_some(())
    });
    scene.net.end_connections();
    scene.wait_until_archived();
    assert_eq!(scene.ended().len(), 8);
    assert_eq!(scene.rows().len(), 8);
    messages.append(&mut at_server(&server));
    let records = in_file(&scene);
    // The end of an hour may have come in between.
    let mut sizes: Vec<_> = records
        .iter()
        .map(|record| record["size"].as_u64().unwrap())
        .collect();
    sizes.dedup();
    assert_eq!(sizes.len(), records.len(), "{records:#?}");
    assert!(
        (1..=2).contains(&sizes.len()) && sizes.is_sorted(),
        "{sizes:?}"
    );
    for (record, message) in records.iter().zip(&messages) {
        for name in ["origin", "root", "signature"] {
            let value = record[name].as_str().unwrap();
            assert!(message.contains(value), "{name} {value}: {message}");
        }
    }
    assert_eq!(messages.len(), records.len(), "{messages:#?}");
    let newest = fs::read_to_string(scene.root().join("log/gw-1/checkpoint")).unwrap();
    let last = records.last().unwrap();
    let text = |name: &str| last[name].as_str().unwrap();
    let (origin, root, signature) = (text("origin"), text("root"), text("signature"));
    let size = &last["size"];
    assert_eq!(
        newest,
        format!("{origin}\n{size}\n{root}\n\n\u{2014} {origin} {signature}\n")
    );

    let path = scene.file();
    let verified = scene
        .command(&["verify", "--witness", path.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(0), "{said}");
    assert!(
        said.contains(" checkpoints that were kept elsewhere agree\n"),
        "{said}"
    );
}
