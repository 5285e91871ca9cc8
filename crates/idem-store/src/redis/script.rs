//! One script per kind of operation: what is sent, and what comes back.

use std::time::Duration;

use redis::{Cmd, Script, Value};

use crate::error::{Error, Kind};
use crate::permit::{Fingerprint, Lookup, Unresolved};
use crate::redis::group::Group;
use crate::redis::url::Layout;
use crate::remote::{Answer, LATE_MS, Op, Release};
use crate::stored::Stored;

const MARK: &str = "#!lua flags=allow-oom\nreturn redis.call('HSET', KEYS[1], 'waited', 1)";

/// Bytes of a record before its claim or outcome.
const HEADER: usize = 51;
/// Bytes of a claim of version 1 before its memo.
const CLAIM: usize = 75;
/// And of one of version 2, which has the number of its last declare there.
const DECLARED_CLAIM: usize = CLAIM + 8;
const KIND_CLAIM: u8 = 1;
const KIND_OUTCOME: u8 = 2;
const FLAG_FAILED: u8 = 1;
const FLAG_ABANDONED: u8 = 2;

/// What a script does: a kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Begin,
    Complete,
    Declare,
    Extend,
    Release,
    Get,
    Forget,
}

impl Verb {
    const ALL: [Self; 7] = [
        Self::Begin,
        Self::Complete,
        Self::Declare,
        Self::Extend,
        Self::Release,
        Self::Get,
        Self::Forget,
    ];

    /// Also the key of the operation; none for those that concern no key.
    pub(crate) fn of(op: &Op) -> Option<(Self, &[u8])> {
        match op {
            Op::Begin { key, .. } => Some((Self::Begin, key)),
            Op::Complete { key, .. } => Some((Self::Complete, key)),
            Op::Declare { key, .. } => Some((Self::Declare, key)),
            Op::Extend { key, .. } => Some((Self::Extend, key)),
            Op::Release { key, .. } => Some((Self::Release, key)),
            Op::Get { key } => Some((Self::Get, key)),
            Op::Forget { key, .. } => Some((Self::Forget, key)),
            Op::Unresolved { .. } | Op::Flush | Op::Stop => None,
        }
    }

    /// A server short of memory refuses the first write of `begin`, not its reads; what ends a claim
    /// is done also then: it was promised, and frees more than it takes as soon as retention ends.
    fn flags(self) -> &'static str {
        match self {
            Self::Begin => "",
            Self::Get => "#!lua flags=no-writes\n",
            _ => "#!lua flags=allow-oom\n",
        }
    }

    fn body(self) -> &'static str {
        match self {
            Self::Begin => include_str!("scripts/begin.lua"),
            Self::Complete => include_str!("scripts/complete.lua"),
            Self::Declare => include_str!("scripts/declare.lua"),
            Self::Extend => include_str!("scripts/extend.lua"),
            Self::Release => include_str!("scripts/release.lua"),
            Self::Get => include_str!("scripts/get.lua"),
            Self::Forget => include_str!("scripts/forget.lua"),
        }
    }

    fn is_of_holder(self) -> bool {
        !matches!(self, Self::Begin | Self::Get | Self::Forget)
    }
}

/// The scripts, with their hashes.
pub(crate) struct Scripts {
    loaded: [Loaded; 7],
    /// An outcome is kept this long beyond its retention, so that one that is sent again finds that it
    /// was stored.
    again_ms: u64,
}

struct Loaded {
    text: String,
    hash: String,
}

impl Loaded {
    fn new(verb: Verb) -> Self {
        let holder = if verb.is_of_holder() {
            include_str!("scripts/holder.lua")
        } else {
            ""
        };
        let text = [
            verb.flags(),
            include_str!("scripts/head.lua"),
            holder,
            verb.body(),
            include_str!("scripts/tail.lua"),
        ]
        .concat();
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

impl Scripts {
    /// `timeout`: how long an operation is sent again.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            loaded: Verb::ALL.map(Loaded::new),
            again_ms: timeout.as_millis() as u64,
        }
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.loaded.iter().map(|loaded| loaded.text.as_str())
    }

    /// A write, also when memory is short. `WAIT` waits for the last write of its connection: without
    /// this one, for nothing when the scripts before it found that all was done already, over a
    /// connection that was lost or by another.
    pub(crate) fn mark(&self, layout: &Layout) -> Cmd {
        let mut cmd = Cmd::new();
        cmd.arg("EVAL").arg(MARK).arg(1).arg(&layout.meta);
        cmd
    }

