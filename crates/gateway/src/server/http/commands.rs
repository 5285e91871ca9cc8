//! `POST /v1/devices/{id}/commands`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use circuit::TraceId;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{Problem, Shared};
use crate::proto::PAYLOAD_BYTES_MAX;
use crate::server::command::Answer;
use crate::server::dispatch::{Command, UnknownDevice, dispatch};
use crate::server::drain::Phase;
use crate::server::outcome::{Outcome, store_key};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const TIMEOUT_MS: HeaderName = HeaderName::from_static("mainstay-timeout-ms");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

pub(crate) async fn submit(
    State(shared): State<Arc<Shared>>,
    device: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let accepted = match device_id(device) {
        Ok(device) => accept(&shared, &device, request).await,
        Err(problem) => Err(problem),
    };
    let response = accepted.map_or_else(IntoResponse::into_response, respond);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    shared.counters.command_us.record(micros);
    response
}

async fn accept(
    shared: &Arc<Shared>,
    device_id: &str,
    request: Request,
) -> Result<Answer, Problem> {
    let told = |answer: Answer| {
        shared.counters.command(&answer);
        Ok(answer)
    };
    let is_serving = || shared.phase() == Phase::Serving;
    if !is_serving() {
        return told(Answer::Draining);
    }
    let idempotency_key = idempotency_key(request.headers())?;
    let timeout_ms = timeout_ms(request.headers(), shared)?;
    let trace = trace_id(request.headers());
    let payload = read_body(shared, request.into_body()).await?;
    let fingerprint = fingerprint(&payload)?;
    let key = store_key_of(device_id, &idempotency_key)?;
    if !is_serving() {
        // A drain began while the body came.
        return told(Answer::Draining);
    }
    let command = Command {
        key,
        fingerprint,
        payload: payload.into(),
        timeout_ms,
        trace,
    };
    let answered = dispatch(shared, device_id, command).await;
    answered.map_err(|UnknownDevice| unknown_device(device_id))
}

/// The id in a path; one that is not UTF-8 names no device.
pub(super) fn device_id(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(id) = path.map_err(|rejection| {
        bad_request(
            "path-invalid",
            "The path cannot be read",
            rejection.body_text(),
        )
    })?;
    Ok(id)
}

pub(super) fn unknown_device(id: &str) -> Problem {
    let detail = format!("no device has ever said HELLO as {id:?}");
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-device",
        "There is no such device",
        detail,
    )
}

fn store_key_of(device_id: &str, idempotency_key: &str) -> Result<Vec<u8>, Problem> {
    match crate::proto::DeviceId::parse(device_id.as_bytes()) {
        Ok(id) => Ok(store_key(id.as_str(), idempotency_key)),
        Err(_) => Err(unknown_device(device_id)),
    }
}

fn bad_request(code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, title, detail)
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match idem_store::read_key_header(values.map(HeaderValue::as_bytes)) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(bad_request(
            "idempotency-key-missing",
            "The request has no Idempotency-Key",
            "send a header such as `Idempotency-Key: order-4711`, a new one for each new command",
        )),
        Err(error) => Err(bad_request(
            "idempotency-key-invalid",
            "The Idempotency-Key cannot be used",
            error.reason(),
        )),
    }
}

fn timeout_ms(headers: &HeaderMap, shared: &Shared) -> Result<u64, Problem> {
    let limits = &shared.config.commands;
    let mut values = headers.get_all(TIMEOUT_MS).iter();
    let Some(value) = values.next() else {
        return Ok(limits.timeout_ms);
    };
    // Of two nobody can tell which one is meant.
    let only = values.next().is_none().then_some(value);
    let parsed = only.and_then(|value| value.to_str().ok()?.parse().ok());
    parsed
        .filter(|ms| (1..=limits.timeout_ms_max).contains(ms))
        .ok_or_else(|| {
            bad_request(
                "timeout-invalid",
                "The Mainstay-Timeout-Ms cannot be used",
                format!(
                    "there is one, a whole number of milliseconds from 1 to {}",
                    limits.timeout_ms_max
                ),
            )
        })
}

/// The trace that the caller works for; a header that cannot be read is ignored, as the standard asks for.
fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    TraceId::from_traceparent(headers.get(TRACEPARENT)?.to_str().ok()?)
}

async fn read_body(shared: &Shared, body: Body) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload-too-large",
            "The payload is too large",
            format!("a payload has at most {PAYLOAD_BYTES_MAX} bytes"),
        )
    };
    // Content-Length says it before a byte of the body is there.
    if body.size_hint().lower() > PAYLOAD_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let limit = Duration::from_millis(shared.config.http_limits.read_timeout_ms);
    let collected = Limited::new(body, PAYLOAD_BYTES_MAX).collect();
    match tokio::time::timeout(limit, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(bad_request(
            "body-unreadable",
            "The request's body could not be read",
            error.to_string(),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "The request's body did not arrive in time",
            format!("a body has to arrive within {} ms", limit.as_millis()),
        )),
    }
}

/// The digest of what the payload means: key order and number spelling do not matter.
fn fingerprint(payload: &[u8]) -> Result<idem_store::Fingerprint, Problem> {
    idem_store::Fingerprint::of_json(payload).map_err(|error| {
        bad_request("not-json", "The payload is not JSON", error.to_string())
            .at(error.line(), error.column())
    })
}

