//! Suspicion: a device whose beats are later than its own rhythm explains, before its deadline has passed.
//!
//! A suspect is still online. The timer that watches for the deadline stops at the moment of suspicion on its way
//! there, so that suspects are counted without looking at every device.

use conn_reactor::Token;

use super::{CATCH_UP_MS, Phase, ShardHandler, ShardIo, Timer};
use crate::proto::FrontDoor;

impl<P: FrontDoor> ShardHandler<P> {
    /// Sets the timer of an open connection, whose device is gone at `gone_ms`. While this shard `is_behind` nobody
    /// becomes a suspect.
    pub(super) fn watch(
        &mut self,
        io: &mut ShardIo<P>,
        token: Token,
        gone_ms: u64,
        is_behind: bool,
    ) {
        let now_ms = io.now_ms();
        let Some(conn) = io.state(token) else { return };
        let Phase::Open(open) = &mut conn.phase else {
            return;
        };
        let in_ms = if open.suspect {
            u64::MAX
        } else if is_behind {
            CATCH_UP_MS
        } else if let Some(in_ms) = open.device.pulse.doubt_in_ms(self.shared.now_ms()) {
            in_ms
        } else {
            open.suspect = true;
            self.shared.counters.suspected();
            u64::MAX
        };
        let timer = io.set_timer(
            gone_ms.min(now_ms.saturating_add(in_ms)),
            Timer::Deadline(token),
        );
        if let Some(conn) = io.state(token) {
            conn.timer = timer;
        }
    }

    /// A beat came: its device is no suspect any more.
    pub(super) fn trust(&mut self, io: &mut ShardIo<P>, token: Token) {
        let now_ms = io.now_ms();
        let Some(conn) = io.state(token) else { return };
        let timer = conn.timer;
        match &mut conn.phase {
            Phase::Open(open) if open.suspect => open.suspect = false,
            _ => return,
        }
        self.shared.counters.trusted_again();
        // The timer stands at a deadline that has moved; it looks at the device again at once.
        io.reschedule_timer(timer, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::Native;
    use crate::server::pulse::Pulse;
    use crate::server::shard::Conn;

    /// A million of each are kept. Delta beats take 40 bytes of the first.
    #[test]
    fn what_an_idle_connection_keeps_stays_small() {
        assert_eq!((size_of::<Conn<Native>>(), size_of::<Pulse>()), (72, 40));
    }
}
