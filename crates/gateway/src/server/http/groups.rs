//! `GET /v1/groups`: the breakers of groups of devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Shared;
use crate::server::groups::{Reading, STATES};

#[derive(Serialize)]
pub(crate) struct GroupList {
    /// Those that were sent a command.
    groups: Vec<GroupView>,
}

#[derive(Serialize)]
struct GroupView {
    group: Box<str>,
    state: &'static str,
    /// Commands that the breaker looks back on, and those of them that failed.
    calls: u32,
    failures: u32,
    /// Commands that were refused since the gateway started.
    refused: u64,
    /// Times that the breaker opened.
    opened: u64,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Json<GroupList> {
    let groups = shared.groups.read().into_iter().map(view).collect();
    Json(GroupList { groups })
}

fn view(reading: Reading) -> GroupView {
    GroupView {
        group: reading.name,
        state: STATES[reading.state],
        calls: reading.calls,
        failures: reading.failures,
        refused: reading.refused,
        opened: reading.changes[STATES.len() - 1],
    }
}
