//! Signed notes (c2sp.org/signed-note, Ed25519 only) and the checkpoints in them (c2sp.org/tlog-checkpoint).
//!
//! A text is read only if it is exactly what this program writes for it, so that no octet of it can change unnoticed.
//! Signatures of others are the exception: a witness may add its own to a checkpoint.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::base64;
use super::merkle::Hash;
use crate::time::Wall;

/// Notes are short; a longer text is not one.
pub const MAX_NOTE: usize = 65_535;

/// The type of an Ed25519 key or signature.
const TYPE: u8 = 1;

/// A public key with its name, which is the log's origin. As text: `NAME+ID+KEY`, as other programs for notes take it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicKey {
    name: String,
    key: [u8; 32],
}

impl PublicKey {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a signature names its key by, beside the name.
    pub fn id(&self) -> [u8; 4] {
        let named = [self.name.as_bytes(), &[b'\n', TYPE], &self.key].concat();
        let [a, b, c, d, ..] = Hash::of(&named).0;
        [a, b, c, d]
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let key = [&[TYPE], self.key.as_slice()].concat();
        write!(f, "{}+{id:08x}+{}", self.name, base64::encode(&key))
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (name, rest) = text.split_once('+')?;
            let (_, key) = rest.split_once('+')?;
            let octets: [u8; 33] = base64::decode(key)?.try_into().ok()?;
            let (_, key) = octets.split_first_chunk::<1>()?;
            let (name, key) = (name.to_owned(), key.try_into().ok()?);
            Some(Self { name, key }).filter(|key| is_name(&key.name) && key.to_string() == text)
        };
        read().ok_or(
            "expected a public key of the form NAME+ID+KEY, as \"nattrail archive key\" prints it",
        )
    }
}

/// Whether a key, and so a log, can have this name.
pub fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| !(c.is_whitespace() || c.is_control() || c == '+');
    !name.is_empty() && name.chars().all(is_allowed)
}

/// A private key.
#[derive(Debug)]
pub struct PrivateKey {
    public: PublicKey,
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    /// `None` if no such key can have this name.
    pub fn new(name: &str, seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = PublicKey {
            name: is_name(name).then(|| name.to_owned())?,
            key: pair.public_key().as_ref().try_into().ok()?,
        };
        Some(Self { public, pair })
    }

    pub const fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// A text and its signatures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Signature {
    name: String,
    id: [u8; 4],
    octets: Vec<u8>,
}

impl Note {
    /// `text` is not empty, and ends with a newline.
    pub fn sign(text: String, key: &PrivateKey) -> Self {
        let signature = Signature {
            name: key.public.name.clone(),
            id: key.public.id(),
            octets: key.pair.sign(text.as_bytes()).as_ref().to_vec(),
        };
        let signatures = vec![signature];
        Self { text, signatures }
    }

    /// The text with its newline, as it is signed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the key has signed. A second signature of the same key has to be valid, too.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let mut found = self.by(key).peekable();
        let verifier = UnparsedPublicKey::new(&ED25519, key.key);
        found.peek().is_some()
            && found.all(|signature| {
                verifier
                    .verify(self.text.as_bytes(), &signature.octets)
                    .is_ok()
            })
    }

    /// Whether a signature claims to be of this key.
    pub fn names(&self, key: &PublicKey) -> bool {
        self.by(key).next().is_some()
    }

    fn by(&self, key: &PublicKey) -> impl Iterator<Item = &Signature> {
        let id = key.id();
        let all = self.signatures.iter();
        all.filter(move |signature| signature.id == id && signature.name == key.name)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for Signature { name, id, octets } in &self.signatures {
            let octets = base64::encode(&[id, octets.as_slice()].concat());
            writeln!(f, "\u{2014} {name} {octets}")?;
        }
        Ok(())
    }
}

impl FromStr for Note {
    type Err = &'static str;

    fn from_str(note: &str) -> Result<Self, Self::Err> {
        let signature = |line: &str| {
            let (name, octets) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let octets = base64::decode(octets)?;
            let (&id, octets) = octets.split_first_chunk()?;
            is_name(name).then(|| Signature {
                name: name.to_owned(),
                id,
                octets: octets.to_vec(),
            })
        };
        let read = || {
            let end = note.rfind("\n\n")?;
            let (text, lines) = (&note[..=end], &note[end + 2..]);
            let signatures = lines.lines().map(signature).collect::<Option<Vec<_>>>()?;
            let text = text.to_owned();
            Some(Self { text, signatures }).filter(|found| {
                let is_allowed = |c: char| c == '\n' || !c.is_ascii_control();
                !found.signatures.is_empty()
                    && note.chars().all(is_allowed)
                    && found.to_string() == note
            })
        };
        let note = if note.len() <= MAX_NOTE { read() } else { None };
        note.ok_or("not a signed note")
    }
}

