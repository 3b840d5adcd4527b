//! Acts of people: lookups, holds, releases and purges, each with its author, its case and its reason.
//!
//! A command leaves a [`Notice`] in the directory `inbox`, into which every member of the archive's group may put files, but
//! whose files only their owners can delete. The archiver takes it from there: the file's owner, as the kernel knows it,
//! says who it was. It becomes a [`Record`] in a file, and the hash of that an entry of the evidence log ([`Leaf`]). Records
//! have personal data and may be deleted at some age; what the log says of them has none, since a nonce is in the record.
//!
//! | below the root | |
//! |---|---|
//! | `inbox/` | notices that the archiver has not taken yet |
//! | `acts/lookups/date=YYYY-MM-DD/` | lookups: the access log |
//! | `acts/orders/` | all other acts |

mod inbox;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

pub use self::inbox::{Waiting, leave, open, waiting};
use super::row::Millis;
use super::tree::{date, encoded};
use super::wanted::Wanted;

pub(super) const LOOKUPS: &str = "acts/lookups";
const ORDERS: &str = "acts/orders";

/// An act, as a command describes it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Notice {
    /// 128 random bits, in hexadecimal.
    pub nonce: String,
    pub time: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The user who logged in, where that is another than the owner of the file: by sudo, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    #[serde(flatten)]
    pub act: Act,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "act", rename_all = "lowercase")]
pub enum Act {
    Lookup {
        lookups: Vec<Lookup>,
    },
    /// Sessions that these select are not deleted while it lasts.
    Hold {
        question: serde_json::Value,
        selections: Vec<Wanted>,
    },
    /// Ends every hold of the case.
    Release,
    /// Deletes sessions that are older, once.
    Purge {
        keep: String,
    },
    /// Lookups of days before this one are deleted. Only the archiver itself does that.
    Expire {
        keep: String,
        before: String,
    },
}

/// One question, and how many sessions are in its answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Lookup {
    pub question: serde_json::Value,
    pub verdict: String,
    pub answers: usize,
}

/// An act, as the archive keeps it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    pub gateway: String,
    /// Counts the acts of the gateway in this archive.
    pub number: u64,
    /// When the archiver took the notice.
    pub taken: Millis,
    /// Who left the notice; `None` for the archiver itself.
    pub uid: Option<u32>,
    #[serde(flatten)]
    pub notice: Notice,
}

/// The entry of the evidence log for a record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Leaf {
    /// [`Act::name`].
    pub act: String,
    pub gateway: String,
    pub number: u64,
    /// The path of the record, relative to the root.
    pub record: String,
    pub sha256: String,
    /// Of [`Act::Expire`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

impl Act {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Lookup { .. } => "lookup",
            Self::Hold { .. } => "hold",
            Self::Release => "release",
            Self::Purge { .. } => "purge",
            Self::Expire { .. } => "expire",
        }
    }

    /// Whether a user may have it done in an archive whose owner is `own`. Any member of the group may do what deletes
    /// nothing, now or later.
    pub const fn is_granted(&self, uid: u32, own: u32) -> bool {
        matches!(self, Self::Lookup { .. } | Self::Hold { .. }) || uid == 0 || uid == own
    }
}

impl Notice {
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(act: Act, time: Millis) -> io::Result<Self> {
        let mut nonce = [0; 16];
        let filled = SystemRandom::new().fill(&mut nonce);
        filled.map_err(|_| io::Error::other("the system has no random numbers"))?;
        Ok(Self {
            nonce: format!("{:032x}", u128::from_be_bytes(nonce)),
            time,
            case: None,
            reason: None,
            login_uid: None,
            act,
        })
    }
}

impl Record {
    /// Relative to the root.
    pub fn path(&self) -> String {
        let folder = match self.notice.act {
            Act::Lookup { .. } => format!("{LOOKUPS}/date={}", date(self.taken)),
            _ => ORDERS.to_owned(),
        };
        format!("{folder}/{}-{}.json", encoded(&self.gateway), self.number)
    }
}

impl Leaf {
    /// Whether the record may be gone after lookups before this date were deleted.
    pub fn is_before(&self, date: &str) -> bool {
        let of = self.record.strip_prefix(LOOKUPS);
        let of = of.and_then(|rest| rest.strip_prefix("/date="));
        of.is_some_and(|rest| rest.get(..date.len()).is_some_and(|own| own < date))
    }
}

/// The holds that last, of all gateways of an archive, each with its record.
///
/// # Errors
/// When a record cannot be read, or is not one: it may be a hold.
pub fn holds(root: &Path) -> io::Result<Vec<Record>> {
    let mut holds: Vec<Record> = Vec::new();
    for order in orders(root)? {
        match &order.notice.act {
            Act::Hold { .. } => holds.push(order),
            Act::Release => holds
                .retain(|it| it.gateway != order.gateway || it.notice.case != order.notice.case),
            _ => {}
        }
    }
    Ok(holds)
}

/// The sessions that the holds of a gateway keep.
///
/// # Errors
/// As for [`holds`].
pub fn held(root: &Path, gateway: &str) -> io::Result<Vec<Wanted>> {
    let holds = holds(root)?.into_iter();
    let own = holds.filter(|hold| hold.gateway == gateway);
    let selections = own.flat_map(|hold| match hold.notice.act {
        Act::Hold { selections, .. } => selections,
        _ => Vec::new(),
    });
    Ok(selections.collect())
}

/// All acts but lookups, by gateway, in the order in which they were done.
///
/// # Errors
/// As for [`holds`].
pub fn orders(root: &Path) -> io::Result<Vec<Record>> {
    let mut orders = Vec::new();
    let entries = match fs::read_dir(root.join(ORDERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(orders),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "json") {
            orders.push(read(&path)?);
        }
    }
    orders.sort_by(|a, b| (&a.gateway, a.number).cmp(&(&b.gateway, b.number)));
    Ok(orders)
}

/// The directories of the access log from before a date, `YYYY-MM-DD`.
///
/// # Errors
/// When the directory cannot be read.
pub fn lookups_before(root: &Path, before: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(root.join(LOOKUPS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let date = name.to_str().and_then(|name| name.strip_prefix("date="));
        if date.is_some_and(|date| date < before) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The record of this number of a gateway with its octets, on whatever day it was written.
///
/// # Errors
/// When a directory or the record cannot be read.
pub(super) fn begun(
    root: &Path,
    gateway: &str,
    number: u64,
) -> io::Result<Option<(Record, Vec<u8>)>> {
    let name = format!("{}-{number}.json", encoded(gateway));
    let mut folders = lookups_before(root, "9999")?;
    folders.push(root.join(ORDERS));
    for folder in folders {
        match fs::read(folder.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            octets => {
                let octets = octets?;
                return Ok(Some((serde_json::from_slice(&octets)?, octets)));
            }
        }
    }
    Ok(None)
}

/// Reads a record.
///
/// # Errors
/// When it cannot be read, or is not one; the text names the file.
pub fn read(path: &Path) -> io::Result<Record> {
    let name =
        |error: io::Error| io::Error::new(error.kind(), format!("\"{}\": {error}", path.display()));
    let octets = fs::read(path).map_err(name)?;
    serde_json::from_slice(&octets).map_err(|error| name(io::Error::other(error)))
}
