//! What a device's beats say about it.

use heartbeat_codec::beat::Beat;
use heartbeat_codec::detector::{PhiAccrual, PhiConfig};
use parking_lot::Mutex;

/// How many intervals back a device's rhythm reaches.
const WINDOW: u16 = 20;

/// The newest word of one device. Its shard writes, HTTP reads; the lock is all but never shared.
#[derive(Default)]
pub(crate) struct Pulse(Mutex<Option<Beats>>);

struct Beats {
    interval_ms: u32,
    grace_ms: u32,
    detector: PhiAccrual,
    rtt_ms: Option<u16>,
    load_percent: Option<u8>,
    has_beaten: bool,
    suspect: bool,
}

/// A reading of a [`Pulse`]; empty for a device that was not heard since the gateway started.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) last_beat_ms_ago: Option<u64>,
    pub(crate) rtt_ms: Option<u16>,
    pub(crate) load_percent: Option<u8>,
    pub(crate) phi: Option<f32>,
    /// Its beats are later than its rhythm explains.
    pub(crate) suspect: bool,
}

impl Pulse {
    /// A session with beats every `interval_ms` starts.
    pub(crate) fn start(&self, now_ms: u64, interval_ms: u32, grace_ms: u32) {
        let detector = PhiAccrual::new(&config(interval_ms, grace_ms), now_ms);
        *self.0.lock() = Some(Beats {
            interval_ms,
            grace_ms,
            detector,
            rtt_ms: None,
            load_percent: None,
            has_beaten: false,
            suspect: false,
        });
    }

    /// Takes a beat. One that says no round trip leaves the last one standing.
    pub(crate) fn beat(&self, now_ms: u64, beat: Beat) {
        let mut guard = self.0.lock();
        let Some(beats) = &mut *guard else { return };
        let config = beats.config();
        if beats.has_beaten {
            beats.detector.heartbeat(&config, now_ms);
        } else {
            // From WELCOME to the first beat is no interval: devices spread their first beats.
            beats.detector = PhiAccrual::new(&config, now_ms);
        }
        beats.has_beaten = true;
        beats.suspect = false;
        beats.rtt_ms = beat.rtt_ms.or(beats.rtt_ms);
        beats.load_percent = beat.load_percent;
    }

    /// After how many milliseconds of silence the device is a suspect. `None`: it is one, from now on.
    pub(crate) fn doubt_in_ms(&self, now_ms: u64) -> Option<u64> {
        let mut guard = self.0.lock();
        let Some(beats) = &mut *guard else {
            return Some(u64::MAX);
        };
        let suspect_ms = beats.detector.deadline_ms(&beats.config());
        let in_ms = suspect_ms.checked_sub(now_ms).filter(|in_ms| *in_ms > 0);
        beats.suspect = in_ms.is_none();
        in_ms
    }

    pub(crate) fn read(&self, now_ms: u64) -> Reading {
        let guard = self.0.lock();
        let Some(beats) = &*guard else {
            return Reading::default();
        };
        Reading {
            last_beat_ms_ago: Some(now_ms.saturating_sub(beats.detector.last_ms())),
            rtt_ms: beats.rtt_ms,
            load_percent: beats.load_percent,
            phi: Some(beats.detector.phi(&beats.config(), now_ms)),
            suspect: beats.suspect,
        }
    }
}

impl Beats {
    fn config(&self) -> PhiConfig {
        config(self.interval_ms, self.grace_ms)
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

    fn beats(pulse: &Pulse, times: impl IntoIterator<Item = u64>) {
        times
            .into_iter()
            .for_each(|ms| pulse.beat(ms, Beat::default()));
    }

    #[test]
    fn a_regular_device_is_a_suspect_long_before_it_is_gone() {
        let pulse = Pulse::default();
        pulse.start(0, 30_000, 5_000);
        assert!(
            pulse.doubt_in_ms(0) > Some(35_000),
            "nothing is known yet, so the deadline comes first"
        );
        beats(&pulse, (0..100).map(|n| 11_000 + n * 30_000));
        let last_ms = 11_000 + 99 * 30_000;
        let silence_ms = pulse.doubt_in_ms(last_ms).unwrap();
        assert!((31_500..31_700).contains(&silence_ms), "{silence_ms}");
        assert_eq!(pulse.doubt_in_ms(last_ms + silence_ms - 1), Some(1));
        assert!(!pulse.read(last_ms).suspect);
        assert_eq!(pulse.doubt_in_ms(last_ms + silence_ms), None);
        let reading = pulse.read(last_ms + silence_ms);
        assert!(
            reading.suspect && reading.phi > Some(7.9),
            "{:?}",
            reading.phi
        );
        beats(&pulse, [last_ms + silence_ms + 1]);
        assert!(!pulse.read(last_ms + silence_ms + 1).suspect);
    }

    #[test]
    fn the_way_to_the_first_beat_is_no_interval() {
        let pulse = Pulse::default();
        pulse.start(0, 30_000, 5_000);
        beats(&pulse, [1]);
        assert!(pulse.doubt_in_ms(1) > Some(35_000));
        let before = pulse.doubt_in_ms(1);
        pulse.start(0, 30_000, 5_000);
        assert_eq!(pulse.doubt_in_ms(0), before);
    }

    #[test]
    fn a_beat_without_a_round_trip_leaves_the_last_one() {
        let pulse = Pulse::default();
        pulse.start(0, 30_000, 5_000);
        let beat = Beat {
            rtt_ms: Some(17),
            ..Beat::default()
        };
        pulse.beat(1, beat);
        beats(&pulse, [2]);
        assert_eq!(pulse.read(2).rtt_ms, Some(17));
    }
}
