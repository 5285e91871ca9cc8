//! Devices that share a reactor: what [`Device`](super::Device) and [`Fleet`](super::Fleet) are
//! made of.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed,
};
use std::time::Duration;

use conn_reactor::client::{ClientOptions, Clients, Reconnect};
use conn_reactor::{Options, Reactor, Running};
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::datagrams::DatagramSockets;
use super::member::{CrewMessage, Member, Members, WELCOME_WITHIN_MS};
use super::reply::{Command, Outbox, Reply};

/// As long as the default keepalive takes to notice a cut link that nothing is on its way over.
const USER_TIMEOUT_MS: u32 = 90_000;

/// Runs a command, at once or later on another thread.
pub(crate) type Execute = Arc<dyn Fn(Command, Reply) + Send + Sync>;

pub(crate) struct CrewConfig {
    /// The preferred one first.
    pub(crate) gateways: Vec<SocketAddr>,
    pub(crate) shards: usize,
    /// Most connections that are started in a second.
    pub(crate) ramp_per_s: u32,
    pub(crate) reconnect: Reconnect,
    /// Beats go as datagrams where the gateway takes them.
    pub(crate) datagrams: bool,
    /// The crew ends when no member can connect any more.
    pub(crate) ends_with_members: bool,
    /// Beats carry made-up loads.
    pub(crate) simulates_load: bool,
}

pub(crate) struct Crew {
    running: Running<Clients<Members>>,
    counters: Arc<CrewCounters>,
    stopping: Arc<AtomicBool>,
}

/// What happens to a crew.
pub(crate) struct CrewCounters {
    connected: AtomicUsize,
    pub(crate) connected_max: AtomicUsize,
    pub(crate) lost: AtomicU64,
    pub(crate) false_gone: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) connect_failed: AtomicU64,
    /// Pauses before tries to come back, in milliseconds.
    pub(crate) reconnect_delays: Mutex<Histogram<u64>>,
    /// Tries that it took to come back after a loss, and the milliseconds from that loss to WELCOME.
    pub(crate) return_tries: Mutex<Histogram<u64>>,
    pub(crate) return_times: Mutex<Histogram<u64>>,
    pub(crate) beats: AtomicU64,
    pub(crate) datagrams: AtomicU64,
    pub(crate) datagrams_unanswered: AtomicU64,
    pub(crate) commands_received: AtomicU64,
    pub(crate) commands_executed: AtomicU64,
    pub(crate) duplicates_ignored: AtomicU64,
    /// In microseconds.
    pub(crate) round_trips: Mutex<Histogram<u64>>,
    load_percent: AtomicU8,
    /// Why the last member ended for good.
    retired: Mutex<Option<String>>,
}

const LOAD_UNKNOWN: u8 = u8::MAX;

impl Crew {
    pub(crate) fn start(
        config: CrewConfig,
        members: Vec<Member>,
        execute: Execute,
    ) -> io::Result<Self> {
        let shards = config.shards.max(1);
        let config = Arc::new(CrewConfig { shards, ..config });
        let counters = Arc::new(CrewCounters::new());
        let mut parts: Vec<Vec<Member>> = (0..shards).map(|_| Vec::new()).collect();
        for (index, member) in members.into_iter().enumerate() {
            parts[index % shards].push(member);
        }
        let mut parts = parts.into_iter();
        let stopping = Arc::<AtomicBool>::default();
        let mut client_options = ClientOptions::new(config.gateways[0]);
        client_options.endpoints.clone_from(&config.gateways);
        client_options.reconnect = config.reconnect.clone();
        client_options.establish_within_ms = WELCOME_WITHIN_MS;
        let options = Options {
            shards,
            write_bytes_max: 8 << 20,
            // A gateway always reads. Without it a cut link is noticed after two intervals, which may be hours.
            user_timeout_ms: Some(USER_TIMEOUT_MS),
            ..Options::default()
        };
        let reactor = Reactor::builder(options).build(|_| {
            let part = parts.next().expect("one part for each shard");
            let members = Members::new(
                Arc::clone(&config),
                Arc::clone(&counters),
                Arc::clone(&execute),
                part,
                Arc::clone(&stopping),
            );
            Clients::new(members, client_options.clone())
        })?;
        let running = reactor.run()?;
        for sender in running.senders() {
            let outbox = Outbox::new(sender.clone());
            let datagrams = config.datagrams.then(|| {
                let wake = sender.clone();
                // Full: the shard has much to do, and is told at the next ack.
                let wake = move || wake.try_send(CrewMessage::Acks).is_ok();
                DatagramSockets::open(&config.gateways, wake)
            });
            let start = CrewMessage::Start(outbox, datagrams.transpose()?);
            if sender.try_send(start).is_err() {
                return Err(io::Error::other("a new shard took no message"));
            }
        }
        Ok(Self {
            running,
            counters,
            stopping,
        })
    }

