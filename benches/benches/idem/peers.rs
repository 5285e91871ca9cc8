//! Embedded stores of others: insert-if-absent of a key, durable before the answer.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{ReadableTable as _, TableDefinition};

use crate::Error;
use crate::turns::{
    Contender, Key, Load, Times, VALUE, locked, new_key, on_threads, record, threads, times,
};

pub(crate) const FJALL: &str = "fjall, SyncAll";
pub(crate) const BATCHED: &str = "fjall, SyncAll, behind a batching thread";
pub(crate) const REDB: &str = "redb";
pub(crate) const SQLITE: &str = "rusqlite, WAL, synchronous FULL";

/// Each caller writes and syncs for itself; looking and writing are one step under a lock.
pub(crate) struct Fjall {
    database: Database,
    keys: Keyspace,
    step: Mutex<()>,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let database = Database::builder(dir).open()?;
        let keys = database.keyspace("keys", KeyspaceCreateOptions::default)?;
        Ok(Self {
            database,
            keys,
            step: Mutex::new(()),
        })
    }
}

impl Contender for Fjall {
    fn name(&self) -> &'static str {
        FJALL
    }

    fn turn(&mut self, load: Load, slice: Duration) -> Times {
        on_threads(threads(load), slice, |key| {
            {
                let _step = locked(&self.step);
                assert!(!self.keys.contains_key(key).expect("reads"));
                self.keys.insert(key, VALUE).expect("writes");
            }
            self.database.persist(PersistMode::SyncAll).expect("syncs");
        })
    }
}

/// One thread writes what came while the last batch was synced, as one batch.
pub(crate) struct Batched {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    open: Mutex<Open>,
    work: Condvar,
}

#[derive(Default)]
struct Open {
    keys: Vec<Key>,
    done: Arc<Done>,
    stop: bool,
}

/// A batch that becomes durable; all keys were new.
#[derive(Default)]
struct Done {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Done {
    fn wait(&self) {
        let mut done = locked(&self.is);
        while !*done {
            done = self.changed.wait(done).expect("nobody panics");
        }
    }

    fn is(&self) -> bool {
        *locked(&self.is)
    }
}

impl Queue {
    fn push(&self, key: &Key) -> Arc<Done> {
        let mut open = locked(&self.open);
        open.keys.push(*key);
        if open.keys.len() == 1 {
            self.work.notify_one();
        }
        Arc::clone(&open.done)
    }

    fn run(&self, database: &Database, keys: &Keyspace) {
        loop {
            let (batch, done) = {
                let mut open = locked(&self.open);
                while open.keys.is_empty() && !open.stop {
                    open = self.work.wait(open).expect("nobody panics");
                }
                if open.keys.is_empty() {
                    return;
                }
                let done = std::mem::take(&mut open.done);
                (std::mem::take(&mut open.keys), done)
            };
            let mut write = database.batch().durability(Some(PersistMode::SyncAll));
            let mut seen = HashSet::new();
            for key in &batch {
                assert!(seen.insert(key) && !keys.contains_key(key).expect("reads"));
                write.insert(keys, *key, VALUE);
            }
            write.commit().expect("commits");
            *locked(&done.is) = true;
            done.changed.notify_all();
        }
    }
}

impl Batched {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let database = Database::builder(dir).open()?;
        let keys = database.keyspace("keys", KeyspaceCreateOptions::default)?;
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        let thread = std::thread::spawn(move || of_thread.run(&database, &keys));
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    fn pending(&self, in_flight: usize, slice: Duration) -> Times {
        let mut times = times();
        let mut queue: VecDeque<(Instant, Arc<Done>)> = VecDeque::new();
        let start = Instant::now();
        let mut now = start;
        while now - start < slice || !queue.is_empty() {
            while queue.len() < in_flight && now - start < slice {
                queue.push_back((now, self.queue.push(&new_key())));
            }
            let (_, oldest) = queue.front().expect("it was just filled");
            oldest.wait();
            now = Instant::now();
            while queue.front().is_some_and(|(_, done)| done.is()) {
                let (began, _) = queue.pop_front().expect("just seen");
                record(&mut times, now - began);
            }
        }
        times
    }
}

impl Contender for Batched {
    fn name(&self) -> &'static str {
        BATCHED
    }

    fn turn(&mut self, load: Load, slice: Duration) -> Times {
        match load {
            Load::Threads(n) => on_threads(n, slice, |key| self.queue.push(key).wait()),
            Load::Pending(n) => self.pending(n, slice),
        }
    }
}

impl Drop for Batched {
    fn drop(&mut self) {
        locked(&self.queue.open).stop = true;
        self.queue.work.notify_one();
        self.thread.take().map(JoinHandle::join);
    }
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");

pub(crate) struct Redb(redb::Database);

impl Redb {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self(redb::Database::create(path)?))
    }
}

impl Contender for Redb {
    fn name(&self) -> &'static str {
        REDB
    }

    fn turn(&mut self, load: Load, slice: Duration) -> Times {
        on_threads(threads(load), slice, |key| {
            let write = self.0.begin_write().expect("begins");
            {
                let mut table = write.open_table(TABLE).expect("opens");
                assert!(table.get(&key[..]).expect("reads").is_none());
                table.insert(&key[..], &VALUE[..]).expect("writes");
            }
            write.commit().expect("commits");
        })
    }
}

/// One connection: sqlite has one writer at a time anyway.
pub(crate) struct Sqlite(Mutex<rusqlite::Connection>);

impl Sqlite {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = rusqlite::Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.execute(
            "create table keys (key blob primary key, value blob) without rowid",
            [],
        )?;
        Ok(Self(Mutex::new(connection)))
    }
}

impl Contender for Sqlite {
    fn name(&self) -> &'static str {
        SQLITE
    }

    fn turn(&mut self, load: Load, slice: Duration) -> Times {
        on_threads(threads(load), slice, |key| {
            let connection = locked(&self.0);
            let insert = "insert into keys values (?1, ?2) on conflict do nothing";
            let mut insert = connection.prepare_cached(insert).expect("prepares");
            let inserted = insert.execute((&key[..], &VALUE[..])).expect("inserts");
            assert_eq!(inserted, 1);
        })
    }
}
