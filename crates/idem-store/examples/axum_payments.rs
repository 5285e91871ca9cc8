//! A payment service that charges once per Idempotency-Key:
//! `cargo run -p idem-store --features tower --example axum_payments`, then twice:
//!
//! ```text
//! curl -i http://127.0.0.1:8080/payments -H 'Idempotency-Key: order-17' \
//!      -H 'Content-Type: application/json' -d '{"amount": 4990}'
//! ```

#![expect(clippy::print_stdout, reason = "this program exists to print")]

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use axum::{Json, Router, routing::post};
use idem_store::http::IdempotencyLayer;
use idem_store::{Options, Store};
use serde_json::{Value, json};

static CHARGES: AtomicU64 = AtomicU64::new(0);

/// What must not happen twice.
async fn charge(Json(payment): Json<Value>) -> (StatusCode, Json<Value>) {
    let number = CHARGES.fetch_add(1, Ordering::SeqCst) + 1;
    println!("charge {number}: {payment}");
    (StatusCode::CREATED, Json(json!({ "charge": number })))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open("payments-store", Options::new())?;
    let idempotency = IdempotencyLayer::new(store).wait_ms(5_000);
    let app = Router::new()
        .route("/payments", post(charge))
        .layer(idempotency);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on http://127.0.0.1:8080/payments");
    axum::serve(listener, app).await?;
    Ok(())
}
