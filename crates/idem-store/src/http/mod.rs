//! `Idempotency-Key` for any HTTP service: a tower layer (feature `tower`).
//!
//! Follows draft-ietf-httpapi-idempotency-key-header: a request with a key runs once; the same
//! request again gets the stored response; while the first one runs, 409; with another payload, 422;
//! without a key where one is required, 400.
//!
//! ```
//! use axum::{Router, routing::post};
//! use idem_store::http::IdempotencyLayer;
//! use idem_store::{Options, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! let store = Store::open(dir.path(), Options::new())?;
//! let app: Router = Router::new()
//!     .route("/payments", post(async || "charged"))
//!     .layer(IdempotencyLayer::new(store));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | | status | `code` |
//! |---|---|---|
//! | no key where one is required | 400 | `idempotency-key-missing` |
//! | key empty, longer than 255, not visible ASCII, or there twice | 400 | `idempotency-key-invalid` |
//! | body too large; unreadable; late | 413; 400; 408 | `payload-too-large`; `body-unreadable`; `request-timeout` |
//! | the same key, still running | 409 | `in-progress` |
//! | the same key, its handler was interrupted | 409 | `in-doubt` |
//! | the same key, other payload | 422 | `key-reused` |
//! | the store errs: nothing runs | 503 | `store-failed` |
//! | the store errs after the handler ran: in doubt from now on | 503 | `not-recorded` |
//! | the handler panicked, or its response broke off: in doubt | 500 | `interrupted` |
//! | the response is larger than `response_bytes_max`: kept as this, by the rule for its own status | 500 | `response-too-large` |
//!
//! Errors are `application/problem+json`. A replay has the first response's status, its chosen headers
//! and its body, and `Idempotency-Replayed: true`.
//!
//! The claim is declared, durably, before the handler starts. The handler runs on a task of its own
//! (tokio) while its lease is extended: a client that goes away cancels nothing, and its retry gets
//! the response. A handler that panics, or a process that dies, leaves the key in doubt: it is not
//! repeated, unless a [`reconcile`](IdempotencyLayer::reconcile) hook finds out that nothing happened.

mod config;
mod problem;
mod run;
mod stored_response;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Full};
use tower_layer::Layer;
use tower_service::Service;

pub use config::{Claim, Doubt, Keep, NotHappened, Reconciled};

use crate::Fingerprint;
use crate::Store;
use config::Config;
use run::{Admission, Guarded};

/// Makes a service idempotent by the `Idempotency-Key` of its requests. See the [module](self).
#[derive(Clone)]
pub struct IdempotencyLayer {
    config: Arc<Config>,
}

