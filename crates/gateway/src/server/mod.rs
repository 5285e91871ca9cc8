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
//! device is where). Control plane: `http`, and `jobs` by the clock, over `dispatch` (may it be sent: `groups`), `command` (the
//! life of a command) and `table` (who waits for which result). Both meet only in `Shared`, over bounded mailboxes.

mod command;
mod config;
mod counters;
mod datagrams;
mod device;
mod directory;
mod dispatch;
mod drain;
mod groups;
mod histogram;
mod http;
mod id;
mod jobs;
mod outcome;
mod problem;
mod pulse;
mod registry;
mod returns;
mod secrets;
mod settle;
mod shard;
mod snapshot;
mod strangers;
mod table;
#[cfg(test)]
mod tests;
mod tick;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use conn_reactor::{Reactor, Running, Sender};
use idem_store::{Store, Unresolved};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use config::{BreakerConfig, CommandLimits, Config, DeviceLimits, HttpLimits};
pub use jobs::{CommandJob, DevicePattern};
pub use outcome::{device_and_key, store_key};
/// What a [`CommandJob`] says about when, and by which rules.
pub use scheduler;

use crate::proto::{BODY_BYTES_MAX, Beat, CommandId, Native};
use counters::Counters;
use datagrams::Datagrams;
use device::{Beaten, Device};
use directory::Directory;
use drain::{Order, Overflow, Phase};
use groups::Groups;
use jobs::Jobs;
use outcome::Memo;
use registry::Registry;
use shard::{ShardHandler, ShardMessage, Stray};
use strangers::Strangers;
use table::{CommandTable, OpenClaim};

/// Most repeated results that are being stored at one time; a device repeats the others again.
const SETTLING_MAX: usize = 1_024;

/// Open claims that are read from the store at one time.
const RECALL_PAGE: usize = 1 << 16;

