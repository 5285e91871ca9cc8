//! The list of known devices on disk, so that a restarted gateway does not answer 404 for them.
//!
//! `devices.jsonl` in the data directory: one JSON object a line, `{"id":"..."}` for a device that
//! was met and `{"forgotten":"..."}` for one that was evicted. A torn last line is dropped. The file
//! is written anew at each start, when its history has outgrown its devices, and after a failure: what
//! a full disk refused is kept and written when there is room again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::id::Id;

/// A file with fewer new lines than this is not written anew while the gateway runs.
const REWRITE_LINES_MIN: usize = 100_000;

/// Most lines that are written before they are synced.
const LINES_MAX: usize = 512;

/// How long a list that could not be written is left alone.
const RETRY: Duration = Duration::from_secs(1);

const FILE: &str = "devices.jsonl";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Id(Id),
    Forgotten(Id),
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
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let ids = read(&path).map_err(named)?.into_ids();
        // The old list serves as well: a full disk must not keep a gateway from its stored answers.
        let file = rewrite(&path, &ids)
            .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "not written anew"))
            .ok();
        let list = List::new(path, file, REWRITE_LINES_MIN);
        let (lines, inbox) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("mainstay-registry".into())
            .spawn(move || {
                let mut list = list;
                write_lines(&inbox, list.file.is_some(), |lines| list.save(lines));
            })?;
        Ok((Self(Mutex::new(Some(Writer { lines, thread }))), ids))
    }

    pub(crate) fn remember(&self, id: &str) {
        self.put(Line::Id(Id::new(id)));
    }

    pub(crate) fn forget(&self, id: &str) {
        self.put(Line::Forgotten(Id::new(id)));
    }

    fn put(&self, line: Line) {
        if let Some(writer) = &*self.0.lock() {
            // The thread ends when this sender is dropped and not before.
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

/// Ids in the order in which they were met.
#[derive(Default)]
struct Known {
    ids: Vec<Option<Box<str>>>,
    places: HashMap<Box<str>, usize>,
}

impl Known {
    fn apply(&mut self, line: &Line) {
        match line {
            Line::Id(id) if !self.places.contains_key(id.as_str()) => {
                self.places.insert(id.as_str().into(), self.ids.len());
                self.ids.push(Some(id.as_str().into()));
            }
            Line::Id(_) => {}
            Line::Forgotten(id) => {
                if let Some(place) = self.places.remove(id.as_str()) {
                    self.ids[place] = None;
                }
            }
        }
    }

    fn into_ids(self) -> Vec<Box<str>> {
        self.ids.into_iter().flatten().collect()
    }
}

fn read(path: &Path) -> io::Result<Known> {
    let mut known = Known::default();
    let file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
        Err(error) => return Err(error),
    };
    for line in file.split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(line) => known.apply(&line),
            Err(error) => tracing::warn!(%error, path = %path.display(), "a line was skipped"),
        }
    }
    Ok(known)
}

