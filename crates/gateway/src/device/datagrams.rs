//! Beats in datagrams: when a device sends one, and the socket that a shard's members share.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use conn_reactor::client::ClientId;
use heartbeat_codec::datagram::Sender;
use parking_lot::Mutex;

use crate::proto::{
    Beat, DATAGRAM_ACK_BYTES, DATAGRAM_BYTES, DatagramDoor, SessionToken, datagram_key,
};

/// After so many beats in a row without an ack the way is taken for closed.
const UNANSWERED_MAX: u8 = 3;

/// So many beats then go over the connection before a datagram is tried again.
const REST_BEATS: u8 = 16;

/// The longest wait for an ack before the beat is repeated on the connection.
const ACK_WITHIN_MS: u32 = 1_000;

/// Acks that may wait for a shard; further ones are as good as lost.
const ACKS_MAX: usize = 4_096;

/// How soon the thread that hears acks notices that its shard has ended.
const LOOK_UP: Duration = Duration::from_millis(500);
/// A datagram that the system does not take in this time is a lost one.
const SEND_MAX: Duration = Duration::from_millis(1);

/// A session's beats in datagrams. No socket and no clock.
#[derive(Debug)]
pub(crate) struct DatagramBeats {
    door: DatagramDoor,
    sender: Sender,
    /// When the beat was sent whose ack is awaited.
    sent_ms: Option<u64>,
    unanswered: u8,
    resting: u8,
}

impl DatagramBeats {
    pub(crate) fn new(door: DatagramDoor, session: &SessionToken) -> Self {
        Self {
            door,
            sender: Sender::new(door.peer, datagram_key(session)),
            sent_ms: None,
            unanswered: 0,
            resting: 0,
        }
    }

    pub(crate) fn door(&self) -> DatagramDoor {
        self.door
    }

    /// The datagram of a beat; `None` while the way is taken for closed.
    pub(crate) fn seal(&mut self, now_ms: u64, beat: &Beat) -> Option<[u8; DATAGRAM_BYTES]> {
        if self.resting > 0 {
            self.resting -= 1;
            return None;
        }
        let datagram = self.sender.seal(beat)?;
        self.sent_ms = Some(now_ms);
        Some(datagram)
    }

    /// No ack came in time. `false`: none was awaited.
    pub(crate) fn give_up(&mut self) -> bool {
        if self.sent_ms.take().is_none() {
            return false;
        }
        self.unanswered += 1;
        if self.unanswered >= UNANSWERED_MAX {
            (self.unanswered, self.resting) = (0, REST_BEATS);
        }
        true
    }

    /// Takes an ack; how long ago the beat was sent that it ends the wait for. `None`: it is nobody's, or late.
    pub(crate) fn hear(&mut self, now_ms: u64, ack: &[u8]) -> Option<u64> {
        self.sender.open_ack(ack).ok()?;
        self.unanswered = 0;
        let sent_ms = self.sent_ms.take()?;
        Some(now_ms.saturating_sub(sent_ms))
    }
}

/// How long to wait for an ack, so that the beat on the connection still comes in time.
pub(crate) fn ack_within_ms(interval_ms: u32, grace_ms: u32) -> u32 {
    ACK_WITHIN_MS.min(grace_ms / 2).min(interval_ms).max(1)
}

/// One shard's sockets, one for each address family of its gateways. Dropping it ends their threads, soon.
pub(crate) struct DatagramSockets<C = ClientId> {
    v4: Option<Arc<UdpSocket>>,
    v6: Option<Arc<UdpSocket>>,
    acks: Arc<Acks>,
    /// Whose acks have this number.
    peers: HashMap<u32, C>,
}

/// What the thread heard and the shard has not read.
type Acks = Mutex<Heard>;

#[derive(Default)]
struct Heard {
    acks: Vec<[u8; DATAGRAM_ACK_BYTES]>,
    /// The shard knows that there are some.
    is_told: bool,
}

impl Heard {
    /// Notes an ack, and tells the shard unless it knows already.
    fn note(&mut self, ack: [u8; DATAGRAM_ACK_BYTES], wake: impl FnOnce() -> bool) {
        if self.acks.len() < ACKS_MAX {
            self.acks.push(ack);
        }
        self.is_told = self.is_told || wake();
    }
}

impl<C: Copy + PartialEq> DatagramSockets<C> {
    /// Sockets for datagrams to `gateways`. Their threads, `mainstay-device-udp`, call `wake` when acks are there to be
    /// read, again for the next one when it answers `false`.
    pub(crate) fn open(
        gateways: &[SocketAddr],
        wake: impl Fn() -> bool + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let acks = Arc::<Acks>::default();
        let of_family = |is_wanted: fn(&SocketAddr) -> bool, any: IpAddr| {
            let is_needed = gateways.iter().any(is_wanted);
            is_needed
                .then(|| open_one(any, &acks, wake.clone()))
                .transpose()
        };
        let v4 = of_family(SocketAddr::is_ipv4, Ipv4Addr::UNSPECIFIED.into());
        let v6 = of_family(SocketAddr::is_ipv6, Ipv6Addr::UNSPECIFIED.into());
        let (v4, v6) = match (v4, v6) {
            // A machine may have but one of them: the gateways of the other cannot be reached by TCP either.
            (Ok(v4), Err(_)) if v4.is_some() => (v4, None),
            (Err(_), Ok(v6)) if v6.is_some() => (None, v6),
            (v4, v6) => (v4?, v6?),
        };
        Ok(Self {
            v4,
            v6,
            acks,
            peers: HashMap::new(),
        })
    }

