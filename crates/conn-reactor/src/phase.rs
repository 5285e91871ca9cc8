//! The life of a connection as a table: which of its two directions still go on, and what follows from what happens.
//!
//! ```text
//! Connecting -> Open -> PeerFinished ---------> Closing -> (closed: the slot is empty, its token stale)
//!                 |          |                     ^
//!                 |          v                     |
//!                 |      LastWords ----------------|
//!                 |          ^                     |
//!                 `-> Draining -> Finished --------'
//! ```
//!
//! Every phase but `Connecting` and `Closing` can also be closed at once.

/// Where in its life a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// An own connect is under way.
    Connecting,
    /// Both directions are open.
    Open,
    /// Half-closed by the peer: its FIN was read. What the handler writes now still goes out.
    PeerFinished,
    /// This side ends: what is queued is being sent, then FIN. Input is thrown away.
    Draining,
    /// Half-closed by this side: everything was sent and FIN said. The peer's is awaited, input thrown away.
    Finished,
    /// Draining, and the peer's FIN was read: closes with the last byte.
    LastWords,
    /// Closes when the running callback has returned.
    Closing,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The own connect is done.
    Connected,
    /// The peer's FIN was read.
    PeerFinished,
    /// The caller, or a half-close of the peer, ends this side.
    Drain,
    /// Nothing is queued (any more).
    Flushed,
    /// The caller closes, or the socket failed, or time is up.
    Close,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Nothing,
    /// Tell the handler that the peer finished.
    TellPeerFinished,
    /// Say FIN.
    SayFin,
    /// Put the connection on the list of those to close.
    Close,
}

impl Phase {
    /// The whole table. What is not in it changes nothing.
    #[inline]
    pub(crate) const fn after(self, signal: Signal) -> (Self, Act) {
        match (self, signal) {
            (Self::Connecting, Signal::Connected) => (Self::Open, Act::Nothing),
            (Self::Open, Signal::PeerFinished) => (Self::PeerFinished, Act::TellPeerFinished),
            (Self::Open, Signal::Drain) => (Self::Draining, Act::Nothing),
            (Self::PeerFinished, Signal::Drain) => (Self::LastWords, Act::Nothing),
            (Self::Draining, Signal::PeerFinished) => (Self::LastWords, Act::Nothing),
            (Self::Draining, Signal::Flushed) => (Self::Finished, Act::SayFin),
            (Self::Finished, Signal::PeerFinished)
            | (Self::PeerFinished | Self::LastWords, Signal::Flushed) => {
                (Self::Closing, Act::Close)
            }
            // A connect ends by its own means: nobody was told its token.
            (Self::Connecting | Self::Closing, Signal::Close) => (self, Act::Nothing),
            (_, Signal::Close) => (Self::Closing, Act::Close),
            (same, _) => (same, Act::Nothing),
        }
    }

    /// Whether the caller may write.
    #[inline]
    pub(crate) const fn takes_output(self) -> bool {
        matches!(self, Self::Open | Self::PeerFinished)
    }

    /// Whether the socket is read.
    #[inline]
    pub(crate) const fn reads(self) -> bool {
        !matches!(self, Self::Connecting | Self::Closing)
    }

    /// Whether what is read goes to the handler.
    #[inline]
    pub(crate) const fn presents_input(self) -> bool {
        matches!(self, Self::Open | Self::PeerFinished)
    }

