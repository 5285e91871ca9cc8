//! What a device's beats say about it.

use std::num::NonZeroU32;

use heartbeat_codec::beat::Beat;
use heartbeat_codec::delta::INTERVAL_MS_MAX;
use heartbeat_codec::detector::{PhiAccrual, PhiConfig};

use super::device::Doubt;

/// How many intervals back a device's rhythm reaches.
const WINDOW: u16 = 20;

/// The newest word of one session.
pub(crate) struct Pulse {
    detector: PhiAccrual,
    interval_ms: NonZeroU32,
    /// [`RTT_UNKNOWN`] before the first that was told.
    rtt_ms: u16,
    /// [`LOAD_UNKNOWN`] when the device does not say.
    load_percent: u8,
    state: State,
}

const RTT_UNKNOWN: u16 = u16::MAX;
const LOAD_UNKNOWN: u8 = u8::MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No beat came yet.
    New,
    NewSuspect,
    Beating,
    Suspect,
}

/// A reading of a [`Pulse`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) last_beat_ms_ago: Option<u64>,
    pub(crate) interval_ms: Option<u32>,
    pub(crate) rtt_ms: Option<u16>,
    pub(crate) load_percent: Option<u8>,
    pub(crate) phi: Option<f32>,
    /// Its beats are later than its rhythm explains.
    pub(crate) suspect: bool,
}

impl Pulse {
    /// A session with beats every `interval_ms`, at least 1, starts.
    pub(crate) fn new(now_ms: u64, interval_ms: u32) -> Self {
        Self {
            detector: PhiAccrual::new(&config(interval_ms, 0), now_ms),
            interval_ms: NonZeroU32::new(interval_ms).unwrap_or(NonZeroU32::MIN),
            rtt_ms: RTT_UNKNOWN,
            load_percent: LOAD_UNKNOWN,
            state: State::New,
        }
    }

    pub(crate) fn interval_ms(&self) -> u32 {
        self.interval_ms.get()
    }

    /// When the last beat came; the start of the session before the first.
    pub(crate) fn last_ms(&self) -> u64 {
        self.detector.last_ms()
    }

    pub(crate) fn is_suspect(&self) -> bool {
        matches!(self.state, State::NewSuspect | State::Suspect)
    }

    /// Takes a beat, and says whether the device was a suspect. A beat that says no round trip leaves the last one standing.
    pub(crate) fn beat(&mut self, now_ms: u64, beat: Beat, grace_ms: u32) -> bool {
        let config = config(self.interval_ms(), grace_ms);
        let was_suspect = self.is_suspect();
        if matches!(self.state, State::New | State::NewSuspect) {
            // From WELCOME to the first beat is no interval: devices spread their first beats.
            self.detector = PhiAccrual::new(&config, now_ms);
        } else {
            self.detector.heartbeat(&config, now_ms);
        }
        self.state = State::Beating;
        self.rtt_ms = beat.rtt_ms.unwrap_or(self.rtt_ms);
        self.load_percent = beat.load_percent.unwrap_or(LOAD_UNKNOWN);
        was_suspect
    }

    /// The device beats at this interval from now on, at least 1. Returns whether that is another one than before.
    pub(crate) fn repace(&mut self, now_ms: u64, interval_ms: u32, grace_ms: u32) -> bool {
        let interval_ms = match interval_ms {
            // All that a resync can say of an interval that is longer.
            INTERVAL_MS_MAX => self.interval_ms().max(INTERVAL_MS_MAX),
            interval_ms => interval_ms,
        };
        if interval_ms == self.interval_ms() {
            return false;
        }
        self.interval_ms = NonZeroU32::new(interval_ms).unwrap_or(NonZeroU32::MIN);
        // The rhythm of the other interval says nothing about this one.
        self.detector = PhiAccrual::new(&config(interval_ms, grace_ms), now_ms);
        true
    }

    /// Drops a suspicion, and says whether there was one.
    pub(crate) fn trust(&mut self) -> bool {
        let (before, trusted) = match self.state {
            State::NewSuspect => (true, State::New),
            State::Suspect => (true, State::Beating),
            state => (false, state),
        };
        self.state = trusted;
        before
    }

    /// When the device becomes a suspect if nothing comes; makes it one when that time has come.
    pub(crate) fn doubt(&mut self, now_ms: u64, grace_ms: u32) -> Doubt {
        if self.is_suspect() {
            return Doubt::Since;
        }
        let suspect_ms = self
            .detector
            .deadline_ms(&config(self.interval_ms(), grace_ms));
        match suspect_ms.checked_sub(now_ms).filter(|in_ms| *in_ms > 0) {
            Some(in_ms) => Doubt::In(in_ms),
            None => {
                self.state = match self.state {
                    State::New => State::NewSuspect,
                    _ => State::Suspect,
                };
                Doubt::Now
            }
        }
    }

