//! Delta beats: an exact stamp and a load in one byte, mostly.
//!
//! Sender and receiver of a connection keep the same [state](DeltaEncoder) of 32 bytes and make the same
//! prediction of the next stamp; what travels is how wrong it was, together with the change of load, in one
//! symbol. The first byte says the form:
//!
//! | first byte | bytes | error of the prediction | load |
//! |---|---:|---|---|
//! | 0x80 to 0xf2 | 1 | 11 ms either way | change of at most 2 |
//! | 0xf3 to 0xfc | 2 | 115 ms | change of at most 5 |
//! | 0xfd | 3 | 1,559 ms | change of at most 10 |
//! | 0xfe | 4 | 82,239 ms | any |
//! | 0xff | 12 | resync: needs no state, and says the interval and the round trip too | any |
//!
//! All first bytes are kinds that [`frame`](crate::frame) reserves, so delta beats and frames share a stream.
//!
//! # The prediction
//!
//! Two timers are common: one that keeps to a grid (`start + n * interval`) and jitters around it, and one that
//! sleeps for an interval after each beat. For the first the best guess is the grid, found by a second-order
//! loop (phase gain 1/8, period gain 1/256: critically damped); for the second it is the last stamp plus the
//! usual distance (smoothed by 1/16). Both run, and the one with the smaller smoothed error predicts. It is all
//! integers, in 1/256 ms, so every implementation predicts alike; docs/FORMAT.md has it step by step.
//!
//! A jitter of 5 ms (standard deviation, around a grid) puts 97% of the beats into one byte; its entropy
//! together with a load that moves by at most 2 is 6.7 bits, so one byte is also the floor.

use core::fmt;

use crate::track::{LEARNED_OFF_MS_MAX, LOAD_UNKNOWN, Track};

/// The longest delta beat: a resync.
pub const DELTA_BYTES_MAX: usize = 12;

pub use crate::track::INTERVAL_MS_MAX;

const TWO: u8 = 0xf3;
const THREE: u8 = 0xfd;
const FOUR: u8 = 0xfe;
const RESYNC: u8 = 0xff;
const RTT_UNKNOWN: u16 = 0xffff;

/// A form with a joint symbol: how far the prediction may be off, and how far the load may move.
struct Form {
    off_ms: i32,
    load: i32,
}

const FORM_1: Form = Form {
    off_ms: 11,
    load: 2,
};
const FORM_2: Form = Form {
    off_ms: 115,
    load: 5,
};
const FORM_3: Form = Form {
    off_ms: LEARNED_OFF_MS_MAX as i32,
    load: 10,
};
/// With the load itself, 0 to 100 or 101 for unknown.
const OFF_4_MS: i32 = 82_239;
const LOADS: i32 = 102;

impl Form {
    #[inline]
    fn symbol(&self, off_ms: i32, load: Option<i32>) -> Option<u32> {
        let load = load?;
        let fits = off_ms.unsigned_abs() <= self.off_ms.unsigned_abs()
            && load.unsigned_abs() <= self.load.unsigned_abs();
        let width = 2 * self.load + 1;
        fits.then(|| ((off_ms + self.off_ms) * width + load + self.load) as u32)
    }

    /// The error and the change of load; none for a symbol that no pair has.
    #[inline]
    fn pair(&self, symbol: u32) -> Option<(i32, i32)> {
        let width = 2 * self.load + 1;
        let off_ms = symbol as i32 / width - self.off_ms;
        (off_ms <= self.off_ms).then_some((off_ms, symbol as i32 % width - self.load))
    }
}

/// What a delta beat says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeltaBeat {
    /// The sender's monotonic clock in milliseconds, modulo 2^32.
    pub stamp_ms: u32,
    /// How busy the sender is, 0 to 100; `None` when it does not say.
    pub load_percent: Option<u8>,
}

/// What a resync says besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resync {
    /// The agreed time between two beats, at most [`INTERVAL_MS_MAX`].
    pub interval_ms: u32,
    /// The round trip that the sender measured last; `None` when it has measured none.
    pub rtt_ms: Option<u16>,
}

fn load_byte(load_percent: Option<u8>) -> u8 {
    load_percent.map_or(LOAD_UNKNOWN, |percent| percent.min(100))
}

