//! Results become outcomes: of commands that a task waits for, and of those that nobody waits for
//! any more.

use std::sync::Arc;

use idem_store::{Begin, Begun, Permit};

use super::Shared;
use super::device::Device;
use super::outcome::Outcome;
use super::shard::{ShardMessage, Stray};
use super::table::Reply;
use crate::proto::{CommandId, ResultStatus};

/// How much longer a claim is held than a task waits: as long as the store could ever take. Claims of
/// a process that died are not held any more, so nothing waits for this.
pub(crate) const LEASE_SLACK_MS: u64 = 60_000;

/// Ends a claim that nobody waits for with the result that its device repeated.
pub(crate) async fn settle(shared: Arc<Shared>, stray: Stray) {
    let Stray {
        device,
        id,
        result,
        claim,
    } = stray;
    let lease_ms = if shared.store.is_shared() {
        shared.config.commands.lease_ms
    } else {
        LEASE_SLACK_MS
    };
    let begin = Begin::new(&claim.key, claim.fingerprint, lease_ms, shared.unix_ms());
    let permit = match shared.store.begin(&begin).await {
        Ok(Begun::InDoubt(permit)) => permit,
        // A retry got there first, or the task that left the claim has not let go of it yet, or a
        // gateway that died or lives elsewhere still holds it.
        Ok(Begun::InFlight { .. }) | Err(_) => return shared.table.restore(id, result, claim),
        Ok(Begun::Fresh(permit)) => {
            // The claim expired. Its outcome is nobody's any more.
            drop(permit);
            return shared.table.remove(id);
        }
        Ok(Begun::Replay(_) | Begun::Conflict) => return shared.table.remove(id),
    };
    let outcome = match &result {
        Reply::Result { status, body, .. } => outcome_of(*status, body.clone()),
        Reply::NotSent { .. } => None,
    };
    let Some(outcome) = outcome else {
        // The table lets no refusal through.
        drop(permit);
        return shared.table.restore(id, result, claim);
    };
    if let Err(error) = store_outcome(&shared, &device, id, permit, &outcome).await {
        tracing::error!(%error, device = device.id(), "a repeated result could not be stored");
        shared.table.restore(id, result, claim);
    }
}

/// What is stored for a device's result; `None` when the device did not execute the command. What
/// is called JSON and is not is handed on as bytes.
pub(crate) fn outcome_of(status: ResultStatus, body: Vec<u8>) -> Option<Outcome> {
    match status {
        ResultStatus::Json if is_json(&body) => Some(Outcome::Json(body)),
        ResultStatus::Json | ResultStatus::Opaque => Some(Outcome::Opaque(body)),
        ResultStatus::Interrupted => Some(Outcome::Interrupted),
        ResultStatus::Refused => None,
    }
}

fn is_json(body: &[u8]) -> bool {
    // Bytes that are not UTF-8 would pass unseen inside a string that is ignored.
    std::str::from_utf8(body)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// Makes an outcome durable, then lets the device forget its command.
pub(crate) async fn store_outcome(
    shared: &Shared,
    device: &Device,
    id: CommandId,
    permit: Permit,
    outcome: &Outcome,
) -> Result<(), idem_store::Error> {
    let retain_ms = shared.config.commands.retain_ms;
    shared
        .store
        .complete(permit, &outcome.encode(), retain_ms, shared.unix_ms())
        .await?;
    shared.table.remove(id);
    if let Some(session) = device.session() {
        // Lost when the mailbox is full: the device repeats its result and is told then.
        drop(shared.send(session.shard(), ShardMessage::ResultAck { session, id }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_json_and_is_not_is_handed_on_as_bytes() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for json in ["{\"a\":[1,null]}", "\"\u{e9}\"", " 1 ", &deep] {
            let outcome = outcome_of(ResultStatus::Json, json.into());
            assert_eq!(outcome, Some(Outcome::Json(json.into())));
        }
        for bytes in [b"".as_slice(), b"{", b"1 2", b"\"\xff\"", b"{\"\xc3\":1}"] {
            let outcome = outcome_of(ResultStatus::Json, bytes.into());
            assert_eq!(outcome, Some(Outcome::Opaque(bytes.into())));
        }
    }
}
