//! The control plane: HTTP/1.1 in front of the directory and of [`command::submit`].
//!
//! [`command::submit`]: super::command::submit

mod commands;
mod dashboard;
mod devices;
mod events;
mod groups;
mod guard;
mod jobs;
mod metrics;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post};

pub(crate) use events::publish;
pub(crate) use serve::serve;

use super::Shared;
use super::drain::Phase;
use super::problem::Problem;

/// Every route.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(dashboard::routes())
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/events", get(events::events))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/groups", get(groups::list))
        .route("/v1/devices", get(devices::list))
        .route("/v1/devices/{id}", get(devices::one))
        .route("/v1/devices/{id}/commands", post(commands::submit))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            guard::check_host,
        ))
        .layer(middleware::map_response_with_state(
            Arc::clone(&shared),
            guard::close_while_draining,
        ))
        .with_state(shared)
}

async fn readyz(
    axum::extract::State(shared): axum::extract::State<Arc<Shared>>,
) -> (StatusCode, &'static str) {
    if shared.phase() == Phase::Serving {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

async fn not_found() -> Problem {
    let detail =
        "see /v1/devices, /v1/jobs, /v1/groups, /metrics, /healthz, /readyz and the dashboard at /";
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-page",
        "There is nothing here",
        detail,
    )
}

async fn method_not_allowed() -> Problem {
    let detail = "read with GET; send commands with POST /v1/devices/{id}/commands";
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "This page does not take that method",
        detail,
    )
}
