//! `cargo run --features tokio --example tokio -- 127.0.0.1:7777`: a server whose connections are a reactor's and whose
//! answers are made by async code, on one thread. Each line is answered a little later, in capitals.

use std::time::Duration;

use conn_reactor::tokio::{Outlet, outlet, run};
use conn_reactor::{
    CloseReason, Handler, Io, Opened, Options, Reactor, SendError, TimerKey, Token,
};

struct Lines {
    asked: Outlet<(Token, Vec<u8>)>,
    /// Those that are not read from until the async side has room.
    paused: Vec<Token>,
}

enum ToShard {
    Answer(Token, Vec<u8>),
    Room,
}

impl Handler for Lines {
    type Conn = ();
    type Timer = ();
    type Message = ToShard;

    fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<()> {
        Some(())
    }

    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        let mut consumed = 0;
        for line in input.split_inclusive(|byte| *byte == b'\n') {
            if !line.ends_with(b"\n") {
                break;
            }
            match self.asked.try_send((token, line.to_vec())) {
                Ok(()) => consumed += line.len(),
                Err(SendError::Full(_)) => {
                    io.pause_reading(token);
                    self.paused.push(token);
                    break;
                }
                Err(SendError::Stopped(_)) => {
                    io.stop();
                    break;
                }
            }
        }
        consumed
    }

    fn message(&mut self, io: &mut Io<Self>, message: ToShard) {
        match message {
            ToShard::Answer(token, line) => {
                // A stale token is no matter: the asker has left.
                if io.write(token, &line).is_err_and(|error| error.is_full()) {
                    io.close(token, CloseReason::Local(1));
                }
            }
            ToShard::Room => {
                for token in self.paused.drain(..) {
                    io.resume_reading(token);
                }
            }
        }
    }

    fn closed(&mut self, _: &mut Io<Self>, _: Token, (): (), _: CloseReason) {}
    fn connect_failed(&mut self, _: &mut Io<Self>, _: u64, _: std::io::Error) {}
    fn timer(&mut self, _: &mut Io<Self>, _: TimerKey, (): ()) {}
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7777".into());
    let addr = addr.parse().map_err(std::io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let (asked, questions) = outlet(64);
        let mut asked = Some(asked);
        let options = Options {
            shards: 1,
            ..Options::default()
        };
        let reactor = Reactor::builder(options).listen(addr).build(|_| Lines {
            asked: asked.take().expect("one shard"),
            paused: Vec::new(),
        })?;
        let shard = reactor.senders().remove(0);
        let mut questions = questions.telling(shard.clone(), || ToShard::Room);
        let serving = tokio::task::spawn_local(run(reactor.into_shards().remove(0)));
        while let Some((token, line)) = questions.recv().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let answer = ToShard::Answer(token, line.to_ascii_uppercase());
            if shard.send(answer).await.is_err() {
                break;
            }
        }
        serving.await.map_err(std::io::Error::other)?.map(drop)
    })
}
