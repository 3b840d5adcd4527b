//! Far receivers on a live host that do not listen for a while, in the middle of sessions.

use crate::account::{Twice, assert_alike, gaps, missing};
use crate::read::{Decoder, Header};
use crate::scene::{FAR_OUTPUTS, OUTPUTS, Scene};
use crate::support::collector::Receiver;
use crate::support::daemon::CAPTURE;
use crate::support::status::number;

/// The receivers go away while records are on their way, and come back. Returns how many items each output then had
/// on its way or just behind it.
fn flap(scene: &mut Scene) -> Vec<usize> {
    scene.wait_until_taken();
    let before = item_counts(scene);
    scene.begin(500);
    scene.net.end_connections();
    scene.close();
    let meanwhile = item_counts(scene).into_iter().zip(before);
    let meanwhile = meanwhile.map(|(after, before)| after - before).collect();
    scene.make(500);
    scene.wait_for_status("all to be refused", |status| {
        let state = |index: usize| status["outputs"][index]["state"] == "refused";
        (0..FAR_OUTPUTS.len()).all(state)
    });
    scene.make(500);
    scene.listen();
    scene.make(500);
    scene.wait_until_taken();
    meanwhile
}

fn item_counts(scene: &Scene) -> Vec<usize> {
    let of = |index| scene.items(index).len();
    (0..OUTPUTS.len()).map(of).collect()
}

/// Asserts that at most this many datagrams are missing.
fn assert_nearly_complete(scene: &Scene, datagrams: usize, twice: impl Fn(usize) -> Twice) {
    for (index, output) in OUTPUTS.iter().enumerate() {
        let items = scene.items(index);
        let missing = missing(&items, &scene.made);
        // At most 30 flows of v5 are in one; a line is one by itself.
        let on_the_wire = match *output {
            "local" | "file" | "journal" => 0,
            "syslog" => datagrams,
            _ => 30 * datagrams,
        };
        assert!(missing.len() <= on_the_wire, "{output}: {missing:?}");
        assert_alike(output, &items, twice(index));
        assert_eq!(gaps(&items), [], "{output}");
    }
}

/// Asserts that messages come from one exporter and are numbered in turn, but for those that are repeated.
fn assert_numbered(headers: &[Header]) {
    for (index, pair) in headers.windows(2).enumerate() {
        assert_eq!(pair[0].from, pair[1].from, "another exporter");
        let next = pair[0].sequence + pair[0].counts;
        let follows = (next..=next + 30).contains(&pair[1].sequence);
        let repeats = |earlier: &Header| earlier.sequence == pair[1].sequence;
        assert!(follows || headers[..=index].iter().any(repeats), "{pair:?}");
    }
}

/// Asserts how often each far output has logged this.
fn assert_said(scene: &Scene, what: &str, times: usize) {
    let status = scene.wait_until_taken();
    let logged = scene.daemon().logged();
    for index in 0..FAR_OUTPUTS.len() {
        let name = status["outputs"][index]["name"].as_str().unwrap();
        let mine = logged.iter().filter(|line| line.contains(name));
        let said = mine.filter(|line| line.contains(what)).count();
        assert_eq!(said, times, "{name}: {logged:#?}");
    }
}

#[test]
fn a_port_that_is_closed_for_a_while_costs_at_most_what_was_on_the_wire() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.configure("export-delay = \"50ms\"", "");
    scene.add_route();
    scene.listen();
    scene.start();
    scene.make(500);
    let meanwhile = flap(&mut scene);
    // The ports close one by one: an output that heeds the alarm of another repeats what arrived since then.
    assert_nearly_complete(&scene, 1, |index| Twice::AlikeAtMost(meanwhile[index]));
    for index in 0..3 {
        assert_numbered(&scene.far(index).0);
    }
    // This happens again before anybody could know that it is back for good.
    flap(&mut scene);
    assert_nearly_complete(&scene, 2, |_| Twice::Alike);
    assert_said(&scene, "refuses datagrams", 2);
    assert_said(&scene, "takes records again; none is lost", 2);
    let status = scene.wait_until_taken();
    assert_eq!(number(&status, "/gaps/undelivered/count"), 0);
    scene.take_daemon().terminate();
}

/// The router reports it after dropping a message, and the kernel then reports it for the next one.
#[test]
fn a_way_that_is_narrower_than_the_mtu_costs_nothing() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.configure("export-delay = \"50ms\"", "");
    scene.narrow_way();
    scene.add_route();
    scene.listen();
    scene.start();
    scene.make(500);
    scene.wait_until_taken();
    assert_nearly_complete(&scene, 0, |_| Twice::Alike);
    scene.take_daemon().terminate();
}

/// A Linux host answers six times, and then once a second: most of these outputs get no answer.
#[test]
fn more_outputs_to_one_host_than_it_answers_lose_no_more() {
    const PORTS: std::ops::Range<u16> = 3001..3010;
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let mut config = format!("{CAPTURE}\n[pending]\nflush = \"100ms\"\n");
    for port in PORTS {
        config +=
            &format!("[[collector]]\naddress = \"192.0.2.129:{port}\"\nexport-delay = \"50ms\"\n");
    }
    scene.home.configure(&config);
    scene.add_route();
    scene.start();
    let listen = |scene: &Scene| -> Vec<_> { PORTS.map(|port| scene.receive(port)).collect() };
    let receivers = listen(&scene);
    scene.make(500);
    scene.wait_until_taken();
    let earlier: Vec<_> = receivers.into_iter().map(Receiver::finish).collect();
    scene.make(500);
    let receivers = listen(&scene);
    scene.make(100);
    scene.wait_until_taken();
    scene.take_daemon().terminate();
    for (earlier, receiver) in earlier.into_iter().zip(receivers) {
        let port = receiver.address().port();
        let (mut decoder, mut items) = (Decoder::default(), Vec::new());
        for datagram in earlier.iter().chain(&receiver.finish()) {
            decoder.message(datagram, &mut items);
        }
        let missing = missing(&items, &scene.made);
        assert!(missing.len() <= 30, "{port}: {} are missing", missing.len());
        assert_alike(&format!("port {port}"), &items, Twice::Never);
    }
}