    /// Sends a beat of `client`. A datagram that cannot be sent is a lost one.
    pub(crate) fn send(&mut self, client: C, peer: u32, to: SocketAddr, datagram: &[u8]) {
        self.peers.insert(peer, client);
        let socket = match to {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        };
        let sent = socket.as_ref().map(|socket| socket.send_to(datagram, to));
        if let Some(Err(error)) = sent {
            tracing::debug!(%error, "a beat could not be sent as a datagram");
        }
    }

    /// The session of `client` ended, whose number was `peer`. With several gateways another client may have the same
    /// number at another one, and acks for it: that one's stays.
    pub(crate) fn forget(&mut self, client: C, peer: u32) {
        if self.peers.get(&peer) == Some(&client) {
            self.peers.remove(&peer);
        }
    }

    /// The acks that came, and whose they claim to be.
    pub(crate) fn take(&mut self) -> Vec<(C, [u8; DATAGRAM_ACK_BYTES])> {
        let acks = std::mem::take(&mut *self.acks.lock()).acks;
        let whose = |ack: [u8; DATAGRAM_ACK_BYTES]| {
            let peer = u32::from_le_bytes([ack[1], ack[2], ack[3], ack[4]]);
            Some((*self.peers.get(&peer)?, ack))
        };
        acks.into_iter().filter_map(whose).collect()
    }
}

fn open_one(
    any: IpAddr,
    acks: &Arc<Acks>,
    wake: impl Fn() -> bool + Send + 'static,
) -> io::Result<Arc<UdpSocket>> {
    let socket = Arc::new(UdpSocket::bind((any, 0))?);
    socket.set_read_timeout(Some(LOOK_UP))?;
    // The shard has others to serve: what does not go out is lost.
    socket.set_write_timeout(Some(SEND_MAX))?;
    let (ear, heard) = (Arc::clone(&socket), Arc::downgrade(acks));
    thread::Builder::new()
        .name("mainstay-device-udp".into())
        .spawn(move || hear(&ear, &heard, wake))?;
    Ok(socket)
}

fn hear(socket: &UdpSocket, acks: &Weak<Acks>, wake: impl Fn() -> bool) {
    let mut buffer = [0; DATAGRAM_ACK_BYTES + 1];
    loop {
        let received = socket.recv(&mut buffer);
        let Some(acks) = acks.upgrade() else { return };
        if received.is_ok_and(|bytes| bytes == DATAGRAM_ACK_BYTES)
            && let Some(ack) = buffer.first_chunk()
        {
            acks.lock().note(*ack, &wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_swallows_datagrams_is_left_alone_for_a_while() {
        let door = DatagramDoor { peer: 7, port: 1 };
        let mut beats = DatagramBeats::new(door, &SessionToken([7; 16]));
        let mut sent = Vec::new();
        for now_ms in 0..60 {
            sent.push(beats.seal(now_ms, &Beat::default()).is_some());
            beats.give_up();
        }
        let tried: Vec<_> = (0..60).filter(|at| sent[*at]).collect();
        assert_eq!(tried, [0, 1, 2, 19, 20, 21, 38, 39, 40, 57, 58, 59]);
    }

    #[test]
    fn an_ack_opens_the_way_again() {
        let token = SessionToken([7; 16]);
        let mut beats = DatagramBeats::new(DatagramDoor { peer: 7, port: 1 }, &token);
        let mut gateway = crate::proto::DatagramPeers::new(0);
        gateway.insert(7, datagram_key(&token), ());
        for now_ms in 0..100 {
            let datagram = beats.seal(now_ms, &Beat::default()).expect("it is open");
            let heard = gateway.open(now_ms, &datagram).unwrap();
            // Every third ack comes in time, the others after it was given up.
            if now_ms % 3 == 0 {
                assert_eq!(beats.hear(now_ms + 5, &heard.ack), Some(5));
                assert!(!beats.give_up());
            } else {
                assert!(beats.give_up());
                assert_eq!(beats.hear(now_ms + 5, &heard.ack), None);
            }
        }
        assert_eq!(beats.hear(0, b"no ack"), None);
    }

    #[test]
    fn a_shard_that_could_not_be_told_is_told_at_the_next_ack() {
        let acks = Acks::default();
        let note = |told| {
            let mut was_asked = false;
            acks.lock().note([0; DATAGRAM_ACK_BYTES], || {
                was_asked = true;
                told
            });
            was_asked
        };
        assert!(note(false));
        assert!(note(true));
        assert!(!note(true), "it knows");
        let heard = std::mem::take(&mut *acks.lock());
        assert_eq!(heard.acks.len(), 3);
        assert!(note(true), "it has read all");
    }

    #[test]
    fn a_number_that_another_client_has_at_another_gateway_stays_that_ones() {
        let mut sockets = DatagramSockets::open(&[], || true).unwrap();
        let (to, ack) = (([127, 0, 0, 1], 1).into(), [7; DATAGRAM_ACK_BYTES]);
        let peer = u32::from_le_bytes([7; 4]);
        sockets.send("first", peer, to, b"");
        sockets.send("second", peer, to, b"");
        sockets.forget("first", peer);
        sockets.acks.lock().note(ack, || true);
        assert_eq!(sockets.take(), [("second", ack)]);
        sockets.forget("second", peer);
        sockets.acks.lock().note(ack, || true);
        assert_eq!(sockets.take(), []);
    }

    #[test]
    fn there_is_time_for_the_beat_on_the_connection() {
        assert_eq!(ack_within_ms(30_000, 5_000), 1_000);
        assert_eq!(ack_within_ms(100, 5_000), 100);
        assert_eq!(ack_within_ms(30_000, 300), 150);
        assert_eq!(ack_within_ms(30_000, 0), 1);
    }
}
