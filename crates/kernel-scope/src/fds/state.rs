use std::collections::{BTreeMap, HashMap};

use crate::fds::event::{self, Event};
use crate::fds::found::Found;

/// Tables of descriptors as events change them and snapshots correct them. No kernel, no clock.
///
/// A snapshot says what is open; events say who opened it. An event that came too late, was lost, or
/// never was, costs a descriptor its origin and nothing else.
#[derive(Debug, Default)]
pub(super) struct State {
    tables: HashMap<u64, Table>,
    table_of: HashMap<u32, u64>,
}

/// A `files_struct` of the kernel.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// Processes that have this table, or threads that have it alone, with their names.
    pub(super) holders: BTreeMap<u32, String>,
    fds: BTreeMap<u32, Opened>,
}

/// A descriptor and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Which open file: its address tells it from what the number stood for before.
    file: u64,
    pub(super) origin: Origin,
    /// When it was opened, or found.
    pub(super) time_ns: u64,
    /// An event said so that was under way when this was opened; the next snapshot knows. Of two
    /// threads that close a descriptor and open it anew, the one that closes may tell last.
    closed: bool,
}

/// What made a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// Its making was not seen: before the tool began, by a call that it does not know, or the event
    /// was lost.
    Unknown,
    /// The number of the system call, and of the stack.
    Call { call: i32, stack: i32 },
}

impl State {
    /// Takes one event in.
    pub(super) fn apply(&mut self, event: &Event) {
        match event.kind {
            event::OPEN => self.open(event),
            event::CLOSE => self.close(event),
            event::COPY | event::EXEC => self.copy(event),
            // A program of another version; the crate and its programs are one package.
            _ => {}
        }
    }

    fn open(&mut self, event: &Event) {
        let table = self.touch(event);
        let opened = Opened::by(event);
        let before = table.fds.get(&event.fd);
        // A snapshot overtook the event and found the next file there.
        let is_stale = before.is_some_and(|before| {
            before.origin == Origin::Unknown
                && before.time_ns > event.time_ns
                && before.file != opened.file
        });
        if !is_stale {
            table.fds.insert(event.fd, opened);
        }
    }

    fn close(&mut self, event: &Event) {
        let table = self.touch(event);
        if event.fd > event.last {
            return;
        }
        // The kernel gives the address of a closed file to the next one: it must not be known again by
        // that. So what was there before the call began is forgotten.
        let entered_ns = event.other;
        let numbers = event.fd..=event.last;
        let closed = table.fds.range(numbers.clone());
        let gone = closed.filter(|(_, opened)| opened.time_ns < entered_ns);
        let gone: Vec<u32> = gone.map(|(fd, _)| *fd).collect();
        for fd in gone {
            table.fds.remove(&fd);
        }
        for (_, opened) in table.fds.range_mut(numbers) {
            // A snapshot may have found the next file there before this was told.
            opened.closed |= opened.time_ns <= event.time_ns;
        }
    }

    fn copy(&mut self, event: &Event) {
        let from = match event.other {
            0 => self.table_of.get(&event.pid).copied(),
            from => Some(from),
        };
        if from != Some(event.table) {
            let from = from.and_then(|from| self.tables.get(&from));
            let mut table = from.cloned().unwrap_or_default();
            table.holders.clear();
            self.tables.insert(event.table, table);
        }
        let table = self.touch(event);
        if event.kind == event::EXEC {
            // The addresses were those of another program.
            for opened in table.fds.values_mut() {
                opened.forget_stack();
            }
        }
        if event.pid == event.tid {
            self.table_of.insert(event.pid, event.table);
        }
    }

    fn touch(&mut self, event: &Event) -> &mut Table {
        let table = self.tables.entry(event.table).or_default();
        if table.holders.is_empty() {
            table.holders.insert(event.pid, String::new());
        }
        table
    }

    /// Corrects everything by a snapshot that began at `since_ns`, after all events before it were
    /// taken in: open is what was found. `later`: events that came too late for that, or happened
    /// since then and may tell where some of it comes from.
    pub(super) fn reconcile(&mut self, found: &[Found], since_ns: u64, later: &[Event]) {
        let late = later.iter().filter(|event| event.time_ns < since_ns);
        late.for_each(|event| self.apply(event));
        let later: HashMap<_, _> = later
            .iter()
            .filter(|event| event.kind == event::OPEN && event.time_ns >= since_ns)
            .map(|event| ((event.table, event.fd, event.other), Opened::by(event)))
            .collect();
        let before = std::mem::take(&mut self.tables);
        self.table_of.clear();
        for found in found {
            let known = before
                .get(&found.table)
                .and_then(|table| table.fds.get(&found.fd))
                .filter(|opened| opened.file == found.file);
            // An address that was opened since then is no longer the file's that had it before.
            let newer = later.get(&(found.table, found.fd, found.file));
            let known = newer.or(known);
            let opened = Opened {
                file: found.file,
                origin: known.map_or(Origin::Unknown, |opened| opened.origin),
                time_ns: known.map_or(since_ns, |opened| opened.time_ns),
                closed: false,
            };
            let table = self.tables.entry(found.table).or_default();
            table.fds.insert(found.fd, opened);
            table
                .holders
                .entry(found.tid)
                .or_insert_with(|| found.comm());
            self.table_of.insert(found.tid, found.table);
        }
    }

    /// Every table that is known, also those in which nothing is open any more.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }
}

impl Table {
    /// Its open descriptors by number.
    pub(super) fn open(&self) -> impl Iterator<Item = (u32, &Opened)> {
        let fds = self.fds.iter().map(|(fd, opened)| (*fd, opened));
        fds.filter(|(_, opened)| !opened.closed)
    }
}

impl Opened {
    fn by(event: &Event) -> Self {
        Self {
            file: event.other,
            origin: Origin::Call {
                call: event.call,
                stack: event.stack,
            },
            time_ns: event.time_ns,
            closed: false,
        }
    }

    fn forget_stack(&mut self) {
        if let Origin::Call { stack, .. } = &mut self.origin {
            *stack = -1;
        }
    }
}

#[cfg(test)]
mod tests;
