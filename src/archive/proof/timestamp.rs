//! Time stamps of an authority (RFC 3161) over checkpoints: the request, the answer, and the files in which both stay.
//!
//! | below the log | |
//! |---|---|
//! | `timestamps/SIZE.checkpoint` | the checkpoint, octet for octet |
//! | `timestamps/SIZE.tsr` | the authority's answer about it |
//!
//! Of an answer this reads what it is about and its time. That the authority has signed it is left to `openssl ts -verify`, which
//! knows certificates. An answer may be any octets: no length in it is trusted, and reading it does not panic.

use std::fs;
use std::io;
use std::path::Path;

use super::merkle::Hash;
use super::{Error, tiles};
use crate::archive::disk;
use crate::time::Wall;

/// The directory below that of the log.
pub(super) const DIRECTORY: &str = "timestamps";
/// The longest answer. Most have some thousand octets, nearly all of them certificates.
pub const MAX_ANSWER: usize = 1 << 16;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The field 0 of a sequence, where a field is known by its number.
const FIRST: u8 = 0xa0;

/// 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x01";
/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
/// 1.2.840.113549.1.9.16.1.4
const TST_INFO: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x04";

/// The content of a token, as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// When the authority made it, by its own clock.
    pub time: Wall,
    imprint: Vec<u8>,
    nonce: Option<Vec<u8>>,
}

/// A request for a token about these octets (`TimeStampReq`), with the certificate of the authority in it.
pub fn request(octets: &[u8], nonce: [u8; 8]) -> Vec<u8> {
    let algorithm = put(SEQUENCE, &[&put(OBJECT, &[SHA256]), b"\x05\0"]);
    let imprint = put(
        SEQUENCE,
        &[&algorithm, &put(OCTETS, &[&Hash::of(octets).0])],
    );
    let (version, nonce) = (put(INTEGER, &[&[1]]), put(INTEGER, &[&number(nonce)]));
    put(SEQUENCE, &[&version, &imprint, &nonce, b"\x01\x01\xff"])
}

impl Token {
    /// Reads the token in an answer (`TimeStampResp`).
    ///
    /// # Errors
    /// When there is none, with the authority's reason if it gives one.
    pub fn read(answer: &[u8]) -> Result<Self, String> {
        let other =
            || "expected a time-stamp response of RFC 3161, found something else".to_owned();
        let mut answer = Der(answer);
        let mut whole = answer.enter(SEQUENCE).ok_or_else(other)?;
        let mut status = whole.enter(SEQUENCE).ok_or_else(other)?;
        let code = status.take(INTEGER).ok_or_else(other)?;
        // Granted, perhaps with modifications.
        if !(answer.0.is_empty() && matches!(code, [0 | 1])) {
            return Err(refusal(code, status).ok_or_else(other)?);
        }
        token(&mut whole).ok_or_else(|| {
            "expected a token with an imprint by SHA-256 in DER, found something else".to_owned()
        })
    }

    /// Whether it is about these octets.
    pub fn is_about(&self, octets: &[u8]) -> bool {
        self.imprint == Hash::of(octets).0
    }

    /// Whether it answers the request with this nonce.
    pub fn answers(&self, nonce: [u8; 8]) -> bool {
        self.nonce.as_deref() == Some(&number(nonce))
    }
}

/// Puts an answer beside its checkpoint, the checkpoint last: only then they count. `log` is the directory of the log.
///
/// # Errors
/// When a file cannot be written; what is half done goes the next time.
pub fn store(log: &Path, size: u64, note: &str, answer: &[u8]) -> Result<(), Error> {
    let directory = log.join(DIRECTORY);
    let at = |error| Error::Io(directory.clone(), error);
    disk::create_directory(&directory, disk::DIRECTORY)?;
    for entry in fs::read_dir(&directory).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let is_answer = path.extension().is_some_and(|extension| extension == "tsr");
        if is_answer && !path.with_extension("checkpoint").exists() {
            disk::remove(&path)?;
        }
    }
    for (kind, octets) in [(Kind::Answer, answer), (Kind::Checkpoint, note.as_bytes())] {
        let (path, by) = (log.join(kind.path(size)), directory.join("new"));
        disk::replace(&path, &by, octets, disk::FILE)?;
    }
    Ok(())
}

/// Whether this checkpoint has an answer beside it.
pub fn is_stored(log: &Path, size: u64, note: &str) -> bool {
    let stored = fs::read(log.join(Kind::Checkpoint.path(size)));
    stored.is_ok_and(|stored| stored == note.as_bytes())
        && log.join(Kind::Answer.path(size)).exists()
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Checkpoint,
    Answer,
}

