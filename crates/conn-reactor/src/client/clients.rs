//! Many clients on one shard: [`Reconnector`] and [`Outbound`] joined to a reactor's sockets and timers.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;

use super::{Attempt, ClientIo, Endpoints, Outbound, OutboundLimits, Reconnect, Reconnector};
use circuit::SplitMix64;

use crate::slab::Slab;
use crate::{CloseReason, Handler, Io, Opened, TimerKey, Token};

/// What the clients of a shard say: one value per shard, used on that shard's thread only.
///
/// A client's session begins with [`connected`](Self::connected), where it greets the peer; when the peer has answered
/// the protocol calls [`ClientIo::established`]. Every try ends in exactly one [`lost`](Self::lost), unless the client
/// is removed first, and the next try follows by itself.
pub trait Protocol: Sized + Send + 'static {
    /// The caller's state of one client; it outlives connections.
    type Client: Send + 'static;
    /// What the peer gives a session so that a later connection can take it up.
    type Resume: Send + 'static;
    /// What other threads send to this shard.
    type Message: Send + 'static;

    /// The shard's loop begins: the first callback, and the place to [`add`](ClientIo::add) clients that are known by
    /// then. Does nothing by default.
    fn started(&mut self, io: &mut ClientIo<'_, Self>) {
        let _ = io;
    }

    /// A connection stands: greet the peer.
    fn connected(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId);

    /// Bytes arrived. Returns how many of them, from the front, were consumed; the rest comes again in front of the
    /// next bytes. After [`hang_up`](ClientIo::hang_up) or [`remove`](ClientIo::remove) nothing more is asked for,
    /// so stop there.
    fn data(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId, input: &[u8]) -> usize;

    /// A try failed, or the connection is gone.
    fn lost(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId, loss: Loss);

    /// The time that [`ClientIo::set_alarm`] asked for is over. Does nothing by default.
    fn alarm(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId) {
        let _ = (io, client);
    }

    /// A message from another thread.
    fn message(&mut self, io: &mut ClientIo<'_, Self>, message: Self::Message);

    /// A batch of events, messages and timers is done. Does nothing by default.
    fn turn_ended(&mut self, io: &mut ClientIo<'_, Self>) {
        let _ = io;
    }
}

/// The end of a try or of a session.
#[derive(Debug)]
pub struct Loss {
    /// What happened.
    pub why: Why,
    /// Whether the session had been [`established`](ClientIo::established).
    pub was_established: bool,
    /// The pause before the next try; `None` when there is none because the shard stops.
    pub retry_in_ms: Option<u64>,
}

/// Why a try or a session ended.
#[derive(Debug)]
pub enum Why {
    /// There was no connection.
    Connect(io::Error),
    /// The connection closed.
    Closed(CloseReason),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Closed(reason) => reason.fmt(f),
        }
    }
}

/// Names a client of one shard. Stale once the client was removed: then it names nothing, never another client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(super) Token);

impl ClientId {
    /// A number from 0 that no other client of the shard has at the same time; small, used again after a removal.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.slot() as usize
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({}.{})", self.0.slot(), self.0.generation())
    }
}

/// What the clients of a shard have in common.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where to connect to, the preferred address first.
    pub endpoints: Vec<SocketAddr>,
    /// The local address of connections; `None` leaves it to the kernel.
    pub bind: Option<SocketAddr>,
    /// How to come back.
    pub reconnect: Reconnect,
    /// A peer that has not welcomed the session by then is given up. Default 10,000.
    pub establish_within_ms: u64,
    /// The limits of each client's queue.
    pub outbound: OutboundLimits,
}

impl ClientOptions {
    /// The defaults, for one endpoint.
    #[must_use]
    pub fn new(endpoint: SocketAddr) -> Self {
        Self {
            endpoints: vec![endpoint],
            bind: None,
            reconnect: Reconnect::default(),
            establish_within_ms: 10_000,
            outbound: OutboundLimits::default(),
        }
    }
}

