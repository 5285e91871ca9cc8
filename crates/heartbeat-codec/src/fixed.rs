//! Fixed beats: 5 bytes, always, and no state on either side.
//!
//! The first byte is 0x80 and the load in percent, or 0xff when it is not known; the stamp follows. Like
//! [delta beats](crate::delta) they begin with a byte that no [frame](crate::frame) begins with, so they share a
//! stream with frames; which of the two forms a connection uses is [agreed](crate::capability) before.
//!
//! For senders that cannot keep 36 bytes of state, for captures that are read from the middle, and for anyone who wants
//! to write an encoder in five lines.
//!
//! ```
//! use heartbeat_codec::fixed::{Decoded, FixedBeat};
//!
//! let beat = FixedBeat { stamp_ms: 1_000, load_percent: Some(40) };
//! let wire = beat.encode();
//! assert_eq!(wire, [0x80 + 40, 0xe8, 0x03, 0, 0]);
//! assert_eq!(FixedBeat::decode(&wire)?, Decoded::Beat { beat, consumed: 5 });
//! # Ok::<(), heartbeat_codec::fixed::FixedError>(())
//! ```

use core::fmt;

/// Bytes of a fixed beat.
pub const FIXED_BYTES: usize = 5;

const FIRST: u8 = 0x80;
const LOAD_FULL: u8 = FIRST + 100;
const LOAD_UNKNOWN: u8 = 0xff;

/// What a fixed beat says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FixedBeat {
    /// The sender's monotonic clock in milliseconds, modulo 2^32.
    pub stamp_ms: u32,
    /// How busy the sender is, 0 to 100; `None` when it does not say.
    pub load_percent: Option<u8>,
}

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole beat.
    Beat {
        /// What it says.
        beat: FixedBeat,
        /// Bytes of the input that it took: [`FIXED_BYTES`].
        consumed: usize,
    },
    /// The start of a beat: ask again with more.
    NeedMore {
        /// The length of the whole beat; 1 for an empty input.
        bytes_min: usize,
    },
}

impl FixedBeat {
    /// The bytes; a load above 100 is written as 100.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; FIXED_BYTES] {
        let first = self
            .load_percent
            .map_or(LOAD_UNKNOWN, |percent| FIRST + percent.min(100));
        let [s0, s1, s2, s3] = self.stamp_ms.to_le_bytes();
        [first, s0, s1, s2, s3]
    }

    /// Reads the beat at the start of `input`.
    ///
    /// # Errors
    ///
    /// At a first byte that begins no fixed beat: 0x00 to 0x7f begin a frame, and 0xe5 to 0xfe nothing.
    #[inline]
    pub fn decode(input: &[u8]) -> Result<Decoded, FixedError> {
        let load_percent = match input.first() {
            None => return Ok(Decoded::NeedMore { bytes_min: 1 }),
            Some(&LOAD_UNKNOWN) => None,
            Some(&first @ FIRST..=LOAD_FULL) => Some(first - FIRST),
            Some(&first) => return Err(FixedError(first)),
        };
        let &[_, s0, s1, s2, s3, ..] = input else {
            let bytes_min = FIXED_BYTES;
            return Ok(Decoded::NeedMore { bytes_min });
        };
        let beat = FixedBeat {
            stamp_ms: u32::from_le_bytes([s0, s1, s2, s3]),
            load_percent,
        };
        let consumed = FIXED_BYTES;
        Ok(Decoded::Beat { beat, consumed })
    }
}

/// Why bytes are not a fixed beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedError(u8);

impl FixedError {
    /// The first byte is below 0x80: it begins a frame.
    #[must_use]
    pub fn is_not_a_beat(&self) -> bool {
        self.0 < FIRST
    }

    /// The load is none of 0 to 100 and unknown. The sender may be speaking delta beats.
    #[must_use]
    pub fn is_bad_load(&self) -> bool {
        self.0 >= FIRST
    }
}

impl fmt::Display for FixedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0;
        if self.is_not_a_beat() {
            write!(
                f,
                "byte {first:#04x} begins a frame, not a fixed beat: decode it as one"
            )
        } else {
            write!(
                f,
                "byte {first:#04x} has a load of {}; send 0x80 and 0 to 100, or 0xff when it is not known",
                first - FIRST
            )
        }
    }
}

impl core::error::Error for FixedError {}