/// How often a drain looks whether the last command has ended.
const DRAIN_POLL: Duration = Duration::from_millis(5);

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
    /// With [`Config::udp`].
    datagrams: Option<Datagrams>,
    groups: Groups,
    /// Set when the gateway listens.
    jobs: OnceLock<Jobs>,
    counters: Counters,
    /// One place for each command that runs or waits.
    running: Arc<Semaphore>,
    settling: Arc<Semaphore>,
    event_places: Arc<Semaphore>,
    drain: watch::Sender<Phase>,
    overflow: Overflow,
    ticks: watch::Sender<Bytes>,
    /// Results of commands that another gateway may have sent.
    strangers: Strangers,
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
        Self::start_over(config, idem_store::Options::new()).await
    }

    /// [`start`](Self::start) over a store with options of its own.
    async fn start_over(config: Config, store_options: idem_store::Options) -> io::Result<Self> {
        config
            .check()
            .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        std::fs::create_dir_all(&config.data).map_err(|error| {
            let text = format!("the data directory {}: {error}", config.data.display());
            io::Error::new(error.kind(), text)
        })?;
        let store = open_store(&config, store_options).await?;
        let (registry, known) = Registry::open(&config.data)?;
        let http_listener = TcpListener::bind(config.http)
            .await
            .map_err(|e| named(e, config.http))?;
        let http_addr = http_listener.local_addr()?;
        let options = reactor_options(&config);
        let (datagrams, socket) = bind_datagrams(&config, options.shards)?.unzip();
        let (strangers, heard) = Strangers::new();
        let event_batch = options.event_batch;
        let started = Instant::now();
        let shared = Arc::new(Shared {
            started,
            store,
            directory: Directory::new(config.devices.known_max),
            registry,
            table: CommandTable::default(),
            datagrams,
            groups: Groups::new(&config.breaker, started),
            jobs: OnceLock::new(),
            counters: Counters::default(),
            running: Arc::new(Semaphore::new(config.commands.total_max)),
            settling: Arc::new(Semaphore::new(SETTLING_MAX)),
            event_places: Arc::new(Semaphore::new(config.http_limits.events_max)),
            drain: watch::Sender::new(Phase::Serving),
            overflow: Overflow::new(options.shards),
            ticks: watch::Sender::new(Bytes::new()),
            strangers,
            reports: (0..options.shards).map(|_| Mutex::default()).collect(),
            shards: OnceLock::new(),
            runtime: tokio::runtime::Handle::current(),
            config,
        });
        shared.recall(&known).await.map_err(io::Error::other)?;
        tokio::spawn(strangers::look_up(Arc::clone(&shared), heard));
        let listen = shared.config.listen;
        let reactor = Reactor::builder(options)
            .listen(listen)
            .build(|_| ShardHandler::<Native>::new(Arc::clone(&shared), event_batch))
            .map_err(|e| named(e, listen))?;
        let device_addr = reactor.local_addrs()[0];
        assert!(
            shared.shards.set(reactor.senders()).is_ok(),
            "set once, here"
        );
        let jobs = Jobs::start(&shared).await?;
        assert!(shared.jobs.set(jobs).is_ok(), "set once, here");
        let reactor = reactor.run()?;
        if let Some(socket) = socket {
            Datagrams::start(&shared, socket)?;
        }
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

    /// Where beats in datagrams arrive, with [`Config::udp`].
    #[must_use]
    pub fn udp_addr(&self) -> Option<SocketAddr> {
        self.shared.datagrams.as_ref().map(Datagrams::addr)
    }

    /// Devices that are online now.
    #[must_use]
    pub fn devices_online(&self) -> usize {
        self.shared.directory.online()
    }

    /// Stops: refuses new connections and commands, lets running commands end within
    /// [`Config::drain_timeout_ms`], records the others as open, says goodbye to the devices (who have
    /// a second to read it), and closes the store: its directory is free again.
    ///
    /// # Errors
    ///
    /// A shard or the store failed on the way.
    pub async fn drain(self) -> io::Result<()> {
        let Self {
            shared,
            reactor,
            http,
            ..
        } = self;
        shared.drain.send_replace(Phase::Draining);
        shared.order(Order::StopAccepting);
        // What fails on the way is told at the end: nobody else would close what comes after it.
        let jobs = match shared.jobs.get() {
            Some(jobs) => jobs.stop().await,
            None => Ok(()),
        };
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
        let http = http.await.map_err(io::Error::other);
        shared.order(Order::Stop);
        let joined = tokio::task::spawn_blocking(move || reactor.join()).await;
        let reactor = joined.map_err(io::Error::other).flatten().map(drop);
        jobs.and(http).and(reactor).and(shared.close().await)
    }
}

/// Opens the store that `config` names. A shared one is served on this runtime, as its callers are.
async fn open_store(config: &Config, options: idem_store::Options) -> io::Result<Store> {
    #[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
    if let Some(url) = &config.store {
        let connected = Store::connect_async(url, options).await;
        return connected.map_err(io::Error::other);
    }
    let (url, dir) = (config.store.clone(), config.data.join("store"));
    // That blocks, so not on the runtime's own threads.
    let opened = tokio::task::spawn_blocking(move || match url {
        Some(url) => Store::connect(&url, options),
        None => Store::open(dir, options),
    });
    opened
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}

