//! What the store should know of each key, and what a crash may leave of it.

#[derive(Debug, Default)]
pub(super) struct Coverage {
    pub(super) crashes: u64,
    pub(super) poisonings: u64,
    pub(super) replays: u64,
    pub(super) doubts: u64,
    pub(super) conflicts: u64,
    pub(super) fenced: u64,
    pub(super) extended: u64,
    /// Calls of `wait` that a holder's end woke.
    pub(super) woken: u64,
    /// Claims that were listed as unresolved.
    pub(super) unresolved: u64,
    pub(super) disk_full: u64,
    /// Batches that waited for disk space.
    pub(super) held: u64,
    /// Those that were written once there was some.
    pub(super) resumed: u64,
    /// Operations that were taken and answered that the disk is full.
    pub(super) told: u64,
    pub(super) dropped_segments: u64,
    pub(super) carried: u64,
    pub(super) closed_in_order: u64,
    pub(super) indexes: u64,
    pub(super) opened_from_index: u64,
}

impl Coverage {
    pub(super) fn fields(&self) -> [u64; 18] {
        [
            self.crashes,
            self.poisonings,
            self.replays,
            self.doubts,
            self.conflicts,
            self.fenced,
            self.extended,
            self.woken,
            self.unresolved,
            self.disk_full,
            self.held,
            self.resumed,
            self.told,
            self.dropped_segments,
            self.carried,
            self.closed_in_order,
            self.indexes,
            self.opened_from_index,
        ]
    }

    pub(super) fn all_at_least(&self, n: u64) -> bool {
        self.fields().iter().all(|&count| count >= n)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.poisonings += other.poisonings;
        self.replays += other.replays;
        self.doubts += other.doubts;
        self.conflicts += other.conflicts;
        self.fenced += other.fenced;
        self.extended += other.extended;
        self.woken += other.woken;
        self.unresolved += other.unresolved;
        self.disk_full += other.disk_full;
        self.held += other.held;
        self.resumed += other.resumed;
        self.told += other.told;
        self.dropped_segments += other.dropped_segments;
        self.carried += other.carried;
        self.closed_in_order += other.closed_in_order;
        self.indexes += other.indexes;
        self.opened_from_index += other.opened_from_index;
    }
}

/// What a crash right now would leave of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Image {
    Absent,
    Doubt {
        memo: Vec<u8>,
        print: u8,
    },
    Stored {
        outcome: Vec<u8>,
        print: u8,
        until_ms: u64,
        failed: bool,
    },
}

impl Image {
    pub(super) fn at(&self, now: u64) -> Self {
        match self {
            Self::Stored { until_ms, .. } if *until_ms <= now => Self::Absent,
            other => other.clone(),
        }
    }
}

/// A key as the model knows it.
#[derive(Debug)]
pub(super) struct Key {
    /// Images after each operation; a crash may leave any from `acked` on.
    pub(super) history: Vec<Image>,
    pub(super) acked: usize,
    pub(super) claim: Option<Claim>,
}

#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) token: u64,
    pub(super) print: u8,
    pub(super) until_ms: u64,
    pub(super) declared: bool,
    pub(super) held: bool,
    pub(super) memo: Vec<u8>,
}
