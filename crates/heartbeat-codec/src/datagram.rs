//! Beats in datagrams: any may be lost, doubled or overtaken, and none can be forged without the session's key.
//!
//! A datagram says who and which one, the [beat](crate::beat) itself, and a tag of 8 bytes: HMAC-SHA-256 under the key,
//! cut short. The receiver finds the key by [`peer_of`], checks the tag in constant time, and then refuses what it
//! has seen before. The answer is an ack of its own, so that the sender knows that the way is open and how long it is.
//!
//! The peer's number and the key come from the session: over whatever brought them, and no safer than that. Datagrams
//! are not encrypted.
//!
//! ```
//! use heartbeat_codec::beat::Beat;
//! use heartbeat_codec::datagram::{DatagramKey, Receiver, Sender, peer_of};
//!
//! let key = DatagramKey::derive(b"the session's token"); // both sides have it from HELLO and WELCOME
//! let (mut device, mut gateway) = (Sender::new(7, key.clone()), Receiver::new(7, key));
//!
//! let beat = Beat { stamp_ms: 1_000, load_percent: Some(40), rtt_ms: None };
//! let sent = device.seal(&beat).expect("2^32 - 1 datagrams a key");
//! assert_eq!(sent.len(), 24);
//!
//! assert_eq!(peer_of(&sent), Some(7)); // whose receiver to ask
//! let heard = gateway.open(&sent)?;
//! assert_eq!((heard.beat, heard.is_newest), (beat, true));
//! assert!(gateway.open(&sent).expect_err("a repetition").is_replayed());
//!
//! let ack = device.open_ack(&gateway.ack(&heard))?;
//! assert_eq!(ack.rtt_ms(1_012), 12);
//! # Ok::<(), heartbeat_codec::datagram::DatagramError>(())
//! ```

use core::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::beat::{BEAT_ACK_BYTES, BEAT_BYTES, Beat, BeatAck};

/// Bytes of a beat's datagram.
pub const DATAGRAM_BYTES: usize = HEAD_BYTES + BEAT_BYTES + TAG_BYTES;

/// Bytes of an ack's datagram.
pub const ACK_BYTES: usize = HEAD_BYTES + BEAT_ACK_BYTES + TAG_BYTES;

const BEAT: u8 = 0xb1;
const ACK: u8 = 0xb2;
/// Kind, peer, sequence.
const HEAD_BYTES: usize = 1 + 4 + 4;
const TAG_BYTES: usize = 8;
const LABEL: &[u8] = b"heartbeat-codec datagram 1";

/// What both sides of a session know and nobody else does. A new session needs a new one: sequences begin again.
#[derive(Clone)]
pub struct DatagramKey([u8; 32]);

impl DatagramKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        DatagramKey(key)
    }

    /// The key that follows from a secret of the session that is used for something else too, such as a token of
    /// at least 16 random bytes.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        DatagramKey(mac(secret, LABEL).finalize().into_bytes().into())
    }

    fn tag(&self, message: &[u8]) -> [u8; TAG_BYTES] {
        let whole: [u8; 32] = mac(&self.0, message).finalize().into_bytes().into();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&whole[..TAG_BYTES]);
        tag
    }

    /// In constant time.
    fn is_tag(&self, message: &[u8], tag: &[u8]) -> bool {
        mac(&self.0, message).verify_truncated_left(tag).is_ok()
    }
}

fn mac(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key)
        .expect("HMAC takes keys of any length")
        .chain_update(message)
}

impl fmt::Debug for DatagramKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatagramKey(..)")
    }
}

/// Whose datagram this says it is, which nothing proves yet; `None` when it has not the length of one or another kind.
#[must_use]
pub fn peer_of(datagram: &[u8]) -> Option<u32> {
    let &[BEAT, p0, p1, p2, p3, ..] = datagram else {
        return None;
    };
    (datagram.len() == DATAGRAM_BYTES).then_some(u32::from_le_bytes([p0, p1, p2, p3]))
}

/// The side that beats.
#[derive(Clone, Debug)]
pub struct Sender {
    key: DatagramKey,
    peer: u32,
    /// Of the last datagram.
    sequence: u32,
}

impl Sender {
    /// A sender that has the number `peer` at its receiver. It has sent nothing under this key yet.
    #[must_use]
    pub fn new(peer: u32, key: DatagramKey) -> Self {
        Self::resumed(peer, key, 0)
    }

    /// A sender whose last datagram under this key had this sequence: for one that kept its session over a restart.
    #[must_use]
    pub fn resumed(peer: u32, key: DatagramKey, sequence: u32) -> Self {
        Sender {
            key,
            peer,
            sequence,
        }
    }

    /// The sequence of the last datagram; 0: none yet.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// The datagram of a beat; `None` when the key has had its 2^32 - 1 datagrams: begin a new session.
    pub fn seal(&mut self, beat: &Beat) -> Option<[u8; DATAGRAM_BYTES]> {
        self.sequence = self.sequence.checked_add(1)?;
        let mut datagram = [0; DATAGRAM_BYTES];
        let head = head(BEAT, self.peer, self.sequence);
        seal(&self.key, &head, &beat.encode(), &mut datagram);
        Some(datagram)
    }

