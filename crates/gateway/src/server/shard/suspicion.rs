//! Suspicion: a device whose beats are later than its own rhythm explains, before its deadline has passed.
//!
//! A suspect is still online. The timer that watches for the deadline stops at the moment of suspicion on its way
//! there, so that suspects are counted without looking at every device.

use std::sync::Arc;

use conn_reactor::Token;

use super::{CATCH_UP_MS, ShardHandler, ShardIo, Timer};
use crate::proto::{FrontDoor, GoAway, GoAwayReason, ToDevice, Welcome};
use crate::server::device::{Device, Doubt};

/// A device that was only late comes back at any time within this, not in its slot: the gateway lives and has room for it.
const GONE_RETURNS_WITHIN_MS: u32 = 2_000;

impl<P: FrontDoor> ShardHandler<P> {
    /// Sets the timer of a connection that has just been welcomed.
    pub(super) fn watch_from_welcome(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        device: &Device,
        welcome: &Welcome,
    ) {
        let now_ms = io.now_ms();
        let gone_ms = now_ms + u64::from(welcome.interval_ms) + u64::from(welcome.grace_ms);
        let look_ms = gone_ms.min(now_ms.saturating_add(self.doubt_in_ms(device)));
        if let Some(conn) = io.state(token) {
            let timer = conn.timer;
            io.reschedule_timer(timer, look_ms);
        }
    }

    /// The timer of an open connection fired, on which the last message arrived at `heard_ms`: the device is gone, or
    /// the timer is set again. While this shard `is_behind` nobody is gone or becomes a suspect.
    pub(super) fn on_silence(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        device: &Arc<Device>,
        heard_ms: u32,
        is_behind: bool,
    ) {
        let rhythm = device.rhythm();
        let (Some((interval_ms, beat_ms)), Some(_)) = (rhythm, self.session_of(io, token, device))
        else {
            // The word that it was replaced was lost in a full mailbox.
            return self.replaced(io, token);
        };
        let now_ms = io.now_ms();
        // Beats may come another way than the connection.
        let silence_ms = u64::from((now_ms as u32).wrapping_sub(heard_ms))
            .min(self.shared.now_ms().saturating_sub(beat_ms));
        let patience_ms = u64::from(interval_ms) + u64::from(self.shared.config.devices.grace_ms);
        let gone_ms = (now_ms + patience_ms).saturating_sub(silence_ms);
        let in_ms = match gone_ms.checked_sub(now_ms).filter(|in_ms| *in_ms > 0) {
            Some(in_ms) if is_behind => in_ms.min(CATCH_UP_MS),
            None if is_behind => CATCH_UP_MS,
            Some(in_ms) => in_ms.min(self.doubt_in_ms(device)),
            None => return self.gone(io, token),
        };
        let timer = io.set_timer(now_ms + in_ms, Timer::Of(token));
        if let Some(conn) = io.state(token) {
            conn.timer = timer;
        }
    }

    /// After how long the device becomes a suspect if nothing comes, counting it when that is now; for ever when it is
    /// one.
    fn doubt_in_ms(&self, device: &Device) -> u64 {
        let grace_ms = self.shared.config.devices.grace_ms;
        match device.doubt(self.shared.now_ms(), grace_ms) {
            Doubt::In(in_ms) => in_ms,
            Doubt::Now => {
                self.shared.counters.suspected();
                u64::MAX
            }
            Doubt::Since => u64::MAX,
        }
    }

    fn gone(&mut self, io: &mut ShardIo<P>, token: Token) {
        self.leave(io, token, true);
        self.shared.counters.gone();
        let words = GoAway {
            reason: GoAwayReason::Gone,
            retry_within_ms: GONE_RETURNS_WITHIN_MS,
        };
        let code = GoAwayReason::Gone.byte();
        self.part(io, token, &ToDevice::GoAway(words), code);
    }

    /// A beat came, and the device is no suspect any more or has another interval: its timer stands at a deadline that
    /// is not the next one.
    pub(super) fn look_again(&mut self, io: &mut ShardIo<P>, token: Token) {
        let now_ms = io.now_ms();
        if let Some(conn) = io.state(token) {
            let timer = conn.timer;
            io.reschedule_timer(timer, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::Native;
    use crate::server::shard::Conn;

    /// A million of them are kept. Delta beats take 32 bytes.
    #[test]
    fn what_an_idle_connection_keeps_stays_small() {
        assert_eq!(size_of::<Conn<Native>>(), 56);
    }
}
