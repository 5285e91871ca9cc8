//! One guarded request, from its header to its answer.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower_service::Service;

use super::config::{Claim, Config, Doubt, Keep, NotHappened, Reconciled};
use super::problem::{self, Problem};
use super::stored_response;
use crate::key_header::read_key_header;
use crate::permit::{Begin, Begun, Failure, Permit, Waited};
use crate::{Error, Fingerprint};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How much of the scope is kept with a claim, for whoever lists what is in doubt.
const MEMO_BYTES_MAX: usize = 200;

/// Whether and how a request is guarded.
pub(super) enum Admission {
    Pass,
    Refuse(Problem),
    Guard(String),
}

pub(super) fn admit(config: &Config, parts: &Parts) -> Admission {
    if !(config.guards)(parts) {
        return Admission::Pass;
    }
    let values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    match read_key_header(values.map(HeaderValue::as_bytes)) {
        Ok(Some(key)) => Admission::Guard(key),
        Err(why) => Admission::Refuse(problem::key_invalid(why.reason())),
        Ok(None) if config.required => Admission::Refuse(problem::KEY_MISSING),
        Ok(None) => Admission::Pass,
    }
}

/// The whole body, within the limits of size and time.
pub(super) async fn read_request<B>(config: &Config, body: B) -> Result<Bytes, Problem>
where
    B: Body,
    B::Error: Display,
{
    let max = config.request_bytes_max;
    // Content-Length says it before a byte of the body is there.
    if body.size_hint().lower() > max as u64 {
        return Err(problem::BODY_TOO_LARGE);
    }
    let limit = Duration::from_millis(config.read_timeout_ms);
    match tokio::time::timeout(limit, read_all(body, max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(problem::BODY_TOO_LARGE),
        Ok(Err(_)) => Err(problem::BODY_UNREADABLE),
        Err(_) => Err(problem::BODY_LATE),
    }
}

/// `None`: more than `max` bytes. Trailers are left out.
async fn read_all<B: Body>(body: B, max: usize) -> Result<Option<Bytes>, B::Error> {
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await.transpose()? {
        if let Ok(data) = frame.into_data() {
            use bytes::Buf;
            if data.remaining() > max - whole.len() {
                return Ok(None);
            }
            let mut data = data;
            while data.has_remaining() {
                let chunk = data.chunk();
                let taken = chunk.len();
                whole.extend_from_slice(chunk);
                data.advance(taken);
            }
        }
    }
    Ok(Some(whole.freeze()))
}

/// A request whose key and body are known.
pub(super) struct Guarded {
    pub(super) config: Arc<Config>,
    pub(super) key: String,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

/// What is asked of the store for it.
struct Asked {
    store_key: Vec<u8>,
    scope: String,
    fingerprint: Fingerprint,
}

impl Guarded {
    /// Runs on a task of its own: a client that goes away cancels nothing.
    pub(super) async fn run<S, B, R>(self, inner: S) -> Result<Response<Bytes>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        B: From<Bytes>,
        R: Body,
    {
        let asked = self.ask();
        let patience = Duration::from_millis(self.config.wait_ms);
        let deadline = Instant::now() + patience;
        loop {
            let begun = match self.begin(&asked).await {
                Ok(begun) => begun,
                Err(error) => return Ok(refuse(&error)),
            };
            match begun {
                Begun::Fresh(permit) => return self.handle(inner, permit).await,
                Begun::Replay(stored) => return Ok(replay(stored.into_outcome())),
                Begun::Conflict => return Ok(problem::KEY_REUSED.into_response()),
                Begun::InFlight { until_ms } => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    match self.wait(&asked, until_ms, left).await {
                        Ok(true) => {}
                        Ok(false) => return Ok(problem::IN_PROGRESS.into_response()),
                        Err(error) => return Ok(refuse(&error)),
                    }
                }
                Begun::InDoubt(permit) => match self.reconcile(&asked, permit).await {
                    // It is free: begin anew.
                    Ok(None) => {}
                    Ok(Some(response)) => return Ok(response),
                    Err(error) => return Ok(refuse(&error)),
                },
            }
        }
    }

    fn ask(&self) -> Asked {
        let scope = (self.config.scope)(&self.parts);
        // A digest, so that the key is bounded and no scope can be mistaken for another.
        let digest = format!("{:?}", Fingerprint::of_bytes(scope.as_bytes()));
        let store_key = format!("http:{}:{}", &digest[..32], self.key);
        Asked {
            store_key: store_key.into_bytes(),
            scope,
            fingerprint: (self.config.fingerprint)(&self.parts, &self.body),
        }
    }

    async fn begin(&self, asked: &Asked) -> Result<Begun, Error> {
        let memo = &asked.scope[..asked.scope.floor_char_boundary(MEMO_BYTES_MAX)];
        let lease_ms = self.config.lease_ms;
        let begin = Begin::new(&asked.store_key, asked.fingerprint, lease_ms, unix_ms());
        let begun = self.config.store.begin(&begin.declare(memo.as_bytes()));
        begun.await
    }

    /// Whether it is worth while to begin again.
    async fn wait(&self, asked: &Asked, until_ms: u64, left: Duration) -> Result<bool, Error> {
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if left_ms == 0 {
            return Ok(false);
        }
        let store = &self.config.store;
        let wait = |timeout_ms| store.wait(&asked.store_key, timeout_ms);
        if store.is_shared() {
            // It sees by itself that a lease runs out, on the clock that counts.
            return Ok(wait(left_ms).await? == Waited::Ended);
        }
        // A lease that runs out ends nothing by itself.
        let lease_left_ms = until_ms.saturating_sub(unix_ms()).max(1);
        let waited = wait(left_ms.min(lease_left_ms)).await?;
        Ok(waited == Waited::Ended || lease_left_ms <= left_ms)
    }

    async fn handle<S, B, R>(
        self,
        mut inner: S,
        permit: Permit,
    ) -> Result<Response<Bytes>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        B: From<Bytes>,
        R: Body,
    {
        let mut request = Request::from_parts(self.parts, B::from(self.body));
        request.extensions_mut().insert(Claim {
            key: self.key,
            token: permit.token(),
        });
        let config = self.config;
        let work = async {
            // An error of the service leaves the claim to the drop of its permit: in doubt.
            let (parts, body) = inner.call(request).await?.into_parts();
            let body = read_all(body, config.response_bytes_max).await;
            Ok((parts, body))
        };
        let (parts, body) = hold(&config, &permit, work).await?;
        // What the handler did says its own answer, not the one that may take its place.
        let keep = match parts.extensions.get::<NotHappened>() {
            Some(NotHappened) => Keep::Release,
            None => (config.keep)(parts.status),
        };
        let response = match body {
            Ok(Some(body)) => Response::from_parts(parts, body),
            Ok(None) => {
                tracing::error!("a response is larger than response_bytes_max and was not kept");
                problem::RESPONSE_TOO_LARGE.into_response()
            }
            // The permit is dropped: in doubt.
            Err(_) => return Ok(problem::INTERRUPTED.into_response()),
        };
        Ok(settle(&config, permit, response, keep).await)
    }

    /// `None`: it had not happened, and the key is free.
    async fn reconcile(
        &self,
        asked: &Asked,
        permit: Permit,
    ) -> Result<Option<Response<Bytes>>, Error> {
        let config = &self.config;
        let Some(hook) = &config.reconcile else {
            return Ok(Some(problem::IN_DOUBT.into_response()));
        };
        let doubt = Doubt {
            key: self.key.clone(),
            scope: asked.scope.clone(),
            fingerprint: asked.fingerprint,
            token: permit.token(),
        };
        match hold(config, &permit, hook(doubt)).await {
            Reconciled::Happened(response) => {
                Ok(Some(settle(config, permit, response, Keep::Replay).await))
            }
            Reconciled::NotHappened => {
                let failed = config.store.fail(permit, Failure::NotHappened, unix_ms());
                failed.await?;
                Ok(None)
            }
            Reconciled::Unknown => Ok(Some(problem::IN_DOUBT.into_response())),
        }
    }
}

/// Does the work while the lease is kept from running out.
async fn hold<T>(config: &Config, permit: &Permit, work: impl Future<Output = T>) -> T {
    let (mut work, mut extending) = (pin!(work), pin!(keep_extending(config, permit)));
    // The work goes on while an extension waits for the store.
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => match extending.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => Poll::Pending,
        },
    })
    .await
}