    /// Reads the ack of a beat. An old one says so by its stamp: nothing depends on seeing each once.
    ///
    /// # Errors
    ///
    /// When it is not exactly an ack, or not from this session's other side.
    pub fn open_ack(&self, datagram: &[u8]) -> Result<BeatAck, DatagramError> {
        let (sequence, body) = open(&self.key, ACK, self.peer, ACK_BYTES, datagram)?;
        if sequence == 0 || sequence > self.sequence {
            return Err(DatagramError(Problem::Sequence));
        }
        let ack = BeatAck::decode(body);
        ack.map_err(|_| DatagramError(Problem::Beat))
    }
}

/// The side that listens, of one peer: 56 bytes.
#[derive(Clone, Debug)]
pub struct Receiver {
    key: DatagramKey,
    peer: u32,
    window: ReplayWindow,
}

/// A beat that was authentic and new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub beat: Beat,
    /// No later one came before it. Otherwise it proves life, and its load is out of date.
    pub is_newest: bool,
    sequence: u32,
}

impl Receiver {
    /// A receiver of the peer with this number, that has heard nothing under this key yet.
    #[must_use]
    pub fn new(peer: u32, key: DatagramKey) -> Self {
        Receiver {
            key,
            peer,
            window: ReplayWindow::default(),
        }
    }

    /// Reads a datagram; what is not authentic changes nothing.
    ///
    /// # Errors
    ///
    /// When it is not exactly a beat's datagram, its tag is wrong, it was here before, or more than 63 later ones were.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Received, DatagramError> {
        let (sequence, body) = open(&self.key, BEAT, self.peer, DATAGRAM_BYTES, datagram)?;
        let beat = Beat::decode(body).map_err(|_| DatagramError(Problem::Beat))?;
        let is_newest = match self.window.accept(sequence) {
            Freshness::Newest => true,
            Freshness::Late => false,
            Freshness::Stale => return Err(DatagramError(Problem::Replayed)),
        };
        Ok(Received {
            beat,
            is_newest,
            sequence,
        })
    }

    /// The datagram that answers: shorter than the question, so that nobody is flooded by answers to forged questions.
    #[must_use]
    pub fn ack(&self, received: &Received) -> [u8; ACK_BYTES] {
        let mut datagram = [0; ACK_BYTES];
        let head = head(ACK, self.peer, received.sequence);
        seal(
            &self.key,
            &head,
            &received.beat.ack().encode(),
            &mut datagram,
        );
        datagram
    }
}

fn head(kind: u8, peer: u32, sequence: u32) -> [u8; HEAD_BYTES] {
    let mut head = [kind; HEAD_BYTES];
    head[1..5].copy_from_slice(&peer.to_le_bytes());
    head[5..].copy_from_slice(&sequence.to_le_bytes());
    head
}

fn seal(key: &DatagramKey, head: &[u8], body: &[u8], datagram: &mut [u8]) {
    let (message, tag) = datagram.split_at_mut(head.len() + body.len());
    message[..head.len()].copy_from_slice(head);
    message[head.len()..].copy_from_slice(body);
    tag.copy_from_slice(&key.tag(message));
}

/// The sequence and the body.
fn open<'a>(
    key: &DatagramKey,
    kind: u8,
    peer: u32,
    bytes: usize,
    datagram: &'a [u8],
) -> Result<(u32, &'a [u8]), DatagramError> {
    if datagram.len() != bytes || datagram[0] != kind {
        return Err(DatagramError(Problem::Shape));
    }
    let (message, tag) = datagram.split_at(bytes - TAG_BYTES);
    let (said, body) = message.split_at(HEAD_BYTES);
    let &[_, _, _, _, _, s0, s1, s2, s3] = said else {
        unreachable!("the head has 9 bytes");
    };
    let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
    if said != head(kind, peer, sequence) || !key.is_tag(message, tag) {
        return Err(DatagramError(Problem::Tag));
    }
    Ok((sequence, body))
}

/// Which of the last 64 sequences were seen (as in RFC 4303, 3.4.3).
#[derive(Clone, Copy, Debug, Default)]
struct ReplayWindow {
    highest: u32,
    /// Bit n: `highest - n` was seen.
    seen: u64,
}

enum Freshness {
    Newest,
    Late,
    Stale,
}

impl ReplayWindow {
    fn accept(&mut self, sequence: u32) -> Freshness {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = sequence;
            return Freshness::Newest;
        }
        // Sequences begin with 1.
        let bit = 1u64.checked_shl(self.highest - sequence).unwrap_or(0);
        if sequence == 0 || bit == 0 || self.seen & bit != 0 {
            return Freshness::Stale;
        }
        self.seen |= bit;
        Freshness::Late
    }
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramError(Problem);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    Shape,
    Tag,
    Replayed,
    Sequence,
    Beat,
}

impl DatagramError {
    /// Its length or its first byte is another's.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.0 == Problem::Shape
    }

    /// It is another peer's, or its tag is wrong: damaged, forged, or from another session.
    #[must_use]
    pub fn is_forged(&self) -> bool {
        self.0 == Problem::Tag
    }

    /// It is authentic and was here before, or is so late that this is not known any more.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.0 == Problem::Replayed
    }
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Problem::Shape => "not a beat's or an ack's datagram; check what else uses this port",
            Problem::Tag => "the tag is wrong: damaged, forged, or from another session; ignore it",
            Problem::Replayed => "it came before, or too late; ignore it",
            Problem::Sequence => "it acknowledges what was never sent; begin a new session",
            Problem::Beat => "its load is not 0 to 100; check the sender's version",
        })
    }
}

impl core::error::Error for DatagramError {}
