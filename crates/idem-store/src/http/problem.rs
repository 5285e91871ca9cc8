//! Answers that are errors: `application/problem+json` (RFC 9457) with a stable `code`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// One kind of error answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: &'static str,
    retry_after_s: Option<u32>,
}

impl Problem {
    const fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: &'static str,
    ) -> Self {
        Self {
            status,
            code,
            title,
            detail,
            retry_after_s: None,
        }
    }

    const fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let quoted = |text: &str| canon_ser::json::to_string(text).expect("text is JSON");
        let body = format!(
            r#"{{"type":"about:blank","title":{},"status":{},"code":{},"detail":{}}}"#,
            quoted(self.title),
            self.status.as_u16(),
            quoted(self.code),
            quoted(self.detail),
        );
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

pub(super) const KEY_MISSING: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "idempotency-key-missing",
    "The request has no Idempotency-Key",
    "send a header such as `Idempotency-Key: order-4711`, a new one for each new request",
);

pub(super) const fn key_invalid(why: &'static str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "idempotency-key-invalid",
        "The Idempotency-Key cannot be used",
        why,
    )
}

pub(super) const BODY_TOO_LARGE: Problem = Problem::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "payload-too-large",
    "The request's body is too large",
    "nothing was done; send less",
);

pub(super) const BODY_UNREADABLE: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "body-unreadable",
    "The request's body could not be read",
    "nothing was done; send it again",
);

pub(super) const BODY_LATE: Problem = Problem::new(
    StatusCode::REQUEST_TIMEOUT,
    "request-timeout",
    "The request's body did not arrive in time",
    "nothing was done; send it again",
);

pub(super) const KEY_REUSED: Problem = Problem::new(
    StatusCode::UNPROCESSABLE_ENTITY,
    "key-reused",
    "The key belongs to another request",
    "this Idempotency-Key was used with another payload; use a new one",
);

pub(super) const IN_PROGRESS: Problem = Problem::new(
    StatusCode::CONFLICT,
    "in-progress",
    "The request is still being processed",
    "an earlier request with this key has no result yet; ask again with the same key",
)
.retry_after_s(1);

pub(super) const IN_DOUBT: Problem = Problem::new(
    StatusCode::CONFLICT,
    "in-doubt",
    "Whether the request was carried out is not known",
    "an earlier request with this key was interrupted; it is not repeated until somebody has looked",
)
.retry_after_s(5);

pub(super) const STORE_FAILED: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "store-failed",
    "Requests cannot be told apart now",
    "the store of idempotency keys refused; nothing was done; ask again with the same key",
)
.retry_after_s(5);

pub(super) const NOT_RECORDED: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "not-recorded",
    "The request was carried out and could not be recorded",
    "the store of idempotency keys failed after it; with the same key it is in doubt and not repeated",
);

pub(super) const INTERRUPTED: Problem = Problem::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "interrupted",
    "The request was interrupted",
    "how far it came is not known; with the same key it is in doubt and not repeated",
);

pub(super) const RESPONSE_TOO_LARGE: Problem = Problem::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "response-too-large",
    "The response is too large to keep",
    "the service has to raise the limit or answer with less",
);

pub(super) const RESPONSE_UNREADABLE: Problem = Problem::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "stored-response-unreadable",
    "The request was carried out and its stored response cannot be read",
    "it was stored by another or a newer program",
);
