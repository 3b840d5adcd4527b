//! A Unix socket in the file system: made with its mode, taken over from a dead daemon, removed at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::net::UnixStream;
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o750;
const BACKLOG: i32 = 64;

/// The file of a listening socket; removed on drop.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
}

impl SocketFile {
    /// Makes a non-blocking, listening socket at `path`, in place of one on which nobody listens any more.
    pub fn bind(path: &Path) -> io::Result<(Self, OwnedFd)> {
        make_directory_of(path)?;
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the mode of the socket, less the umask: at no moment may others connect (net/unix/af_unix.c,
        // unix_bind_bsd).
        fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path)?;
                bind(&socket, &address)?;
            }
            result => result?,
        }
        let this = Self {
            path: path.to_owned(),
        };
        // The umask has removed some of these bits.
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        listen(&socket, BACKLOG)?;
        Ok((this, socket))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // While this one listens, no other daemon takes its place. The next daemon replaces a file that stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the directory if its parent exists.
fn make_directory_of(path: &Path) -> io::Result<()> {
    // The path is absolute, so it has a parent unless it is the root itself.
    let directory = path.parent().unwrap_or(path);
    if directory.is_dir() {
        return Ok(());
    }
    let mode = Permissions::from_mode(DIRECTORY_MODE);
    let made = DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
    // The umask has removed some of these bits.
    let made = made.and_then(|()| fs::set_permissions(directory, mode));
    made.map_err(|error| {
        let directory = directory.display();
        io::Error::other(format!(
            "cannot make its directory \"{directory}\": {error}"
        ))
    })
}

/// Removes the socket of a dead daemon, which is one that refuses a connection.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other(
            "expected a socket or nothing, found another file",
        ));
    }
    match UnixStream::connect(path).map_err(|error| (error.kind(), error)) {
        Err((ErrorKind::ConnectionRefused, _)) => fs::remove_file(path),
        // A full backlog has a process that empties it.
        Ok(_) | Err((ErrorKind::WouldBlock, _)) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens there",
        )),
        Err((_, error)) => Err(error),
    }
}
