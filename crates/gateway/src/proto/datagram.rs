//! Beats in datagrams, as a gateway hears them: which sessions may send them, and what an arriving one is worth.
//!
//! No socket and no clock: bytes and times in, verdicts out. What a datagram looks like is [`heartbeat_codec::datagram`]'s.

use std::collections::BTreeMap;

use heartbeat_codec::datagram::{DatagramKey, Receiver, peer_of};

use super::{Beat, SessionToken};

/// Bytes of the datagram that answers a beat.
pub use heartbeat_codec::datagram::ACK_BYTES as DATAGRAM_ACK_BYTES;
/// Bytes of a beat's datagram; of another length it is none.
pub use heartbeat_codec::datagram::DATAGRAM_BYTES;

/// So many beats may come at once, after a pause on the way.
const BURST: u64 = 8;

/// Where a device may send its beats besides the connection: part of [`Welcome`](super::Welcome).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatagramDoor {
    /// The device's number in its datagrams.
    pub peer: u32,
    /// The port, at the address that the device is connected to.
    pub port: u16,
}

/// The key of a session's datagrams, which both sides compute from its token.
#[must_use]
pub fn datagram_key(session: &SessionToken) -> DatagramKey {
    DatagramKey::derive(&session.0)
}

/// The sessions that may beat in datagrams, by their numbers; `S` is whatever a gateway knows a session by. About 90 bytes
/// each, and as much as `S`.
#[derive(Debug)]
pub struct DatagramPeers<S> {
    peers: BTreeMap<u32, Peer<S>>,
    /// The shortest time between two beats of a peer, in the long run.
    interval_ms_min: u32,
}

#[derive(Debug)]
struct Peer<S> {
    receiver: Receiver,
    /// When the next beat is due at the highest rate that is allowed.
    due_ms: u64,
    session: S,
}

/// A beat that was authentic and new.
#[derive(Debug)]
pub struct HeardDatagram<'a, S> {
    /// Whose it is.
    pub session: &'a S,
    /// What it says.
    pub beat: Beat,
    /// No later one came before it. Otherwise it says nothing that is not known.
    pub is_newest: bool,
    /// What to answer, to wherever it came from.
    pub ack: [u8; DATAGRAM_ACK_BYTES],
}

/// Why a datagram changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DatagramRefusal {
    /// Not the length or the kind of a beat, or a load that there is not.
    Malformed,
    /// No session has its number: it ended, or was that of a gateway before this one.
    Unknown,
    /// The tag is wrong: damaged, forged, or of another session.
    Forged,
    /// It came before, or more than 63 later ones did.
    Replayed,
    /// More beats than the shortest interval allows.
    TooOften,
    /// Authentic, and its session has just gone to another connection.
    SessionOver,
}

impl DatagramRefusal {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Unknown,
        Self::Forged,
        Self::Replayed,
        Self::TooOften,
        Self::SessionOver,
    ];

    /// A short stable name, used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::TooOften => "too-often",
            Self::SessionOver => "session-over",
        }
    }
}

impl<S> DatagramPeers<S> {
    /// Nobody yet. In the long run each peer may beat every `interval_ms_min`.
    #[must_use]
    pub fn new(interval_ms_min: u32) -> Self {
        Self {
            peers: BTreeMap::new(),
            interval_ms_min,
        }
    }

    /// Sessions that may send datagrams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A session with this [key](datagram_key) begins; it takes the place of another with this number.
    pub fn insert(&mut self, number: u32, key: DatagramKey, session: S) {
        let peer = Peer {
            receiver: Receiver::new(number, key),
            due_ms: 0,
            session,
        };
        self.peers.insert(number, peer);
    }

    /// The session with this number ended.
    pub fn remove(&mut self, number: u32) {
        self.peers.remove(&number);
    }