fn load_percent(byte: u8) -> Option<u8> {
    (byte != LOAD_UNKNOWN).then_some(byte)
}

/// The sender's side of a connection.
///
/// ```
/// use heartbeat_codec::delta::{Decoded, DeltaBeat, DeltaDecoder, DeltaEncoder};
///
/// let (mut sender, mut receiver) = (DeltaEncoder::new(30_000), DeltaDecoder::new());
/// let mut wire = Vec::new();
/// for (stamp_ms, load) in [(1_000, 40), (31_003, 41), (60_998, 41)] {
///     let beat = DeltaBeat { stamp_ms, load_percent: Some(load) };
///     wire.extend_from_slice(sender.encode(&beat, None).as_bytes());
/// }
/// assert_eq!(wire.len(), 12 + 1 + 1);
///
/// let mut rest = &wire[..];
/// let mut stamps = Vec::new();
/// while !rest.is_empty() {
///     let Decoded::Beat { beat, consumed, .. } = receiver.decode(rest)? else { break };
///     stamps.push(beat.stamp_ms);
///     rest = &rest[consumed..];
/// }
/// assert_eq!(stamps, [1_000, 31_003, 60_998]);
/// # Ok::<(), heartbeat_codec::delta::DeltaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeltaEncoder {
    interval_ms: u32,
    track: Option<Track>,
}

impl DeltaEncoder {
    /// A sender that beats about every `interval_ms`, at most [`INTERVAL_MS_MAX`]. Its first beat is a resync.
    #[must_use]
    pub fn new(interval_ms: u32) -> Self {
        DeltaEncoder {
            interval_ms: interval_ms.clamp(1, INTERVAL_MS_MAX),
            track: None,
        }
    }

    /// Makes the next beat a resync, with this interval: after a reconnect, when the interval changes, or to tell
    /// a new round trip.
    pub fn resync(&mut self, interval_ms: u32) {
        *self = Self::new(interval_ms);
    }

    /// The bytes of a beat, 1 to 4, or 12 for a resync, which alone says `rtt_ms`. A load above 100 is written as
    /// 100. O(1).
    #[inline]
    pub fn encode(&mut self, beat: &DeltaBeat, rtt_ms: Option<u16>) -> Encoded {
        let load = load_byte(beat.load_percent);
        let Some(track) = &mut self.track else {
            return self.encode_resync(beat.stamp_ms, load, rtt_ms);
        };
        let off_ms = beat.stamp_ms.wrapping_sub(track.predicted_ms()) as i32;
        let known = load != LOAD_UNKNOWN && track.load != LOAD_UNKNOWN;
        let change = match known {
            true => Some(i32::from(load) - i32::from(track.load)),
            false => (load == track.load).then_some(0),
        };
        let encoded = if let Some(symbol) = FORM_1.symbol(off_ms, change) {
            Encoded::new(1, (symbol + 0x80).to_le_bytes())
        } else if let Some(symbol) = FORM_2.symbol(off_ms, change) {
            let first = u32::from(TWO) + (symbol >> 8);
            Encoded::new(2, (first | (symbol & 0xff) << 8).to_le_bytes())
        } else if let Some(symbol) = FORM_3.symbol(off_ms, change) {
            Encoded::new(3, (u32::from(THREE) | symbol << 8).to_le_bytes())
        } else if off_ms.unsigned_abs() <= OFF_4_MS.unsigned_abs() {
            let load = i32::from(load.min(101));
            let symbol = ((off_ms + OFF_4_MS) * LOADS + load) as u32;
            Encoded::new(4, (u32::from(FOUR) | symbol << 8).to_le_bytes())
        } else {
            return self.encode_resync(beat.stamp_ms, load, rtt_ms);
        };
        track.learn(beat.stamp_ms, off_ms, load);
        encoded
    }

    #[cold]
    fn encode_resync(&mut self, stamp_ms: u32, load: u8, rtt_ms: Option<u16>) -> Encoded {
        self.track = Some(Track::new(stamp_ms, self.interval_ms, load));
        let rtt = rtt_ms.map_or(RTT_UNKNOWN, |ms| ms.min(RTT_UNKNOWN - 1));
        let mut bytes = [RESYNC; DELTA_BYTES_MAX];
        bytes[1..5].copy_from_slice(&stamp_ms.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.interval_ms.to_le_bytes());
        bytes[9] = load;
        bytes[10..].copy_from_slice(&rtt.to_le_bytes());
        let len = DELTA_BYTES_MAX as u8;
        Encoded { len, bytes }
    }
}

