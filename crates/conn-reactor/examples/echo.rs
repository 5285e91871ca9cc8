//! `cargo run --example echo -- 127.0.0.1:7777`: sends every byte back.

use conn_reactor::{CloseReason, Handler, Io, Opened, Options, Reactor, TimerKey, Token};

struct Echo;

impl Handler for Echo {
    type Conn = ();
    type Timer = ();
    type Message = ();

    fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<()> {
        Some(())
    }

    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        match io.write(token, input) {
            Ok(()) => input.len(),
            // The peer does not read its echo: take nothing more from it until it does.
            Err(error) if error.is_full() => {
                io.pause_reading(token);
                0
            }
            Err(_) => input.len(),
        }
    }

    fn drained(&mut self, io: &mut Io<Self>, token: Token) {
        io.resume_reading(token);
    }

    fn closed(&mut self, _: &mut Io<Self>, _: Token, (): (), _: CloseReason) {}
    fn connect_failed(&mut self, _: &mut Io<Self>, _: u64, _: std::io::Error) {}
    fn timer(&mut self, _: &mut Io<Self>, _: TimerKey, (): ()) {}
    fn message(&mut self, _: &mut Io<Self>, (): ()) {}
}

fn main() -> std::io::Result<()> {
    let addr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7777".into());
    let addr = addr.parse().map_err(std::io::Error::other)?;
    let reactor = Reactor::builder(Options::default())
        .listen(addr)
        .build(|_shard| Echo)?;
    reactor.run()?.join().map(drop)
}