    pub(crate) fn read(&self, now_ms: u64, grace_ms: u32) -> Reading {
        let config = config(self.interval_ms(), grace_ms);
        Reading {
            last_beat_ms_ago: Some(now_ms.saturating_sub(self.last_ms())),
            interval_ms: Some(self.interval_ms()),
            rtt_ms: Some(self.rtt_ms).filter(|ms| *ms != RTT_UNKNOWN),
            load_percent: Some(self.load_percent).filter(|percent| *percent != LOAD_UNKNOWN),
            phi: Some(self.detector.phi(&config, now_ms)),
            suspect: self.is_suspect(),
        }
    }
}

/// A regular device is a suspect when a third of its grace has passed. With the usual floor, a tenth of the interval,
/// it would be gone first.
fn config(interval_ms: u32, grace_ms: u32) -> PhiConfig {
    let usual = PhiConfig::new(interval_ms);
    PhiConfig {
        window: WINDOW,
        std_min_ms: usual.std_min_ms.min(grace_ms as f32 / 16.0),
        ..usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE_MS: u32 = 5_000;

    fn pulse() -> Pulse {
        Pulse::new(0, 30_000)
    }

    fn beats(pulse: &mut Pulse, times: impl IntoIterator<Item = u64>) {
        for ms in times {
            pulse.beat(ms, Beat::default(), GRACE_MS);
        }
    }

    fn doubt_in_ms(pulse: &mut Pulse, now_ms: u64) -> u64 {
        match pulse.doubt(now_ms, GRACE_MS) {
            Doubt::In(ms) => ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_regular_device_is_a_suspect_long_before_it_is_gone() {
        let mut pulse = pulse();
        assert!(
            doubt_in_ms(&mut pulse, 0) > 35_000,
            "nothing is known yet, so the deadline comes first"
        );
        beats(&mut pulse, (0..100).map(|n| 11_000 + n * 30_000));
        let last_ms = 11_000 + 99 * 30_000;
        let silence_ms = doubt_in_ms(&mut pulse, last_ms);
        assert!((31_500..31_700).contains(&silence_ms), "{silence_ms}");
        assert_eq!(doubt_in_ms(&mut pulse, last_ms + silence_ms - 1), 1);
        assert!(!pulse.read(last_ms, GRACE_MS).suspect);
        assert_eq!(pulse.doubt(last_ms + silence_ms, GRACE_MS), Doubt::Now);
        assert_eq!(pulse.doubt(last_ms + silence_ms, GRACE_MS), Doubt::Since);
        let reading = pulse.read(last_ms + silence_ms, GRACE_MS);
        assert!(
            reading.suspect && reading.phi > Some(7.9),
            "{:?}",
            reading.phi
        );
        let again_ms = last_ms + silence_ms + 1;
        assert!(
            pulse.beat(again_ms, Beat::default(), GRACE_MS),
            "trusted again"
        );
        assert!(!pulse.read(again_ms, GRACE_MS).suspect);
    }

    #[test]
    fn the_way_to_the_first_beat_is_no_interval() {
        let mut fresh = pulse();
        let before_ms = doubt_in_ms(&mut fresh, 0);
        beats(&mut fresh, [1]);
        assert_eq!(doubt_in_ms(&mut fresh, 1), before_ms);
    }

    #[test]
    fn another_interval_begins_another_rhythm() {
        let mut pulse = pulse();
        beats(&mut pulse, (0..100).map(|n| n * 30_000));
        let now_ms = 99 * 30_000;
        assert!(!pulse.repace(now_ms, 30_000, GRACE_MS), "the same");
        assert!(pulse.repace(now_ms, 37_500, GRACE_MS));
        assert!(doubt_in_ms(&mut pulse, now_ms) > 37_500);
        assert!(pulse.repace(now_ms, 1_000, GRACE_MS));
        assert!(doubt_in_ms(&mut pulse, now_ms) < 30_000);
        // An hour is the most that a resync can say.
        let mut pulse = Pulse::new(0, 7_200_000);
        assert!(!pulse.repace(1, INTERVAL_MS_MAX, GRACE_MS));
        assert_eq!(pulse.interval_ms(), 7_200_000);
    }

    #[test]
    fn a_beat_without_a_round_trip_leaves_the_last_one() {
        let mut pulse = pulse();
        let beat = Beat {
            rtt_ms: Some(17),
            load_percent: Some(40),
            ..Beat::default()
        };
        pulse.beat(1, beat, GRACE_MS);
        assert_eq!(pulse.read(1, GRACE_MS).load_percent, Some(40));
        beats(&mut pulse, [2]);
        let reading = pulse.read(2, GRACE_MS);
        assert_eq!((reading.rtt_ms, reading.load_percent), (Some(17), None));
    }
}
