//! The store: opening, closing, and the operations by name.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::completion::Completion;
use crate::embedded::handle::Handle;
#[cfg(all(loom, test))]
use crate::embedded::shared::Shared;
use crate::embedded::vfs::Vfs;
use crate::error::{Error, Kind};
use crate::options::Options;
use crate::permit::{Begin, Begun, Failure, Lookup, Permit, Unresolved, Waited};
#[cfg(feature = "_remote")]
use crate::remote::{Remote, Service};
use crate::stats::Stats;

/// A durable store of keys and what became of them: in one directory of this machine
/// ([`open`](Self::open)), or on a server that many machines share ([`connect`](Self::connect)).
///
/// Cheap to clone; all clones are one store. Every operation is taken up when it is called and
/// returns a [`Completion`] that says when it is durable. None blocks on the disk or the network,
/// except that an outcome is read with one `pread`. An embedded store has two threads
/// (`mainstay-store-flush`, `mainstay-store-upkeep`), a shared one has one
/// (`mainstay-store-redis`, `-postgres`, `-mysql`) or none ([`connect_async`](Self::connect_async)); they end with the last handle.
///
/// # Two kinds of clock
/// An embedded store takes the caller's `now_ms`. A shared store asks its server for the time, so
/// that machines need not agree on it, and ignores the caller's.
///
/// ```
/// use idem_store::{Begin, Begun, Fingerprint, Options, Store};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path(), Options::new())?;
/// let now_ms = 1_700_000_000_000;
/// let request = Begin::new(b"order-17", Fingerprint([7; 32]), 30_000, now_ms).declare(b"charge 4711");
/// let Begun::Fresh(permit) = store.begin(&request).wait()? else { panic!("new key") };
/// // ... charge the card, handing permit.token() to it ...
/// store.complete(permit, b"charged", 86_400_000, now_ms + 20).wait()?;
///
/// let Begun::Replay(stored) = store.begin(&request).wait()? else { panic!("done before") };
/// assert_eq!(stored.outcome(), b"charged");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Embedded(Arc<Handle>),
    #[cfg(feature = "_remote")]
    Remote(Arc<Remote>),
}