impl Kind {
    /// Below the directory of the log.
    pub(super) fn path(self, size: u64) -> String {
        match self {
            Self::Checkpoint => format!("{DIRECTORY}/{size}.checkpoint"),
            Self::Answer => format!("{DIRECTORY}/{size}.tsr"),
        }
    }

    /// The reverse of [`Self::path`].
    pub(super) fn parse(path: &Path) -> Option<(u64, Self)> {
        let size = path.file_stem()?.to_str()?.parse().ok()?;
        let kinds = [Self::Checkpoint, Self::Answer].into_iter();
        let mut found = kinds.filter(|kind| path == Path::new(&kind.path(size)));
        found.next().map(|kind| (size, kind))
    }
}

/// Reads the token beside the checkpoint of this size.
pub(super) fn read(log: &Path, size: u64, note: &str) -> Result<Token, io::Error> {
    let path = log.join(Kind::Answer.path(size));
    let token = Token::read(&tiles::read(&path, MAX_ANSWER)?).map_err(io::Error::other)?;
    if token.is_about(note.as_bytes()) {
        Ok(token)
    } else {
        let reason = "the time stamp is about other octets than those of the checkpoint beside it";
        Err(io::Error::other(reason))
    }
}

/// The reason of an authority for giving no token.
fn refusal(code: &[u8], mut status: Der<'_>) -> Option<String> {
    let name = match code {
        [2] => "rejection",
        [3] => "waiting",
        [4] => "revocation warning",
        [5] => "revocation notification",
        _ => return None,
    };
    let text = status
        .enter(SEQUENCE)
        .and_then(|mut texts| texts.take(UTF8));
    let text = text.map(|text| format!(": {}", String::from_utf8_lossy(text)));
    let text = text.unwrap_or_default();
    Some(format!("the authority gives no token: {name}{text}"))
}

/// The token in the rest of an answer.
fn token(answer: &mut Der<'_>) -> Option<Token> {
    let mut content = answer.enter(SEQUENCE)?;
    content.take(OBJECT).filter(|kind| *kind == SIGNED_DATA)?;
    let mut signed = content.enter(FIRST)?.enter(SEQUENCE)?;
    signed.take(INTEGER)?;
    signed.take(SET)?;
    let mut content = signed.enter(SEQUENCE)?;
    content.take(OBJECT).filter(|kind| *kind == TST_INFO)?;
    let mut info = Der(content.enter(FIRST)?.take(OCTETS)?).enter(SEQUENCE)?;
    info.take(INTEGER)?;
    info.take(OBJECT)?;
    let mut imprint = info.enter(SEQUENCE)?;
    let algorithm = imprint.enter(SEQUENCE)?.take(OBJECT)?;
    let imprint = imprint.take(OCTETS).filter(|_| algorithm == SHA256)?;
    info.take(INTEGER)?;
    let time = generalized_time(info.take(TIME)?)?;
    let mut rest = std::iter::from_fn(|| info.next());
    let nonce = rest.find(|(tag, _)| *tag == INTEGER);
    Some(Token {
        time,
        imprint: imprint.to_vec(),
        nonce: nonce.map(|(_, nonce)| nonce.to_vec()),
    })
}

/// `20261120140307Z`, with or without a fraction of a second.
fn generalized_time(text: &[u8]) -> Option<Wall> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    if seconds.len() != 14 || !seconds.is_ascii() {
        return None;
    }
    let (date, time) = seconds.split_at(8);
    let [year, month, day] = [&date[..4], &date[4..6], &date[6..]];
    let [hour, minute, second] = [&time[..2], &time[2..4], &time[4..]];
    Wall::parse(&format!(
        "{year}-{month}-{day}T{hour}:{minute}:{second}.{millis}Z"
    ))
}

/// A nonce as the content of an integer: positive, and no octet longer than it has to be.
const fn number(mut nonce: [u8; 8]) -> [u8; 8] {
    nonce[0] = nonce[0] & 0x3f | 0x40;
    nonce
}

/// A value in DER of less than 128 octets.
fn put(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag, content.len() as u8], content.as_slice()].concat()
}

/// Values in DER, one after the other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }

    fn enter(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Self)
    }

    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], mut rest) = self.0.split_first_chunk()?;
        let length = match length {
            0..=0x7f => length.into(),
            0x81..=0x84 => {
                let (octets, after) = rest.split_at_checked(usize::from(length & 0x7f))?;
                rest = after;
                let big_endian = octets.iter();
                big_endian.fold(0_usize, |length, octet| length << 8 | usize::from(*octet))
            }
            // Without an end, or longer than any answer.
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}
