//! The Idempotency-Key layer on a server that does not answer for a while.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use idem_store::http::IdempotencyLayer;
use idem_store::{Options, Store};
use tokio::sync::Notify;
use tower_service::Service;

use super::server::Server;

/// Only a handler that stands still takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_goes_on_while_its_lease_cannot_be_extended() {
    let server = Server::start();
    // Long enough that nothing but the handler ends the test.
    let url = server.url("?timeout_ms=600000");
    let store = Store::connect_async(&url, Options::new()).await.unwrap();
    let [started, go_on, goes_on] = [0; 3].map(|_| Arc::new(Notify::new()));
    let handler = {
        let [started, go_on, goes_on] = [&started, &go_on, &goes_on].map(Arc::clone);
        async move || {
            started.notify_one();
            go_on.notified().await;
            goes_on.notify_one();
            "done"
        }
    };
    let layer = IdempotencyLayer::new(store.clone()).lease_ms(300);
    let mut app = Router::new().route("/pay", post(handler)).layer(layer);
    let request = Request::post("/pay").header("idempotency-key", "k");
    let answer = tokio::spawn(app.call(request.body(Body::empty()).unwrap()));
    started.notified().await;
    server.pause();
    // Until the claim is followed by an extension.
    while store.stats().records < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    go_on.notify_one();
    let went_on = tokio::time::timeout(PATIENCE, goes_on.notified()).await;
    server.resume();
    went_on.expect("the handler goes on");
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
}
