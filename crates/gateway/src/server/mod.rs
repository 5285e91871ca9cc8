//! The gateway: device connections, commands that run once, HTTP in front.
//!
//! ```no_run
//! use gateway::server::{Config, Gateway};
//!
//! # async fn run(stop: impl Future<Output = ()>) -> std::io::Result<()> {
//! let gateway = Gateway::start(Config::default()).await?;
//! println!("dashboard at http://{}/", gateway.http_addr());
//! stop.await; // Ctrl-C, for instance
//! gateway.drain().await
//! # }
//! ```
//!
//! # Modules
//!
//! Data plane: `shard` (what a reactor shard does with its connections) over `directory` (which
//! device is where). Control plane: `http` over `command` (the life of a command) and `table` (who
//! waits for which result). Both meet only in `Shared`, over bounded mailboxes.

mod command;
mod config;
mod counters;
mod directory;
mod drain;
mod histogram;
mod http;
mod outcome;
mod problem;
mod pulse;
mod registry;
mod settle;
mod shard;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod tick;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use conn_reactor::{Reactor, Running, Sender};
use idem_store::Store;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use config::{CommandLimits, Config, DeviceLimits, HttpLimits};

use crate::proto::{BODY_BYTES_MAX, Native};
use counters::Counters;
use directory::Directory;
use drain::Phase;
use outcome::Memo;
use registry::Registry;
use shard::{ShardHandler, ShardMessage, Stray};
use table::{CommandTable, OpenClaim};

/// Most repeated results that are being stored at one time; a device repeats the others again.
const SETTLING_MAX: usize = 1_024;

/// How often a full mailbox is tried, a millisecond apart, before its shard is left accepting.
const STOP_TRIES: u32 = 200;

/// How long the last answers may take when everything else has stopped.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running gateway. Dropping it without [`drain`](Gateway::drain) leaves its threads running.
pub struct Gateway {
    shared: Arc<Shared>,
    reactor: Running<ShardHandler<Native>>,
    http: JoinHandle<()>,
    device_addr: SocketAddr,
    http_addr: SocketAddr,
}

/// What shards and HTTP tasks have in common.
pub(crate) struct Shared {
    config: Config,
    started: Instant,
    store: Store,
    directory: Directory,
    registry: Registry,
    table: CommandTable,
    counters: Counters,
    /// One place for each command that runs or waits.
    running: Arc<Semaphore>,
    settling: Arc<Semaphore>,
    event_places: Arc<Semaphore>,
    drain: watch::Sender<Phase>,
    ticks: watch::Sender<Bytes>,
    /// The newest report of each shard.
    reports: Vec<Mutex<conn_reactor::Stats>>,
    shards: OnceLock<Vec<Sender<ShardMessage>>>,
    runtime: tokio::runtime::Handle,
}

impl Gateway {
    /// Opens the store, listens, and serves. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// The configuration cannot be ([`Config::check`]), an address cannot be bound, the data
    /// directory cannot be used, or another process uses it.
    pub async fn start(config: Config) -> io::Result<Self> {
        config
            .check()
            .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        std::fs::create_dir_all(&config.data).map_err(|error| {
            let text = format!("the data directory {}: {error}", config.data.display());
            io::Error::new(error.kind(), text)
        })?;
        let store = Store::open(config.data.join("store"), idem_store::Options::new())
            .map_err(io::Error::other)?;
        let (registry, known) = Registry::open(&config.data)?;
        let http_listener = TcpListener::bind(config.http)
            .await
            .map_err(|e| named(e, config.http))?;
        let http_addr = http_listener.local_addr()?;
        let options = reactor_options(&config);
        let shared = Arc::new(Shared {
            started: Instant::now(),
            store,
            directory: Directory::new(config.devices.known_max),
            registry,
            table: CommandTable::default(),
            counters: Counters::default(),
            running: Arc::new(Semaphore::new(config.commands.total_max)),
            settling: Arc::new(Semaphore::new(SETTLING_MAX)),
            event_places: Arc::new(Semaphore::new(config.http_limits.events_max)),
            drain: watch::Sender::new(Phase::Serving),
            ticks: watch::Sender::new(Bytes::new()),
            reports: (0..options.shards).map(|_| Mutex::default()).collect(),
            shards: OnceLock::new(),
            runtime: tokio::runtime::Handle::current(),
            config,
        });
        shared.recall(&known);
        let listen = shared.config.listen;
        let reactor = Reactor::builder(options)
            .listen(listen)
            .build(|_| ShardHandler::<Native>::new(Arc::clone(&shared)))
            .map_err(|e| named(e, listen))?;
        let device_addr = reactor.local_addrs()[0];
        assert!(
            shared.shards.set(reactor.senders()).is_ok(),
            "set once, here"
        );
        let reactor = reactor.run()?;
        tokio::spawn(http::publish(Arc::clone(&shared)));
        let router = http::router(Arc::clone(&shared));
        let http = tokio::spawn(http::serve(Arc::clone(&shared), http_listener, router));
        Ok(Self {
            shared,
            reactor,
            http,
            device_addr,
            http_addr,
        })
    }