    /// The command for operations of one kind on keys of one shard. `in_full` sends the script
    /// itself, which the server then keeps: the answer to NOSCRIPT.
    pub(crate) fn command(&self, group: &Group<'_>, layout: &Layout, in_full: bool) -> Cmd {
        let Group { verb, shard, ops } = group;
        let script = &self.loaded[*verb as usize];
        let mut cmd = Cmd::with_capacity(8 + 6 * ops.len(), 256 + 256 * ops.len());
        if in_full {
            cmd.arg("EVAL").arg(&script.text);
        } else {
            cmd.arg("EVALSHA").arg(&script.hash);
        }
        let begins = *verb == Verb::Begin;
        cmd.arg(1 + usize::from(begins) + ops.len());
        cmd.arg(&shard.declared);
        if begins {
            cmd.arg(&shard.sequence);
        }
        for op in ops {
            let (_, key) = Verb::of(op).expect("it has a key, or it were in no group");
            cmd.arg(shard.value(key));
        }
        if begins {
            cmd.arg(layout.shards()).arg(shard.number);
        }
        for op in ops {
            put(&mut cmd, op, self.again_ms);
        }
        cmd
    }
}

/// What a script needs to know of an operation besides its key. `again_ms`: see [`Scripts`].
fn put(cmd: &mut Cmd, op: &Op, again_ms: u64) {
    match op {
        Op::Begin {
            fingerprint,
            lease_ms,
            claim,
            declared,
            memo,
            ..
        } => {
            cmd.arg(&fingerprint.0[..]);
            if *declared {
                cmd.arg([&claim.0[..], memo].concat())
                    .arg(*lease_ms)
                    .arg("");
            } else {
                cmd.arg(&claim.0[..])
                    .arg(*lease_ms)
                    .arg(*lease_ms + LATE_MS);
            }
        }
        Op::Declare {
            token,
            number,
            memo,
            ..
        } => {
            cmd.arg(&token.to_be_bytes()[..])
                .arg(&number.to_be_bytes()[..])
                .arg(&memo[..]);
        }
        Op::Extend {
            token, lease_ms, ..
        } => {
            cmd.arg(&token.to_be_bytes()[..])
                .arg(*lease_ms)
                .arg(*lease_ms + LATE_MS);
        }
        Op::Complete {
            token,
            failed,
            retain_ms,
            outcome,
            ..
        } => {
            let flags = [if *failed { FLAG_FAILED } else { 0 }];
            cmd.arg(&token.to_be_bytes()[..])
                .arg(&flags[..])
                .arg(*retain_ms)
                .arg(*retain_ms + again_ms)
                .arg(if *retain_ms == 0 { &[] } else { &outcome[..] });
        }
        Op::Release { token, release, .. } => {
            let always = u8::from(*release == Release::Always);
            cmd.arg(&token.to_be_bytes()[..]).arg(always);
        }
        Op::Forget { found, .. } => {
            match found.token() {
                Some(token) => cmd.arg(&token.to_be_bytes()[..]),
                None => cmd.arg(""),
            };
        }
        Op::Get { .. } | Op::Unresolved { .. } | Op::Flush | Op::Stop => {}
    }
}

/// Reads the answer to one operation of [`Scripts::command`]. `again`: the operation may have been done by an
/// earlier attempt.
pub(crate) fn read_answer(op: &Op, value: Value, again: bool) -> Result<Answer, Error> {
    let Value::BulkString(bytes) = value else {
        return Err(unreadable());
    };
    if let Op::Get { key } = op {
        return read_lookup(key, &bytes).map(Answer::Found);
    }
    let (code, rest) = bytes.split_first().ok_or_else(unreadable)?;
    match code {
        b'0' => Ok(Answer::Known(false)),
        b'1' => Ok(Answer::Known(true)),
        b'F' => Ok(Answer::Fresh {
            token: number(rest, 0)?,
        }),
        b'D' => Ok(Answer::InDoubt {
            token: number(rest, 0)?,
            memo: rest[8..].to_vec(),
        }),
        b'P' => Ok(Answer::InFlight {
            until_ms: number(rest, 0)?,
        }),
        b'C' => Ok(Answer::Conflict),
        b'R' => read_stored(rest).map(Answer::Replay),
        b'K' => Ok(Answer::Done),
        b'E' => Ok(Answer::LeftInDoubt),
        // Gone: by the attempt whose answer was lost, as far as anybody can tell.
        b'N' if again && matches!(op, Op::Release { .. }) => Ok(Answer::Done),
        b'N' => Ok(Answer::Fenced),
        b'V' => Err(version(rest.first().copied())),
        _ => Err(unreadable()),
    }
}

