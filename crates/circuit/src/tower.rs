//! A [tower](https://docs.rs/tower) layer around a [`Breaker`].

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::breaker::{Breaker, CallError, Outcome};
use crate::config::Config;
use crate::permit::{Permit, Rejected};
use crate::trace::TraceId;

/// Puts a [`Breaker`] in front of a service; all clones and all services of one layer share it.
///
/// An answer is a success and an error is a failure, unless [`classify`](Self::classify) says otherwise. A future
/// that is dropped before it is ready counts as no call: a probe goes back. The clock is [`Instant`].
///
/// ```
/// use circuit::{BreakerLayer, CallError, Config, Outcome};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut config = Config::essay();
/// config.consecutive_failures = 1;
/// // An answer of 500 or more is a failure too.
/// let layer = BreakerLayer::new(config).classify(|answer: &Result<u16, &str>| match answer {
///     Ok(status) if *status < 500 => Outcome::Success,
///     _ => Outcome::Failure,
/// });
/// let service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(|_: ()| async { Ok::<u16, &str>(503) }));
/// assert_eq!(service.clone().oneshot(()).await, Ok(503));
/// assert!(matches!(service.oneshot(()).await, Err(CallError::Rejected(_))));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = Unclassified, T = Untraced> {
    shared: Arc<Shared>,
    classify: C,
    trace: T,
}

/// Errors are failures: what a [`BreakerLayer`] does by itself.
#[derive(Clone, Copy, Debug)]
pub struct Unclassified(());

/// Requests have no trace: what a [`BreakerLayer`] does by itself.
#[derive(Clone, Copy, Debug)]
pub struct Untraced(());

/// Decides how a call ended.
pub trait Classify<Response, Error>: Clone {
    /// Whether the callee worked.
    fn outcome(&self, result: &Result<Response, Error>) -> Outcome;
}

impl<Response, Error> Classify<Response, Error> for Unclassified {
    fn outcome(&self, result: &Result<Response, Error>) -> Outcome {
        Outcome::from(result)
    }
}

impl<Response, Error, F> Classify<Response, Error> for F
where
    F: Fn(&Result<Response, Error>) -> Outcome + Clone,
{
    fn outcome(&self, result: &Result<Response, Error>) -> Outcome {
        self(result)
    }
}

/// Finds the trace of a request.
pub trait TraceOf<Request>: Clone {
    /// Its trace id, from a `traceparent` header for example.
    fn trace(&self, request: &Request) -> Option<TraceId>;
}

impl<Request> TraceOf<Request> for Untraced {
    fn trace(&self, _request: &Request) -> Option<TraceId> {
        None
    }
}

impl<Request, F: Fn(&Request) -> Option<TraceId> + Clone> TraceOf<Request> for F {
    fn trace(&self, request: &Request) -> Option<TraceId> {
        self(request)
    }
}

#[derive(Debug)]
struct Shared {
    breaker: Mutex<Breaker>,
    since: Instant,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    /// A panic of an observer leaves nothing half done.
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerLayer {
    /// A layer with a new breaker.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::around(Breaker::new(config))
    }

    /// A layer around a breaker with observers, for example. Its clock begins now at 0.
    #[must_use]
    pub fn around(breaker: Breaker) -> Self {
        let shared = Shared {
            breaker: Mutex::new(breaker),
            since: Instant::now(),
        };
        Self {
            shared: Arc::new(shared),
            classify: Unclassified(()),
            trace: Untraced(()),
        }
    }
}

impl<C, T> BreakerLayer<C, T> {
    /// Decides by `classify` how calls ended.
    #[must_use]
    pub fn classify<F>(self, classify: F) -> BreakerLayer<F, T> {
        BreakerLayer {
            shared: self.shared,
            classify,
            trace: self.trace,
        }
    }

    /// Finds the traces of requests by `trace`; see [`Breaker::try_call_traced`].
    #[must_use]
    pub fn traced<F>(self, trace: F) -> BreakerLayer<C, F> {
        BreakerLayer {
            shared: self.shared,
            classify: self.classify,
            trace,
        }
    }

    /// Looks at the breaker or changes it by hand; the second argument is the time on its clock. Calls wait
    /// meanwhile.
    pub fn with_breaker<R>(&self, use_it: impl FnOnce(&mut Breaker, u64) -> R) -> R {
        let now_ms = self.shared.now_ms();
        use_it(&mut self.shared.breaker(), now_ms)
    }
}

impl<S, C: Clone, T: Clone> Layer<S> for BreakerLayer<C, T> {
    type Service = BreakerService<S, C, T>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind a breaker; made by [`BreakerLayer`].
#[derive(Clone, Debug)]
pub struct BreakerService<S, C = Unclassified, T = Untraced> {
    inner: S,
    layer: BreakerLayer<C, T>,
}

impl<S, C, T, Request> Service<Request> for BreakerService<S, C, T>
where
    S: Service<Request>,
    C: Classify<S::Response, S::Error>,
    T: TraceOf<Request>,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = BreakerFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(CallError::Failed)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let shared = &self.layer.shared;
        let trace = self.layer.trace.trace(&request);
        let asked = shared.breaker().try_call_traced(shared.now_ms(), trace);
        match asked {
            Err(rejected) => BreakerFuture {
                call: None,
                rejected: Some(rejected),
                out: None,
            },
            Ok(permit) => BreakerFuture {
                call: Some(self.inner.call(request)),
                rejected: None,
                out: Some(Out {
                    permit,
                    classify: self.layer.classify.clone(),
                    shared: Arc::clone(shared),
                }),
            },
        }
    }
}

pin_project! {
    /// The call of a [`BreakerService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct BreakerFuture<F, C> {
        #[pin]
        call: Option<F>,
        rejected: Option<Rejected>,
        out: Option<Out<C>>,
    }
}

/// A call that is out.
struct Out<C> {
    permit: Permit,
    classify: C,
    shared: Arc<Shared>,
}

impl<F, C, Response, Error> Future for BreakerFuture<F, C>
where
    F: Future<Output = Result<Response, Error>>,
    C: Classify<Response, Error>,
{
    type Output = Result<Response, CallError<Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(rejected) = this.rejected.take() {
            return Poll::Ready(Err(CallError::Rejected(rejected)));
        }
        let call = this.call.as_pin_mut();
        let call = call.expect("a future is not polled after it was ready");
        let result = ready!(call.poll(cx));
        if let Some(out) = this.out.take() {
            let outcome = out.classify.outcome(&result);
            let now_ms = out.shared.now_ms();
            out.shared.breaker().record(out.permit, outcome, now_ms);
        }
        Poll::Ready(result.map_err(CallError::Failed))
    }
}