    /// Where devices connect.
    #[must_use]
    pub fn device_addr(&self) -> SocketAddr {
        self.device_addr
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Devices that are online now.
    #[must_use]
    pub fn devices_online(&self) -> usize {
        self.shared.directory.online()
    }

    /// Stops: refuses new connections and commands, lets running commands end within
    /// [`Config::drain_timeout_ms`], records the others as open, says goodbye to the devices, and
    /// closes the store: its directory is free again.
    ///
    /// # Errors
    ///
    /// A shard or the store failed on the way.
    pub async fn drain(self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.drain.send_replace(Phase::Draining);
        shared.stop_accepting().await;
        let limit = Duration::from_millis(shared.config.drain_timeout_ms);
        if !shared.commands_end(limit).await {
            tracing::warn!(
                running = shared.commands_running(),
                "commands are recorded as open"
            );
        }
        shared.drain.send_replace(Phase::Stopping);
        // Each command notes in the store how far it came, and its caller is told.
        if !shared.commands_end(LAST_WORDS).await {
            tracing::warn!(running = shared.commands_running(), "the store is slow");
        }
        self.http.await.map_err(io::Error::other)?;
        for mailbox in shared.mailboxes() {
            if mailbox.try_send(ShardMessage::Stop).is_err() {
                // Full: end without a goodbye. Stopped: it has ended.
                mailbox.stop();
            }
        }
        let reactor = self.reactor;
        let joined = tokio::task::spawn_blocking(move || reactor.join()).await;
        joined.map_err(io::Error::other)??;
        // Ends the store also for tasks that have not noticed the end yet.
        let closed = tokio::task::spawn_blocking(move || {
            shared.registry.close();
            shared.store.clone().close()
        });
        closed
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }
}

/// Says which address an error belongs to, and what to do.
fn named(error: io::Error, addr: SocketAddr) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot listen on {addr}: {error}; choose another address if it is taken"),
    )
}

fn reactor_options(config: &Config) -> conn_reactor::Options {
    let defaults = conn_reactor::Options::default();
    let shards = if config.shards == 0 {
        defaults.shards
    } else {
        config.shards
    };
    conn_reactor::Options {
        shards,
        connections_max: config.devices.connections_max.div_ceil(shards),
        // One frame may be incomplete.
        carry_bytes_max: BODY_BYTES_MAX + 8,
        write_bytes_max: config.devices.write_bytes_max,
        mailbox_max: config.commands.mailbox_max,
        ..defaults
    }
}

impl Shared {
    /// Milliseconds since the gateway started.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since 1970, for the store's leases and retentions.
    pub(crate) fn unix_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the kernel's random source works after boot");
        id
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.drain.borrow()
    }

    pub(crate) fn commands_running(&self) -> usize {
        self.config
            .commands
            .total_max
            .saturating_sub(self.running.available_permits())
    }

    /// Waits until no command runs or waits; `false` when some still do after `limit`.
    async fn commands_end(&self, limit: Duration) -> bool {
        let total = u32::try_from(self.config.commands.total_max).unwrap_or(u32::MAX);
        tokio::time::timeout(limit, self.running.acquire_many(total))
            .await
            .is_ok()
    }

    pub(crate) fn mailboxes(&self) -> &[Sender<ShardMessage>] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// Puts a message into a shard's mailbox; `Err` when it is full or the shard has stopped.
    pub(crate) fn send(&self, shard: usize, message: ShardMessage) -> Result<(), NotTaken> {
        let mailbox = self.mailboxes().get(shard).ok_or(NotTaken)?;
        mailbox.try_send(message).map_err(|_| NotTaken)
    }

    /// Tells every shard, however full its mailbox is for the moment.
    async fn stop_accepting(&self) {
        for shard in 0..self.mailboxes().len() {
            for _ in 0..STOP_TRIES {
                if self.send(shard, ShardMessage::StopAccepting).is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Stores a result that nobody waits for, off the shard's thread.
    pub(crate) fn settle(self: &Arc<Self>, stray: Stray) {
        let Ok(place) = Arc::clone(&self.settling).try_acquire_owned() else {
            return self.table.restore(stray.id, stray.result, stray.claim);
        };
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            settle::settle(shared, stray).await;
            drop(place);
        });
    }

    /// Takes up what an earlier run left: the devices it knew, and the claims it could not end.
    fn recall(&self, known: &[Box<str>]) {
        for id in known {
            if let Some(forgotten) = self.directory.remember(id) {
                self.registry.forget(&forgotten);
            }
        }
        for claim in self.store.unresolved() {
            let (Some(device), Some(memo)) =
                (outcome::device_of(&claim.key), Memo::decode(&claim.memo))
            else {
                tracing::warn!(key = ?claim.key, "a claim of another program is left alone");
                continue;
            };
            let device = device.as_str();
            if self.directory.get(device).is_none() {
                self.directory.remember(device);
                self.registry.remember(device);
            }
            let open = OpenClaim {
                key: claim.key.clone(),
                fingerprint: claim.fingerprint,
            };
            self.table.recall(memo.id, device, open);
        }
    }
}

/// A mailbox was full, or its shard has stopped.
#[derive(Debug)]
pub(crate) struct NotTaken;