/// The bytes of one beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    len: u8,
    bytes: [u8; DELTA_BYTES_MAX],
}

impl Encoded {
    #[inline]
    fn new(len: u8, start: [u8; 4]) -> Self {
        let [a, b, c, d] = start;
        let bytes = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
        Encoded { len, bytes }
    }

    /// The bytes to send.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole beat.
    Beat {
        /// What it says.
        beat: DeltaBeat,
        /// What a resync says besides.
        resync: Option<Resync>,
        /// Bytes of the input that it took.
        consumed: usize,
    },
    /// The start of a beat. Nothing was learned: ask again with more.
    NeedMore {
        /// The length of the whole beat.
        bytes_min: usize,
    },
}

/// The receiver's side of a connection.
#[derive(Clone, Debug, Default)]
pub struct DeltaDecoder {
    track: Option<Track>,
}

impl DeltaDecoder {
    /// A receiver that waits for a resync.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the beat at the start of `input`, whose first byte is 0x80 or higher. O(1).
    ///
    /// # Errors
    ///
    /// At the first byte that cannot begin a valid beat: no delta beat at all, no resync before it, a symbol or a
    /// load that nothing has, a longer form than needed. The two sides disagree then: close the stream.
    #[inline]
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, DeltaError> {
        let Some(&first) = input.first() else {
            return Ok(Decoded::NeedMore { bytes_min: 1 });
        };
        if let 0x80..TWO = first
            && let Some(track) = &mut self.track
        {
            let pair = FORM_1.pair(u32::from(first - 0x80));
            let (off_ms, change) = pair.ok_or(DeltaError(Problem::Symbol))?;
            return track.step(off_ms, change, 1);
        }
        self.decode_longer(first, input)
    }

    fn decode_longer(&mut self, first: u8, input: &[u8]) -> Result<Decoded, DeltaError> {
        let bytes_min = match first {
            0..0x80 => return Err(DeltaError(Problem::NotABeat(first))),
            RESYNC => DELTA_BYTES_MAX,
            _ if self.track.is_none() => return Err(DeltaError(Problem::NoResync)),
            0x80..TWO => 1,
            TWO..THREE => 2,
            THREE => 3,
            FOUR => 4,
        };
        if input.len() < bytes_min {
            return Ok(Decoded::NeedMore { bytes_min });
        }
        let wrong = DeltaError(Problem::Symbol);
        let byte = |at: usize| u32::from(input[at]);
        let Some(track) = self.track.as_mut().filter(|_| first != RESYNC) else {
            return self.decode_resync(input);
        };
        match first {
            FOUR => {
                let symbol = byte(1) | byte(2) << 8 | byte(3) << 16;
                track.step_far(symbol as i32)
            }
            THREE => {
                let symbol = byte(1) | byte(2) << 8;
                let (off_ms, change) = FORM_3.pair(symbol).ok_or(wrong)?;
                track.shortest(FORM_2.symbol(off_ms, Some(change)))?;
                track.step(off_ms, change, 3)
            }
            _ => {
                let symbol = u32::from(first - TWO) << 8 | byte(1);
                let (off_ms, change) = FORM_2.pair(symbol).ok_or(wrong)?;
                track.shortest(FORM_1.symbol(off_ms, Some(change)))?;
                track.step(off_ms, change, 2)
            }
        }
    }

    fn decode_resync(&mut self, input: &[u8]) -> Result<Decoded, DeltaError> {
        let &[_, s0, s1, s2, s3, i0, i1, i2, i3, load, r0, r1] = &input[..DELTA_BYTES_MAX] else {
            unreachable!("the slice has 12 bytes");
        };
        let stamp_ms = u32::from_le_bytes([s0, s1, s2, s3]);
        let interval_ms = u32::from_le_bytes([i0, i1, i2, i3]);
        if !(1..=INTERVAL_MS_MAX).contains(&interval_ms) {
            return Err(DeltaError(Problem::Interval(interval_ms)));
        }
        if load > 100 && load != LOAD_UNKNOWN {
            return Err(DeltaError(Problem::Load(load)));
        }
        let rtt_ms = Some(u16::from_le_bytes([r0, r1])).filter(|ms| *ms != RTT_UNKNOWN);
        self.track = Some(Track::new(stamp_ms, interval_ms, load));
        let beat = DeltaBeat {
            stamp_ms,
            load_percent: load_percent(load),
        };
        Ok(Decoded::Beat {
            beat,
            resync: Some(Resync {
                interval_ms,
                rtt_ms,
            }),
            consumed: DELTA_BYTES_MAX,
        })
    }
}

