//! Configurations of other programs: the result is one that the loader takes, or a message says why there is none.

#![no_main]

use nattrail::convert::{ipt_netflow, nfflowd};
use nattrail_fuzz::{Scratch, check_message};

libfuzzer_sys::fuzz_target!(init: nattrail_fuzz::prepare(SEEDS, words()), |data: &[u8]| run(data));

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

/// The first octet says whose it is.
const SEEDS: [&str; 4] = [
    "0options ipt_NETFLOW destination=192.0.2.10:2055,[2001:db8::10%eth0]:4739@192.0.2.1 protocol=10 natevents=1 \\\n \
     sndbuf=65536 refresh_rate=40 timeout_rate=5 engine_id=0x10 targets=0 hashsize=65536 # comment\n",
    "0net.netflow.destination = 192.0.2.10:2055\n-net/netflow/protocol=9\nnet.netflow.sndbuf=4294967295\n\
     install ipt_NETFLOW x\nipt_NETFLOW\n",
    "1<flow_send>\n args 192.0.2.1\n args 198.51.100.9\n args 9995\n</flow_send>\n<ct2ft>\n ttl = 172800\n</ct2ft>\n\
     <conntrack>\n format -E -e NEW,DESTROY -o timestamp -p tcp --src=10.0.0.0/8 -m 7 -b 8388608\n</conntrack>\n",
    "1<flow_send>\nargs 0\nargs 2001:db8::9\nargs 9995\n</flow_send>\n<ptee>\n<conf>\ndispatchers syslog\ndispatchers \
     remote\ndispatchers book\ndispatchers screen\n<syslog>\nfacility local3\nident gate-7\n</syslog>\n<remote>\nclass \
     Log::Dispatch::Syslog\nmin_level info\nfacility daemon\n<socket>\ntype udp\nhost 198.51.100.8\nport 5140\n\
     </socket>\n</remote>\n<book>\nclass Log::Dispatch::File\nfilename /var/log/nat.csv\nformat \"%d\"\n</book>\n\
     <screen>\nclass Log::Dispatch::Screen\n</screen>\n</conf>\n</ptee>\n",
];

fn words() -> impl Iterator<Item = &'static str> {
    let words = SEEDS
        .into_iter()
        .flat_map(|seed| seed.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| word.len() > 2)
}

fn run(data: &[u8]) {
    let Some((program, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let converted = match program % 2 {
        0 => ipt_netflow::convert(&text, "a file"),
        _ => nfflowd::convert(&text, "a file"),
    };
    match converted {
        Err(note) => check_message(&note.to_string()),
        Ok(conversion) => {
            let loaded =
                SCRATCH.with(|scratch| scratch.load("toml", conversion.toml.as_bytes(), &[]));
            assert!(loaded.is_ok(), "{loaded:?} in {}", conversion.toml);
            conversion
                .notes
                .iter()
                .for_each(|note| check_message(&note.to_string()));
        }
    }
}