    /// Whether this side is ending, or has ended and waits for the peer.
    #[inline]
    pub(crate) const fn is_draining(self) -> bool {
        matches!(self, Self::Draining | Self::Finished | Self::LastWords)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A connection as someone would note it who knows no table: one fact after the other.
    #[derive(Default)]
    struct Naive {
        connected: bool,
        peer_finished: bool,
        draining: bool,
        queued: usize,
        fins: usize,
        told: usize,
        closes: usize,
    }

    impl Naive {
        /// What the reactor would do about `signal`, without a table.
        fn note(&mut self, signal: Signal) -> Act {
            if self.closes > 0 {
                return Act::Nothing;
            }
            let live = self.connected;
            match signal {
                Signal::Connected => self.connected = true,
                Signal::PeerFinished if live && !self.peer_finished => {
                    self.peer_finished = true;
                    if !self.draining {
                        self.told += 1;
                        return Act::TellPeerFinished;
                    }
                }
                Signal::Drain if live => self.draining = true,
                Signal::Close if live => {
                    self.closes += 1;
                    return Act::Close;
                }
                _ => {}
            }
            let is_flush = matches!(signal, Signal::Flushed | Signal::PeerFinished);
            if live && self.queued == 0 && is_flush {
                if self.peer_finished && (self.draining || signal == Signal::Flushed) {
                    self.closes += 1;
                    return Act::Close;
                }
                if self.draining && self.fins == 0 {
                    self.fins += 1;
                    return Act::SayFin;
                }
            }
            Act::Nothing
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize),
        Send(usize),
        Signal(Signal),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (1usize..5).prop_map(Step::Write),
            4 => (1usize..5).prop_map(Step::Send),
            1 => Just(Step::Signal(Signal::Connected)),
            2 => Just(Step::Signal(Signal::PeerFinished)),
            2 => Just(Step::Signal(Signal::Drain)),
            1 => Just(Step::Signal(Signal::Close)),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// The reactor's way to use the table, against the naive notes: a queue that may hold bytes, `Flushed` as soon
        /// as it is empty and somebody asks.
        #[test]
        fn the_table_says_what_the_facts_say(steps in steps()) {
            let (mut phase, mut naive) = (Phase::Connecting, Naive::default());
            for step in steps {
                let signal = match step {
                    Step::Write(count) => {
                        let may = naive.connected && !naive.draining && naive.closes == 0;
                        prop_assert_eq!(phase.takes_output(), may);
                        naive.queued += if may { count } else { 0 };
                        continue;
                    }
                    Step::Send(count) => {
                        naive.queued = naive.queued.saturating_sub(count);
                        // An open connection with an empty queue asks for nothing.
                        if naive.queued > 0 || !(naive.draining || naive.peer_finished) {
                            continue;
                        }
                        Signal::Flushed
                    }
                    Step::Signal(signal) => signal,
                };
                let mut signals = vec![signal];
                if signal == Signal::Drain && naive.queued == 0 {
                    signals.push(Signal::Flushed);
                }
                for signal in signals {
                    let (next, act) = phase.after(signal);
                    prop_assert_eq!(act, naive.note(signal), "{:?} at {:?}", phase, signal);
                    phase = next;
                }
                prop_assert_eq!(phase == Phase::Closing, naive.closes > 0);
                prop_assert!(naive.fins <= 1 && naive.told <= 1 && naive.closes <= 1);
                if phase != Phase::Closing {
                    prop_assert_eq!(phase.is_draining(), naive.draining);
                    prop_assert_eq!(phase == Phase::Finished, naive.fins == 1);
                    prop_assert_eq!(phase.presents_input(), naive.connected && !naive.draining);
                    prop_assert_eq!(phase.reads(), naive.connected);
                }
            }
        }
    }

    #[test]
    fn a_close_ends_every_phase_once() {
        for phase in [
            Phase::Open,
            Phase::PeerFinished,
            Phase::Draining,
            Phase::Finished,
            Phase::LastWords,
        ] {
            assert_eq!(phase.after(Signal::Close), (Phase::Closing, Act::Close));
        }
        for signal in [
            Signal::Connected,
            Signal::PeerFinished,
            Signal::Drain,
            Signal::Flushed,
            Signal::Close,
        ] {
            assert_eq!(
                Phase::Closing.after(signal),
                (Phase::Closing, Act::Nothing),
                "{signal:?}"
            );
        }
    }
}