/// What a log says of itself: its size and root. As text: the body of a note.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
    /// In a key entry only: the key that signs after it, and when it was made.
    pub next: Option<(PublicKey, Wall)>,
}

/// The line of a checkpoint that names the next key.
const NEXT: &str = "next-key";

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)?;
        match &self.next {
            Some((key, made)) => writeln!(f, "{NEXT} {key} {made}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Checkpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let next = |line: &str| {
            let (key, made) = line.strip_prefix(NEXT)?.trim_start().split_once(' ')?;
            Some((key.parse().ok()?, Wall::parse(made)?))
        };
        let read = || {
            let mut lines = text.lines();
            let found = Self {
                origin: lines.next()?.to_owned(),
                size: lines.next()?.parse().ok()?,
                root: lines.next()?.parse().ok()?,
                next: match lines.next() {
                    Some(line) => Some(next(line)?),
                    None => None,
                },
            };
            Some(found).filter(|found| is_name(&found.origin) && found.to_string() == text)
        };
        read().ok_or("not a checkpoint")
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The note of c2sp.org/signed-note and golang.org/x/mod/sumdb/note, with the key it is signed by.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETERS: &str = "If you think cryptography is the answer to your problem,\n\
         then you don't know what your problem is.\n\n\
         \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    pub(in super::super) fn key(seed: u8) -> PrivateKey {
        PrivateKey::new("gw1.example/nattrail", &[seed; 32]).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "gw1.example/nattrail".to_owned(),
            size: 20_852_163,
            root: Hash::of(b"root"),
            next: Some((key(2).public, Wall::from_secs(1_795_000_000))),
        }
    }

    #[test]
    fn the_note_of_the_reference_implementation_is_signed_by_its_key() {
        let key: PublicKey = PETER.parse().unwrap();
        let note: Note = PETERS.parse().unwrap();
        assert!(note.is_signed_by(&key));
        assert_eq!(note.to_string(), PETERS);
    }

    #[test]
    fn a_note_with_a_flipped_bit_is_not_signed() {
        let key: PublicKey = PETER.parse().unwrap();
        for bit in 0..PETERS.len() * 8 {
            let mut octets = PETERS.as_bytes().to_vec();
            octets[bit / 8] ^= 1 << (bit % 8);
            let note = String::from_utf8(octets).ok();
            let note = note.and_then(|note| note.parse::<Note>().ok());
            assert!(
                !note.is_some_and(|note| note.is_signed_by(&key)),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_key_with_a_flipped_bit_is_another_or_none() {
        for bit in 0..PETER.len() * 8 {
            let mut octets = PETER.as_bytes().to_vec();
            octets[bit / 8] ^= 1 << (bit % 8);
            let key = String::from_utf8(octets).ok();
            assert!(key.and_then(|key| key.parse::<PublicKey>().ok()).is_none());
        }
    }

    #[test]
    fn signatures_of_others_are_left_alone() {
        let note = Note::sign(checkpoint().to_string(), &key(1));
        let other = Note::sign(checkpoint().to_string(), &key(9)).to_string();
        let other = other.lines().last().unwrap();
        let both: Note = format!("{note}{other}\n").parse().unwrap();
        assert!(both.is_signed_by(key(1).public()) && both.is_signed_by(key(9).public()));
        assert!(!both.is_signed_by(key(3).public()));
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was_written() {
        for next in [None, checkpoint().next] {
            let checkpoint = Checkpoint {
                next,
                ..checkpoint()
            };
            assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        }
    }

    #[test]
    fn other_spellings_of_a_checkpoint_are_refused() {
        let text = checkpoint().to_string();
        for (from, to) in [
            ("20852163", "020852163"),
            ("20852163", "+20852163"),
            ("=\n", "\n"),
            ("next-key ", "next-key  "),
            ("next-key", "other"),
            ("\n", "\r\n"),
            ("gw1.example/nattrail\n", "gw1 example\n"),
        ] {
            assert_ne!(text.replacen(from, to, 1), text);
            assert!(
                text.replacen(from, to, 1).parse::<Checkpoint>().is_err(),
                "{to:?}"
            );
        }
    }
}
