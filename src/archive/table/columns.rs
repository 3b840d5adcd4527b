//! The columns of a table, and how a row is spread over them.
//!
//! A cell is a number, or null: an address is its octets as one (big endian), a time its milliseconds. An address is
//! either in the column of IPv4 or in that of IPv6; the other is null. Counters are INT64 because Spark has no unsigned
//! type for them, and all are null without counters. A post-NAT destination that equals the one before NAT is null, and so
//! is a pre-NAT source port that NAT kept: the same twice would cost half an octet per row.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, SchemaDescPtr, SchemaDescriptor};

use crate::archive::row::{Millis, Row};
use crate::session::{Counters, Protocol, Provenance, Totals, Tuple};

/// Half as many take half as much memory to write, and a question about many files spends twice the time on footers.
pub const GROUP_ROWS: usize = 1 << 19;
/// Readers decompress whole pages.
pub const PAGE_ROWS: usize = 1 << 13;

/// The keys of the file's metadata.
pub const VERSION_KEY: &str = "nattrail.schema";
pub const GATEWAY_KEY: &str = "nattrail.gateway";
pub const SINCE_KEY: &str = "nattrail.since";
pub const UNTIL_KEY: &str = "nattrail.until";
/// The version of the schema.
pub const VERSION: &str = "1";

pub const COUNT: usize = 22;
pub type Cell = Option<u128>;
pub type Cells = [Cell; COUNT];

/// Places of columns. That of an IPv6 address follows that of the IPv4 address.
pub const POST_SRC: usize = 0;
pub const POST_SPORT: usize = 2;
pub const PROTO: usize = 3;
pub const START: usize = 4;
pub const END: usize = 5;
pub const PRE_SRC: usize = 6;
pub const PRE_SPORT: usize = 8;
pub const PRE_DST: usize = 9;
pub const PRE_DPORT: usize = 11;
pub const POST_DST: usize = 12;
pub const POST_DPORT: usize = 14;
pub const COUNTERS: usize = 15;
pub const INFERRED: usize = 19;
pub const MARK: usize = 20;
pub const ZONE: usize = 21;

/// The columns that a question names come first, so that they are near each other in the file.
const SCHEMA: &str = "message session {
    optional int32 post_src (INTEGER(32,false));
    optional fixed_len_byte_array(16) post_src6;
    required int32 post_sport (INTEGER(16,false));
    required int32 proto (INTEGER(8,false));
    optional int64 start (TIMESTAMP(MILLIS,true));
    required int64 end (TIMESTAMP(MILLIS,true));
    optional int32 pre_src (INTEGER(32,false));
    optional fixed_len_byte_array(16) pre_src6;
    optional int32 pre_sport (INTEGER(16,false));
    optional int32 pre_dst (INTEGER(32,false));
    optional fixed_len_byte_array(16) pre_dst6;
    required int32 pre_dport (INTEGER(16,false));
    optional int32 post_dst (INTEGER(32,false));
    optional fixed_len_byte_array(16) post_dst6;
    optional int32 post_dport (INTEGER(16,false));
    optional int64 packets;
    optional int64 octets;
    optional int64 reply_packets;
    optional int64 reply_octets;
    required boolean inferred;
    required int32 mark (INTEGER(32,false));
    required int32 zone (INTEGER(16,false));
}";

/// Measured column by column: a dictionary of almost as many values as rows, or of values near each other, is larger than
/// none.
const DELTA: [&str; 5] = ["post_src", "post_sport", "start", "end", "pre_sport"];
const PLAIN: [&str; 4] = ["pre_dport", "octets", "reply_octets", "inferred"];
const PAGE_STATISTICS: [&str; 9] = [
    "post_src",
    "post_src6",
    "post_sport",
    "pre_src",
    "pre_src6",
    "pre_dst",
    "pre_dst6",
    "post_dst",
    "post_dst6",
];
const CHUNK_STATISTICS: [&str; 3] = ["start", "end", "post_dport"];
/// A row group with more of them has a bloom filter that leaves out less.
const MOST_SUBSCRIBERS: u64 = 1 << 16;
const BLOOM_FILTERS: [&str; 2] = ["pre_src", "pre_src6"];

pub static DESCRIPTOR: LazyLock<SchemaDescPtr> = LazyLock::new(|| {
    #[allow(clippy::expect_used, reason = "a constant, and every test reads it")]
    let schema = parse_message_type(SCHEMA).expect("the schema is well-formed");
    Arc::new(SchemaDescriptor::new(Arc::new(schema)))
});

