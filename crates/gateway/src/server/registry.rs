//! The list of known devices on disk, so that a restarted gateway does not answer 404 for them.
//!
//! `devices.jsonl` in the data directory: one JSON object a line, `{"id":"..."}` for a device that
//! was met and `{"forgotten":"..."}` for one that was evicted. A torn last line is dropped. The file
//! is written anew at each start, when its history has outgrown its devices, and after a failure: what
//! a full disk refused is kept and written when there is room again. Of a device that came and went
//! meanwhile nothing is kept, so what waits is bounded as the known devices are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use super::id::Id;

/// A file with fewer new lines than this is not written anew while the gateway runs.
const REWRITE_LINES_MIN: usize = 100_000;

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
pub(crate) struct Registry {
    inbox: Arc<Inbox>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
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
        let inbox = Arc::new(Inbox::default());
        let writer = thread::Builder::new()
            .name("mainstay-registry".into())
            .spawn({
                let (inbox, mut list) = (Arc::clone(&inbox), list);
                move || write_lines(&inbox, list.file.is_some(), |lines| list.save(lines))
            })?;
        let writer = Mutex::new(Some(writer));
        Ok((Self { inbox, writer }, ids))
    }

    pub(crate) fn remember(&self, id: &str) {
        self.inbox.put(Line::Id(Id::new(id)));
    }

    pub(crate) fn forget(&self, id: &str) {
        self.inbox.put(Line::Forgotten(Id::new(id)));
    }

    /// How many devices the file says something else of than is true.
    pub(crate) fn unsaved(&self) -> usize {
        let state = self.inbox.state.lock();
        state.changes.of.len() + state.being_written
    }

    /// How often the file could not be written.
    pub(crate) fn failures(&self) -> u64 {
        self.inbox.failures.load(Relaxed)
    }

    /// Writes what is left and ends the writer; later names are dropped.
    pub(crate) fn close(&self) {
        let Some(writer) = self.writer.lock().take() else {
            return;
        };
        self.inbox.close();
        if writer.join().is_err() {
            tracing::error!("the writer of the device list panicked");
        }
    }
}

/// What waits to be written.
#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
    failures: AtomicU64,
}

#[derive(Default)]
struct InboxState {
    changes: Changes,
    being_written: usize,
    is_closed: bool,
}

impl Inbox {
    fn put(&self, line: Line) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.changes.put(line);
            self.changed.notify_one();
        }
    }

    fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits for something to write, or as long as `pause` says, and takes all there is; also says whether more can come.
    fn take(&self, pause: Option<Duration>) -> (Vec<Line>, bool) {
        let mut state = self.state.lock();
        match pause {
            Some(pause) => {
                let until = Instant::now() + pause;
                while !state.is_closed && !self.changed.wait_until(&mut state, until).timed_out() {}
            }
            None => self.changed.wait_while(&mut state, |state| {
                state.changes.of.is_empty() && !state.is_closed
            }),
        }
        let lines = std::mem::take(&mut state.changes).into_lines();
        state.being_written = lines.len();
        (lines, !state.is_closed)
    }

    fn written(&self) {
        self.state.lock().being_written = 0;
    }

    /// Takes back what could not be written.
    fn refused(&self, lines: Vec<Line>) {
        self.failures.fetch_add(1, Relaxed);
        let mut state = self.state.lock();
        let newer = std::mem::take(&mut state.changes).into_lines();
        for line in lines.into_iter().chain(newer) {
            state.changes.put(line);
        }
        state.being_written = 0;
    }
}

/// What the file does not say yet, by device.
#[derive(Default)]
struct Changes {
    of: HashMap<Id, Change>,
    /// Devices that were met.
    turns: u64,
}

#[derive(Default)]
struct Change {
    /// When the device was met, among the others.
    turn: u64,
    /// What the file says of it holds no longer, be it known again or not.
    was_forgotten: bool,
    is_known: bool,
}

impl Changes {
    fn put(&mut self, line: Line) {
        match line {
            Line::Id(id) => {
                self.turns += 1;
                let change = self.of.entry(id).or_default();
                if !change.is_known {
                    (change.is_known, change.turn) = (true, self.turns);
                }
            }
            Line::Forgotten(id) => match self.of.entry(id) {
                // The file has never heard of it.
                Entry::Occupied(change) if !change.get().was_forgotten => drop(change.remove()),
                change => {
                    let change = change.or_default();
                    (change.was_forgotten, change.is_known) = (true, false);
                }
            },
        }
    }

