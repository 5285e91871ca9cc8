//! Which commands a device knows: the memory that makes it do each one once.
//!
//! A command is *started* before its effect and *done* with its result; it is forgotten when the
//! gateway has stored the result. In memory the ledger lasts as long as the process, and so does its
//! boot id. In a file ([`Ledger::open`]) both survive a restart; a command that was started and not
//! done when the process ended is answered [`ResultStatus::Interrupted`], never repeated.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::journal::{Entry, Journal};
use crate::proto::{BootId, CommandId, ResultStatus};

/// A device's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(crate) status: ResultStatus,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The command was executed; `body` is JSON of at most 64 KiB and becomes the HTTP answer.
    #[must_use]
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: ResultStatus::Json,
            body: body.into(),
        }
    }

    /// The command was executed; `body` is at most 64 KiB of the device's own kind.
    #[must_use]
    pub fn opaque(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: ResultStatus::Opaque,
            body: body.into(),
        }
    }

    pub(crate) fn refused() -> Self {
        Self {
            status: ResultStatus::Refused,
            body: Vec::new(),
        }
    }

    pub(crate) fn interrupted() -> Self {
        Self {
            status: ResultStatus::Interrupted,
            body: Vec::new(),
        }
    }
}

/// The commands that a device knows.
pub(crate) struct Ledger {
    boot: BootId,
    /// `None` while the command runs.
    commands: HashMap<CommandId, Option<Answer>>,
    commands_max: usize,
    journal: Option<Journal>,
}

/// What to do with a command that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is new, and from now on known: execute it.
    Execute,
    /// It runs already.
    Running,
    /// It was executed: send the result again.
    Repeat(Answer),
    /// There is no room, or the journal cannot be written: nothing was remembered.
    Refuse,
}

impl Ledger {
    pub(crate) fn in_memory(boot: BootId, commands_max: usize) -> Self {
        Self {
            boot,
            commands: HashMap::new(),
            commands_max,
            journal: None,
        }
    }

    /// Opens or makes the ledger at `path`; `fresh_boot` names it if it is new.
    pub(crate) fn open(path: &Path, fresh_boot: BootId, commands_max: usize) -> io::Result<Self> {
        let (journal, boot, mut commands) = Journal::open(path, fresh_boot)?;
        for answer in commands.values_mut() {
            answer.get_or_insert_with(Answer::interrupted);
        }
        Ok(Self {
            boot,
            commands,
            commands_max,
            journal: Some(journal),
        })
    }

    pub(crate) fn boot(&self) -> BootId {
        self.boot
    }

    pub(crate) fn admit(&mut self, id: CommandId) -> Admission {
        match self.commands.get(&id) {
            Some(Some(answer)) => return Admission::Repeat(answer.clone()),
            Some(None) => return Admission::Running,
            None if self.commands.len() >= self.commands_max => return Admission::Refuse,
            None => {}
        }
        if !self.write(&Entry::Started { id }) {
            return Admission::Refuse;
        }
        self.commands.insert(id, None);
        Admission::Execute
    }

    /// The command was executed. Returns whether the result may be sent: it may not when it could
    /// not be written down, for it might come out differently after a restart.
    pub(crate) fn finish(&mut self, id: CommandId, answer: &Answer) -> bool {
        if !self.write(&Entry::Done { id, answer }) {
            return false;
        }
        self.commands.insert(id, Some(answer.clone()));
        true
    }

    /// The gateway stored the result.
    pub(crate) fn forget(&mut self, id: CommandId) {
        if self.commands.remove(&id).is_some() {
            // A command that is remembered too long does no harm.
            self.write(&Entry::Forgotten { id });
        }
        if let Some(journal) = &mut self.journal {
            journal.compact_if_worthwhile(self.boot, &self.commands);
        }
    }

    /// Results that the gateway has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = (CommandId, &Answer)> {
        self.commands
            .iter()
            .filter_map(|(id, answer)| Some((*id, answer.as_ref()?)))
    }

    fn write(&mut self, entry: &Entry<'_>) -> bool {
        let Some(journal) = &mut self.journal else {
            return true;
        };
        match journal.append(entry) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the device's journal cannot be written");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([1; 16]);

    fn id(n: u8) -> CommandId {
        CommandId([n; 16])
    }

    #[test]
    fn each_command_is_executed_once() {
        let mut ledger = Ledger::in_memory(BOOT, 2);
        assert_eq!(ledger.admit(id(1)), Admission::Execute);
        assert_eq!(ledger.admit(id(1)), Admission::Running);
        assert!(ledger.finish(id(1), &Answer::json("1")));
        assert_eq!(ledger.admit(id(1)), Admission::Repeat(Answer::json("1")));
        assert_eq!(ledger.admit(id(2)), Admission::Execute);
        assert_eq!(ledger.admit(id(3)), Admission::Refuse);
        ledger.forget(id(1));
        assert_eq!(ledger.admit(id(3)), Admission::Execute);
    }

    #[test]
    fn a_file_remembers_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.journal");
        let mut ledger = Ledger::open(&path, BOOT, 16).unwrap();
        for n in 1..=3 {
            assert_eq!(ledger.admit(id(n)), Admission::Execute);
        }
        assert!(ledger.finish(id(1), &Answer::json("[1]")));
        assert!(ledger.finish(id(2), &Answer::opaque(vec![0, 255])));
        ledger.forget(id(1));
        drop(ledger);

        let mut ledger = Ledger::open(&path, BootId([2; 16]), 16).unwrap();
        assert_eq!(ledger.boot(), BOOT);
        assert_eq!(
            ledger.admit(id(2)),
            Admission::Repeat(Answer::opaque(vec![0, 255]))
        );
        assert_eq!(
            ledger.admit(id(3)),
            Admission::Repeat(Answer::interrupted())
        );
        assert_eq!(
            ledger.admit(id(1)),
            Admission::Execute,
            "forgotten means new"
        );
    }

    #[test]
    fn a_torn_entry_is_cut_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.journal");
        let mut ledger = Ledger::open(&path, BOOT, 16).unwrap();
        ledger.admit(id(1));
        assert!(ledger.finish(id(1), &Answer::json("1")));
        drop(ledger);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut ledger = Ledger::open(&path, BootId([2; 16]), 16).unwrap();
            // Whatever is left, the journal goes on working.
            let admission = ledger.admit(id(9));
            assert_eq!(admission, Admission::Execute, "cut at {cut}");
            drop(ledger);
            let mut ledger = Ledger::open(&path, BootId([3; 16]), 16).unwrap();
            assert_eq!(
                ledger.admit(id(9)),
                Admission::Repeat(Answer::interrupted()),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_long_life_does_not_grow_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10.0.0.1");
        // Another device's new file, should it take that name.
        let other = dir.path().join("10.0.0.journal-new");
        std::fs::write(&other, "other").unwrap();
        let mut ledger = Ledger::open(&path, BOOT, 16).unwrap();
        for n in 0..3_000_u32 {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            let id = CommandId(bytes);
            assert_eq!(ledger.admit(id), Admission::Execute);
            assert!(ledger.finish(id, &Answer::json("\"a result of some length\"")));
            ledger.forget(id);
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 200_000);
        drop(ledger);
        assert_eq!(
            Ledger::open(&path, BOOT, 16)
                .unwrap()
                .unacknowledged()
                .count(),
            0
        );
        assert_eq!(std::fs::read(&other).unwrap(), b"other");
    }
}
