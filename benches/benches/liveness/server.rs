//! The server of one row: conn-reactor with that row's options, and heartbeat-codec's detectors.

use std::sync::mpsc;
use std::time::Instant;

use conn_reactor::{CloseReason, Handler, Io, Opened, Reactor, Running, TimerKey, Token};
use heartbeat_codec::detector::PhiAccrual;
use heartbeat_codec::fixed::{Decoded, FixedBeat};

use super::Result;
use super::layers::{Judge, Layer};

/// A connection was closed.
pub(crate) struct Noticed {
    /// The server.
    pub(crate) row: usize,
    /// What the peer had said will happen to it.
    pub(crate) fault: u8,
    pub(crate) at: Instant,
    /// The reason, in a few words.
    pub(crate) how: String,
}

pub(crate) struct Server {
    running: Running<Watch>,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(row: usize, layer: &Layer, report: mpsc::Sender<Noticed>) -> Result<Self> {
        let reactor = Reactor::builder(layer.options())
            .listen(([0, 0, 0, 0], 0).into())
            .build(|_| Watch {
                row,
                judge: layer.judge,
                sent: vec![b'.'; layer.sent_bytes],
                report: report.clone(),
            })?;
        let port = reactor.local_addrs()[0].port();
        let running = reactor.run()?;
        Ok(Server { running, port })
    }

    /// Sends the row's bytes to every peer.
    pub(crate) fn send_bytes(&self) {
        for sender in self.running.senders() {
            // One message in an empty mailbox always fits.
            let _ = sender.try_send(SendBytes);
        }
    }

    pub(crate) fn end(self) -> Result<()> {
        self.running.stop();
        self.running.join()?;
        Ok(())
    }
}

struct SendBytes;

struct Watch {
    row: usize,
    judge: Judge,
    sent: Vec<u8>,
    report: mpsc::Sender<Noticed>,
}

struct Peer {
    fault: Option<u8>,
    /// What phi knows of its rhythm.
    rhythm: Option<PhiAccrual>,
    /// Fires when it has been silent for too long.
    deadline: Option<TimerKey>,
}

impl Watch {
    /// A beat, or the hello, has come: the time from which silence means that the peer is gone.
    fn heard(&self, peer: &mut Peer, now_ms: u64) -> Option<u64> {
        match &self.judge {
            Judge::Nobody => None,
            Judge::Fixed(rule) => Some(rule.deadline_ms(now_ms)),
            Judge::Phi(config) => {
                let rhythm = match &mut peer.rhythm {
                    Some(rhythm) => {
                        rhythm.heartbeat(config, now_ms);
                        rhythm
                    }
                    unknown => unknown.insert(PhiAccrual::new(config, now_ms)),
                };
                Some(rhythm.deadline_ms(config))
            }
        }
    }
}

impl Handler for Watch {
    type Conn = Peer;
    type Timer = Token;
    type Message = SendBytes;

    fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<Peer> {
        Some(Peer {
            fault: None,
            rhythm: None,
            deadline: None,
        })
    }

    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        let now_ms = io.now_ms();
        let Some(peer) = io.state(token) else {
            return input.len();
        };
        let mut read = 0;
        if peer.fault.is_none() {
            peer.fault = Some(input[0]);
            read = 1;
        }
        let mut gone_ms = None;
        while let Ok(Decoded::Beat { consumed, .. }) = FixedBeat::decode(&input[read..]) {
            gone_ms = self.heard(peer, now_ms);
            read += consumed;
        }
        if let Some(gone_ms) = gone_ms {
            let before = peer.deadline.take();
            if let Some(before) = before {
                io.cancel_timer(before);
            }
            let deadline = io.set_timer(gone_ms, token);
            if let Some(peer) = io.state(token) {
                peer.deadline = Some(deadline);
            }
        }
        read
    }

    fn closed(&mut self, io: &mut Io<Self>, _: Token, peer: Peer, reason: CloseReason) {
        if let Some(deadline) = peer.deadline {
            io.cancel_timer(deadline);
        }
        let how = match reason {
            CloseReason::Shutdown => return,
            CloseReason::PeerClosed => "FIN".to_owned(),
            CloseReason::Reset => "RST".to_owned(),
            CloseReason::TimedOut => "ETIMEDOUT".to_owned(),
            CloseReason::Local(_) => "silence".to_owned(),
            other => other.to_string(),
        };
        let (row, at) = (self.row, Instant::now());
        let fault = peer.fault.unwrap_or(u8::MAX);
        // Nobody listens any more once the table is printed.
        let _ = self.report.send(Noticed {
            row,
            fault,
            at,
            how,
        });
    }

    fn connect_failed(&mut self, _: &mut Io<Self>, _: u64, _: std::io::Error) {}

    fn timer(&mut self, io: &mut Io<Self>, _: TimerKey, token: Token) {
        io.close(token, CloseReason::Local(0));
    }

    fn message(&mut self, io: &mut Io<Self>, _: SendBytes) {
        if self.sent.is_empty() {
            return;
        }
        for token in io.tokens() {
            // One that has gone already needs none.
            let _ = io.write(token, &self.sent);
        }
    }
}