    /// Reads a datagram that arrived at `now_ms`, on any clock that does not go back. O(log n), about a microsecond.
    ///
    /// # Errors
    ///
    /// It is not authentic, not new, or one too many. Nothing but an authentic one changes anything here.
    pub fn open(
        &mut self,
        now_ms: u64,
        datagram: &[u8],
    ) -> Result<HeardDatagram<'_, S>, DatagramRefusal> {
        let number = peer_of(datagram).ok_or(DatagramRefusal::Malformed)?;
        let peer = self.peers.get_mut(&number);
        let peer = peer.ok_or(DatagramRefusal::Unknown)?;
        let received = peer.receiver.open(datagram).map_err(|error| {
            if error.is_forged() {
                DatagramRefusal::Forged
            } else if error.is_replayed() {
                DatagramRefusal::Replayed
            } else {
                DatagramRefusal::Malformed
            }
        })?;
        let interval_ms = u64::from(self.interval_ms_min);
        if peer.due_ms > now_ms + (BURST - 1) * interval_ms {
            return Err(DatagramRefusal::TooOften);
        }
        peer.due_ms = peer.due_ms.max(now_ms) + interval_ms;
        Ok(HeardDatagram {
            session: &peer.session,
            beat: received.beat,
            is_newest: received.is_newest,
            ack: peer.receiver.ack(&received),
        })
    }
}

#[cfg(test)]
mod tests {
    use heartbeat_codec::datagram::Sender;

    use super::*;

    const TOKEN: SessionToken = SessionToken([7; 16]);

    fn peers() -> (DatagramPeers<&'static str>, Sender) {
        let mut peers = DatagramPeers::new(100);
        peers.insert(7, datagram_key(&TOKEN), "a");
        (peers, Sender::new(7, datagram_key(&TOKEN)))
    }

    fn seal(sender: &mut Sender) -> [u8; DATAGRAM_BYTES] {
        sender.seal(&Beat::default()).unwrap()
    }

    #[test]
    fn only_the_sessions_own_datagrams_are_heard_and_each_once() {
        let (mut peers, mut sender) = peers();
        let first = seal(&mut sender);
        let heard = peers.open(0, &first).unwrap();
        assert_eq!((*heard.session, heard.is_newest), ("a", true));
        assert_eq!(sender.open_ack(&heard.ack).unwrap().stamp_ms, 0);
        let refusal = |peers: &mut DatagramPeers<_>, datagram: &[u8]| {
            peers.open(0, datagram).map(|_| ()).unwrap_err()
        };
        assert_eq!(refusal(&mut peers, &first), DatagramRefusal::Replayed);
        assert_eq!(refusal(&mut peers, &first[1..]), DatagramRefusal::Malformed);
        let second = seal(&mut sender);
        for at in 0..DATAGRAM_BYTES {
            let mut damaged = second;
            damaged[at] ^= 1;
            let expected = match at {
                0 => DatagramRefusal::Malformed,
                1..5 => DatagramRefusal::Unknown,
                _ => DatagramRefusal::Forged,
            };
            assert_eq!(refusal(&mut peers, &damaged), expected, "byte {at}");
        }
        let third = seal(&mut sender);
        assert!(peers.open(0, &third).unwrap().is_newest);
        assert!(!peers.open(0, &second).unwrap().is_newest, "overtaken");
        // The next session with that number has another key.
        peers.insert(7, datagram_key(&SessionToken([8; 16])), "b");
        assert_eq!(
            refusal(&mut peers, &seal(&mut sender)),
            DatagramRefusal::Forged
        );
        peers.remove(7);
        assert_eq!(
            refusal(&mut peers, &seal(&mut sender)),
            DatagramRefusal::Unknown
        );
        assert!(peers.is_empty());
    }

    #[test]
    fn a_peer_beats_no_more_often_than_it_may() {
        let (mut peers, mut sender) = peers();
        let mut heard = |now_ms| {
            let verdict = peers.open(now_ms, &seal(&mut sender)).map(|_| ());
            verdict
                .inspect_err(|refusal| assert_eq!(*refusal, DatagramRefusal::TooOften))
                .is_ok()
        };
        let at_once = (0..20).filter(|_| heard(1_000)).count();
        assert_eq!(at_once, 8);
        assert!(
            heard(1_100) && !heard(1_100),
            "one an interval from then on"
        );
    }
}