fn bind_datagrams(
    config: &Config,
    shards: usize,
) -> io::Result<Option<(Datagrams, std::net::UdpSocket)>> {
    let bind = |addr| {
        Datagrams::bind(addr, shards, config.devices.interval_ms_min).map_err(|e| named(e, addr))
    };
    config.udp.map(bind).transpose()
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
        keepalive: Some(conn_reactor::Keepalive {
            idle_s: config.devices.keepalive_idle_s,
            interval_s: config.devices.keepalive_interval_s,
            count: config.devices.keepalive_count,
        }),
        user_timeout_ms: Some(config.devices.user_timeout_ms).filter(|ms| *ms > 0),
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
        // Not by taking every place: the free ones would be counted as running commands meanwhile.
        let ended = async {
            while self.commands_running() > 0 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }

    pub(crate) fn mailboxes(&self) -> &[Sender<ShardMessage>] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// Puts a message into a shard's mailbox; `Err` when it is full or the shard has stopped.
    pub(crate) fn send(&self, shard: usize, message: ShardMessage) -> Result<(), NotTaken> {
        let mailbox = self.mailboxes().get(shard).ok_or(NotTaken)?;
        mailbox.try_send(message).map_err(|error| {
            if error.is_full() {
                self.counters.mailbox_full();
            }
            NotTaken
        })
    }

    /// Tells every shard, however full its mailbox is. Where there is room the order stays behind what
    /// was sent before it.
    fn order(&self, order: Order) {
        for shard in 0..self.mailboxes().len() {
            if self.send(shard, ShardMessage::Order(order)).is_err() {
                self.overflow.put(shard, order);
                // Full again: the shard has messages to deliver, and looks when it has. Else this wakes it.
                drop(self.send(shard, ShardMessage::Order(order)));
            }
        }
    }

    /// Takes a beat of the session `epoch` of a device, which may say another interval.
    pub(crate) fn beat(
        &self,
        device: &Device,
        epoch: u64,
        beat: Beat,
        interval_ms: Option<u32>,
    ) -> Beaten {
        let limits = &self.config.devices;
        let interval_ms =
            interval_ms.map(|ms| ms.clamp(limits.interval_ms_min, limits.interval_ms_max));
        let beaten = device.beat(epoch, self.now_ms(), beat, interval_ms, limits.grace_ms);
        match beaten {
            Beaten::SessionOver => return beaten,
            Beaten::Trusted => self.counters.trusted_again(),
            Beaten::Heard | Beaten::Repaced => {}
        }
        self.counters.beat(beat.rtt_ms);
        beaten
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
    async fn recall(&self, known: &[Box<str>]) -> Result<(), idem_store::Error> {
        for id in known {
            if let Some(forgotten) = self.directory.remember(id) {
                self.registry.forget(&forgotten);
            }
        }
        self.recall_claims().await
    }

    /// Takes up the claims that the store holds open. On a shared store they may be other
    /// gateways': those are taken up too, in case their devices come here, and ended by nobody
    /// while their gateway holds them.
    pub(crate) async fn recall_claims(&self) -> Result<(), idem_store::Error> {
        let known_before = self.table.unresolved();
        let mut listed = HashSet::new();
        let mut after_token = 0;
        loop {
            let page = self.store.unresolved(after_token, RECALL_PAGE).await?;
            for claim in &page {
                after_token = claim.token;
                listed.extend(self.recall_claim(claim));
            }
            if page.len() < RECALL_PAGE {
                break;
            }
        }
        // What another gateway has ended meanwhile is not waited for any more.
        for id in known_before.difference(&listed) {
            self.table.forget_unresolved(*id);
        }
        Ok(())
    }

    fn recall_claim(&self, claim: &Unresolved) -> Option<CommandId> {
        let (Some(device), Some(memo)) =
            (outcome::device_of(&claim.key), Memo::decode(&claim.memo))
        else {
            tracing::warn!(key = ?claim.key, "a claim of another program is left alone");
            return None;
        };
        let device = device.as_str();
        if !self.store.is_shared() && self.directory.get(device).is_none() {
            self.directory.remember(device);
            self.registry.remember(device);
        }
        let open = OpenClaim {
            key: claim.key.clone(),
            fingerprint: claim.fingerprint,
        };
        self.table.recall(memo.id, device, open);
        Some(memo.id)
    }
}

/// A mailbox was full, or its shard has stopped.
#[derive(Debug)]
pub(crate) struct NotTaken;