impl Store {
    /// Opens the store in `dir`, making both when they are missing, and takes its lock.
    ///
    /// Reads the index snapshot and the log behind it, O(keys); the whole log, O(bytes on the disk),
    /// when there is no snapshot or the least doubt about it. Bytes that rotted in front of a
    /// snapshot are told when they are asked for, and by [`verify`](crate::verify()). A batch that a crash cut short is dropped (it was
    /// never acknowledged). Every earlier lease has ended: claims without a declared effect are
    /// released, the others are in doubt, see [`unresolved`](Self::unresolved).
    ///
    /// # Errors
    /// [`is_locked`](Error::is_locked) when another has it open, [`is_damaged`](Error::is_damaged)
    /// when bytes that were durable are not what was written (never skipped silently: see
    /// [`repair`](crate::repair)), [`is_version`](Error::is_version),
    /// [`is_options`](Error::is_options), [`is_full`](Error::is_full) and I/O errors.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Handle::open(dir.as_ref(), options).map(Self::embedded)
    }

    /// Connects to the store that `url` names, and checks that its server keeps what it
    /// acknowledges. Blocks until that is done or has failed.
    ///
    /// | URL | needs the feature |
    /// |---|---|
    /// | `file:DIR` or a path without a scheme | |
    /// | `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS | `redis`, `redis-tls` |
    /// | `redis+unix:///path/to/socket[?db=0]` | `redis` |
    /// | `redis+sentinel://host:port,host:port/master-name[/db]` | `redis-sentinel` |
    /// | `redis+cluster://host:port,host:port` | `redis-cluster` |
    /// | `postgres://user[:password]@host[:port]/db`, `?host=/socket/dir` | `postgres`; `postgres-tls` for `?sslmode=require` |
    /// | `mysql://user[:password]@host[:port]/db`, `?socket=/path`; MariaDB too | `mysql` |
    ///
    /// What may follow after `?` is told in `docs/REDIS.md` and `docs/SQL.md`: `name`,
    /// `durability=relaxed`, `timeout_ms`, and on Redis `wait_replicas`, on SQL `connections` and `sweep_ms`.
    ///
    /// # Errors
    /// [`is_options`](Error::is_options) for a URL that cannot be understood or whose feature is
    /// off, [`is_unavailable`](Error::is_unavailable) when no server answers,
    /// [`is_refused`](Error::is_refused) when the server is set up to lose what it acknowledges,
    /// and as [`open`](Self::open).
    pub fn connect(url: &str, options: Options) -> Result<Self, Error> {
        match named(url, &options)? {
            Named::Directory(dir) => Self::open(dir, options),
            #[cfg(feature = "_remote")]
            Named::Server(service) => service.on_thread().map(Self::remote),
        }
    }

    /// As [`connect`](Self::connect), for callers that are tasks of a tokio runtime: a shared store
    /// is served on that runtime instead of a thread of its own. So no thread stands between an operation
    /// and a task that awaits it: that is a hand-over there, and one back.
    ///
    /// The store lives as long as the runtime: after that its operations are
    /// [`is_closed`](Error::is_closed). What blocks one of the runtime's threads may wait for ever for
    /// what that thread had to do: use [`Completion::wait`] on other threads only.
    /// [`close`](Self::close) does not wait for what was sent; [`flush`](Self::flush) before it does.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    #[cfg(feature = "_remote")]
    pub async fn connect_async(url: &str, options: Options) -> Result<Self, Error> {
        match named(url, &options)? {
            Named::Directory(dir) => {
                let dir = dir.to_owned();
                let opened = tokio::task::spawn_blocking(move || Self::open(dir, options)).await;
                opened.map_err(|ended| Error::io("open the store", ended.into()))?
            }
            Named::Server(service) => service.on_runtime().await.map(Self::remote),
        }
    }

    fn embedded(handle: Handle) -> Self {
        let backend = Backend::Embedded(Arc::new(handle));
        Self { backend }
    }

    #[cfg(feature = "_remote")]
    fn remote(remote: Arc<Remote>) -> Self {
        let backend = Backend::Remote(remote);
        Self { backend }
    }

    /// As [`open`](Self::open), on a simulated disk and without the flush thread: the caller calls
    /// [`drive`](Self::drive).
    #[doc(hidden)]
    pub fn open_on(vfs: Arc<dyn Vfs>, options: Options) -> Result<Self, Error> {
        Handle::open_on(vfs, options).map(Self::embedded)
    }

    /// One turn of what the flush thread does; whether a batch was written.
    #[doc(hidden)]
    pub fn drive(&self) -> bool {
        self.of_this_machine().drive()
    }

    pub(crate) fn of_this_machine(&self) -> &Handle {
        match &self.backend {
            Backend::Embedded(handle) => handle,
            #[cfg(feature = "_remote")]
            Backend::Remote(_) => panic!("only an embedded store can be driven"),
        }
    }

    #[cfg(all(loom, test))]
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.of_this_machine().shared)
    }

    /// Asks for a key: the answer says whether to do the effect, and with which token.
    ///
    /// With [`Begin::declare`] the completion is ready when the claim is durable; without, at once
    /// (such a claim means nothing after a crash, so there is nothing to wait for). O(1), plus a
    /// read of the outcome for a replay.
    ///
    /// # Errors
    /// [`is_too_large`](Error::is_too_large), [`is_full`](Error::is_full),
    /// [`is_busy`](Error::is_busy), [`is_poisoned`](Error::is_poisoned),
    /// [`is_closed`](Error::is_closed); nothing was claimed then, except that a poisoned store may
    /// find the key in doubt when it is opened again. On a shared store also
    /// [`is_unavailable`](Error::is_unavailable): the claim may have been made, and blocks its key for
    /// one lease; so it may when an operation that was under way is answered
    /// [`is_closed`](Error::is_closed), because its runtime or its thread has ended.
    pub fn begin(&self, begin: &Begin<'_>) -> Completion<Begun> {
        match &self.backend {
            Backend::Embedded(handle) => handle.shared.begin(begin),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => remote.begin(begin),
        }
    }

    /// Declares that the effect may happen from now on, and keeps `memo` for whoever has to find
    /// out. Do the effect only after the completion is ready. May be repeated with another memo.
    ///
    /// # Errors
    /// [`is_fenced`](Error::is_fenced), [`is_too_large`](Error::is_too_large) and as
    /// [`begin`](Self::begin). Whatever the error, do not do the effect; after
    /// [`is_full`](Error::is_full) the declaration may stand, so that only
    /// [`Failure::NotHappened`](crate::Failure::NotHappened) gives the key back.
    pub fn declare(&self, permit: &Permit, memo: &[u8]) -> Completion<()> {
        match &self.backend {
            Backend::Embedded(handle) => settled(handle.shared.declare(permit, memo)),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.declare(permit, memo)),
        }
    }

    /// Stores the outcome, which replays for `retain_ms` from `now_ms` on.
    ///
    /// Accepted as long as no other holder took the key, also after the lease ended: on a shared store
    /// for an hour, if the effect was not declared.
    ///
    /// # Errors
    /// [`is_fenced`](Error::is_fenced), [`is_too_large`](Error::is_too_large) (the permit is used
    /// up: the key is in doubt if its effect was declared, else free), and as
    /// [`begin`](Self::begin). But [`is_full`](Error::is_full) of an embedded store means that the
    /// outcome is not on the disk yet, after [`Options::disk_full_wait_ms`]: the store keeps it and
    /// writes it as soon as there is space; begin the key again to see it replay.
    pub fn complete(
        &self,
        permit: Permit,
        outcome: &[u8],
        retain_ms: u64,
        now_ms: u64,
    ) -> Completion<()> {
        match &self.backend {
            Backend::Embedded(handle) => {
                let shared = &handle.shared;
                settled(shared.complete(permit, outcome, false, retain_ms, now_ms))
            }
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.complete(permit, outcome, false, retain_ms)),
        }
    }

    /// Ends a claim without success; see [`Failure`].
    ///
    /// # Errors
    /// [`is_effect_declared`](Error::is_effect_declared), and as [`complete`](Self::complete).
    pub fn fail(&self, permit: Permit, failure: Failure<'_>, now_ms: u64) -> Completion<()> {
        match &self.backend {
            Backend::Embedded(handle) => settled(handle.shared.fail(permit, failure, now_ms)),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.fail(permit, failure)),
        }
    }

    /// Sets the end of the lease to `lease_ms` from `now_ms`. Ready at once: leases are not written.
    ///
    /// # Errors
    /// [`is_fenced`](Error::is_fenced), [`is_poisoned`](Error::is_poisoned),
    /// [`is_closed`](Error::is_closed).
    pub fn extend(&self, permit: &Permit, lease_ms: u64, now_ms: u64) -> Completion<()> {
        match &self.backend {
            Backend::Embedded(handle) => settled(handle.shared.extend(permit, lease_ms, now_ms)),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.extend(permit, lease_ms)),
        }
    }

    /// What is known of a key, durably. Changes nothing.
    ///
    /// # Errors
    /// [`is_damaged`](Error::is_damaged) when its outcome cannot be read back,
    /// [`is_full`](Error::is_full) when what is known cannot be written yet, and as
    /// [`extend`](Self::extend).
    pub fn get(&self, key: &[u8], now_ms: u64) -> Completion<Lookup> {
        match &self.backend {
            Backend::Embedded(handle) => settled(handle.shared.get(key, now_ms)),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.get(key)),
        }
    }

    /// Forgets a key, whatever is known of it; a holder is fenced. Answers whether it was known.
    ///
    /// Forgetting a key in doubt gives up the at-most-once promise for it. On a server, one that was
    /// sent again after a lost connection may answer `false` for what its first copy forgot, or
    /// [`is_unavailable`](Error::is_unavailable) when somebody has begun the key since.
    ///
    /// # Errors
    /// As [`begin`](Self::begin); after [`is_full`](Error::is_full) it may be forgotten later, when
    /// there is space.
    pub fn forget(&self, key: &[u8]) -> Completion<bool> {
        match &self.backend {
            Backend::Embedded(handle) => settled(handle.shared.forget(key)),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.forget(key)),
        }
    }

    /// Waits until nobody holds the key, at most `timeout_ms`. Begin again to see what became of
    /// it. In an embedded store a lease that merely runs out ends nothing by itself: let the timeout be no
    /// longer than the rest of the lease that [`Begun::InFlight`] told. A shared store sees that it ran out,
    /// on its server's clock; do not compare that with another.
    ///
    /// # Errors
    /// [`is_busy`](Error::is_busy) when `waiters_max` others wait, and as
    /// [`extend`](Self::extend).
    pub fn wait(&self, key: &[u8], timeout_ms: u64) -> Completion<Waited> {
        match &self.backend {
            Backend::Embedded(handle) => settled(handle.shared.wait(key, timeout_ms)),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.wait(key, timeout_ms)),
        }
    }

    /// Keys whose effect was declared and that have no outcome, in the order of their tokens: at
    /// most `count_max` of those with a token above `after_token`. Begin with 0, go on with the last
    /// token of the answer; an answer shorter than `count_max` is the last one.
    ///
    /// Right after an embedded store was opened these are the ones in doubt. On a shared store
    /// others may be at work on those that are [`held`](Unresolved::held). O(claims).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn unresolved(&self, after_token: u64, count_max: usize) -> Completion<Vec<Unresolved>> {
        match &self.backend {
            Backend::Embedded(handle) => {
                let unresolved = handle.shared.unresolved(after_token, count_max);
                Completion::ready(unresolved)
            }
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.unresolved(after_token, count_max)),
        }
    }

    /// Whether others may work on the same keys at the same time: on a server, not in a directory.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match &self.backend {
            Backend::Embedded(_) => false,
            #[cfg(feature = "_remote")]
            Backend::Remote(_) => true,
        }
    }

    /// A snapshot of the counters. O(segments). A shared store counts what this handle and its
    /// clones did; [`keys_in_doubt`](Stats::keys_in_doubt) and the like are an embedded store's.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.backend {
            Backend::Embedded(handle) => handle.shared.stats(),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => remote.stats(),
        }
    }

    /// Ready when everything that was called before is on the disk, at every durability level.
    ///
    /// # Errors
    /// [`is_poisoned`](Error::is_poisoned), [`is_closed`](Error::is_closed), and
    /// [`is_full`](Error::is_full) after [`Options::disk_full_wait_ms`].
    pub fn flush(&self) -> Completion<()> {
        match &self.backend {
            Backend::Embedded(handle) => handle.shared.flush(),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => settled(remote.flush()),
        }
    }

    /// Ends the store for all clones; they and outstanding permits get
    /// [`is_closed`](Error::is_closed) from now on. An embedded store writes and syncs what is
    /// pending and gives up the directory, which blocks for a sync or two. A shared one with a thread
    /// waits for what was sent, at most for its timeout.
    ///
    /// # Errors
    /// [`is_poisoned`](Error::is_poisoned), and [`is_full`](Error::is_full) when a full disk kept
    /// something from being written: keys that it was about are in doubt then.
    pub fn close(self) -> Result<(), Error> {
        match &self.backend {
            Backend::Embedded(handle) => handle.stop(),
            #[cfg(feature = "_remote")]
            Backend::Remote(remote) => remote.close(),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Operations that are refused at once answer like any other.
fn settled<T>(result: Result<Completion<T>, Error>) -> Completion<T> {
    result.unwrap_or_else(Completion::failed)
}

/// What a URL names.
enum Named<'a> {
    Directory(&'a str),
    #[cfg(feature = "_remote")]
    Server(Service),
}

#[cfg_attr(
    not(feature = "_remote"),
    expect(unused_variables, reason = "only servers have options of their own")
)]
fn named<'a>(url: &'a str, options: &Options) -> Result<Named<'a>, Error> {
    match scheme_of(url) {
        None => Ok(Named::Directory(url)),
        Some("file") => Ok(Named::Directory(&url["file:".len()..])),
        #[cfg(feature = "redis")]
        Some(scheme) if scheme.starts_with("redis") => {
            crate::redis::service(url, options).map(Named::Server)
        }
        #[cfg(feature = "postgres")]
        Some("postgres" | "postgresql") => {
            crate::sql::postgres::service(url, options).map(Named::Server)
        }
        #[cfg(feature = "mysql")]
        Some("mysql" | "mariadb") => crate::sql::mysql::service(url, options).map(Named::Server),
        Some(scheme) => Err(Error::new(Kind::Url(unknown(scheme)))),
    }
}

/// The scheme of a URL; none for a path.
fn scheme_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (is_scheme && (scheme == "file" || rest.starts_with("//"))).then_some(scheme)
}

/// What to do about a scheme that nothing here serves.
pub(crate) fn unknown(scheme: &str) -> String {
    let feature = match scheme {
        "redis" | "redis+unix" => "redis",
        "rediss" => "redis-tls",
        "redis+sentinel" => "redis-sentinel",
        "redis+cluster" => "redis-cluster",
        "mysql" | "mariadb" => "mysql",
        "postgres" | "postgresql" => "postgres",
        _ => return format!("nothing serves {scheme}://"),
    };
    format!("{scheme}:// needs the feature `{feature}`, which this program was built without")
}
