//! What the layer is told: limits, hooks, and which requests it is for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode, header};

use crate::Fingerprint;
use crate::Store;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(super) type Guards = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;
pub(super) type Scope = Arc<dyn Fn(&Parts) -> String + Send + Sync>;
pub(super) type Digest = Arc<dyn Fn(&Parts, &Bytes) -> Fingerprint + Send + Sync>;
pub(super) type KeepRule = Arc<dyn Fn(StatusCode) -> Keep + Send + Sync>;
pub(super) type Reconcile = Arc<dyn Fn(Doubt) -> BoxFuture<Reconciled> + Send + Sync>;

/// What to do with a key when its handler has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Store the response; it replays.
    Replay,
    /// Nothing happened: the key is free, the next request runs again.
    Release,
    /// It may have happened: the key is in doubt.
    InDoubt,
}

/// A handler puts this into the extensions of its response to say that it did nothing (it was too
/// busy, it refused before it began): the key is free then, and the response is not stored.
#[derive(Clone, Copy, Debug)]
pub struct NotHappened;

/// In the extensions of every guarded request: what the handler may hand on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The Idempotency-Key.
    pub key: String,
    /// The fencing token: a resource that remembers the highest one can refuse older holders.
    pub token: u64,
}

/// A request whose handler was interrupted, for the reconcile hook.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Doubt {
    /// The Idempotency-Key.
    pub key: String,
    /// What the scope function said.
    pub scope: String,
    /// Fingerprint of the request; it equals that of the first one.
    pub fingerprint: Fingerprint,
    /// Fencing token of this look.
    pub token: u64,
}

/// What the reconcile hook found out.
#[derive(Debug)]
pub enum Reconciled {
    /// It had happened: this response is stored, sent, and replays.
    Happened(Response<Bytes>),
    /// It had not: the handler runs now.
    NotHappened,
    /// It is not known (yet): 409, and the key stays in doubt.
    Unknown,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) store: Store,
    pub(super) required: bool,
    pub(super) guards: Guards,
    pub(super) scope: Scope,
    pub(super) fingerprint: Digest,
    pub(super) keep: KeepRule,
    pub(super) reconcile: Option<Reconcile>,
    pub(super) headers_kept: Vec<HeaderName>,
    pub(super) request_bytes_max: usize,
    pub(super) response_bytes_max: usize,
    pub(super) read_timeout_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) retain_ms: u64,
    pub(super) wait_ms: u64,
}

impl Config {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            required: true,
            guards: Arc::new(|parts| matches!(parts.method, Method::POST | Method::PATCH)),
            scope: Arc::new(|parts| format!("{} {}", parts.method, parts.uri.path())),
            fingerprint: Arc::new(fingerprint_of),
            keep: Arc::new(|_| Keep::Replay),
            reconcile: None,
            headers_kept: vec![
                header::CONTENT_TYPE,
                header::CONTENT_LANGUAGE,
                header::CONTENT_ENCODING,
                header::LOCATION,
                header::ETAG,
                header::LAST_MODIFIED,
                header::LINK,
            ],
            request_bytes_max: 1 << 20,
            response_bytes_max: 256 << 10,
            read_timeout_ms: 30_000,
            lease_ms: 30_000,
            retain_ms: 86_400_000,
            wait_ms: 0,
        }
    }
}

/// What a request asks for: its method, its target, and what its body means. A body that is not
/// JSON, or says it and is not, counts as it is.
fn fingerprint_of(parts: &Parts, body: &Bytes) -> Fingerprint {
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let is_json = essence == "application/json" || essence.ends_with("+json");
    let meaning = is_json.then(|| Fingerprint::of_json(body).ok()).flatten();
    let body = meaning.unwrap_or_else(|| Fingerprint::of_bytes(body));
    let mut whole = parts.method.as_str().as_bytes().to_vec();
    whole.push(0);
    let target = parts.uri.path_and_query();
    whole.extend_from_slice(target.map_or("/", |target| target.as_str()).as_bytes());
    whole.push(0);
    whole.extend_from_slice(&body.0);
    Fingerprint::of_bytes(&whole)
}