    fn into_lines(self) -> Vec<Line> {
        let mut changes: Vec<_> = self.of.into_iter().collect();
        changes.sort_unstable_by_key(|(_, change)| change.turn);
        let mut lines = Vec::with_capacity(changes.len());
        for (id, change) in changes {
            if change.was_forgotten {
                lines.push(Line::Forgotten(Id::new(id.as_str())));
            }
            if change.is_known {
                lines.push(Line::Id(id));
            }
        }
        lines
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
    write_ids(&fresh, ids).inspect_err(|_| {
        // On a full disk half a list would take the room that the store needs.
        drop(fs::remove_file(&fresh));
    })?;
    fs::rename(&fresh, path)?;
    // The name is in the directory; without this a power cut may bring the old list back, and with it
    // lose what is appended to the new one.
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

fn write_ids(path: &Path, ids: &[Box<str>]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for id in ids {
        put_line(&mut out, &Line::Id(Id::new(id)))?;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()
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
        let len = file.metadata()?.len();
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        written.inspect_err(|_| {
            // The file must not name devices of which it is taken that it never heard.
            drop(file.set_len(len));
        })?;
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

/// Hands lines to `save` until no more can come. What a full disk refuses is kept and tried again.
fn write_lines(inbox: &Inbox, mut healthy: bool, mut save: impl FnMut(&[Line]) -> io::Result<()>) {
    let mut open = true;
    while open {
        let lines;
        (lines, open) = inbox.take((!healthy).then_some(RETRY));
        match save(&lines) {
            Ok(()) => {
                inbox.written();
                healthy = true;
            }
            Err(error) => {
                if healthy || !open {
                    let unsaved = lines.len();
                    tracing::error!(%error, unsaved, "new devices could not be written down");
                }
                inbox.refused(lines);
                healthy = false;
            }
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
        let mut list = List::new(path.clone(), Some(file), 16);
        for number in 0..200 {
            let mut lines = vec![Line::Id(Id::new(&format!("{number}")))];
            if number >= 3 {
                lines.push(Line::Forgotten(Id::new(&format!("{}", number - 3))));
            }
            list.save(&lines).unwrap();
        }
        assert!(fs::read(&path).unwrap().len() < 1_000);
        assert_eq!(ids(dir.path()), ["197", "198", "199"]);
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
        let inbox = Inbox::default();
        for number in 0..10_000 {
            inbox.put(Line::Id(Id::new(&format!("{number}"))));
        }
        inbox.close();
        // Only so many tries, however much waits.
        let mut tries = Vec::new();
        write_lines(&inbox, true, |lines| {
            tries.push(lines.len());
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(tries, [10_000]);
    }

    #[test]
    fn what_waits_for_a_failing_disk_is_bounded_by_the_devices() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let known: Vec<Box<str>> = vec!["old".into(), "again".into()];
        let mut list = List::new(path.clone(), Some(rewrite(&path, &known).unwrap()), 16);
        let inbox = Inbox::default();
        inbox.put(Line::Forgotten(Id::new("old")));
        inbox.put(Line::Forgotten(Id::new("again")));
        inbox.put(Line::Id(Id::new("again")));
        // Strangers come one after the other, and each is forgotten for the next but one.
        for number in 0..1_000 {
            inbox.put(Line::Id(Id::new(&format!("{number}"))));
            if number >= 2 {
                inbox.put(Line::Forgotten(Id::new(&format!("{}", number - 2))));
            }
            if number % 100 == 50 {
                // A try in the midst of it, during which another device goes.
                let (lines, _) = inbox.take(None);
                assert_eq!(lines.len(), 5, "old, again twice and two strangers");
                inbox.put(Line::Forgotten(Id::new(&format!("{}", number - 1))));
                inbox.put(Line::Id(Id::new(&format!("{}", number - 1))));
                inbox.refused(lines);
            }
        }
        assert_eq!(inbox.state.lock().changes.of.len(), 4);
        list.save(&inbox.take(None).0).unwrap();
        assert_eq!(ids(dir.path()), ["again", "998", "999"]);
    }

    #[test]
    fn what_was_met_is_remembered_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (registry, _) = Registry::open(dir.path()).unwrap();
        ["a", "b \"quoted\"", "c"]
            .iter()
            .for_each(|id| registry.remember(id));
        registry.close();
        let (registry, _) = Registry::open(dir.path()).unwrap();
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
