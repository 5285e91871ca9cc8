//! What a job's run is told, and the code that runs.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use circuit::TraceId;

use crate::cancel::CancelToken;
use crate::schedule::FireTime;

/// What a run is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Firing {
    /// The job's name.
    pub job: Arc<str>,
    /// The nominal time, Unix milliseconds: before jitter, and however late it is.
    pub fire_ms: u64,
    /// The job's shard.
    pub shard: u32,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// One for all tries of the firing.
    pub trace: TraceId,
    /// Names this try in the trace; never 0.
    pub span: u64,
    /// Says when to stop.
    pub cancel: CancelToken,
}

impl Firing {
    /// The W3C `traceparent` header under which to call others.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-01", self.trace, self.span)
    }

    /// The nominal time as text, RFC 3339 UTC with milliseconds.
    #[must_use]
    pub fn fire_time(&self) -> FireTime {
        FireTime(self.fire_ms)
    }
}

/// Why a try failed. Anything that is an error, and text, turns into one.
pub type JobError = Box<dyn std::error::Error + Send + Sync>;

type Blocking = dyn Fn(&Firing) -> Result<(), JobError> + Send + Sync;
pub(crate) type Made = Pin<Box<dyn Future<Output = Result<(), JobError>> + Send>>;
pub(crate) type Making = dyn Fn(Firing) -> Made + Send + Sync;

/// The code of a job.
#[derive(Clone)]
pub(crate) enum Task {
    /// Runs on a worker.
    Blocking(Arc<Blocking>),
    /// Runs on a runtime; a worker only starts it.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "the only runtime"))]
    Future {
        make: Arc<Making>,
        #[cfg(feature = "tokio")]
        runtime: tokio::runtime::Handle,
    },
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocking(_) => "Blocking",
            Self::Future { .. } => "Future",
        })
    }
}
