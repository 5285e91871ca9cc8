//! `GET /v1/devices` and `GET /v1/devices/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::commands::{device_id, unknown_device};
use super::{Problem, Shared};
use crate::server::device::{Device, Presence};

const LIMIT: usize = 100;

#[derive(Deserialize)]
pub(crate) struct Page {
    limit: Option<usize>,
    #[serde(default)]
    after: String,
}

#[derive(Serialize)]
pub(crate) struct DeviceList {
    devices: Vec<DeviceView>,
    /// Devices that are online, on whichever page.
    total: usize,
    /// Devices that are known.
    known: usize,
    /// The `after` of the next page, if there is one.
    next: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct DeviceView {
    id: String,
    state: &'static str,
    last_beat_ms_ago: Option<u64>,
    interval_ms: Option<u32>,
    rtt_ms: Option<u16>,
    load_percent: Option<u8>,
    /// Suspicion that the device is gone; `null` unless it is online.
    phi: Option<f32>,
    commands: u32,
}

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<DeviceList>, Problem> {
    let bad = |detail| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "query-invalid",
            "The query cannot be used",
            detail,
        )
    };
    let Query(page) = page.map_err(|rejection| bad(rejection.body_text()))?;
    let limit_max = shared.config.http_limits.page_max;
    let limit = page.limit.unwrap_or(LIMIT.min(limit_max));
    if !(1..=limit_max).contains(&limit) {
        return Err(bad(format!("limit is 1 to {limit_max}")));
    }
    // One more than asked for tells whether there is a next page.
    let mut devices = shared.directory.page(&page.after, limit + 1);
    let more = devices.len() > limit;
    devices.truncate(limit);
    let next = devices
        .last()
        .filter(|_| more)
        .map(|device| device.id().to_owned());
    Ok(Json(DeviceList {
        devices: devices.iter().map(|device| view(&shared, device)).collect(),
        total: shared.directory.online(),
        known: shared.directory.known(),
        next,
    }))
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<DeviceView>, Problem> {
    let id = device_id(id)?;
    let device = shared
        .directory
        .get(&id)
        .ok_or_else(|| unknown_device(&id))?;
    Ok(Json(view(&shared, &device)))
}

fn view(shared: &Shared, device: &Device) -> DeviceView {
    let online = device.session().is_some();
    let reading = device.read(shared.now_ms(), shared.config.devices.grace_ms);
    DeviceView {
        id: device.id().to_owned(),
        state: match device.presence() {
            Presence::Online if reading.suspect => "suspect",
            presence => presence.name(),
        },
        last_beat_ms_ago: reading.last_beat_ms_ago,
        interval_ms: reading.interval_ms,
        rtt_ms: reading.rtt_ms,
        load_percent: reading.load_percent,
        phi: reading.phi.filter(|phi| online && phi.is_finite()),
        commands: device.commands(),
    }
}
