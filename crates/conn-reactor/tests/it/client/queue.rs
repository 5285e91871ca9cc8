//! The outbound queue against a wire that may be cut anywhere, and a peer that keeps what it has received.

use std::collections::VecDeque;

use conn_reactor::client::{Arrival, Inbound, Outbound, OutboundLimits};
use proptest::prelude::*;

const LIMITS: OutboundLimits = OutboundLimits {
    frames_max: 12,
    bytes_max: 200,
};

#[derive(Clone, Debug)]
enum Step {
    /// The caller has a frame, of this many bytes beside its number.
    Push(usize),
    /// The connection takes up to so many frames.
    Send(usize),
    /// So many frames reach the peer.
    Arrive(usize),
    /// The peer acknowledges what it has.
    Acknowledge,
    /// So many acknowledgements reach the client.
    Hear(usize),
    /// The connection is gone, with everything on the wire.
    Cut,
    /// Another one stands. The peer may say what it has.
    Reconnect { welcome: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40usize).prop_map(Step::Push),
        4 => (1..5usize).prop_map(Step::Send),
        4 => (1..5usize).prop_map(Step::Arrive),
        2 => Just(Step::Acknowledge),
        2 => (1..3usize).prop_map(Step::Hear),
        1 => Just(Step::Cut),
        2 => any::<bool>().prop_map(|welcome| Step::Reconnect { welcome }),
    ]
}

#[derive(Default)]
struct World {
    outbound: Outbound,
    connected: bool,
    /// Frames under way to the peer, and acknowledgements under way to the client.
    wire: VecDeque<Vec<u8>>,
    answers: VecDeque<u64>,
    inbound: Inbound,
    /// What the peer acted on, and what the caller pushed.
    received: Vec<Vec<u8>>,
    pushed: Vec<Vec<u8>>,
}

impl World {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push(bytes) => self.push(bytes),
            Step::Send(most) => {
                if self.connected {
                    let frames: Vec<_> = self
                        .outbound
                        .to_send()
                        .take(most)
                        .map(<[u8]>::to_vec)
                        .collect();
                    self.outbound.sent(frames.len());
                    self.wire.extend(frames);
                }
            }
            Step::Arrive(count) => {
                for frame in self.wire.drain(..count.min(self.wire.len())) {
                    let number = u64::from_le_bytes(frame[..8].try_into().unwrap());
                    match self.inbound.arrive(number) {
                        Arrival::New => self.received.push(frame),
                        Arrival::Repeat => {}
                        Arrival::Gap => panic!("{number} behind {}", self.inbound.through()),
                    }
                }
            }
            Step::Acknowledge => {
                if self.connected {
                    self.answers.push_back(self.inbound.through());
                }
            }
            Step::Hear(count) => {
                for through in self.answers.drain(..count.min(self.answers.len())) {
                    self.outbound.acknowledge(through).unwrap();
                }
            }
            Step::Cut => {
                self.connected = false;
                self.wire.clear();
                self.answers.clear();
                self.outbound.rewind();
            }
            Step::Reconnect { welcome } => {
                if !self.connected {
                    self.connected = true;
                    if welcome {
                        self.outbound.acknowledge(self.inbound.through()).unwrap();
                    }
                }
            }
        }
        self.check();
    }

    fn push(&mut self, bytes: usize) {
        let mut frame = self.outbound.next_number().to_le_bytes().to_vec();
        frame.resize(8 + bytes, self.pushed.len() as u8);
        let fits = self.outbound.len() < LIMITS.frames_max
            && self.outbound.bytes() + frame.len() <= LIMITS.bytes_max;
        match self.outbound.push(LIMITS, &frame) {
            Ok(number) => {
                assert!(fits);
                self.pushed.push(frame);
                assert_eq!(number, self.pushed.len() as u64);
            }
            Err(error) => assert!(error.is_full() && !fits),
        }
    }

    fn check(&self) {
        assert_eq!(self.received, self.pushed[..self.received.len()]);
        let kept = &self.pushed[self.pushed.len() - self.outbound.len()..];
        assert_eq!(
            self.outbound.bytes(),
            kept.iter().map(Vec::len).sum::<usize>()
        );
        assert!(
            self.received.len() + self.outbound.len() >= self.pushed.len(),
            "what the peer has not is kept"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_is_lost_doubled_or_moved(steps in prop::collection::vec(step(), 0..200)) {
        let mut world = World::default();
        for step in &steps {
            world.step(step);
        }
        // In the end the network is quiet for once.
        let quiet = [
            Step::Reconnect { welcome: false },
            Step::Send(usize::MAX),
            Step::Arrive(usize::MAX),
            Step::Acknowledge,
            Step::Hear(usize::MAX),
        ];
        for step in &quiet {
            world.step(step);
        }
        prop_assert_eq!(&world.received, &world.pushed);
        prop_assert!(world.outbound.is_empty());
    }
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_an_error() {
    let mut outbound = Outbound::new();
    outbound.push(LIMITS, b"1").unwrap();
    outbound.push(LIMITS, b"2").unwrap();
    assert!(outbound.acknowledge(1).unwrap_err().is_ahead());
    outbound.sent(1);
    outbound.rewind();
    assert!(outbound.acknowledge(2).unwrap_err().is_ahead());
    assert_eq!(
        outbound.acknowledge(1),
        Ok(1),
        "an earlier connection was given it"
    );
    assert_eq!(outbound.acknowledge(1), Ok(0));
    assert_eq!(outbound.to_send().collect::<Vec<_>>(), [b"2"]);
}

#[test]
fn a_full_queue_changes_nothing_and_an_acknowledgement_makes_room() {
    let mut outbound = Outbound::new();
    let limits = OutboundLimits {
        frames_max: 2,
        bytes_max: 10,
    };
    assert!(outbound.push(limits, &[0; 11]).unwrap_err().is_full());
    outbound.push(limits, &[0; 4]).unwrap();
    assert!(outbound.push(limits, &[0; 7]).unwrap_err().is_full());
    outbound.push(limits, &[0; 6]).unwrap();
    assert!(outbound.push(limits, b"").unwrap_err().is_full());
    assert_eq!(
        (outbound.len(), outbound.bytes(), outbound.next_number()),
        (2, 10, 3)
    );
    outbound.sent(2);
    outbound.acknowledge(1).unwrap();
    assert_eq!(outbound.push(limits, b"abcd"), Ok(3));
}
