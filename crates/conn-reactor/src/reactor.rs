//! All shards of a reactor: how they are built, started and awaited.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use polling::Poller;

use crate::mailbox::Mailbox;
use crate::platform::Waker;
use crate::{Handler, Options, Sender, Shard, sys};

/// A reactor that is bound to its addresses and not running yet: see the example of the [crate](crate).
pub struct Reactor<H: Handler> {
    shards: Vec<Shard<H>>,
    local_addrs: Vec<SocketAddr>,
}

/// Makes a [`Reactor`]; from [`Reactor::builder`].
pub struct Builder<H: Handler> {
    options: Options,
    addrs: Vec<SocketAddr>,
    handler: PhantomData<fn() -> H>,
}

impl<H: Handler> Reactor<H> {
    /// Starts building a reactor.
    #[must_use]
    pub fn builder(options: Options) -> Builder<H> {
        Builder {
            options,
            addrs: Vec::new(),
            handler: PhantomData,
        }
    }

    /// The addresses that are listened on, in the order of [`Builder::listen`], with the real port where 0 was asked for.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// A sender per shard, in the order of the shards.
    #[must_use]
    pub fn senders(&self) -> Vec<Sender<H::Message>> {
        self.shards.iter().map(Shard::sender).collect()
    }

    /// The shards, to be run by the caller.
    #[must_use]
    pub fn into_shards(self) -> Vec<Shard<H>> {
        self.shards
    }

    /// Starts a thread per shard, named `mainstay-shard-0` and so on.
    ///
    /// # Errors
    /// A thread could not be started; the shards that run already are stopped then.
    pub fn run(self) -> io::Result<Running<H>> {
        let mut running = Running {
            senders: self.senders(),
            threads: Vec::new(),
        };
        for shard in self.shards {
            let builder =
                std::thread::Builder::new().name(format!("mainstay-shard-{}", shard.index()));
            match builder.spawn(move || shard.run_on_this_thread()) {
                Ok(thread) => running.threads.push(thread),
                Err(error) => {
                    running.stop();
                    let _ = running.join();
                    return Err(error);
                }
            }
        }
        Ok(running)
    }
}

impl<H: Handler> Builder<H> {
    /// Listens on an address; port 0 takes a free one. Called again, listens on more.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.addrs.push(addr);
        self
    }

    /// Binds and listens on the addresses and makes the shards; `handler` is called with each shard's index. Peers
    /// can connect from here on and are accepted when the reactor runs.
    ///
    /// # Errors
    /// An address is in use or not of this machine, descriptors have run out, or an option is 0 that must not be.
    pub fn build(self, mut handler: impl FnMut(usize) -> H) -> io::Result<Reactor<H>> {
        let options = self.options;
        options.check()?;
        let listening = self
            .addrs
            .iter()
            .map(|addr| sys::listen(*addr, &options))
            .collect::<io::Result<Vec<_>>>()?;
        let epoch = Instant::now();
        let mut shards = Vec::with_capacity(options.shards);
        for index in 0..options.shards {
            let poller = Arc::new(Poller::new()?);
            let waker = Waker::new(&poller)?;
            shards.push(Shard {
                index,
                handler: handler(index),
                epoch,
                listeners: listening
                    .iter()
                    .map(|address| Arc::clone(&address.sockets[index]))
                    .collect(),
                poller,
                mailbox: Mailbox::new(waker, options.mailbox_max),
                options: options.clone(),
            });
        }
        Ok(Reactor {
            shards,
            local_addrs: listening.iter().map(|address| address.local_addr).collect(),
        })
    }
}

/// A running reactor. Dropping it leaves the shards running.
pub struct Running<H: Handler> {
    senders: Vec<Sender<H::Message>>,
    threads: Vec<JoinHandle<io::Result<H>>>,
}

impl<H: Handler> Running<H> {
    /// A sender per shard, in the order of the shards.
    #[must_use]
    pub fn senders(&self) -> &[Sender<H::Message>] {
        &self.senders
    }

    /// Asks every shard to stop, closing what is open.
    pub fn stop(&self) {
        for sender in &self.senders {
            sender.stop();
        }
    }

    /// Waits until every shard has stopped and returns their handlers, in order.
    ///
    /// # Errors
    /// The first shard's error, or that a handler panicked. All shards have ended in either case.
    pub fn join(self) -> io::Result<Vec<H>> {
        let ends: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        let ended = |(index, end): (usize, std::thread::Result<io::Result<H>>)| match end {
            Ok(result) => result,
            Err(panic) => Err(io::Error::other(format!(
                "shard {index} panicked: {}",
                panic_text(panic.as_ref())
            ))),
        };
        ends.into_iter().enumerate().map(ended).collect()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no message",
    }
}

impl<H: Handler> fmt::Debug for Reactor<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("shards", &self.shards)
            .field("local_addrs", &self.local_addrs)
            .finish()
    }
}

impl<H: Handler> fmt::Debug for Builder<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .field("addrs", &self.addrs)
            .finish()
    }
}

impl<H: Handler> fmt::Debug for Running<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("shards", &self.threads.len())
            .finish_non_exhaustive()
    }
}
