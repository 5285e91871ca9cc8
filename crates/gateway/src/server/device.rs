//! One known device: who it is, what its beats said, and which connection speaks for it.
//!
//! A gateway keeps one of these for each device it knows, a million and more, so what is seldom there (commands) is
//! behind a pointer, and what can be computed (the session's token) is not kept.

use std::num::NonZeroU64;
use std::sync::Arc;

use conn_reactor::Token;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::id::Id;
use super::pulse::{Pulse, Reading};
use crate::proto::{Beat, BootId};

/// One known device. Shards, HTTP tasks and the receiver of datagrams share it.
pub(crate) struct Device {
    id: Id,
    state: Mutex<State>,
}

struct State {
    /// What the beats of this session said, or of the last one; `None` before the first since the gateway started.
    pulse: Option<Pulse>,
    place: Place,
    /// Made by the first command, gone with the last.
    queue: Option<Box<Queue>>,
}

enum Place {
    Online {
        epoch: NonZeroU64,
        token: Token,
        boot: BootId,
    },
    Away {
        /// Says since when, among the devices that are not online.
        turn: u64,
        /// Its deadline passed; otherwise its connection closed.
        is_gone: bool,
        /// Evicted: the directory does not hold this value any more.
        is_forgotten: bool,
    },
}

/// The commands that run or wait for a device.
#[derive(Default)]
struct Queue {
    commands: u32,
    /// Wakes them when a session starts or ends.
    changed: Arc<Notify>,
}

/// Whether a device is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// Connected and beating.
    Online,
    /// Its connection closed.
    Offline,
    /// Its deadline passed.
    Gone,
}

impl Presence {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Gone => "gone",
        }
    }
}

/// One session of a device: the connection that speaks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// Higher than that of every earlier session; its low bits are the shard.
    pub(crate) epoch: u64,
    pub(crate) token: Token,
    pub(crate) boot: BootId,
}

const SHARD_BITS: u32 = 16;

/// More shards have no place in an epoch.
pub(crate) const SHARDS_MAX: usize = 1 << SHARD_BITS;

impl Session {
    /// The epoch of the `number`th session, on this shard.
    pub(crate) fn epoch(number: u64, shard: usize) -> NonZeroU64 {
        debug_assert!(shard < SHARDS_MAX);
        NonZeroU64::new((number << SHARD_BITS) | shard as u64).expect("numbers start with 1")
    }

    pub(crate) fn shard(&self) -> usize {
        self.epoch as usize % SHARDS_MAX
    }

    /// Whether this connection speaks.
    pub(crate) fn is_of(&self, shard: usize, token: Token) -> bool {
        self.shard() == shard && self.token == token
    }
}

/// What a beat did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beaten {
    /// It is counted.
    Heard,
    /// It is counted, and its device was a suspect until now.
    Trusted,
    /// It is counted, and the interval is another one from now on.
    Repaced,
    /// Another session speaks for the device.
    SessionOver,
}

/// When an open connection has to be looked at again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// After so many milliseconds of silence the device is a suspect.
    In(u64),
    /// It is one from now on.
    Now,
    /// It is one already.
    Since,
}

/// One running or waiting command's place in its device's queue; given back on drop.
pub(crate) struct CommandSlot {
    device: Arc<Device>,
    changed: Arc<Notify>,
}

impl Device {
    /// A device that is offline, and left in this turn.
    pub(crate) fn new(id: &str, turn: u64) -> Self {
        let place = Place::Away {
            turn,
            is_gone: false,
            is_forgotten: false,
        };
        Self {
            id: Id::new(id),
            state: Mutex::new(State {
                pulse: None,
                place,
                queue: None,
            }),
        }
    }

    pub(crate) fn id(&self) -> &str {
        self.id.as_str()
    }

    pub(crate) fn id_bytes(&self) -> &[u8] {
        self.id.as_bytes()
    }

    pub(crate) fn presence(&self) -> Presence {
        self.state.lock().place.presence()
    }

    /// The live session, if the device is online.
    pub(crate) fn session(&self) -> Option<Session> {
        self.state.lock().place.session()
    }

    /// Takes a beat of the session `epoch`, which may say another interval.
    pub(crate) fn beat(
        &self,
        epoch: u64,
        now_ms: u64,
        beat: Beat,
        interval_ms: Option<u32>,
        grace_ms: u32,
    ) -> Beaten {
        let mut state = self.state.lock();
        let Some(pulse) = state.session_pulse(epoch) else {
            return Beaten::SessionOver;
        };
        let was_suspect = pulse.beat(now_ms, beat, grace_ms);
        let is_repaced = interval_ms.is_some_and(|ms| pulse.repace(now_ms, ms, grace_ms));
        match (was_suspect, is_repaced) {
            (true, _) => Beaten::Trusted,
            (false, true) => Beaten::Repaced,
            (false, false) => Beaten::Heard,
        }
    }

    /// When the device becomes a suspect if nothing comes.
    pub(crate) fn doubt(&self, now_ms: u64, grace_ms: u32) -> Doubt {
        let mut state = self.state.lock();
        let pulse = state.pulse.as_mut();
        pulse.map_or(Doubt::Since, |pulse| pulse.doubt(now_ms, grace_ms))
    }

    /// The agreed interval, and when the last beat came or the session began.
    pub(crate) fn rhythm(&self) -> Option<(u32, u64)> {
        let state = self.state.lock();
        let pulse = state.pulse.as_ref();
        pulse.map(|pulse| (pulse.interval_ms(), pulse.last_ms()))
    }