impl IdempotencyLayer {
    /// Guards POST and PATCH and requires keys, with the defaults that the methods tell.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            config: Arc::new(Config::new(store)),
        }
    }

    /// Whether a guarded request without a key is refused (the default) or passes unguarded.
    #[must_use]
    pub fn required(self, required: bool) -> Self {
        self.with(|config| config.required = required)
    }

    /// Which requests are guarded; the others pass as they are. Default: POST and PATCH.
    #[must_use]
    pub fn guards(self, guards: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|config| config.guards = Arc::new(guards))
    }

    /// Whose keys these are: requests of different scopes never meet, whatever their keys. Default:
    /// method and path. Add the user where users share a path, from what authentication left in the
    /// extensions, and the host where several are served.
    ///
    /// The path is what the service behind the layer sees: a router that strips a prefix (axum's
    /// `nest`) has done so before a layer inside the nest is asked, and `/a/pay` and `/b/pay` are one scope
    /// there. Layer outside of nests, or take the whole path from the extensions (axum's
    /// `OriginalUri`).
    #[must_use]
    pub fn scope(self, scope: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.scope = Arc::new(scope))
    }

    /// What makes two requests the same. Default: method, path, query, and the body by its canonical
    /// form if it is JSON, else by its bytes. See [`Omit`](crate::Omit) to leave fields out.
    #[must_use]
    pub fn fingerprint(
        self,
        fingerprint: impl Fn(&Parts, &Bytes) -> Fingerprint + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.fingerprint = Arc::new(fingerprint))
    }

    /// What becomes of the key by the status of the handler's response. Default: every response is
    /// stored, errors too, because the handler had begun. A handler can say [`NotHappened`] instead.
    #[must_use]
    pub fn keep(self, keep: impl Fn(StatusCode) -> Keep + Send + Sync + 'static) -> Self {
        self.with(|config| config.keep = Arc::new(keep))
    }

    /// Finds out what became of a request whose handler was interrupted: asks the outside system.
    /// Default: nobody does, and such requests get 409 `in-doubt` until the key is forgotten or
    /// completed by hand.
    #[must_use]
    pub fn reconcile<F>(self, reconcile: impl Fn(Doubt) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reconciled> + Send + 'static,
    {
        self.with(|config| {
            config.reconcile = Some(Arc::new(move |doubt| Box::pin(reconcile(doubt))));
        })
    }

    /// Headers of a response that are stored and replayed. Default: Content-Type, -Language and
    /// -Encoding, Location, ETag, Last-Modified, Link. Think twice about Set-Cookie.
    #[must_use]
    pub fn headers_kept(self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|config| config.headers_kept = headers.into_iter().collect())
    }

    /// Largest body of a guarded request. Default 1 MiB.
    #[must_use]
    pub fn request_bytes_max(self, bytes: usize) -> Self {
        self.with(|config| config.request_bytes_max = bytes)
    }

    /// Largest body of a response. Default 256 KiB; with its headers it must fit the store's
    /// `outcome_bytes_max`.
    #[must_use]
    pub fn response_bytes_max(self, bytes: usize) -> Self {
        self.with(|config| config.response_bytes_max = bytes)
    }

    /// How long the body of a request may take. Default 30 s.
    #[must_use]
    pub fn read_timeout_ms(self, ms: u64) -> Self {
        self.with(|config| config.read_timeout_ms = ms)
    }

    /// The lease of a running handler. Default 30 s; it is extended while the handler runs, so it is
    /// how long a process that died blocks the keys of its requests (shared stores only).
    #[must_use]
    pub fn lease_ms(self, ms: u64) -> Self {
        self.with(|config| config.lease_ms = ms)
    }

    /// How long responses replay. Default 24 hours.
    #[must_use]
    pub fn retain_ms(self, ms: u64) -> Self {
        self.with(|config| config.retain_ms = ms)
    }

    /// How long a repeated request waits for the first one before it gets 409. Default 0.
    #[must_use]
    pub fn wait_ms(self, ms: u64) -> Self {
        self.with(|config| config.wait_ms = ms)
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotency<S>;

    fn layer(&self, inner: S) -> Idempotency<S> {
        Idempotency {
            inner,
            config: Arc::clone(&self.config),
        }
    }
}

/// A service behind an [`IdempotencyLayer`]. Needs a tokio runtime.
#[derive(Clone)]
pub struct Idempotency<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> fmt::Debug for Idempotency<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").finish_non_exhaustive()
    }
}

type Answer<R> = Response<Either<Full<Bytes>, R>>;

impl<S, B, R> Service<Request<B>> for Idempotency<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: fmt::Display + Send,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Send,
{
    type Response = Answer<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was polled is ready; its clone need not be.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let config = Arc::clone(&self.config);
        let (parts, body) = request.into_parts();
        match run::admit(&config, &parts) {
            Admission::Pass => {
                let response = inner.call(Request::from_parts(parts, body));
                Box::pin(async move { Ok(response.await?.map(Either::Right)) })
            }
            Admission::Refuse(problem) => {
                let response = problem.into_response();
                Box::pin(async move { Ok(own(response)) })
            }
            Admission::Guard(key) => Box::pin(async move {
                let body = match run::read_request(&config, body).await {
                    Ok(body) => body,
                    Err(problem) => return Ok(own(problem.into_response())),
                };
                let guarded = Guarded {
                    config,
                    key,
                    parts,
                    body,
                };
                match tokio::spawn(guarded.run(inner)).await {
                    Ok(response) => response.map(own),
                    // It panicked, or the runtime ends: its permit was dropped, the key is in doubt.
                    Err(_) => Ok(own(problem::INTERRUPTED.into_response())),
                }
            }),
        }
    }
}

fn own<R>(response: Response<Bytes>) -> Answer<R> {
    response.map(|body| Either::Left(Full::new(body)))
}
