//! Stores in SQL databases: the state machine of a key in one table, see docs/SQL.md.
//!
//! A row is never deleted while somebody could hold its key or act on a decision about it: what is
//! released or forgotten is marked free, and swept a minute after nothing can rest on it any more.
//! So fencing tokens, which are drawn under the row's lock, grow for each key without a gap in that
//! argument.

#[cfg(feature = "mysql")]
pub(crate) mod mysql;
mod pool;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod row;
mod url;

use crate::error::{Error, Kind};
use crate::options::Options;
use crate::remote::Limits;

/// The version of the tables that this program reads and writes. Version 1 lacks the index that
/// lists claims in doubt, versions 1 and 2 the number of a claim's last declare; they are added.
const SCHEMA_VERSION: u64 = 3;

/// A row is swept this long after it expired. Longer than any statement may run (`timeout_ms_max`).
const SWEEP_GRACE_MS: u64 = 60_000;

/// Rows that one statement sweeps.
const SWEEP_ROWS: u64 = 1_000;

/// Operations that may wait; beyond that only what a holder asks is taken.
const PENDING_MAX: u64 = 65_536;

/// Longest key: what a primary key of every one of these databases holds.
const KEY_BYTES_MAX: u32 = 2_048;

/// Longest outcome or memo: what a MEDIUMBLOB holds.
const PAYLOAD_BYTES_MAX: u32 = (16 << 20) - 1;

fn limits(settings: &url::Settings) -> Limits {
    Limits {
        pending_max: PENDING_MAX,
        timeout: settings.timeout,
    }
}

fn check_options(options: &Options) -> Result<(), Error> {
    if options.key_bytes_max > KEY_BYTES_MAX {
        let what = "key_bytes_max is above 2048, which is the most that a SQL store holds";
        return Err(Error::new(Kind::Options(what)));
    }
    if options.outcome_bytes_max.max(options.memo_bytes_max) > PAYLOAD_BYTES_MAX {
        let what = "outcome_bytes_max or memo_bytes_max is above 16777215, which is the most that a \
                    SQL store holds";
        return Err(Error::new(Kind::Options(what)));
    }
    Ok(())
}
