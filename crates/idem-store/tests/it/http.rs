//! The Idempotency-Key layer in front of axum, over sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, routing::post};
use idem_store::http::{Claim, Doubt, IdempotencyLayer, Keep, NotHappened, Reconciled};
use idem_store::{Lookup, Options, Store};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

fn open(dir: &Path) -> Store {
    let options = Options::new()
        .segment_bytes_max(256 << 10)
        .outcome_bytes_max(16 << 10)
        .batch_bytes_max(128 << 10);
    Store::open(dir, options).unwrap()
}

/// What the handlers share with the test.
#[derive(Clone, Default)]
struct Handlers {
    runs: Arc<AtomicU64>,
    started: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Handlers {
    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    fn count(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn router(&self) -> Router {
        let (pay, slow, panics) = (self.clone(), self.clone(), self.clone());
        let (busy, large) = (self.clone(), self.clone());
        let pay = async move |claim: Option<Extension<Claim>>, body: String| {
            let run = pay.count();
            let token = claim.map_or(0, |claim| claim.token);
            let headers = [
                ("location", format!("/p/{run}")),
                ("x-token", token.to_string()),
            ];
            (StatusCode::CREATED, headers, format!("run {run}: {body}")).into_response()
        };
        let slow = async move || {
            let run = slow.count();
            slow.started.notify_one();
            slow.go_on.notified().await;
            format!("slow {run}")
        };
        let panics = async move || -> Response {
            panics.count();
            panic!("the test wants it");
        };
        let busy = async move || {
            busy.count();
            (
                StatusCode::SERVICE_UNAVAILABLE,
                Extension(NotHappened),
                "busy",
            )
        };
        let large = async move || {
            large.count();
            "x".repeat(3_000)
        };
        Router::new()
            .route("/pay", post(pay.clone()).get(pay))
            .route("/slow", post(slow))
            .route("/panics", post(panics))
            .route("/busy", post(busy))
            .route("/large", post(large))
            .route("/broken", post(async || broken()))
    }
}

/// A response whose body breaks off.
fn broken() -> Response {
    let (mut sender, reader) = tokio::io::duplex(16);
    tokio::spawn(async move { sender.write_all(b"half").await });
    struct Broken(tokio::io::DuplexStream);
    impl axum::body::HttpBody for Broken {
        type Data = axum::body::Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            let _ = &self.0;
            std::task::Poll::Ready(Some(Err(std::io::Error::other("broke off"))))
        }
    }
    Response::new(Body::new(Broken(reader)))
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// An answer, as it came over the socket.
#[derive(Debug)]
struct Heard {
    status: u16,
    head: String,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        });
        line.map(str::trim)
    }

    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let body: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["code"], code);
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], "about:blank");
        assert!(body["title"].is_string() && body["detail"].is_string());
    }
}

