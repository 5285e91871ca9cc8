//! What one client still has to say: numbered frames that stay until the peer has acknowledged them.

use std::collections::VecDeque;
use std::fmt;

/// The limits of an [`Outbound`] queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboundLimits {
    /// Frames that may wait for their acknowledgement. Default 1,024.
    pub frames_max: usize,
    /// Their bytes. Default 1 MiB.
    pub bytes_max: usize,
}

impl Default for OutboundLimits {
    fn default() -> Self {
        Self {
            frames_max: 1_024,
            bytes_max: 1 << 20,
        }
    }
}

/// Frames on their way to the peer, numbered 1, 2, 3 and so on for the life of the queue.
///
/// A frame stays until it is acknowledged. After a reconnect all that are not go out again, in order and with their
/// numbers, so that the peer can drop what it has: see [`Inbound`]. A full queue refuses the new frame and changes
/// nothing. An empty one holds no memory but itself.
#[derive(Debug)]
pub struct Outbound {
    frames: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// The number of the first frame, or of the next one when there is none.
    front: u64,
    /// How many frames, from the front, this connection has been given.
    given: usize,
    /// The highest number that any connection was given.
    given_ever: u64,
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbound {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            front: 1,
            given: 0,
            given_ever: 0,
        }
    }

    /// The number of the next frame.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.front + self.frames.len() as u64
    }

    /// Puts a frame, which holds [`next_number`](Self::next_number), behind the others.
    ///
    /// # Errors
    /// [`QueueError::is_full`]: the limits leave no room. Nothing changed; what the peer acknowledges makes room.
    pub fn push(&mut self, limits: OutboundLimits, frame: &[u8]) -> Result<u64, QueueError> {
        let bytes = self.bytes.saturating_add(frame.len());
        if self.frames.len() >= limits.frames_max || bytes > limits.bytes_max {
            return Err(QueueError(Refusal::Full));
        }
        let number = self.next_number();
        self.bytes = bytes;
        self.frames.push_back(frame.into());
        Ok(number)
    }

    /// The peer has every frame up to and including this number: they are forgotten. Returns how many that were;
    /// an old number is no mistake and makes 0.
    ///
    /// # Errors
    /// [`QueueError::is_ahead`]: no frame of that number was ever sent. The peer is wrong; nothing changed.
    pub fn acknowledge(&mut self, through: u64) -> Result<usize, QueueError> {
        if through > self.given_ever {
            return Err(QueueError(Refusal::Ahead));
        }
        let mut count = 0;
        while self.front <= through {
            let frame = self
                .frames
                .pop_front()
                .expect("frames up to given_ever are held or were acknowledged");
            self.bytes -= frame.len();
            self.front += 1;
            count += 1;
        }
        self.given = self.given.saturating_sub(count);
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
        Ok(count)
    }

    /// Frames that this connection has not been given, in order.
    pub fn to_send(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.range(self.given..).map(|frame| &**frame)
    }

    /// The first `count` of [`to_send`](Self::to_send) went to the connection.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn sent(&mut self, count: usize) {
        assert!(
            self.given + count <= self.frames.len(),
            "sent more than there is"
        );
        self.given += count;
        self.given_ever = self.given_ever.max(self.front + self.given as u64 - 1);
    }

    /// The connection is gone, or a new one stands: every frame that is left has to be sent.
    pub fn rewind(&mut self) {
        self.given = 0;
    }

    /// Frames that wait for their acknowledgement, sent or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether the peer has acknowledged everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Why a frame was not taken, or an acknowledgement not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueError(pub(super) Refusal);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    TooLong,
    Ahead,
    NoClient,
}

impl QueueError {
    /// The queue is full; an acknowledgement makes room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0 == Refusal::Full
    }

    /// The frame is longer than a connection can ever take, or the queue: `Options::write_bytes_max`,
    /// [`OutboundLimits::bytes_max`].
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.0 == Refusal::TooLong
    }

    /// The peer acknowledged what it was never sent.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.0 == Refusal::Ahead
    }

    /// The client was removed.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.0 == Refusal::NoClient
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Refusal::Full => {
                "the outbound queue is full; send again when the peer has acknowledged some"
            }
            Refusal::TooLong => "the frame is longer than a connection can take; split it",
            Refusal::Ahead => "the peer acknowledged a frame that was never sent; hang up",
            Refusal::NoClient => "the client was removed; drop its id",
        })
    }
}

impl std::error::Error for QueueError {}

/// The peer's half: which of the numbered frames are new.
///
/// It has to last as long as what the frames did: a server that keeps their effects on disk keeps
/// [`through`](Self::through) beside them, by the name of the client's queue. (A client whose queue is new, because its
/// process is, takes a new name. A server that has lost its memory begins [`after`](Self::after) the number before the
/// first frame that it gets: what came before was acknowledged.)
///
/// ```
/// use conn_reactor::client::{Arrival, Inbound};
///
/// let mut inbound = Inbound::new();
/// assert_eq!(inbound.arrive(1), Arrival::New);
/// assert_eq!(inbound.arrive(2), Arrival::New);
/// assert_eq!(inbound.arrive(1), Arrival::Repeat);
/// assert_eq!(inbound.arrive(4), Arrival::Gap);
/// assert_eq!(inbound.through(), 2); // what to acknowledge
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inbound {
    through: u64,
}

/// What to do with a numbered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the next one: act on it.
    New,
    /// It was here before: acknowledge it again and do nothing.
    Repeat,
    /// Frames before it are missing, which no client that keeps to its queue does: hang up.
    Gap,
}

impl Inbound {
    /// For a queue that nothing was received from.
    #[must_use]
    pub const fn new() -> Self {
        Self::after(0)
    }

    /// For a queue whose frames up to and including `through` were received.
    #[must_use]
    pub const fn after(through: u64) -> Self {
        Self { through }
    }

    /// A frame of this number arrived; a new one counts as received from here on.
    pub fn arrive(&mut self, number: u64) -> Arrival {
        if number <= self.through {
            return Arrival::Repeat;
        }
        if number != self.through + 1 {
            return Arrival::Gap;
        }
        self.through = number;
        Arrival::New
    }

    /// Every frame up to and including this number was received.
    #[must_use]
    pub const fn through(&self) -> u64 {
        self.through
    }
}