/// A [`Handler`] that keeps clients connected and lets a [`Protocol`] speak for them.
///
/// It accepts nothing: give its reactor no listeners.
pub struct Clients<P: Protocol> {
    protocol: P,
    set: Set<P>,
}

pub(super) struct Set<P: Protocol> {
    pub(super) clients: Slab<Slot<P>>,
    pub(super) endpoints: Endpoints,
    pub(super) options: ClientOptions,
    /// Jitter.
    pub(super) random: SplitMix64,
    /// Frames joined for one write.
    pub(super) out: Vec<u8>,
    /// Connections that stand or close.
    pub(super) links: usize,
    pub(super) stopping: bool,
}

pub(super) struct Slot<P: Protocol> {
    pub(super) reconnector: Reconnector,
    pub(super) link: Link,
    /// Waiting: the next try. Greeting: the end of the patience. Established: the protocol's.
    pub(super) alarm: Option<TimerKey>,
    /// Made by the first frame, and kept for its numbers.
    pub(super) outbound: Option<Box<Outbound>>,
    pub(super) resume: Option<P::Resume>,
    pub(super) state: P::Client,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    None,
    Connecting,
    Open(Token),
    /// Told to close.
    Closing,
}

impl<P: Protocol> Clients<P> {
    /// No clients yet; the protocol adds them.
    ///
    /// # Panics
    /// When there is no endpoint.
    #[must_use]
    pub fn new(protocol: P, options: ClientOptions) -> Self {
        let endpoints = Endpoints::new(&options.endpoints, options.reconnect.clone());
        let set = Set {
            clients: Slab::new(0),
            endpoints,
            options,
            random: SplitMix64::new(RandomState::new().hash_one(0u64)),
            out: Vec::new(),
            links: 0,
            stopping: false,
        };
        Self { protocol, set }
    }

    /// The protocol, for instance after the shard has ended.
    #[must_use]
    pub fn into_protocol(self) -> P {
        self.protocol
    }

    fn parts<'a>(&'a mut self, io: &'a mut Io<Self>) -> (&'a mut P, ClientIo<'a, P>) {
        let set = &mut self.set;
        (&mut self.protocol, ClientIo { io, set })
    }

    fn attempt(&mut self, io: &mut Io<Self>, client: ClientId) {
        let random = self.set.random.next_u64();
        let set = &mut self.set;
        let Some(slot) = set.clients.get_mut(client.0) else {
            return;
        };
        let attempt = slot
            .reconnector
            .attempt(&mut set.endpoints, io.now_ms(), random);
        match attempt {
            Attempt::Wait { delay_ms } => set_alarm(io, &mut slot.alarm, client, delay_ms),
            Attempt::Connect(addr) => match io.connect(addr, set.options.bind, client.0.as_u64()) {
                Ok(()) => slot.link = Link::Connecting,
                Err(error) => {
                    let random = set.random.next_u64();
                    let delay_ms = slot.reconnector.not_tried(&mut set.endpoints, random);
                    self.come_back(io, client, Why::Connect(error), false, delay_ms);
                }
            },
        }
    }

    /// The try or the session is over.
    fn lose(&mut self, io: &mut Io<Self>, client: ClientId, why: Why) {
        let random = self.set.random.next_u64();
        let set = &mut self.set;
        let Some(slot) = set.clients.get_mut(client.0) else {
            return;
        };
        let was_established = slot.reconnector.is_established();
        let delay_ms = slot
            .reconnector
            .lost(&mut set.endpoints, io.now_ms(), random);
        self.come_back(io, client, why, was_established, delay_ms);
    }

    fn come_back(
        &mut self,
        io: &mut Io<Self>,
        client: ClientId,
        why: Why,
        was_established: bool,
        delay_ms: u64,
    ) {
        let Some(slot) = self.set.clients.get_mut(client.0) else {
            return;
        };
        slot.link = Link::None;
        if let Some(outbound) = &mut slot.outbound {
            outbound.rewind();
        }
        let retry_in_ms = (!self.set.stopping).then_some(delay_ms);
        if let Some(delay_ms) = retry_in_ms {
            set_alarm(io, &mut slot.alarm, client, delay_ms);
        }
        let loss = Loss {
            why,
            was_established,
            retry_in_ms,
        };
        let (protocol, mut io) = self.parts(io);
        protocol.lost(&mut io, client, loss);
    }
}