    /// What its beats said; empty for a device that was not heard since the gateway started.
    pub(crate) fn read(&self, now_ms: u64, grace_ms: u32) -> Reading {
        let state = self.state.lock();
        let pulse = state.pulse.as_ref();
        pulse.map_or_else(Reading::default, |pulse| pulse.read(now_ms, grace_ms))
    }

    /// Takes a place in the device's command queue; `None` when `max` are taken, or when the device
    /// was evicted since the caller looked it up.
    pub(crate) fn command_slot(self: &Arc<Self>, max: u32) -> Option<CommandSlot> {
        let mut state = self.state.lock();
        if state.commands() >= max || state.place.is_forgotten() {
            return None;
        }
        let queue = state.queue.get_or_insert_default();
        queue.commands += 1;
        let changed = Arc::clone(&queue.changed);
        Some(CommandSlot {
            device: Arc::clone(self),
            changed,
        })
    }

    pub(crate) fn commands(&self) -> u32 {
        self.state.lock().commands()
    }

    /// The device's route, to be changed.
    pub(crate) fn route(&self) -> Route<'_> {
        Route(self.state.lock())
    }

    /// [`route`](Self::route), if nobody else has it now.
    pub(crate) fn try_route(&self) -> Option<Route<'_>> {
        self.state.try_lock().map(Route)
    }
}

impl State {
    fn commands(&self) -> u32 {
        self.queue.as_ref().map_or(0, |queue| queue.commands)
    }

    /// The pulse, if this is the session that has it.
    fn session_pulse(&mut self, epoch: u64) -> Option<&mut Pulse> {
        let session = self.place.session();
        session.filter(|session| session.epoch == epoch)?;
        self.pulse.as_mut()
    }
}

impl Place {
    fn session(&self) -> Option<Session> {
        match *self {
            Self::Online { epoch, token, boot } => Some(Session {
                epoch: epoch.get(),
                token,
                boot,
            }),
            Self::Away { .. } => None,
        }
    }

    fn presence(&self) -> Presence {
        match self {
            Self::Online { .. } => Presence::Online,
            Self::Away { is_gone: true, .. } => Presence::Gone,
            Self::Away { .. } => Presence::Offline,
        }
    }

    fn is_forgotten(&self) -> bool {
        matches!(self, Self::Away { is_forgotten, .. } if *is_forgotten)
    }
}

/// Where a device is connected, while nobody else can change it.
pub(crate) struct Route<'a>(MutexGuard<'a, State>);

impl Route<'_> {
    pub(crate) fn session(&self) -> Option<Session> {
        self.0.place.session()
    }

    pub(crate) fn presence(&self) -> Presence {
        self.0.place.presence()
    }

    /// The turn in which the device left, while it is away.
    pub(crate) fn turn(&self) -> Option<u64> {
        match self.0.place {
            Place::Online { .. } => None,
            Place::Away { turn, .. } => Some(turn),
        }
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.0.place.is_forgotten()
    }

    /// A session begins. Returns whether the device was a suspect in the one before.
    pub(crate) fn enter(
        &mut self,
        epoch: NonZeroU64,
        token: Token,
        boot: BootId,
        pulse: Pulse,
    ) -> bool {
        self.0.place = Place::Online { epoch, token, boot };
        let before = self.0.pulse.replace(pulse);
        self.wake();
        before.is_some_and(|pulse| pulse.is_suspect())
    }

    /// The session ends. Returns whether the device was a suspect.
    pub(crate) fn leave(&mut self, turn: u64, is_gone: bool) -> bool {
        self.0.place = Place::Away {
            turn,
            is_gone,
            is_forgotten: false,
        };
        self.wake();
        self.0.pulse.as_mut().is_some_and(Pulse::trust)
    }

    /// Evicts the device, unless it is online or has commands; says whether it did.
    pub(crate) fn forget(&mut self) -> bool {
        let is_free = self.0.commands() == 0;
        match &mut self.0.place {
            Place::Away { is_forgotten, .. } if is_free => {
                *is_forgotten = true;
                true
            }
            _ => false,
        }
    }

    fn wake(&self) {
        if let Some(queue) = &self.0.queue {
            queue.changed.notify_waiters();
        }
    }
}

impl CommandSlot {
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Notified at each start and end of a session of the device.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

impl Drop for CommandSlot {
    fn drop(&mut self) {
        let mut state = self.device.state.lock();
        if let Some(queue) = &mut state.queue {
            queue.commands -= 1;
            if queue.commands == 0 {
                state.queue = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million of them are kept. With the two counters of its `Arc` and the allocator's own word a device takes 112
    /// bytes; 8 more would take 128.
    #[test]
    fn a_device_stays_small() {
        assert_eq!(
            (size_of::<Pulse>(), size_of::<Place>(), size_of::<Device>()),
            (24, 32, 88)
        );
    }

    #[test]
    fn an_epoch_says_the_shard() {
        let epoch = |number, shard| Session::epoch(number, shard).get();
        assert!(epoch(1, SHARDS_MAX - 1) < epoch(2, 0));
        let session = Session {
            epoch: epoch(7, 3),
            token: Token::from_u64(4),
            boot: BootId::default(),
        };
        assert!(session.is_of(3, Token::from_u64(4)));
        assert!(!session.is_of(2, Token::from_u64(4)) && !session.is_of(3, Token::from_u64(5)));
    }
}