async fn send(address: SocketAddr, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let (method, path) = path.split_once(' ').unwrap_or(("POST", path));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn call(address: SocketAddr, path: &str, headers: &str, body: &str) -> Heard {
    let mut socket = send(address, path, headers, body).await;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Heard {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

fn key(key: &str) -> String {
    format!("Idempotency-Key: {key}\r\n{JSON}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_runs_once_and_replays_what_was_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let app = handlers
        .router()
        .layer(IdempotencyLayer::new(open(dir.path())));
    let at = serve(app).await;

    let first = call(at, "/pay", &key("k1"), r#"{"a":1,"b":100}"#).await;
    assert_eq!(
        (first.status, first.body.as_str()),
        (201, r#"run 1: {"a":1,"b":100}"#)
    );
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_ne!(first.header("x-token"), Some("0"));

    // Another spelling of the same, with quotes around the key.
    let again = call(at, "/pay", &key("\"k1\""), r#"{"b":1e2, "a":1}"#).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("location"), Some("/p/1"));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.header("x-token"), None);

    let other = call(at, "/pay", &key("k1"), r#"{"a":2,"b":100}"#).await;
    other.is_problem(422, "key-reused");
    call(at, "/pay?x=1", &key("k1"), r#"{"a":1,"b":100}"#)
        .await
        .is_problem(422, "key-reused");
    assert_eq!(handlers.runs(), 1);

    call(at, "/pay", JSON, "{}")
        .await
        .is_problem(400, "idempotency-key-missing");
    call(at, "/pay", &key("two words"), "{}")
        .await
        .is_problem(400, "idempotency-key-invalid");
    let twice = format!("{}{}", key("a"), key("b"));
    call(at, "/pay", &twice, "{}")
        .await
        .is_problem(400, "idempotency-key-invalid");
    let long = key(&"k".repeat(256));
    call(at, "/pay", &long, "{}")
        .await
        .is_problem(400, "idempotency-key-invalid");
    assert_eq!(handlers.runs(), 1);

    // GET is not guarded, and another path is another scope.
    assert_eq!(call(at, "GET /pay", "", "").await.status, 201);
    assert_eq!(call(at, "/large", &key("k1"), "{}").await.status, 200);
    assert_eq!(handlers.runs(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_equal_requests_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let layer = IdempotencyLayer::new(open(dir.path())).wait_ms(60_000);
    let at = serve(handlers.router().layer(layer)).await;
    let calls: Vec<_> = (0..64)
        .map(|_| tokio::spawn(async move { call(at, "/slow", &key("same"), "{}").await }))
        .collect();
    handlers.started.notified().await;
    handlers.go_on.notify_one();
    let mut replays = 0;
    for call in calls {
        let heard = call.await.unwrap();
        assert_eq!((heard.status, heard.body.as_str()), (200, "slow 1"));
        replays += u32::from(heard.header("idempotency-replayed").is_some());
    }
    assert_eq!((handlers.runs(), replays), (1, 63));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_runs_409_and_a_client_that_goes_away_cancels_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    // The lease is shorter than the handler runs, so it has to be extended, and longer than a busy machine
    // lets an extension wait.
    let store = open(dir.path());
    let layer = IdempotencyLayer::new(store.clone()).lease_ms(3_000);
    let at = serve(handlers.router().layer(layer)).await;

    let socket = send(at, "/slow", &key("k"), "{}").await;
    handlers.started.notified().await;
    let busy = call(at, "/slow", &key("k"), "{}").await;
    busy.is_problem(409, "in-progress");
    assert_eq!(busy.header("retry-after"), Some("1"));
    drop(socket);
    // Until a lease has been extended several times.
    let key_in_store = store.unresolved(0, 9).await.unwrap().remove(0).key;
    let mut ends = std::collections::BTreeSet::new();
    while ends.len() < 4 {
        let found = store.get(&key_in_store, 0).await.unwrap();
        let Lookup::InFlight { until_ms, declared } = found else {
            panic!("{found:?}");
        };
        assert!(declared);
        ends.insert(until_ms);
        tokio::task::yield_now().await;
    }
    call(at, "/slow", &key("k"), "{}")
        .await
        .is_problem(409, "in-progress");
    handlers.go_on.notify_one();
    loop {
        let heard = call(at, "/slow", &key("k"), "{}").await;
        if heard.status == 200 {
            assert_eq!(heard.header("idempotency-replayed"), Some("true"));
            assert_eq!(heard.body, "slow 1");
            break;
        }
        heard.is_problem(409, "in-progress");
    }
    assert_eq!(handlers.runs(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_or_breaks_off_leaves_a_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let store = open(dir.path());
    let at = serve(handlers.router().layer(IdempotencyLayer::new(store))).await;
    for path in ["/panics", "/broken"] {
        call(at, path, &key("k"), "{}")
            .await
            .is_problem(500, "interrupted");
        let again = call(at, path, &key("k"), "{}").await;
        again.is_problem(409, "in-doubt");
        let other = call(at, path, &key("k"), "[]").await;
        other.is_problem(422, "key-reused");
    }
    assert_eq!(handlers.runs(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_settles_a_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let layer = IdempotencyLayer::new(open(dir.path())).reconcile(async |doubt: Doubt| {
        assert_eq!(doubt.scope, "POST /panics");
        match doubt.key.as_str() {
            "happened" => Reconciled::Happened(Response::new("it was done".into())),
            "not" => Reconciled::NotHappened,
            _ => Reconciled::Unknown,
        }
    });
    let at = serve(handlers.router().layer(layer)).await;
    for key_of in ["happened", "not", "unknown"] {
        let first = call(at, "/panics", &key(key_of), "{}").await;
        first.is_problem(500, "interrupted");
    }
    for _ in 0..2 {
        let told = call(at, "/panics", &key("happened"), "{}").await;
        assert_eq!((told.status, told.body.as_str()), (200, "it was done"));
    }
    let unknown = call(at, "/panics", &key("unknown"), "{}").await;
    unknown.is_problem(409, "in-doubt");
    assert_eq!(handlers.runs(), 3);
    // It runs again, which is what the hook allowed.
    call(at, "/panics", &key("not"), "{}")
        .await
        .is_problem(500, "interrupted");
    assert_eq!(handlers.runs(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_say_that_nothing_happened() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let layer = IdempotencyLayer::new(open(dir.path())).keep(|status| match status.as_u16() {
        201 => Keep::InDoubt,
        _ => Keep::Replay,
    });
    let at = serve(handlers.router().layer(layer)).await;
    for runs in 1..=2 {
        assert_eq!(call(at, "/busy", &key("k"), "{}").await.status, 503);
        assert_eq!(handlers.runs(), runs);
    }
    assert_eq!(call(at, "/pay", &key("k"), "{}").await.status, 201);
    call(at, "/pay", &key("k"), "{}")
        .await
        .is_problem(409, "in-doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let layer = IdempotencyLayer::new(open(dir.path()))
        .request_bytes_max(100)
        .response_bytes_max(2_999);
    let at = serve(handlers.router().layer(layer)).await;
    let body = "x".repeat(101);
    call(at, "/pay", &key("k"), &body)
        .await
        .is_problem(413, "payload-too-large");
    let chunked = format!("{}Transfer-Encoding: chunked\r\n", key("k"));
    let request = format!(
        "POST /pay HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{chunked}\r\n65\r\n{body}\r\n0\r\n\r\n"
    );
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(handlers.runs(), 0);
    assert_eq!(call(at, "/pay", &key("k"), &body[1..]).await.status, 201);

    for _ in 0..2 {
        let heard = call(at, "/large", &key("k"), "{}").await;
        heard.is_problem(500, "response-too-large");
    }
    assert_eq!(handlers.runs(), 2);
}

/// What the handler did counts, not that its answer is too long to be kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_is_too_large_frees_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let layer = IdempotencyLayer::new(open(dir.path()))
        .response_bytes_max(2_999)
        .keep(|status| match status.is_server_error() {
            true => Keep::Release,
            false => Keep::Replay,
        });
    let at = serve(handlers.router().layer(layer)).await;
    for _ in 0..2 {
        let heard = call(at, "/large", &key("k"), "{}").await;
        heard.is_problem(500, "response-too-large");
        assert_eq!(handlers.runs(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let store = open(dir.path());
    let layer = IdempotencyLayer::new(store.clone());
    let at = serve(handlers.router().layer(layer)).await;
    let socket = send(at, "/slow", &key("k"), "{}").await;
    handlers.started.notified().await;
    store.close().unwrap();
    call(at, "/pay", &key("k"), "{}")
        .await
        .is_problem(503, "store-failed");
    assert_eq!(handlers.runs(), 1);

    // What had begun ends, and says that it could not be recorded.
    handlers.go_on.notify_one();
    let mut answer = String::new();
    let mut socket = socket;
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("not-recorded"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_keep_users_apart_and_keys_may_be_optional() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = Handlers::default();
    let layer = IdempotencyLayer::new(open(dir.path()))
        .required(false)
        .fingerprint(|_, body| idem_store::Fingerprint::of_bytes(body))
        .headers_kept([])
        .scope(|parts| format!("{:?}", parts.headers.get("x-user")));
    let at = serve(handlers.router().layer(layer)).await;
    for (runs, user) in [(1, "ann"), (2, "bob"), (2, "ann")] {
        let headers = format!("{}X-User: {user}\r\n", key("k"));
        let heard = call(at, "/pay", &headers, "{}").await;
        assert_eq!(handlers.runs(), runs);
        let replayed = heard.header("idempotency-replayed").is_some();
        assert_eq!(heard.header("location").is_none(), replayed);
    }
    assert_eq!(call(at, "/pay", "", "{}").await.status, 201);
    assert_eq!(call(at, "/pay", "", "{}").await.status, 201);
    assert_eq!(handlers.runs(), 4);
}