/// The token that the first answer to a forget tells: the forget is to be sent again with it.
pub(crate) fn found_token(op: &Op, value: &Value) -> Option<u64> {
    match (op, value) {
        (Op::Forget { .. }, Value::BulkString(bytes)) if bytes.first() == Some(&b'T') => {
            number(bytes, 1).ok()
        }
        _ => None,
    }
}

fn read_lookup(key: &[u8], bytes: &[u8]) -> Result<Lookup, Error> {
    let now_ms = number(bytes, 0)?;
    let Some((place, record)) = bytes[8..].split_first() else {
        return Ok(Lookup::Absent);
    };
    let header = Header::read(record)?;
    if header.kind == KIND_OUTCOME {
        let stored = read_stored(record)?;
        return Ok(if now_ms < stored.retain_until_ms {
            Lookup::Stored(stored)
        } else {
            Lookup::Absent
        });
    }
    let declared = *place == b'd';
    if header.is_held(now_ms) {
        return Ok(Lookup::InFlight {
            until_ms: header.ends_ms,
            declared,
        });
    }
    if !declared {
        return Ok(Lookup::Absent);
    }
    read_unresolved(key, record, now_ms).map(Lookup::InDoubt)
}

/// A declared claim, as it stands in the hash of declared claims.
pub(crate) fn read_unresolved(key: &[u8], record: &[u8], now_ms: u64) -> Result<Unresolved, Error> {
    let header = Header::read(record)?;
    let memo_at = match record[0] {
        1 => CLAIM,
        _ => DECLARED_CLAIM,
    };
    let memo = record.get(memo_at..).ok_or_else(unreadable)?;
    Ok(Unresolved {
        key: key.to_vec(),
        fingerprint: Fingerprint(header.fingerprint),
        memo: memo.to_vec(),
        token: header.token,
        since_ms: number(record, HEADER)?,
        held: header.is_held(now_ms),
    })
}

fn read_stored(record: &[u8]) -> Result<Stored, Error> {
    let header = Header::read(record)?;
    if header.kind != KIND_OUTCOME {
        return Err(unreadable());
    }
    Ok(Stored {
        outcome: record[HEADER..].to_vec(),
        fingerprint: header.fingerprint,
        failed: header.flags & FLAG_FAILED != 0,
        token: header.token,
        retain_until_ms: header.ends_ms,
        record_bytes: 0,
    })
}

struct Header {
    kind: u8,
    flags: u8,
    fingerprint: [u8; 32],
    token: u64,
    ends_ms: u64,
}

impl Header {
    fn read(record: &[u8]) -> Result<Self, Error> {
        if record.len() < HEADER {
            return Err(unreadable());
        }
        if !matches!(record[0], 1 | 2) {
            return Err(version(record.first().copied()));
        }
        let (kind, flags) = match record.get(1..3) {
            Some(&[kind, flags]) if matches!(kind, KIND_CLAIM | KIND_OUTCOME) => (kind, flags),
            _ => return Err(unreadable()),
        };
        let fingerprint = record.get(3..35).and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            kind,
            flags,
            fingerprint: fingerprint.ok_or_else(unreadable)?,
            token: number(record, 35)?,
            ends_ms: number(record, 43)?,
        })
    }

    fn is_held(&self, now_ms: u64) -> bool {
        self.flags & FLAG_ABANDONED == 0 && now_ms < self.ends_ms
    }
}

fn number(bytes: &[u8], at: usize) -> Result<u64, Error> {
    let bytes = bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(unreadable)
}

fn version(version: Option<u8>) -> Error {
    version.map_or_else(unreadable, |version| {
        Error::new(Kind::ServerVersion(version.into()))
    })
}

pub(crate) fn unreadable() -> Error {
    Error::new(Kind::Unreadable("a record is cut short"))
}