fn respond(answer: Answer) -> Response {
    let refusal = match answer {
        Answer::Done(outcome) => return respond_outcome(outcome),
        Answer::Replayed(outcome) => {
            let mut response = respond_outcome(outcome);
            response
                .headers_mut()
                .insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
            return response;
        }
        Answer::InProgress | Answer::OtherPayload | Answer::Open => of_the_key(&answer),
        Answer::StoreBusy | Answer::StoreFull | Answer::EndNotStored | Answer::StoreFailed(_) => {
            of_the_store(&answer)
        }
        _ => of_the_device(&answer),
    };
    let (status, code, title, detail, retry_after_s) = refusal;
    let problem = Problem::new(status, code, title, detail);
    match retry_after_s {
        Some(seconds) => problem.retry_after_s(seconds).into_response(),
        None => problem.into_response(),
    }
}

/// Status, code, title, detail, and after how many seconds to ask again.
type Refusal = (
    StatusCode,
    &'static str,
    &'static str,
    &'static str,
    Option<u32>,
);

fn of_the_key(answer: &Answer) -> Refusal {
    match answer {
        Answer::InProgress => (
            StatusCode::CONFLICT,
            "in-progress",
            "The command still runs",
            "an earlier request with this key has no result yet; ask again with the same key",
            Some(1),
        ),
        Answer::OtherPayload => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "key-reused",
            "The key belongs to another payload",
            "this Idempotency-Key was used for a different command of this device; use a new one",
            None,
        ),
        _ => (
            StatusCode::CONFLICT,
            "in-doubt",
            "Whether the command was executed is not known yet",
            "its device has not answered; ask again when the device is back",
            Some(5),
        ),
    }
}

fn of_the_device(answer: &Answer) -> Refusal {
    match answer {
        Answer::QueueFull => (
            StatusCode::TOO_MANY_REQUESTS,
            "queue-full",
            "The device has too many commands waiting",
            "nothing was sent and the key is free; try again when some have ended",
            Some(1),
        ),
        Answer::Draining => (
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "The gateway is stopping",
            "ask again with the same key, here after the restart or at another gateway",
            Some(5),
        ),
        Answer::NotHere => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not-here",
            "The device is not connected to this gateway",
            "nothing was claimed or sent; ask again with the same key, here or at the gateway that \
             has the device",
            Some(1),
        ),
        Answer::BreakerOpen { retry_after_s } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "breaker-open",
            "Too many commands to this group of devices were not answered",
            "nothing was claimed or sent; ask again later with the same key; see /v1/groups",
            Some(*retry_after_s),
        ),
        Answer::TimedOutUnsent => (
            StatusCode::GATEWAY_TIMEOUT,
            "timed-out-unsent",
            "The device did not come in time",
            "nothing was sent and the key is free",
            None,
        ),
        _ => (
            StatusCode::GATEWAY_TIMEOUT,
            "timed-out-sent",
            "The device did not answer in time",
            "the command keeps running; ask again with the same key to hear its result",
            None,
        ),
    }
}

fn of_the_store(answer: &Answer) -> Refusal {
    match answer {
        Answer::StoreBusy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "store-busy",
            "The gateway's store does not keep up",
            "nothing was claimed or sent; ask again",
            Some(1),
        ),
        Answer::StoreFull => (
            StatusCode::SERVICE_UNAVAILABLE,
            "store-full",
            "The gateway's store is full",
            "nothing was claimed or sent; stored answers still replay; make room for the store",
            Some(5),
        ),
        Answer::EndNotStored => (
            StatusCode::SERVICE_UNAVAILABLE,
            "store-full",
            "The gateway's store is full",
            "how the command ended is stored when there is room; make room for the store, and ask \
             again with the same key",
            Some(5),
        ),
        Answer::StoreFailed(error) if error.is_unavailable() => {
            tracing::warn!(%error, "the store did not answer");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "The gateway's store does not answer",
                "what became of the command is recorded there; ask again with the same key",
                Some(5),
            )
        }
        _ => {
            if let Answer::StoreFailed(error) = answer {
                tracing::error!(%error, "the store refused a command");
            }
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "store-failed",
                "The gateway's store failed",
                "whether the command ran is recorded as far as the store allowed; see the gateway's log",
                None,
            )
        }
    }
}

fn respond_outcome(outcome: Outcome) -> Response {
    let in_doubt = |detail: &str| {
        let title = "Whether the command was executed cannot be known";
        Problem::new(StatusCode::CONFLICT, "in-doubt", title, detail).into_response()
    };
    match outcome {
        Outcome::Json(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Outcome::Opaque(body) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
        }
        Outcome::DeviceForgot => in_doubt(
            "the device lost its memory while the command was out; look at the device, then use a \
             new key if it has to run again",
        ),
        Outcome::Interrupted => in_doubt(
            "the device was interrupted inside the command; look at the device, then use a new key \
             if it has to run again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_ignore_order_and_spelling() {
        let print = |text: &str| fingerprint(text.as_bytes()).ok();
        assert_eq!(
            print(r#"{"a":1,"b":[1e2]}"#),
            print(r#" {"b":[100.0], "a":1}"#)
        );
        assert_ne!(print("9007199254740993"), print("9007199254740992"));
        assert_eq!(print("{"), None);
    }
}