    pub(crate) fn counters(&self) -> &CrewCounters {
        &self.counters
    }

    /// Puts messages into every mailbox until it takes no more.
    #[cfg(test)]
    pub(crate) fn fill_mailboxes(&self) {
        for sender in self.running.senders() {
            while sender.try_send(CrewMessage::Answers).is_ok() {}
        }
    }

    /// Asks every member to say goodbye.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for sender in self.running.senders() {
            // Full: it will be read anyway, and each turn ends with a look at `stopping`. Stopped: it has ended.
            drop(sender.try_send(CrewMessage::Stop));
        }
    }

    /// Waits until every member has ended.
    pub(crate) fn end(self) -> io::Result<()> {
        self.running.join().map(drop)
    }

    /// Waits until every member has ended, and says why when it was for good.
    pub(crate) fn join(self) -> io::Result<()> {
        self.running.join()?;
        match self.counters.retired.lock().take() {
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)),
            None => Ok(()),
        }
    }
}

impl CrewCounters {
    fn new() -> Self {
        // Three digits between bounds that are constants, so this cannot fail.
        let histogram = |largest| {
            Histogram::new_with_bounds(1, largest, 3)
                .expect("the bounds of the histogram are valid")
        };
        Self {
            connected: AtomicUsize::new(0),
            connected_max: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            false_gone: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            connect_failed: AtomicU64::new(0),
            reconnect_delays: Mutex::new(histogram(u32::MAX.into())),
            return_tries: Mutex::new(histogram(u32::MAX.into())),
            return_times: Mutex::new(histogram(u32::MAX.into())),
            beats: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            datagrams_unanswered: AtomicU64::new(0),
            commands_received: AtomicU64::new(0),
            commands_executed: AtomicU64::new(0),
            duplicates_ignored: AtomicU64::new(0),
            // Up to an hour.
            round_trips: Mutex::new(histogram(3_600_000_000)),
            load_percent: AtomicU8::new(LOAD_UNKNOWN),
            retired: Mutex::new(None),
        }
    }

    pub(crate) fn connected(&self) -> usize {
        self.connected.load(Relaxed)
    }

    pub(crate) fn connected_one(&self) {
        let connected = self.connected.fetch_add(1, Relaxed) + 1;
        self.connected_max.fetch_max(connected, Relaxed);
    }

    pub(crate) fn disconnected_one(&self, unwanted: bool) {
        self.connected.fetch_sub(1, Relaxed);
        self.lost.fetch_add(unwanted.into(), Relaxed);
    }

    pub(crate) fn false_gone(&self) {
        self.false_gone.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn connect_failed(&self) {
        self.connect_failed.fetch_add(1, Relaxed);
    }

    /// A member will try to come back after this time.
    pub(crate) fn reconnecting(&self, delay_ms: u64) {
        self.reconnect_delays.lock().saturating_record(delay_ms);
    }

    /// A member is welcome again after a loss.
    pub(crate) fn returned(&self, tries: u32, took_ms: u64) {
        self.return_tries.lock().saturating_record(tries.into());
        self.return_times.lock().saturating_record(took_ms);
    }

    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    pub(crate) fn datagram(&self) {
        self.datagrams.fetch_add(1, Relaxed);
    }

    pub(crate) fn datagram_unanswered(&self) {
        self.datagrams_unanswered.fetch_add(1, Relaxed);
    }

    pub(crate) fn round_trip(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.round_trips.lock().saturating_record(micros);
    }

    pub(crate) fn command_received(&self) {
        self.commands_received.fetch_add(1, Relaxed);
    }

    pub(crate) fn command_executed(&self) {
        self.commands_executed.fetch_add(1, Relaxed);
    }

    pub(crate) fn duplicate_ignored(&self) {
        self.duplicates_ignored.fetch_add(1, Relaxed);
    }

    pub(crate) fn retired(&self, device: &str, why: &str) {
        *self.retired.lock() = Some(format!("{device}: {why}"));
    }

    pub(crate) fn load(&self) -> Option<u8> {
        Some(self.load_percent.load(Relaxed)).filter(|load| *load != LOAD_UNKNOWN)
    }

    pub(crate) fn set_load(&self, percent: u8) {
        self.load_percent.store(percent.min(100), Relaxed);
    }
}
