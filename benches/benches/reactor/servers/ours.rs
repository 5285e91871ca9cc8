//! On conn-reactor, with its default options but for one shard.

use conn_reactor::{CloseReason, Handler, Io, Opened, Options, Reactor, TimerKey, Token};

use super::{Result, announce};

struct Echo;

impl Handler for Echo {
    type Conn = ();
    type Timer = ();
    type Message = ();

    fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<()> {
        Some(())
    }

    #[inline]
    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        match io.write(token, input) {
            Err(error) if error.is_full() => {
                io.pause_reading(token);
                0
            }
            _ => input.len(),
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

pub(super) fn serve() -> Result<()> {
    let options = Options {
        shards: 1,
        ..Options::default()
    };
    let reactor = Reactor::builder(options)
        .listen(([127, 0, 0, 1], 0).into())
        .build(|_| Echo)?;
    announce(reactor.local_addrs()[0]);
    reactor.run()?.join()?;
    Ok(())
}