async fn keep_extending(config: &Config, permit: &Permit) -> Infallible {
    let period = Duration::from_millis((config.lease_ms / 3).max(1));
    loop {
        tokio::time::sleep(period).await;
        let extended = config.store.extend(permit, config.lease_ms, unix_ms());
        if let Err(error) = extended.await {
            // What was begun goes on; whether it can be recorded shows at its end.
            tracing::warn!(%error, "the lease of a request could not be extended");
        }
    }
}

/// Ends the claim and answers when that is durable.
async fn settle(
    config: &Config,
    permit: Permit,
    response: Response<Bytes>,
    keep: Keep,
) -> Response<Bytes> {
    let store = &config.store;
    let settled = match keep {
        Keep::Replay => {
            let outcome = stored_response::encode(&response, &config.headers_kept);
            let completed = store.complete(permit, &outcome, config.retain_ms, unix_ms());
            completed.await
        }
        Keep::Release => store.fail(permit, Failure::NotHappened, unix_ms()).await,
        Keep::InDoubt => {
            drop(permit);
            Ok(())
        }
    };
    match settled {
        Ok(()) => response,
        Err(error) => {
            tracing::error!(%error, "a request was carried out and could not be recorded");
            problem::NOT_RECORDED.into_response()
        }
    }
}

fn replay(outcome: Vec<u8>) -> Response<Bytes> {
    let Some(mut response) = stored_response::decode(outcome) else {
        tracing::error!("a stored response cannot be read");
        return problem::RESPONSE_UNREADABLE.into_response();
    };
    let replayed = HeaderValue::from_static("true");
    let headers = response.headers_mut();
    headers.insert(IDEMPOTENCY_REPLAYED, replayed);
    response
}

/// Fails closed: without the store nothing runs.
fn refuse(error: &Error) -> Response<Bytes> {
    tracing::error!(%error, "the store refused a request");
    problem::STORE_FAILED.into_response()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
