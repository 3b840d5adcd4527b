//! The control socket: a client gets whole lines of JSON and then the end, and leaves nothing behind.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a target that cannot go on has failed")]

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::{Events, Poll, Token};
use nattrail::daemon::control::Control;
use nattrail::export::view::filter::Filter;
use nattrail::session::{Gap, GapCause, Record};
use nattrail::time::{Now, Uptime, Wall};
use nattrail_fuzz::Scratch;
use serde_json::{Value, json};

libfuzzer_sys::fuzz_target!(init: nattrail_fuzz::prepare(SEEDS, WORDS), |data: &[u8]| run(data));

/// The first octet says where the request is cut in two.
const SEEDS: [&str; 7] = [
    "\x05archived 7\n",
    "\x0bcheckpoint nattrail/gw1 26 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    "\x03status\n",
    "\x07tail\n",
    "\x06tail src=10.0.0.0/8 src=203.0.113.9:50001 dst=[2001:db8::1]:443 post=:443 proto=tcp proto=47\n",
    "\x09tail mark=0x10/0xff zone=7 event=create event=delete\r\nmore",
    "\x01stat",
];
const WORDS: [&str; 13] = [
    "checkpoint ",
    "status\\x0a",
    "tail ",
    " src=",
    " dst=",
    " post=",
    " proto=",
    " mark=",
    " zone=",
    " event=",
    "create",
    "delete",
    "2001:db8::",
];
const NOW: Now = Now::new(Wall::from_secs(1_800_000_000), Uptime::from_millis(5000));
const REQUEST_LIMIT: usize = 1024;

thread_local! {
    static DAEMON: RefCell<Daemon> = RefCell::new(Daemon::new());
}

struct Daemon {
    scratch: Scratch,
    poll: Poll,
    ready: Events,
    control: Control,
}

impl Daemon {
    fn new() -> Self {
        let (scratch, poll) = (Scratch::new(), Poll::new().unwrap());
        let control =
            Control::open(&scratch.path().join("socket"), poll.registry(), Token(3)).unwrap();
        Self {
            scratch,
            poll,
            ready: Events::with_capacity(64),
            control,
        }
    }

    fn turn(&mut self) {
        self.poll
            .poll(&mut self.ready, Some(Duration::ZERO))
            .unwrap();
        for event in &self.ready {
            self.control.handle_ready(event.token());
        }
        self.control.handle_timeout(self.poll.registry(), NOW);
        self.control
            .handle_archive(|_| Err("there is none".to_owned()));
        if self.control.wants_status() {
            self.control.handle_status("{}");
        }
    }
}

fn run(data: &[u8]) {
    let Some((cut, request)) = data.split_first() else {
        return;
    };
    DAEMON.with_borrow_mut(|daemon| {
        let mut client = UnixStream::connect(daemon.scratch.path().join("socket")).unwrap();
        client.set_nonblocking(true).unwrap();
        let (first, second) = request.split_at(request.len().min(usize::from(*cut)));
        for part in [first, second] {
            // The daemon may have had enough.
            let _ = client.write_all(part);
            daemon.turn();
        }
        let _ = client.shutdown(Shutdown::Write);
        daemon.turn();
        let views = daemon.control.is_watched();
        let gap = Gap {
            cause: GapCause::Overflow,
            from: NOW.wall,
            to: NOW.wall,
            lost: None,
        };
        daemon.control.show(&Record::Gap(gap), NOW);
        daemon.turn();
        let mut answer = Vec::new();
        let end = client.read_to_end(&mut answer);
        check(request, &answer, views);
        assert!(
            views || end.is_ok() || request.len() > REQUEST_LIMIT,
            "{end:?}"
        );
        drop(client);
        daemon.turn();
        assert!(!daemon.control.is_watched());
        assert_eq!(
            daemon.control.poll_timeout(),
            None,
            "a client has left something behind"
        );
    });
}

fn check(request: &[u8], answer: &[u8], views: bool) {
    let lines: Vec<_> = answer.split_inclusive(|octet| *octet == b'\n').collect();
    let values: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert!(lines.iter().all(|line| line.ends_with(b"\n")));
    let line = request
        .split(|octet| *octet == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let expected = match line.trim_ascii().split_once(' ') {
        _ if request.is_empty() => None,
        _ if line.len() >= REQUEST_LIMIT => Some(false),
        Some(("tail", words)) => Some(Filter::parse(words).is_ok_and(|filter| {
            assert_eq!(Filter::parse(&filter.to_string()), Ok(filter));
            true
        })),
        _ => Some(line.trim_ascii() == "tail"),
    };
    assert_eq!(views, expected == Some(true));
    match values.as_slice() {
        [] => assert!(expected.is_none()),
        [begin, gap] => assert!(
            views && *begin == json!({"tail": "begin"}) && gap["event"] == "gap",
            "{gap}"
        ),
        [one] if line.trim_ascii() == "status" => assert_eq!(*one, json!({})),
        [one] => assert!(one["error"].is_string(), "{one}"),
        more => panic!("{more:?}"),
    }
}
