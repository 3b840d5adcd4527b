//! The directory in which commands leave their notices.
//!
//! Its mode is 3770: members of the group put files in, and only the owner of one can delete it. Files are whole from the
//! moment that they have their names. Nothing in them is trusted but the owner, which the kernel has written.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use super::Notice;

/// A batch of lookups has some hundred octets for each.
const MAX_NOTICE: u64 = 1 << 20;
/// So many are taken at a time.
const MAX_WAITING: usize = 1_000;

/// A notice in the inbox.
#[derive(Debug)]
pub struct Waiting {
    pub path: PathBuf,
    /// The owner of the file.
    pub uid: u32,
    /// Or the reason why it is none.
    pub notice: Result<Notice, String>,
}

impl Waiting {
    /// Whether the archiver may do it, for one whose own user is `own`.
    ///
    /// # Errors
    /// The reason, which follows "the notice".
    pub fn granted(self, own: u32) -> Result<Notice, String> {
        let notice = self.notice?;
        if notice.act.is_granted(self.uid, own) {
            return Ok(notice);
        }
        let name = notice.act.name();
        Err(format!(
            "asks for a {name}, which only root and the archive's own user may ask for"
        ))
    }
}

/// Makes the inbox where it is missing. It gets its group, and the bit by which that goes on to files, from the root, as
/// the package makes that; the umask must leave the group its rights.
///
/// # Errors
/// When it cannot be made.
pub fn open(root: &Path) -> io::Result<()> {
    let made = DirBuilder::new().mode(0o1770).create(root.join("inbox"));
    made.or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    })
}

/// Leaves a notice; it is on the disk when this returns.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when there is no inbox, since no archiver runs here.
pub fn leave(root: &Path, notice: &Notice) -> io::Result<PathBuf> {
    let folder = root.join("inbox");
    let name = format!("{:015}-{}.json", notice.time.get(), notice.nonce);
    let (path, begun) = (folder.join(&name), folder.join(format!(".{name}")));
    let octets = serde_json::to_vec(notice)?;
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&begun)?;
    let written = (|| {
        // Whatever the umask is: the archiver reads it as a member of the group.
        file.set_permissions(Permissions::from_mode(0o640))?;
        file.write_all(&octets)?;
        file.sync_all()?;
        fs::rename(&begun, &path)?;
        File::open(&folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&begun);
    }
    written.map(|()| path)
}

/// The notices in the inbox, the oldest first. Each is read when its turn comes, so that one at a time is in memory.
///
/// # Errors
/// When the directory cannot be read.
pub fn waiting(root: &Path) -> io::Result<impl Iterator<Item = Waiting> + use<>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(root.join("inbox")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry?;
        // Only its owner can empty a directory: it stays, and must not stop the files.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            names.push(entry.path());
        }
    }
    names.sort_unstable();
    names.truncate(MAX_WAITING);
    Ok(names.into_iter().filter_map(|path| match read(&path) {
        // Its owner has taken it back.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Waiting {
            path,
            uid: u32::MAX,
            notice: Err(format!("cannot be read: {error}")),
        }),
        Ok((uid, notice)) => Some(Waiting { path, uid, notice }),
    }))
}

fn read(path: &Path) -> io::Result<(u32, Result<Notice, String>)> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    let uid = metadata.uid();
    // Another name of somebody else's file would give this one their name.
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Ok((
            uid,
            Err("is not a file of its own, but a link or the like".to_owned()),
        ));
    }
    let mut octets = Vec::new();
    file.take(MAX_NOTICE + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > MAX_NOTICE {
        return Ok((uid, Err(format!("has more than {MAX_NOTICE} octets"))));
    }
    let notice = serde_json::from_slice(&octets);
    Ok((
        uid,
        notice.map_err(|error| format!("is not one that this version reads: {error}")),
    ))
}
