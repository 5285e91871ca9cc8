//! Beats: the fixed bodies of a heartbeat and of its echo, little endian.
//!
//! ```text
//! BEAT      stamp_ms u32 | load_percent u8 | rtt_ms u16      7 bytes
//! BEAT-ACK  stamp_ms u32                                     4 bytes
//! ```
//!
//! The stamp is the sender's own monotonic clock and wraps after 49.7 days; only the sender reads it back, from
//! the echo, so the two clocks need not agree.

use core::fmt;

/// Bytes in the body of a beat.
pub const BEAT_BYTES: usize = 7;

/// Bytes in the body of a beat's echo.
pub const BEAT_ACK_BYTES: usize = 4;

const LOAD_UNKNOWN: u8 = 255;
const RTT_UNKNOWN: u16 = 0xffff;

/// One heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Beat {
    /// The sender's monotonic clock in milliseconds, modulo 2^32.
    pub stamp_ms: u32,
    /// How busy the sender is, 0 to 100; `None` when it does not say.
    pub load_percent: Option<u8>,
    /// The round trip that the sender measured last; `None` when it has measured none.
    pub rtt_ms: Option<u16>,
}

impl Beat {
    /// The body. A load above 100 is written as 100, a round trip of 65,535 ms as 65,534.
    ///
    /// ```
    /// use heartbeat_codec::beat::Beat;
    ///
    /// let beat = Beat { stamp_ms: 0x0403_0201, load_percent: Some(50), rtt_ms: Some(0x0807) };
    /// assert_eq!(beat.encode(), [1, 2, 3, 4, 50, 7, 8]);
    /// ```
    pub fn encode(&self) -> [u8; BEAT_BYTES] {
        let [s0, s1, s2, s3] = self.stamp_ms.to_le_bytes();
        let load = self
            .load_percent
            .map_or(LOAD_UNKNOWN, |percent| percent.min(100));
        let rtt = self
            .rtt_ms
            .map_or(RTT_UNKNOWN, |ms| ms.min(RTT_UNKNOWN - 1));
        let [r0, r1] = rtt.to_le_bytes();
        [s0, s1, s2, s3, load, r0, r1]
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// When the body has not exactly 7 bytes, or its load is 101 to 254.
    pub fn decode(body: &[u8]) -> Result<Self, BeatError> {
        let &[s0, s1, s2, s3, load, r0, r1] = body else {
            return Err(BeatError(Problem::Length {
                bytes: body.len(),
                bytes_expected: BEAT_BYTES,
            }));
        };
        let load_percent = match load {
            0..=100 => Some(load),
            LOAD_UNKNOWN => None,
            _ => return Err(BeatError(Problem::Load(load))),
        };
        let rtt_ms = Some(u16::from_le_bytes([r0, r1])).filter(|ms| *ms != RTT_UNKNOWN);
        Ok(Beat {
            stamp_ms: u32::from_le_bytes([s0, s1, s2, s3]),
            load_percent,
            rtt_ms,
        })
    }

    /// The echo of this beat.
    pub fn ack(&self) -> BeatAck {
        BeatAck {
            stamp_ms: self.stamp_ms,
        }
    }
}

/// The echo of a beat, for the sender to measure the round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BeatAck {
    /// The stamp of the beat, unchanged.
    pub stamp_ms: u32,
}

impl BeatAck {
    /// The body.
    pub fn encode(&self) -> [u8; BEAT_ACK_BYTES] {
        self.stamp_ms.to_le_bytes()
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// When the body has not exactly 4 bytes.
    pub fn decode(body: &[u8]) -> Result<Self, BeatError> {
        let stamp = body.try_into().map_err(|_| {
            BeatError(Problem::Length {
                bytes: body.len(),
                bytes_expected: BEAT_ACK_BYTES,
            })
        })?;
        Ok(BeatAck {
            stamp_ms: u32::from_le_bytes(stamp),
        })
    }

    /// The round trip in milliseconds, by the clock that stamped the beat; right across the clock's wrap.
    ///
    /// ```
    /// use heartbeat_codec::beat::BeatAck;
    ///
    /// assert_eq!(BeatAck { stamp_ms: u32::MAX }.rtt_ms(11), 12);
    /// ```
    pub fn rtt_ms(&self, now_ms: u32) -> u32 {
        now_ms.wrapping_sub(self.stamp_ms)
    }
}

/// Why a body is not a beat.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BeatError(Problem);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    Length { bytes: usize, bytes_expected: usize },
    Load(u8),
}

impl BeatError {
    /// The body is too short or too long.
    pub fn is_wrong_length(&self) -> bool {
        matches!(self.0, Problem::Length { .. })
    }

    /// The load is none of 0 to 100 and 255.
    pub fn is_bad_load(&self) -> bool {
        matches!(self.0, Problem::Load(_))
    }
}

impl fmt::Debug for BeatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BeatError({:?})", self.0)
    }
}

impl fmt::Display for BeatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::Length {
                bytes,
                bytes_expected,
            } => write!(
                f,
                "the body has {bytes} bytes and must have {bytes_expected}; check the sender's version"
            ),
            Problem::Load(load) => write!(
                f,
                "the load is {load}; send 0 to 100, or 255 when it is not known"
            ),
        }
    }
}

impl core::error::Error for BeatError {}
