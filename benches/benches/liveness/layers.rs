//! The rows of the table: what is set, and what is under way when it happens.

use conn_reactor::{Keepalive, Options};
use heartbeat_codec::detector::{FixedMisses, PhiConfig};

/// Between two beats: a tenth of the gateway's `interval_ms`.
pub(crate) const BEAT_MS: u32 = 3_000;

/// A tenth of the gateway's `grace_ms`.
const GRACE_MS: u32 = 500;

/// A tenth of the gateway's `user_timeout_ms`.
const USER_TIMEOUT_MS: u32 = 9_000;

/// A tenth of the default, 60/10/3.
const KEEPALIVE: Keepalive = Keepalive {
    idle_s: 6,
    interval_s: 1,
    count: 3,
};

/// One row.
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) keepalive: bool,
    pub(crate) user_timeout: bool,
    pub(crate) judge: Judge,
    /// What is sent to each peer just after the fault.
    pub(crate) sent_bytes: usize,
}

/// Who listens for beats.
#[derive(Clone, Copy)]
pub(crate) enum Judge {
    Nobody,
    Fixed(FixedMisses),
    Phi(PhiConfig),
}

impl Layer {
    const BARE: Layer = Layer {
        name: "",
        keepalive: false,
        user_timeout: false,
        judge: Judge::Nobody,
        sent_bytes: 0,
    };

    pub(crate) fn hears_beats(&self) -> bool {
        !matches!(self.judge, Judge::Nobody)
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            shards: 1,
            keepalive: self.keepalive.then_some(KEEPALIVE),
            user_timeout_ms: self.user_timeout.then_some(USER_TIMEOUT_MS),
            write_bytes_max: 2 << 20,
            ..Options::default()
        }
    }
}

pub(crate) fn all() -> Vec<Layer> {
    let tcp = [
        (false, false, 0, "no option, idle"),
        (false, false, 1 << 10, "no option, 1 KiB sent"),
        (true, false, 0, "keepalive, idle"),
        (true, false, 1 << 10, "keepalive, 1 KiB sent"),
        (false, true, 0, "user timeout, idle"),
        (false, true, 1 << 10, "user timeout, 1 KiB sent"),
        (false, true, 1 << 20, "user timeout, 1 MiB sent"),
        (true, true, 0, "keepalive and user timeout, idle"),
        (
            true,
            true,
            1 << 10,
            "keepalive and user timeout, 1 KiB sent",
        ),
    ];
    let tcp = tcp.map(|(keepalive, user_timeout, sent_bytes, name)| Layer {
        name,
        keepalive,
        user_timeout,
        sent_bytes,
        ..Layer::BARE
    });
    // As the gateway sets it, with the window of 20.
    let phi = |window| {
        Judge::Phi(PhiConfig {
            window,
            std_min_ms: GRACE_MS as f32 / 16.0,
            ..PhiConfig::new(BEAT_MS)
        })
    };
    let fixed = |misses| {
        Judge::Fixed(FixedMisses {
            misses,
            ..FixedMisses::new(BEAT_MS, GRACE_MS)
        })
    };
    let beats = [
        (fixed(1), "beats, one miss"),
        (fixed(3), "beats, three misses"),
        (phi(20), "beats, phi 8, window 20"),
        (phi(5), "beats, phi 8, window 5"),
    ];
    let beats = beats.map(|(judge, name)| Layer {
        name,
        judge,
        ..Layer::BARE
    });
    tcp.into_iter().chain(beats).collect()
}