/// How a file of that gateway is written.
///
/// # Errors
/// Never: the level of compression exists.
pub fn properties(gateway: &str, page_rows: usize) -> Result<WriterPropertiesPtr, ParquetError> {
    let metadata = [(VERSION_KEY, VERSION), (GATEWAY_KEY, gateway)]
        .map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("nattrail version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(metadata.to_vec()))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_data_page_row_count_limit(page_rows)
        // The limit takes effect after each batch.
        .set_write_batch_size(page_rows.min(1024))
        .set_encoding(Encoding::PLAIN)
        .set_statistics_enabled(EnabledStatistics::None);
    for column in DELTA {
        properties = properties
            .set_column_dictionary_enabled(column.into(), false)
            .set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
    }
    for column in PLAIN {
        properties = properties.set_column_dictionary_enabled(column.into(), false);
    }
    let statistics = PAGE_STATISTICS.map(|column| (column, EnabledStatistics::Page));
    let chunks = CHUNK_STATISTICS.map(|column| (column, EnabledStatistics::Chunk));
    for (column, level) in statistics.into_iter().chain(chunks) {
        properties = properties.set_column_statistics_enabled(column.into(), level);
    }
    for column in BLOOM_FILTERS {
        // The filter shrinks to those values that there are.
        properties = properties
            .set_column_bloom_filter_fpp(ColumnPath::from(column), 0.01)
            .set_column_bloom_filter_max_ndv(ColumnPath::from(column), MOST_SUBSCRIBERS);
    }
    Ok(Arc::new(properties.build()))
}

pub fn address(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// `None` unless it is of one family.
pub fn address_of(ipv4: Cell, ipv6: Cell) -> Option<IpAddr> {
    match (ipv4, ipv6) {
        (Some(value), None) => Some(IpAddr::from(Ipv4Addr::from(u32::try_from(value).ok()?))),
        (None, Some(value)) => Some(IpAddr::from(Ipv6Addr::from(value))),
        _ => None,
    }
}

pub fn cells(row: &Row) -> Cells {
    let mut cells = [None; COUNT];
    let mut put = |column, value: IpAddr| {
        cells[column + usize::from(value.is_ipv6())] = Some(address(value));
    };
    put(POST_SRC, row.post.src);
    put(PRE_SRC, row.pre.src);
    put(PRE_DST, row.pre.dst);
    if row.has_dnat() {
        put(POST_DST, row.post.dst);
        cells[POST_DPORT] = Some(row.post.dst_port.into());
    }
    cells[POST_SPORT] = Some(row.post.src_port.into());
    cells[PROTO] = Some(row.protocol.0.into());
    cells[START] = row.start.map(|start| start.get().into());
    cells[END] = Some(row.end.get().into());
    if row.pre.src_port != row.post.src_port {
        cells[PRE_SPORT] = Some(row.pre.src_port.into());
    }
    cells[PRE_DPORT] = Some(row.pre.dst_port.into());
    if let Some(Totals { original, reply }) = row.totals {
        let numbers = [
            original.packets,
            original.octets,
            reply.packets,
            reply.octets,
        ];
        for (place, number) in numbers.into_iter().enumerate() {
            cells[COUNTERS + place] = Some(number.into());
        }
    }
    cells[INFERRED] = Some((row.provenance == Provenance::Inferred).into());
    cells[MARK] = Some(row.mark.into());
    cells[ZONE] = Some(row.zone.into());
    cells
}

/// `None` for cells that no row has.
pub fn row(cells: &Cells) -> Option<Row> {
    let address = |column: usize| address_of(cells[column], cells[column + 1]);
    let port = |column: usize| u16::try_from(cells[column]?).ok();
    let millis = |value| u64::try_from(value).ok().map(Millis::new);
    let counter = |place: usize| u64::try_from(cells[COUNTERS + place]?).ok();
    let counters = |place| {
        Some(Counters {
            packets: counter(place)?,
            octets: counter(place + 1)?,
        })
    };
    let post_sport = port(POST_SPORT)?;
    let pre = Tuple {
        src: address(PRE_SRC)?,
        src_port: cells[PRE_SPORT].map_or(Some(post_sport), |_| port(PRE_SPORT))?,
        dst: address(PRE_DST)?,
        dst_port: port(PRE_DPORT)?,
    };
    let has_dnat = cells[POST_DPORT].is_some();
    Some(Row {
        pre,
        post: Tuple {
            src: address(POST_SRC)?,
            src_port: post_sport,
            dst: if has_dnat {
                address(POST_DST)?
            } else {
                pre.dst
            },
            dst_port: if has_dnat {
                port(POST_DPORT)?
            } else {
                pre.dst_port
            },
        },
        protocol: Protocol(u8::try_from(cells[PROTO]?).ok()?),
        start: cells[START].map_or(Some(None), |start| millis(start).map(Some))?,
        end: millis(cells[END]?)?,
        totals: match cells[COUNTERS] {
            Some(_) => Some(Totals {
                original: counters(0)?,
                reply: counters(2)?,
            }),
            None => None,
        },
        mark: u32::try_from(cells[MARK]?).ok()?,
        zone: u16::try_from(cells[ZONE]?).ok()?,
        provenance: if cells[INFERRED]? == 0 {
            Provenance::Kernel
        } else {
            Provenance::Inferred
        },
    })
}
