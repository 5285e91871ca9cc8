//! `GET /v1/events`: the dashboard's numbers once a second, as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::Channel;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Problem, Shared};
use crate::server::drain::{Phase, until};
use crate::server::snapshot::Snapshot;
use crate::server::tick::Tick;

const PERIOD: Duration = Duration::from_secs(1);

pub(crate) async fn events(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(place) = Arc::clone(&shared.event_places).try_acquire_owned() else {
        let detail = "close another dashboard, or raise http_limits.events_max";
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-listeners",
            "Too many clients listen to events",
            detail,
        )
        .retry_after_s(5)
        .into_response();
    };
    let mut ticks = shared.ticks.subscribe();
    let (mut sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        let mut phases = shared.drain.subscribe();
        // A client that reads slowly misses ticks instead of piling them up.
        let relay = async {
            while ticks.changed().await.is_ok() {
                let tick = ticks.borrow_and_update().clone();
                if sender.send_data(tick).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = relay => {}
            () = until(&mut phases, |phase| phase == Phase::Stopping) => {}
        }
        drop(place);
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::new(body)).into_response()
}

/// Publishes a tick a second while somebody listens, until the gateway stops.
pub(crate) async fn publish(shared: Arc<Shared>) {
    let mut clock = interval(PERIOD);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Snapshot::take(&shared).await;
    let mut taken = Instant::now();
    let mut phases = shared.drain.subscribe();
    while shared.phase() != Phase::Stopping {
        tokio::select! {
            _ = clock.tick() => {}
            () = until(&mut phases, |phase| phase == Phase::Stopping) => return,
        }
        if shared.ticks.receiver_count() == 0 {
            continue;
        }
        let now = Snapshot::take(&shared).await;
        let tick = Tick::between(&shared, &before, &now, taken.elapsed());
        let json = serde_json::to_string(&tick).expect("numbers and strings always serialize");
        shared
            .ticks
            .send_replace(Bytes::from(format!("event: tick\ndata: {json}\n\n")));
        (before, taken) = (now, Instant::now());
    }
}
