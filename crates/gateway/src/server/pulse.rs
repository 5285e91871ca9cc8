//! What a device's beats say about it.

use heartbeat_codec::beat::Beat;
use heartbeat_codec::detector::{PhiAccrual, PhiConfig};
use parking_lot::Mutex;

/// The newest word of one device. Its shard writes, HTTP reads; the lock is all but never shared.
#[derive(Default)]
pub(crate) struct Pulse(Mutex<Option<Beats>>);

struct Beats {
    interval_ms: u32,
    detector: PhiAccrual,
    last: Beat,
}

/// A reading of a [`Pulse`]; all `None` for a device that was not heard since the gateway started.
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
        let detector = PhiAccrual::new(&PhiConfig::new(interval_ms), now_ms);
        *self.0.lock() = Some(Beats {
            interval_ms,
            detector,
            last: Beat::default(),
        });
    }

    pub(crate) fn beat(&self, now_ms: u64, beat: Beat) {
        if let Some(beats) = &mut *self.0.lock() {
            beats
                .detector
                .heartbeat(&PhiConfig::new(beats.interval_ms), now_ms);
            beats.last = beat;
        }
    }

    pub(crate) fn read(&self, now_ms: u64) -> Reading {
        let guard = self.0.lock();
        let Some(beats) = &*guard else {
            return Reading::default();
        };
        Reading {
            last_beat_ms_ago: Some(now_ms.saturating_sub(beats.detector.last_ms())),
            rtt_ms: beats.last.rtt_ms,
            load_percent: beats.last.load_percent,
            phi: Some(
                beats
                    .detector
                    .phi(&PhiConfig::new(beats.interval_ms), now_ms),
            ),
        }
    }
}
