//! A shard as a task.

use std::io;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::task::yield_now;
use ::tokio::time::timeout;

use crate::{Handler, PollerFd, Shard, Turn};

/// Runs a shard as a task until it stops, and returns its handler. Callbacks run inside the task, so what is said of a
/// [`Handler`] holds for the whole runtime's thread: never block in them. Between two turns other tasks get theirs.
///
/// A running shard stays on its thread, so the future is for `block_on` or [`spawn_local`](::tokio::task::spawn_local),
/// on a runtime of any kind. To end it in order [stop](crate::Sender::stop) the shard: dropped before, it closes the
/// descriptors and tells the handler nothing.
///
/// ```
/// use conn_reactor::{CloseReason, Handler, Io, Opened, Options, Reactor, TimerKey, Token};
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type Conn = ();
/// #     type Timer = ();
/// #     type Message = ();
/// #     fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<()> { Some(()) }
/// #     fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
/// #         io.write(token, input).expect("a small echo");
/// #         input.len()
/// #     }
/// #     fn closed(&mut self, _: &mut Io<Self>, _: Token, _: (), _: CloseReason) {}
/// #     fn connect_failed(&mut self, _: &mut Io<Self>, _: u64, _: std::io::Error) {}
/// #     fn timer(&mut self, _: &mut Io<Self>, _: TimerKey, _: ()) {}
/// #     fn message(&mut self, _: &mut Io<Self>, _: ()) {}
/// # }
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// let tasks = tokio::task::LocalSet::new();
/// tasks.block_on(&runtime, async {
///     let options = Options { shards: 1, ..Options::default() };
///     let reactor = Reactor::builder(options).listen(([127, 0, 0, 1], 0).into()).build(|_| Echo)?;
///     let (addr, sender) = (reactor.local_addrs()[0], reactor.senders().remove(0));
///     let shard = reactor.into_shards().remove(0);
///     let shard = tokio::task::spawn_local(conn_reactor::tokio::run(shard));
///
///     let mut client = tokio::net::TcpStream::connect(addr).await?;
///     client.write_all(b"hello").await?;
///     let mut answer = [0; 5];
///     client.read_exact(&mut answer).await?;
///     assert_eq!(&answer, b"hello");
///     sender.stop();
///     shard.await??;
///     Ok(())
/// })
/// # }
/// ```
///
/// # Errors
/// The poller cannot be used or a listener not be watched.
///
/// # Panics
/// When the handler panics; outside a runtime, or in one without its drivers of I/O and time.
pub async fn run<H: Handler>(shard: Shard<H>) -> io::Result<H> {
    let mut shard = shard.into_polled()?;
    let descriptor = watch(shard.poller())?;
    loop {
        let pause = match shard.turn()? {
            Turn::Stopped => return Ok(shard.into_handler()),
            Turn::Again => {
                yield_now().await;
                continue;
            }
            Turn::Wait(pause) => pause,
        };
        // Readiness is cleared before the turn that uses it up, so no edge falls between the two.
        match pause {
            None => descriptor.readable().await?.clear_ready(),
            Some(pause) => {
                if let Ok(ready) = timeout(pause, descriptor.readable()).await {
                    ready?.clear_ready();
                }
            }
        }
    }
}

#[expect(unsafe_code, reason = "the safe way is deprecated")]
fn watch(poller: PollerFd) -> io::Result<AsyncFd<PollerFd>> {
    // SAFETY: a PollerFd owns a share of its poller, whose one descriptor stays open and the same for as long as that lives.
    Ok(unsafe { AsyncFd::register_with_interest(poller, Interest::READABLE) }?)
}
