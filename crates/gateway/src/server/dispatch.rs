//! The way of a command to its device, whoever sends it: is the device here, does its group's breaker let it through.

use std::sync::Arc;

use circuit::TraceId;
use idem_store::Fingerprint;

use super::Shared;
use super::command::{self, Answer};

/// A command for a device.
pub(crate) struct Command {
    /// Made by [`store_key`](super::outcome::store_key).
    pub(crate) key: Vec<u8>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) payload: Arc<[u8]>,
    pub(crate) timeout_ms: u64,
    pub(crate) trace: Option<TraceId>,
}

/// No device has said HELLO by that name, and nothing is known of the key.
pub(crate) struct UnknownDevice;

/// Runs a command to the answer that its sender is told.
pub(crate) async fn dispatch(
    shared: &Arc<Shared>,
    device: &str,
    command: Command,
) -> Result<Answer, UnknownDevice> {
    let device = shared.directory.get(device);
    let is_here = device
        .as_ref()
        .is_some_and(|device| device.session().is_some());
    if shared.store.is_shared() && !is_here {
        // Another gateway may hold it. What is known of the key holds everywhere.
        let known = known(shared, &command).await;
        let known = known.filter(|answer| !matches!(answer, Answer::Open));
        return Ok(told(shared, known.unwrap_or(Answer::NotHere)));
    }
    let Some(device) = device else {
        // Its list of devices may be lost or cut short; an answer that was stored still holds.
        return match known(shared, &command).await {
            Some(answer) => Ok(told(shared, answer)),
            None => Err(UnknownDevice),
        };
    };
    let call = match shared.groups.ask(device.id(), command.trace) {
        Ok(call) => call,
        Err(refused) => {
            let known = known(shared, &command).await;
            return Ok(told(shared, known.unwrap_or_else(|| refused.answer())));
        }
    };
    let request = command::Request {
        device,
        key: command.key,
        fingerprint: command.fingerprint,
        payload: command.payload,
        timeout_ms: command.timeout_ms,
    };
    Ok(command::submit(shared, request, call).await)
}

/// What is known of the key.
async fn known(shared: &Shared, command: &Command) -> Option<Answer> {
    let known = command::replay(shared, &command.key, &command.fingerprint).await;
    known.unwrap_or_else(|error| Some(Answer::StoreFailed(error)))
}

fn told(shared: &Shared, answer: Answer) -> Answer {
    shared.counters.command(&answer);
    answer
}