/// Replaces the file by one with a line for each id, and opens it for more.
fn rewrite(path: &Path, ids: &[Box<str>]) -> io::Result<File> {
    let fresh: PathBuf = path.with_extension("jsonl.new");
    let mut out = BufWriter::new(File::create(&fresh)?);
    for id in ids {
        put_line(&mut out, &Line::Id(Id::new(id)))?;
    }
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_data()?;
    fs::rename(&fresh, path)?;
    // The name is in the directory; without this a power cut may bring the old list back, and with it
    // lose what is appended to the new one.
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

fn put_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// The file as its writer sees it.
struct List {
    path: PathBuf,
    /// `None` after a failure: what the file ends with is not known, so it is written anew.
    file: Option<File>,
    new_lines: usize,
    rewrite_at: usize,
    rewrite_min: usize,
}

impl List {
    fn new(path: PathBuf, file: Option<File>, rewrite_min: usize) -> Self {
        Self {
            path,
            file,
            new_lines: 0,
            rewrite_at: rewrite_min,
            rewrite_min,
        }
    }

    /// Makes `lines` durable.
    fn save(&mut self, lines: &[Line]) -> io::Result<()> {
        let saved = match self.file.take() {
            Some(file) if self.new_lines < self.rewrite_at => self.append(file, lines),
            _ => self.write_anew(lines),
        };
        saved.map(|file| self.file = Some(file))
    }

    fn append(&mut self, mut file: File, lines: &[Line]) -> io::Result<File> {
        let mut bytes = Vec::new();
        for line in lines {
            put_line(&mut bytes, line)?;
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        self.new_lines += lines.len();
        Ok(file)
    }

    fn write_anew(&mut self, lines: &[Line]) -> io::Result<File> {
        let mut known = read(&self.path)?;
        lines.iter().for_each(|line| known.apply(line));
        let ids = known.into_ids();
        let file = rewrite(&self.path, &ids)?;
        (self.new_lines, self.rewrite_at) = (0, self.rewrite_min.max(ids.len()));
        Ok(file)
    }
}

/// Hands lines to `save` until their senders are gone. What a full disk refuses is kept and tried again.
fn write_lines(
    inbox: &mpsc::Receiver<Line>,
    mut healthy: bool,
    mut save: impl FnMut(&[Line]) -> io::Result<()>,
) {
    let mut unsaved = Vec::new();
    let mut open = true;
    while open {
        open = if healthy {
            inbox.recv().map(|line| unsaved.push(line)).is_ok()
        } else {
            collect(inbox, &mut unsaved, Instant::now() + RETRY)
        };
        unsaved.extend(inbox.try_iter().take(LINES_MAX));
        let saved = save(&unsaved);
        if let Err(error) = &saved
            && (healthy || !open)
        {
            let unsaved = unsaved.len();
            tracing::error!(%error, unsaved, "new devices could not be written down");
        }
        healthy = saved.is_ok();
        if healthy {
            unsaved = Vec::new();
        }
    }
}

/// Takes what comes until then; `false` when the senders are gone.
fn collect(inbox: &mpsc::Receiver<Line>, lines: &mut Vec<Line>, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(left) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
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
        let mut list = List::new(path.clone(), Some(file), 16);
        let writer = thread::spawn(move || write_lines(&inbox, true, |lines| list.save(lines)));
        for number in 0..1_000 {
            lines.send(Line::Id(Id::new(&format!("{number}")))).unwrap();
            if number >= 3 {
                lines
                    .send(Line::Forgotten(Id::new(&format!("{}", number - 3))))
                    .unwrap();
            }
        }
        drop(lines);
        writer.join().unwrap();
        assert!(fs::read(&path).unwrap().len() < 2_000);
        assert_eq!(ids(dir.path()), ["997", "998", "999"]);
    }

    #[test]
    fn what_a_failing_disk_refused_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut list = List::new(path.clone(), Some(rewrite(&path, &[]).unwrap()), 16);
        list.save(&[Line::Id(Id::new("a"))]).unwrap();
        // Nothing can be written through a descriptor that is only for reading.
        list.file = Some(File::open(&path).unwrap());
        let lines = [Line::Id(Id::new("b"))];
        assert!(list.save(&lines).is_err());
        list.save(&lines).unwrap();
        list.save(&[Line::Id(Id::new("c"))]).unwrap();
        assert_eq!(ids(dir.path()), ["a", "b", "c"]);
    }

    #[test]
    fn a_failing_disk_does_not_hold_up_the_end() {
        let (lines, inbox) = mpsc::channel();
        for number in 0..20 * LINES_MAX {
            let id = Id::new(&format!("{number}"));
            lines.send(Line::Id(id)).unwrap();
        }
        drop(lines);
        // A pause before each further try, and only so many tries, however much waits.
        let mut tries = Vec::new();
        write_lines(&inbox, true, |lines| {
            tries.push(lines.len());
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(tries, [1 + LINES_MAX, 20 * LINES_MAX]);
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
