//! The package, built from this tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::netns::succeed;

/// The packages of one build.
#[derive(Debug)]
pub struct Built {
    pub directory: PathBuf,
}

impl Built {
    /// The package under test, built once.
    pub fn shared() -> &'static Self {
        static BUILT: OnceLock<Built> = OnceLock::new();
        BUILT.get_or_init(|| Self::build("package"))
    }

    /// Another build from scratch, in another directory.
    pub fn again() -> Self {
        let name = "package-again";
        // A missing directory need not be removed.
        let _ = fs::remove_dir_all(Self::directory(name));
        Self::build(name)
    }

    fn build(name: &str) -> Self {
        let directory = Self::directory(name);
        // These are packages of an earlier version.
        for old in Self::names(&directory) {
            if old.starts_with("nattrail_") || old.starts_with("nattrail-dbgsym_") {
                fs::remove_file(directory.join(old)).unwrap();
            }
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/build");
        let mut command = as_who_compiles();
        succeed(command.arg(script).arg(&directory), "");
        Self { directory }
    }

    /// The package itself.
    pub fn deb(&self) -> PathBuf {
        self.find(|name| name.starts_with("nattrail_") && name.ends_with(".deb"))
    }

    pub fn changes(&self) -> PathBuf {
        self.find(|name| name.ends_with(".changes"))
    }

    /// Every package that the build made.
    pub fn debs(&self) -> Vec<String> {
        let mut debs: Vec<String> = Self::names(&self.directory);
        debs.retain(|name| name.ends_with(".deb"));
        debs.sort();
        debs
    }

    /// The same package with another version, in a file of its own.
    pub fn with_version(&self, version: &str) -> PathBuf {
        let tree = tempfile::tempdir().unwrap();
        let content = tree.path().join("content");
        let mut unpack = Command::new("dpkg-deb");
        succeed(unpack.arg("-R").arg(self.deb()).arg(&content), "");
        let control = content.join("DEBIAN/control");
        let text = fs::read_to_string(&control).unwrap();
        let line = text.lines().find(|line| line.starts_with("Version: "));
        let text = text.replace(line.unwrap(), &format!("Version: {version}"));
        fs::write(control, text).unwrap();
        let repacked = self.directory.join("repacked");
        fs::create_dir_all(&repacked).unwrap();
        let deb = repacked.join(format!("nattrail-{version}.deb"));
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "-b"]).arg(&content);
        succeed(pack.arg(&deb), "");
        deb
    }

    fn directory(name: &str) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
    }

    fn find(&self, is_it: impl Fn(&str) -> bool) -> PathBuf {
        let directory = &self.directory;
        let name = Self::names(directory).into_iter().find(|name| is_it(name));
        directory.join(name.unwrap_or_else(|| panic!("not in {}", directory.display())))
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// A command as the user who compiled this test, even under sudo: with the same cargo, and files of the same owner.
fn as_who_compiles() -> Command {
    let toolchain = Path::new(env!("CARGO")).parent().unwrap().display();
    let path = format!("PATH={toolchain}:/usr/sbin:/usr/bin:/sbin:/bin");
    match std::env::var("SUDO_USER") {
        Ok(user) if user != "root" => {
            let mut command = Command::new("runuser");
            command.args(["--user", &user, "--", "env", &path]);
            command
        }
        _ => {
            let mut command = Command::new("env");
            command.arg(path);
            command
        }
    }
}
