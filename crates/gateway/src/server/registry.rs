//! The list of known devices on disk, so that a restarted gateway does not answer 404 for them.
//!
//! `devices.jsonl` in the data directory: one JSON object a line, `{"id":"..."}` for a device that
//! was met and `{"forgotten":"..."}` for one that was evicted. A torn last line is dropped. The file
//! is written anew at each start, and when its history has outgrown its devices.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A file with fewer new lines than this is not written anew while the gateway runs.
const REWRITE_LINES_MIN: usize = 100_000;

const FILE: &str = "devices.jsonl";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Id(Box<str>),
    Forgotten(Box<str>),
}

/// Hands names to the thread that writes them.
pub(crate) struct Registry(Mutex<Option<Writer>>);

struct Writer {
    /// Unbounded, yet small: each device enters it once, and the directory bounds the devices.
    lines: mpsc::Sender<Line>,
    thread: thread::JoinHandle<()>,
}

impl Registry {
    /// Reads the list in `dir` and starts its writer. Returns the ids from the oldest to the newest.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Vec<Box<str>>)> {
        let path = dir.join(FILE);
        let ids = read(&path)?;
        let file = rewrite(&path, &ids)?;
        let (lines, inbox) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("mainstay-registry".into())
            .spawn(move || write_lines(&path, file, &inbox, REWRITE_LINES_MIN))?;
        Ok((Self(Mutex::new(Some(Writer { lines, thread }))), ids))
    }

    pub(crate) fn remember(&self, id: &str) {
        self.put(Line::Id(id.into()));
    }

    pub(crate) fn forget(&self, id: &str) {
        self.put(Line::Forgotten(id.into()));
    }

    fn put(&self, line: Line) {
        if let Some(writer) = &*self.0.lock() {
            // The thread ends early only after it reported that the disk failed.
            drop(writer.lines.send(line));
        }
    }

    /// Writes what is left and ends the writer; later names are dropped.
    pub(crate) fn close(&self) {
        let Some(writer) = self.0.lock().take() else {
            return;
        };
        drop(writer.lines);
        if writer.thread.join().is_err() {
            tracing::error!("the writer of the device list panicked");
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Box<str>>> {
    let file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    let mut place = std::collections::HashMap::new();
    for line in file.split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(Line::Id(id)) => {
                place.insert(id.clone(), ids.len());
                ids.push(Some(id));
            }
            Ok(Line::Forgotten(id)) => {
                if let Some(place) = place.remove(&id) {
                    ids[place] = None;
                }
            }
            Err(error) => tracing::warn!(%error, path = %path.display(), "a line was skipped"),
        }
    }
    Ok(ids.into_iter().flatten().collect())
}

/// Replaces the file by one with a line for each id, and opens it for more.
fn rewrite(path: &Path, ids: &[Box<str>]) -> io::Result<File> {
    let fresh: PathBuf = path.with_extension("jsonl.new");
    let mut out = BufWriter::new(File::create(&fresh)?);
    for id in ids {
        put_line(&mut out, &Line::Id(id.clone()))?;
    }
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_data()?;
    fs::rename(&fresh, path)?;
    OpenOptions::new().append(true).open(path)
}

fn put_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn write_lines(path: &Path, file: File, inbox: &mpsc::Receiver<Line>, rewrite_min: usize) {
    if let Err(error) = try_write_lines(path, file, inbox, rewrite_min) {
        tracing::error!(%error, path = %path.display(), "new devices are not remembered any more");
    }
}

fn try_write_lines(
    path: &Path,
    file: File,
    inbox: &mpsc::Receiver<Line>,
    rewrite_min: usize,
) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    let (mut new_lines, mut rewrite_at) = (0, rewrite_min);
    while let Ok(line) = inbox.recv() {
        for line in std::iter::once(line).chain(inbox.try_iter()) {
            put_line(&mut out, &line)?;
            new_lines += 1;
        }
        out.flush()?;
        out.get_ref().sync_data()?;
        if new_lines >= rewrite_at {
            let ids = read(path)?;
            out = BufWriter::new(rewrite(path, &ids)?);
            (new_lines, rewrite_at) = (0, rewrite_min.max(ids.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(dir: &Path) -> Vec<String> {
        let (registry, ids) = Registry::open(dir).unwrap();
        registry.close();
        ids.into_iter().map(String::from).collect()
    }

    #[test]
    fn devices_that_come_and_go_do_not_grow_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let file = rewrite(&path, &[]).unwrap();
        let (lines, inbox) = mpsc::sync_channel(1);
        let writer = {
            let path = path.clone();
            thread::spawn(move || write_lines(&path, file, &inbox, 16))
        };
        for number in 0..1_000 {
            lines.send(Line::Id(format!("{number}").into())).unwrap();
            if number >= 3 {
                lines
                    .send(Line::Forgotten(format!("{}", number - 3).into()))
                    .unwrap();
            }
        }
        drop(lines);
        writer.join().unwrap();
        assert!(fs::read(&path).unwrap().len() < 2_000);
        assert_eq!(ids(dir.path()), ["997", "998", "999"]);
    }

    #[test]
    fn what_was_met_is_remembered_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (registry, _) = Registry::open(dir.path()).unwrap();
        ["a", "b \"quoted\"", "c"]
            .iter()
            .for_each(|id| registry.remember(id));
        registry.forget("a");
        registry.close();
        let path = dir.path().join(FILE);
        let golden = concat!(
            "{\"id\":\"a\"}\n",
            "{\"id\":\"b \\\"quoted\\\"\"}\n",
            "{\"id\":\"c\"}\n",
            "{\"forgotten\":\"a\"}\n",
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), golden);
        assert_eq!(ids(dir.path()), ["b \"quoted\"", "c"]);

        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"id\":\"to")
            .unwrap();
        assert_eq!(ids(dir.path()), ["b \"quoted\"", "c"]);
        assert_eq!(
            fs::read(&path)
                .unwrap()
                .iter()
                .filter(|b| **b == b'\n')
                .count(),
            2
        );
    }
}
