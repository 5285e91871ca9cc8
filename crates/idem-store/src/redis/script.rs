//! One script per operation: what is sent, and what comes back.

use redis::{Cmd, Script, Value};

use crate::error::{Error, Kind};
use crate::permit::{Fingerprint, Lookup, Unresolved};
use crate::redis::url::Layout;
use crate::remote::{Answer, Op, Release};
use crate::stored::Stored;

/// A claim without an effect is kept this long beyond its lease, so that a late outcome is still
/// taken while nobody else holds the key: an hour.
const LATE_MS: u64 = 3_600_000;

/// Bytes of a record before its claim or outcome.
const HEADER: usize = 51;
/// Bytes of a claim before its memo.
const CLAIM: usize = 75;
const KIND_CLAIM: u8 = 1;
const KIND_OUTCOME: u8 = 2;
const FLAG_FAILED: u8 = 1;
const FLAG_ABANDONED: u8 = 2;

/// The scripts, with their hashes.
pub(crate) struct Scripts {
    begin: Loaded,
    complete: Loaded,
    declare: Loaded,
    extend: Loaded,
    release: Loaded,
    get: Loaded,
    forget: Loaded,
}

struct Loaded {
    text: String,
    hash: String,
}

impl Loaded {
    fn new(text: String) -> Self {
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// What ends a claim is done also when memory is short: it was promised, and frees more than it
    /// takes as soon as retention ends.
    fn of_holder(text: &str) -> Self {
        let flags = "#!lua flags=allow-oom\n";
        Self::new(format!(
            "{flags}{}{text}",
            include_str!("scripts/holder.lua")
        ))
    }
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            // Without flags: a server short of memory refuses its first write, not its reads.
            begin: Loaded::new(include_str!("scripts/begin.lua").to_owned()),
            complete: Loaded::of_holder(include_str!("scripts/complete.lua")),
            declare: Loaded::of_holder(include_str!("scripts/declare.lua")),
            extend: Loaded::of_holder(include_str!("scripts/extend.lua")),
            release: Loaded::of_holder(include_str!("scripts/release.lua")),
            get: Loaded::new(format!(
                "#!lua flags=no-writes\n{}",
                include_str!("scripts/get.lua")
            )),
            forget: Loaded::new(format!(
                "#!lua flags=allow-oom\n{}",
                include_str!("scripts/forget.lua")
            )),
        }
    }

    pub(crate) fn texts(&self) -> [&str; 7] {
        [
            &self.begin.text,
            &self.complete.text,
            &self.declare.text,
            &self.extend.text,
            &self.release.text,
            &self.get.text,
            &self.forget.text,
        ]
    }

    /// The command for an operation on a key. `in_full` sends the script itself, which the server
    /// then keeps: the answer to NOSCRIPT.
    pub(crate) fn command(&self, op: &Op, layout: &Layout, in_full: bool) -> Option<Cmd> {
        let start = |script: &Loaded, key: &[u8], keys: usize| {
            let mut cmd = Cmd::with_capacity(16, 512);
            if in_full {
                cmd.arg("EVAL").arg(&script.text);
            } else {
                cmd.arg("EVALSHA").arg(&script.hash);
            }
            let shard = layout.shard(key);
            cmd.arg(keys).arg(shard.value(key)).arg(&shard.declared);
            if keys == 3 {
                cmd.arg(&shard.sequence);
            }
            cmd.arg(key);
            (cmd, shard.number)
        };
        let mut cmd = match op {
            Op::Begin { key, .. } => {
                let (mut cmd, number) = start(&self.begin, key, 3);
                put_begin(&mut cmd, op);
                cmd.arg(layout.shards()).arg(number).arg(LATE_MS);
                return Some(cmd);
            }
            Op::Complete { key, .. } => start(&self.complete, key, 2).0,
            Op::Declare { key, .. } => start(&self.declare, key, 2).0,
            Op::Extend { key, .. } => start(&self.extend, key, 2).0,
            Op::Release { key, .. } => start(&self.release, key, 2).0,
            Op::Get { key } => start(&self.get, key, 2).0,
            Op::Forget { key } => start(&self.forget, key, 2).0,
            Op::Unresolved { .. } | Op::Flush | Op::Stop => return None,
        };
        put_holder(&mut cmd, op);
        Some(cmd)
    }
}

fn put_begin(cmd: &mut Cmd, op: &Op) {
    if let Op::Begin {
        fingerprint,
        lease_ms,
        claim,
        declared,
        memo,
        ..
    } = op
    {
        cmd.arg(&fingerprint.0[..])
            .arg(*lease_ms)
            .arg(&claim.0[..])
            .arg(u8::from(*declared))
            .arg(&memo[..]);
    }
}

fn put_holder(cmd: &mut Cmd, op: &Op) {
    match op {
        Op::Declare { token, memo, .. } => {
            cmd.arg(&token.to_be_bytes()[..]).arg(&memo[..]);
        }
        Op::Extend {
            token, lease_ms, ..
        } => {
            cmd.arg(&token.to_be_bytes()[..])
                .arg(*lease_ms)
                .arg(LATE_MS);
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
                .arg(&outcome[..]);
        }
        Op::Release { token, release, .. } => {
            let always = u8::from(*release == Release::Always);
            cmd.arg(&token.to_be_bytes()[..]).arg(always);
        }
        _ => {}
    }
}

/// Reads the answer of [`Scripts::command`]. `again`: the operation may have been done by an
/// earlier attempt.
pub(crate) fn read_answer(op: &Op, value: Value, again: bool) -> Result<Answer, Error> {
    let Value::BulkString(bytes) = value else {
        return Err(unreadable());
    };
    match op {
        Op::Get { key } => return read_lookup(key, &bytes).map(Answer::Found),
        Op::Forget { .. } => return Ok(Answer::Known(bytes == b"1")),
        _ => {}
    }
    let (code, rest) = bytes.split_first().ok_or_else(unreadable)?;
    match code {
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
    let memo = record.get(CLAIM..).ok_or_else(unreadable)?;
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
        if record.first() != Some(&1) {
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
