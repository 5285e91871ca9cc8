//! Where a store is served: on a thread of its own, or on the caller's runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::unbounded_channel;

use crate::error::Error;
use crate::options::Options;
use crate::remote::{Counters, Engine, Jobs, Limits, Remote, Served};

/// A store that is yet to be connected.
pub(crate) struct Service {
    thread: &'static str,
    options: Options,
    limits: Limits,
    counters: Arc<Counters>,
    connecting: Connecting,
}

/// Connects and checks the server.
type Connecting = Boxed<Result<Serve, Error>>;
/// Serves the queue until it ends.
type Serve = Box<dyn FnOnce(Jobs) -> Boxed<()> + Send>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service {
    /// `thread`: the name of the thread, if it gets one.
    pub(crate) fn new<E: Engine, F>(
        thread: &'static str,
        options: Options,
        limits: Limits,
        connect: impl FnOnce(Arc<Counters>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<E, Error>> + Send + 'static,
    {
        let counters = Arc::<Counters>::default();
        let connecting = connect(Arc::clone(&counters));
        let connecting = async move {
            let engine = connecting.await?;
            let serve: Serve = Box::new(|jobs| Box::pin(engine.serve(jobs)));
            Ok(serve)
        };
        Self {
            thread,
            options,
            limits,
            counters,
            connecting: Box::pin(connecting),
        }
    }

    /// Connects and serves on a new thread, whose runtime is its own. Blocks until it is connected.
    pub(crate) fn on_thread(self) -> Result<Arc<Remote>, Error> {
        let (queue, receiver) = unbounded_channel();
        let (report, reported) = mpsc::channel();
        let (connecting, counters) = (self.connecting, Arc::clone(&self.counters));
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("start the store's runtime", error))?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name(self.thread.to_owned());
        let thread = thread.spawn(move || {
            let serve = match runtime.block_on(connecting) {
                Ok(serve) => serve,
                Err(error) => return drop(report.send(Err(error))),
            };
            drop(report.send(Ok(())));
            runtime.block_on(serve(Jobs::new(receiver, counters)));
        });
        let thread = thread.map_err(|error| Error::io("start the store's thread", error))?;
        // A client library that panics, as rustls does without a provider, has said why on the way.
        let reported = reported
            .recv()
            .map_err(|panicked| Error::unavailable("the store's thread panicked", panicked))?;
        reported?;
        let served = Served {
            queue,
            runtime: handle,
            thread: Mutex::new(Some(thread)),
        };
        Remote::new(self.options, self.limits, self.counters, served)
    }

    /// Connects and serves on the runtime that polls this.
    pub(crate) async fn on_runtime(self) -> Result<Arc<Remote>, Error> {
        let runtime = Handle::current();
        // In a task, because of what panics: see `on_thread`.
        let connected = runtime.spawn(self.connecting).await;
        let serve =
            connected.map_err(|ended| Error::unavailable("the connecting task ended", ended))??;
        let (queue, receiver) = unbounded_channel();
        runtime.spawn(serve(Jobs::new(receiver, Arc::clone(&self.counters))));
        let served = Served {
            queue,
            runtime,
            thread: Mutex::new(None),
        };
        Remote::new(self.options, self.limits, self.counters, served)
    }
}
