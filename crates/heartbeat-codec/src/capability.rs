//! Which forms of beat each side speaks, in one byte, and what the two have in common.
//!
//! The side that connects offers its [`Forms`]; the other answers with those it will use too; both then take the
//! [shortest](Forms::stream_form) of the answer for beats on the stream. Beats in [frames](crate::frame) are spoken by all,
//! so a peer that says nothing is one that speaks only those. Bits that a version does not know are dropped by
//! it, so new forms need no new version.
//!
//! ```
//! use heartbeat_codec::capability::{Forms, StreamForm};
//!
//! // The device offers ...
//! let offer = Forms::FRAMED | Forms::FIXED | Forms::DELTA;
//! let hello = offer.to_byte();
//! // ... the gateway answers ...
//! let answer = Forms::from_byte(hello) & (Forms::DELTA | Forms::DATAGRAM);
//! let welcome = answer.to_byte();
//! // ... and both know how beats will look.
//! let agreed = offer.accept(Forms::from_byte(welcome))?;
//! assert_eq!(agreed.stream_form(), StreamForm::Delta);
//! assert!(!agreed.contains(Forms::DATAGRAM));
//! # Ok::<(), heartbeat_codec::capability::CapabilityError>(())
//! ```

use core::fmt;
use core::ops::{BitAnd, BitOr};

/// A set of forms; [`FRAMED`](Forms::FRAMED) is always in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forms(u8);

/// How beats look on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamForm {
    /// A frame around 7 bytes: 9 in all. See [`beat`](crate::beat).
    Framed,
    /// 5 bytes. See [`fixed`](crate::fixed).
    Fixed,
    /// 1 byte, mostly. See [`delta`](crate::delta).
    Delta,
}

impl Forms {
    /// Beats in frames. Every side speaks them.
    pub const FRAMED: Forms = Forms(0x01);
    /// Fixed beats.
    pub const FIXED: Forms = Forms(0x01 | 0x02);
    /// Delta beats.
    pub const DELTA: Forms = Forms(0x01 | 0x04);
    /// Authenticated datagrams, besides the stream.
    pub const DATAGRAM: Forms = Forms(0x01 | 0x08);
    /// Batches of many nodes' beats, from a relay.
    pub const BATCH: Forms = Forms(0x01 | 0x10);

    const KNOWN: u8 = 0x1f;

    /// The forms of a byte that the other side sent; unknown bits are dropped.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Forms(byte & Self::KNOWN | Self::FRAMED.0)
    }

    /// The byte to send.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// Whether all of `forms` are in this set.
    #[must_use]
    pub const fn contains(self, forms: Forms) -> bool {
        self.0 & forms.0 == forms.0
    }

    /// What is agreed when this was offered and `answer` came back: the answer.
    ///
    /// # Errors
    ///
    /// When the answer has a form that was not offered: the other side would send what nobody here reads. Close.
    pub fn accept(self, answer: Forms) -> Result<Forms, CapabilityError> {
        match self.contains(answer) {
            true => Ok(answer),
            false => Err(CapabilityError {
                surplus: answer.0 & !self.0,
            }),
        }
    }

    /// The shortest form in this set for beats on a stream.
    #[must_use]
    pub const fn stream_form(self) -> StreamForm {
        if self.contains(Self::DELTA) {
            StreamForm::Delta
        } else if self.contains(Self::FIXED) {
            StreamForm::Fixed
        } else {
            StreamForm::Framed
        }
    }
}

impl Default for Forms {
    /// What a peer speaks that says nothing: beats in frames.
    fn default() -> Self {
        Self::FRAMED
    }
}

impl BitOr for Forms {
    type Output = Forms;

    fn bitor(self, other: Forms) -> Forms {
        Forms(self.0 | other.0)
    }
}

impl BitAnd for Forms {
    type Output = Forms;

    fn bitand(self, other: Forms) -> Forms {
        Forms(self.0 & other.0)
    }
}

impl fmt::Debug for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["framed", "fixed", "delta", "datagram", "batch"];
        let mut set = f.debug_set();
        for (bit, name) in names.iter().enumerate() {
            if self.0 >> bit & 1 == 1 {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

/// An answer with a form that was not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityError {
    surplus: u8,
}

impl fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the answer has forms that were not offered (bits {:#04x}); answer with a part of the offer",
            self.surplus
        )
    }
}

impl core::error::Error for CapabilityError {}
