//! The output of a child process, line by line, as it arrives.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A thread reads until the writer closes its end.
#[derive(Debug)]
pub struct Lines {
    seen: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    pub fn read(source: impl Read + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let reader = thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                sink.lock().unwrap().push(text);
                line.clear();
            }
        });
        Self {
            seen,
            reader: Some(reader),
        }
    }

    /// The lines so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// All lines, once the writer is gone.
    #[must_use]
    pub fn all(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}
