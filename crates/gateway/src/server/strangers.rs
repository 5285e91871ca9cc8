//! Results of commands that this gateway knows nothing of. On a store of its own they were answered
//! long ago; on a shared one another gateway may have sent them and not be able to end them any
//! more, and a device that is told to forget its result would execute the command again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Shared;
use super::device::Device;
use super::drain::{Phase, until};
use super::shard::{ShardMessage, Stray};
use super::table::{Delivery, Reply};
use crate::proto::{CommandId, ResultStatus};

/// Results that wait to be looked up; a device repeats the others.
const HEARD_MAX: usize = 4_096;

/// The store is asked for its open claims this often at most.
const PAUSE: Duration = Duration::from_millis(50);

/// A result, and who sent it.
pub(crate) struct Heard {
    pub(crate) device: Arc<Device>,
    pub(crate) epoch: u64,
    pub(crate) id: CommandId,
    pub(crate) status: ResultStatus,
    pub(crate) body: Vec<u8>,
}

/// Takes results for [`look_up`].
pub(crate) struct Strangers(mpsc::Sender<Heard>);

impl Strangers {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Heard>) {
        let (sender, heard) = mpsc::channel(HEARD_MAX);
        (Self(sender), heard)
    }

    pub(crate) fn hear(&self, heard: Heard) {
        // Full, or the gateway stops: the device repeats it.
        drop(self.0.try_send(heard));
    }
}

/// Reads the store's open claims whenever there are results that belong to none that is known here.
/// Each claim was there before its command was sent, so one that is not there now has ended.
pub(crate) async fn look_up(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Heard>) {
    let mut drain = shared.drain.subscribe();
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            count = inbox.recv_many(&mut heard, HEARD_MAX) => {
                if count == 0 {
                    return;
                }
            }
            () = until(&mut drain, |phase| phase == Phase::Stopping) => return,
        }
        match shared.recall_claims().await {
            Ok(()) => heard.drain(..).for_each(|heard| deliver(&shared, heard)),
            Err(error) => {
                heard.clear();
                tracing::warn!(%error, "the store's open claims could not be read");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn deliver(shared: &Arc<Shared>, heard: Heard) {
    let Heard {
        device,
        epoch,
        id,
        status,
        body,
    } = heard;
    match shared.table.deliver(id, &device, epoch, status, &body) {
        Delivery::Delivered | Delivery::Foreign => {}
        Delivery::Settle(claim) => shared.settle(Stray {
            device,
            id,
            result: Reply::Result {
                epoch,
                status,
                body,
            },
            claim,
        }),
        Delivery::Unknown => {
            if let Some(session) = device.session() {
                // Lost when the mailbox is full: the device repeats its result and is told then.
                drop(shared.send(session.shard(), ShardMessage::ResultAck { session, id }));
            }
        }
    }
}
