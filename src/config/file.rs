//! Reading the configuration file, whatever is in its place.
//!
//! The daemon reads it again while it runs, so nothing here waits or takes more memory than [`LARGEST`]: a named pipe is
//! not waited for, a device is not read from, and a file is refused for its size before anything looks at its text.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::load::Error;

/// Most bytes of a configuration: some thousand collectors.
const LARGEST: u64 = 1 << 20;

/// What was read.
#[derive(Debug)]
pub struct Contents {
    pub text: String,
    /// The file's permissions, setuid and sticky bits included.
    pub mode: u32,
}

/// Reads a regular file of at most 1 MiB of UTF-8.
///
/// # Errors
/// [`Error::Unreadable`] and [`Error::Unfit`].
pub fn read(path: &Path) -> Result<Contents, Error> {
    let unreadable = |error| Error::Unreadable {
        file: path.to_path_buf(),
        error,
    };
    let unfit = |message| Error::Unfit {
        file: path.to_path_buf(),
        message,
    };
    let file = open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        let found = kind(metadata.file_type());
        return Err(unfit(format!("expected a regular file, found {found}")));
    }
    let too_large = |found: String| {
        unfit(format!(
            "expected at most 1 MiB ({LARGEST} bytes), found {found}"
        ))
    };
    if metadata.len() > LARGEST {
        return Err(too_large(format!("{} bytes", metadata.len())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    // A file may grow while it is read, and those of /proc have no size.
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_large("more".to_owned()));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(Contents {
        text,
        mode: metadata.permissions().mode() & 0o7777,
    })
}

/// Without `O_NONBLOCK` opening a named pipe waits for its writer; a regular file does not mind.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        "a directory"
    } else if found.is_fifo() {
        "a named pipe"
    } else if found.is_char_device() || found.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    fn refusal(path: &Path) -> String {
        let message = read(path).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        message.split_once(name).unwrap().1.to_owned()
    }

    #[test]
    fn a_file_of_exactly_the_largest_size_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n.toml");
        fs::write(&path, "\n".repeat(1 << 20)).unwrap();
        assert_eq!(read(&path).unwrap().text.len(), 1 << 20);
    }

    #[test]
    fn a_larger_file_is_refused_unread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n.toml");
        // Sparse: were it read, the memory it takes would end the test.
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        let expected = ": expected at most 1 MiB (1048576 bytes), found 4398046511104 bytes";
        assert_eq!(refusal(&path), expected);
    }

    #[test]
    fn a_named_pipe_is_refused_without_waiting_for_its_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n.toml");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(
            refusal(&path),
            ": expected a regular file, found a named pipe"
        );
    }

    #[test]
    fn a_directory_and_a_device_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            refusal(directory.path()),
            ": expected a regular file, found a directory"
        );
        for device in ["/dev/null", "/dev/zero"] {
            assert_eq!(
                refusal(Path::new(device)),
                ": expected a regular file, found a device"
            );
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n.toml");
        fs::write(&path, b"a = \"\xff\"").unwrap();
        let message = refusal(&path);
        assert!(message.contains("invalid utf-8"), "{message}");
    }
}