impl Track {
    /// A beat with a changed load.
    #[inline]
    fn step(&mut self, off_ms: i32, change: i32, consumed: usize) -> Result<Decoded, DeltaError> {
        let load = match change {
            0 => self.load,
            _ => {
                let load = i32::from(self.load) + change;
                let valid = self.load != LOAD_UNKNOWN && (0..=100).contains(&load);
                if !valid {
                    return Err(DeltaError(Problem::Change(change)));
                }
                load as u8
            }
        };
        Ok(self.advance(off_ms, load, consumed))
    }

    /// A beat with its load itself.
    fn step_far(&mut self, symbol: i32) -> Result<Decoded, DeltaError> {
        let off_ms = symbol / LOADS - OFF_4_MS;
        let load = match symbol % LOADS {
            101 => LOAD_UNKNOWN,
            load => load as u8,
        };
        if off_ms > OFF_4_MS {
            return Err(DeltaError(Problem::Symbol));
        }
        let change = match (self.load, load) {
            (LOAD_UNKNOWN, LOAD_UNKNOWN) => Some(0),
            (LOAD_UNKNOWN, _) | (_, LOAD_UNKNOWN) => None,
            (old, new) => Some(i32::from(new) - i32::from(old)),
        };
        self.shortest(FORM_3.symbol(off_ms, change))?;
        Ok(self.advance(off_ms, load, 4))
    }

    /// Refuses what a shorter form can say.
    fn shortest(&self, shorter: Option<u32>) -> Result<(), DeltaError> {
        match shorter {
            Some(_) => Err(DeltaError(Problem::NotShortest)),
            None => Ok(()),
        }
    }

    #[inline]
    fn advance(&mut self, off_ms: i32, load: u8, consumed: usize) -> Decoded {
        let stamp_ms = self.predicted_ms().wrapping_add_signed(off_ms);
        self.learn(stamp_ms, off_ms, load);
        Decoded::Beat {
            beat: DeltaBeat {
                stamp_ms,
                load_percent: load_percent(load),
            },
            resync: None,
            consumed,
        }
    }
}

/// Why bytes are not a delta beat.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeltaError(Problem);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    NotABeat(u8),
    NoResync,
    Symbol,
    NotShortest,
    Change(i32),
    Load(u8),
    Interval(u32),
}

impl DeltaError {
    /// The first byte is below 0x80: it begins a frame.
    #[must_use]
    pub fn is_not_a_beat(&self) -> bool {
        matches!(self.0, Problem::NotABeat(_))
    }

    /// No resync came before it.
    #[must_use]
    pub fn is_out_of_sync(&self) -> bool {
        self.0 == Problem::NoResync
    }

    /// A shorter form says the same.
    #[must_use]
    pub fn is_not_shortest(&self) -> bool {
        self.0 == Problem::NotShortest
    }
}

impl fmt::Debug for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeltaError({:?})", self.0)
    }
}

impl fmt::Display for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::NotABeat(first) => write!(
                f,
                "byte {first:#04x} begins a frame, not a delta beat: decode it as one"
            ),
            Problem::NoResync => f.write_str("a delta beat came before any resync; send one first"),
            Problem::Symbol => f.write_str("no beat has this symbol; check the sender's version"),
            Problem::NotShortest => f.write_str("a shorter form says the same; send the shortest"),
            Problem::Change(change) => write!(
                f,
                "the load changes by {change} to something that is not 0 to 100; the two sides disagree, resync"
            ),
            Problem::Load(load) => write!(
                f,
                "the load is {load}; send 0 to 100, or 255 when it is not known"
            ),
            Problem::Interval(ms) => {
                write!(f, "the interval is {ms} ms; send 1 to {INTERVAL_MS_MAX}")
            }
        }
    }
}

impl core::error::Error for DeltaError {}
