//! A Unix socket in the file system: made with its mode, taken over from a daemon that died, removed at the end.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o750;
const BACKLOG: i32 = 64;

/// Why there is no socket.
#[derive(Debug)]
pub enum Unusable {
    /// A living process listens there.
    Taken,
    /// There is a file that is not a socket.
    NotASocket,
    /// The directory does not exist and cannot be made.
    Directory(PathBuf, io::Error),
    /// The operating system refused something else.
    System(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("another process listens there"),
            Self::NotASocket => f.write_str("expected a socket or nothing, found another file"),
            Self::Directory(path, error) => {
                write!(
                    f,
                    "cannot make its directory \"{}\": {error}",
                    path.display()
                )
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unusable {}

impl From<Errno> for Unusable {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// The file of a listening socket; removed on drop, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Makes a non-blocking, listening socket at `path`, in place of one that nobody listens on any more.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), Unusable> {
        make_directory_of(path)?;
        let address = SocketAddrUnix::new(path)?;
        let socket = stream_socket()?;
        // The mode of the socket becomes that of the file, without what the umask forbids: at no moment may others
        // connect (net/unix/af_unix.c, unix_bind_bsd).
        fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                bind(&socket, &address)?;
            }
            result => result?,
        }
        let metadata = fs::symlink_metadata(path).map_err(Unusable::System)?;
        let this = Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        // What the umask has taken away.
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(Unusable::System)?;
        listen(&socket, BACKLOG)?;
        Ok((this, UnixListener::from(socket)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let metadata = fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode) {
            // What stays is replaced by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// Makes the directory if its parent is there.
fn make_directory_of(path: &Path) -> Result<(), Unusable> {
    let Some(directory) = path.parent() else {
        return Ok(());
    };
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        // What the umask has taken away.
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(Unusable::System),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Also when it is there and the one above is not ours to write to.
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(Unusable::Directory(directory.to_owned(), error)),
    }
}

/// Removes the socket of a daemon that is gone. Whether it is gone shows in a connection being refused.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), Unusable> {
    let metadata = fs::symlink_metadata(path).map_err(Unusable::System)?;
    if !metadata.file_type().is_socket() {
        return Err(Unusable::NotASocket);
    }
    match connect(stream_socket()?, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(Unusable::System),
        // A full backlog has somebody to empty it.
        Ok(()) | Err(Errno::AGAIN) => Err(Unusable::Taken),
        Err(error) => Err(error.into()),
    }
}
