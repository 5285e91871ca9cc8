//! Beats in datagrams: one socket and one thread of its own, `mainstay-datagrams`, for all shards.
//!
//! A datagram's beat goes straight into its [`Device`]; the shard that has the session's connection finds it there when
//! its timer fires. What is not authentic and new is counted and forgotten.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use conn_reactor::Token;
use heartbeat_codec::datagram::peer_of;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::Shared;
use super::device::{Beaten, Device};
use super::returns::connection_number;
use super::shard::ShardMessage;
use crate::proto::{
    DATAGRAM_ACK_BYTES, DATAGRAM_BYTES, DatagramDoor, DatagramPeers, DatagramRefusal, SessionToken,
    datagram_key,
};

/// Datagrams that are read before the thread looks whether it shall end.
const BATCH: usize = 256;
/// How long to leave a socket alone that answers with an error.
const TROUBLE_PAUSE: Duration = Duration::from_millis(10);

/// The sessions that may send datagrams, and what came of those that arrived.
pub(crate) struct Datagrams {
    addr: SocketAddr,
    /// Those of each shard's connections. A tag is checked under one of these locks, which no other shard waits for.
    peers: Box<[Mutex<DatagramPeers<Session>>]>,
    heard: AtomicU64,
    late: AtomicU64,
    refused: [AtomicU64; DatagramRefusal::ALL.len()],
    receiver: Mutex<Option<Receiver>>,
}

struct Session {
    device: Arc<Device>,
    epoch: u64,
}

struct Receiver {
    /// Dropping it ends the thread.
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Datagrams {
    /// Binds the socket; nothing is received before [`start`](Self::start).
    pub(crate) fn bind(
        addr: SocketAddr,
        shards: usize,
        interval_ms_min: u32,
    ) -> io::Result<(Self, std::net::UdpSocket)> {
        let socket = std::net::UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        let datagrams = Self {
            addr: socket.local_addr()?,
            peers: (0..shards)
                .map(|_| Mutex::new(DatagramPeers::new(interval_ms_min)))
                .collect(),
            heard: AtomicU64::new(0),
            late: AtomicU64::new(0),
            refused: Default::default(),
            receiver: Mutex::new(None),
        };
        Ok((datagrams, socket))
    }

    /// Starts the thread that receives.
    pub(crate) fn start(shared: &Arc<Shared>, socket: std::net::UdpSocket) -> io::Result<()> {
        let Some(datagrams) = &shared.datagrams else {
            return Ok(());
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let socket = {
            let _inside = runtime.enter();
            UdpSocket::from_std(socket)?
        };
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name("mainstay-datagrams".into())
            .spawn(move || runtime.block_on(receive(&shared, &socket, stopped)))?;
        *datagrams.receiver.lock() = Some(Receiver { stop, thread });
        Ok(())
    }

    /// Ends the thread. May block for as long as it takes to hear a batch.
    pub(crate) fn stop(&self) {
        let Some(receiver) = self.receiver.lock().take() else {
            return;
        };
        drop(receiver.stop);
        if receiver.thread.join().is_err() {
            tracing::error!("the receiver of datagrams panicked");
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets a session send datagrams; `None` when its connection has a place that makes no number.
    pub(crate) fn admit(
        &self,
        shard: usize,
        connection: Token,
        device: &Arc<Device>,
        epoch: u64,
        token: &SessionToken,
    ) -> Option<DatagramDoor> {
        let peer = connection_number(self.peers.len(), shard, connection)?;
        let key = datagram_key(token);
        let session = Session {
            device: Arc::clone(device),
            epoch,
        };
        self.peers_with(peer).lock().insert(peer, key, session);
        Some(DatagramDoor {
            peer,
            port: self.addr.port(),
        })
    }

    /// The session of this connection ended.
    pub(crate) fn dismiss(&self, shard: usize, connection: Token) {
        if let Some(number) = connection_number(self.peers.len(), shard, connection) {
            self.peers_with(number).lock().remove(number);
        }
    }

    /// The sessions among which the one with this number is, if there is one.
    fn peers_with(&self, number: u32) -> &Mutex<DatagramPeers<Session>> {
        &self.peers[number as usize % self.peers.len()]
    }

    pub(crate) fn sessions(&self) -> usize {
        self.peers.iter().map(|peers| peers.lock().len()).sum()
    }

    /// Beats that counted, and authentic ones that a later one had overtaken.
    pub(crate) fn heard(&self) -> (u64, u64) {
        (self.heard.load(Relaxed), self.late.load(Relaxed))
    }

    /// Every reason for which datagrams changed nothing, and how often.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Relaxed));
        DatagramRefusal::ALL
            .iter()
            .map(|reason| reason.name())
            .zip(counts)
    }
}

async fn receive(shared: &Shared, socket: &UdpSocket, mut stopped: oneshot::Receiver<()>) {
    // One byte more than a beat has tells what is too long.
    let mut buffer = [0; DATAGRAM_BYTES + 1];
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            ready = socket.readable() => if let Err(error) = ready {
                return tracing::error!(%error, "datagrams are not received any more");
            },
        }
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((bytes, from)) => {
                    if let Some(ack) = shared.hear_datagram(&buffer[..bytes]) {
                        // An ack is as good as lost when there is no room for it.
                        drop(socket.try_send_to(&ack, from));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The network's word about an ack that reached nobody, or a socket in trouble: not in a circle then.
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be received");
                    tokio::time::sleep(TROUBLE_PAUSE).await;
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

impl Shared {
    /// Takes a datagram; returns what to answer.
    fn hear_datagram(&self, datagram: &[u8]) -> Option<[u8; DATAGRAM_ACK_BYTES]> {
        let datagrams = self.datagrams.as_ref()?;
        let refuse = |reason: DatagramRefusal| {
            datagrams.refused[reason as usize].fetch_add(1, Relaxed);
        };
        let Some(number) = peer_of(datagram) else {
            refuse(DatagramRefusal::Malformed);
            return None;
        };
        let mut peers = datagrams.peers_with(number).lock();
        let heard = peers.open(self.now_ms(), datagram).map_err(refuse).ok()?;
        let (ack, beat, is_newest) = (heard.ack, heard.beat, heard.is_newest);
        let (device, epoch) = (Arc::clone(&heard.session.device), heard.session.epoch);
        drop(peers);
        if !is_newest {
            // What is known of the device is newer.
            datagrams.late.fetch_add(1, Relaxed);
            return Some(ack);
        }
        match self.beat(&device, epoch, beat, None) {
            Beaten::SessionOver => {
                refuse(DatagramRefusal::SessionOver);
                return None;
            }
            Beaten::Trusted => self.tell_of_trust(&device, epoch),
            Beaten::Heard | Beaten::Repaced => {}
        }
        datagrams.heard.fetch_add(1, Relaxed);
        self.counters.beat_bytes(datagram.len());
        Some(ack)
    }

    /// The timer of the connection stands at a deadline that has moved; without this word the next suspicion is late.
    fn tell_of_trust(&self, device: &Device, epoch: u64) {
        if let Some(session) = device.session().filter(|session| session.epoch == epoch) {
            drop(self.send(session.shard(), ShardMessage::Trusted { session }));
        }
    }
}