impl<P: Protocol> Handler for Clients<P> {
    type Conn = ClientId;
    type Timer = ClientId;
    type Message = P::Message;

    fn started(&mut self, io: &mut Io<Self>) {
        let (protocol, mut io) = self.parts(io);
        protocol.started(&mut io);
    }

    fn opened(&mut self, io: &mut Io<Self>, token: Token, opened: Opened) -> Option<ClientId> {
        let Opened::Connected { tag, .. } = opened else {
            return None;
        };
        let client = ClientId(Token::from_u64(tag));
        if self.set.stopping {
            self.lose(io, client, Why::Closed(CloseReason::Shutdown));
            return None;
        }
        // `None`: removed while it connected.
        let slot = self.set.clients.get_mut(client.0)?;
        self.set.links += 1;
        slot.link = Link::Open(token);
        set_alarm(
            io,
            &mut slot.alarm,
            client,
            self.set.options.establish_within_ms,
        );
        let (protocol, mut io) = self.parts(io);
        protocol.connected(&mut io, client);
        Some(client)
    }

    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        let Some(&mut client) = io.state(token) else {
            return input.len();
        };
        let (protocol, mut io) = self.parts(io);
        if !io.is_connected(client) {
            return input.len();
        }
        protocol.data(&mut io, client, input)
    }

    fn closed(&mut self, io: &mut Io<Self>, _: Token, client: ClientId, reason: CloseReason) {
        self.set.links -= 1;
        self.lose(io, client, Why::Closed(reason));
        if self.set.stopping && self.set.links == 0 {
            io.stop();
        }
    }

    fn connect_failed(&mut self, io: &mut Io<Self>, tag: u64, error: io::Error) {
        self.lose(io, ClientId(Token::from_u64(tag)), Why::Connect(error));
    }

    fn timer(&mut self, io: &mut Io<Self>, _: TimerKey, client: ClientId) {
        let Some(slot) = self.set.clients.get_mut(client.0) else {
            return;
        };
        slot.alarm = None;
        match slot.link {
            Link::None if self.set.stopping => {}
            Link::None => self.attempt(io, client),
            Link::Open(token) if !slot.reconnector.is_established() => {
                io.close(token, CloseReason::TimedOut);
            }
            Link::Open(_) => {
                let (protocol, mut io) = self.parts(io);
                protocol.alarm(&mut io, client);
            }
            Link::Connecting | Link::Closing => {}
        }
    }

    fn message(&mut self, io: &mut Io<Self>, message: P::Message) {
        let (protocol, mut io) = self.parts(io);
        protocol.message(&mut io, message);
    }

    fn drained(&mut self, io: &mut Io<Self>, token: Token) {
        if let Some(&mut client) = io.state(token) {
            let set = &mut self.set;
            ClientIo { io, set }.pump(client);
        }
    }

    fn turn_ended(&mut self, io: &mut Io<Self>) {
        let (protocol, mut client_io) = self.parts(io);
        protocol.turn_ended(&mut client_io);
        self.set.clients.release();
    }
}

pub(super) fn set_alarm<P: Protocol>(
    io: &mut Io<Clients<P>>,
    alarm: &mut Option<TimerKey>,
    client: ClientId,
    delay_ms: u64,
) {
    let deadline_ms = io.deadline_after(delay_ms);
    cancel_alarm(io, alarm);
    *alarm = Some(io.set_timer(deadline_ms, client));
}

pub(super) fn cancel_alarm<P: Protocol>(io: &mut Io<Clients<P>>, alarm: &mut Option<TimerKey>) {
    if let Some(key) = alarm.take() {
        io.cancel_timer(key);
    }
}

impl<P: Protocol> fmt::Debug for Clients<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("clients", &self.set.clients.len())
            .field("connections", &self.set.links)
            .finish_non_exhaustive()
    }
}
