//! What a device's beats say about it.

use heartbeat_codec::beat::Beat;
use heartbeat_codec::detector::PhiAccrual;
use parking_lot::Mutex;

/// The newest word of one device. Its shard writes, HTTP reads; the lock is all but never shared.
#[derive(Default)]
pub(crate) struct Pulse(Mutex<Option<Beats>>);

struct Beats {
    detector: PhiAccrual,
    last_ms: u64,
    beat: Option<Beat>,
}

/// A reading of a [`Pulse`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) last_beat_ms_ago: Option<u64>,
    pub(crate) rtt_ms: Option<u16>,
    pub(crate) load_percent: Option<u8>,
    pub(crate) phi: Option<f32>,
}

impl Pulse {
    /// A session with beats every `interval_ms` starts.
    pub(crate) fn start(&self, now_ms: u64, interval_ms: u32) {
        let detector = PhiAccrual::new(now_ms, interval_ms);
        *self.0.lock() = Some(Beats { detector, last_ms: now_ms, beat: None });
    }

    pub(crate) fn beat(&self, now_ms: u64, beat: Beat) {
        if let Some(beats) = &mut *self.0.lock() {
            beats.detector.heartbeat(now_ms);
            beats.last_ms = now_ms;
            beats.beat = Some(beat);
        }
    }

    pub(crate) fn read(&self, now_ms: u64) -> Reading {
        let guard = self.0.lock();
        let Some(beats) = &*guard else { return Reading::default() };
        Reading {
            last_beat_ms_ago: Some(now_ms.saturating_sub(beats.last_ms)),
            rtt_ms: beats.beat.and_then(|beat| beat.rtt_ms),
            load_percent: beats.beat.and_then(|beat| beat.load_percent()),
            phi: Some(beats.detector.phi(now_ms)),
        }
    }
}
