//! A sealed file: whatever its octets, a reader neither panics nor takes much memory for them.

#![no_main]

use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use nattrail::archive::row::{Millis, Row};
use nattrail::archive::table::{Table, Writer};
use nattrail::archive::wanted::Wanted;
use nattrail::config::Prefix;
use nattrail::session::{Protocol, Provenance, Tuple};
use tempfile::NamedTempFile;

libfuzzer_sys::fuzz_target!(init: prepare(), |data: &[u8]| run(data));

static SCRATCH: LazyLock<NamedTempFile> = LazyLock::new(|| NamedTempFile::new().unwrap());

fn prepare() {
    // The reader catches the panics of the format's crate; libFuzzer's hook would end the process.
    std::panic::set_hook(Box::new(|_| ()));
    nattrail_fuzz::prepare([seed(3), seed(9_000)], [""; 0]);
}

fn seed(rows: u16) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), "gw-1").unwrap();
    for number in 0..rows {
        let tuple = |src: [u8; 4], src_port| Tuple {
            src: IpAddr::from(src),
            dst: IpAddr::from([198, 51, 100, number as u8]),
            src_port,
            dst_port: 443,
        };
        let row = Row {
            pre: tuple([10, 0, 0, number as u8], 40_000),
            post: tuple([203, 0, 113, 9], number),
            protocol: Protocol::TCP,
            start: (number % 7 != 0).then_some(Millis::new(u64::from(number))),
            end: Millis::new(1 << 20),
            totals: None,
            mark: 0,
            zone: 0,
            provenance: Provenance::Kernel,
        };
        writer.push(&row).unwrap();
    }
    writer.finish().unwrap().0
}

fn run(data: &[u8]) {
    std::fs::write(SCRATCH.path(), data).unwrap();
    let _ = read(SCRATCH.path());
}

fn read(path: &Path) -> Result<(), nattrail::archive::table::Error> {
    let mut table = Table::open(path)?;
    let wanted = Wanted {
        post_sport: Some(2),
        pre_src: Prefix::parse("10.0.0.2", "").ok(),
        post_dst: Some([198, 51, 100, 2].into()),
        ..Wanted::alive(Millis::new(1)..=Millis::new(2))
    };
    table.find(&wanted, &mut |_| ())?;
    table.for_each(&mut |_| ())
}
