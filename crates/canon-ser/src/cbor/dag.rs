//! What DAG-CBOR (IPLD) leaves out of CBOR.

use crate::cbor::read::{Item, Kind, Place};
use crate::error::{Code, Fail};

/// The tag of a link to other content, the only one that there is.
const LINK: u64 = 42;

/// The first byte of a link: the multibase prefix of plain bytes.
const LINK_PREFIX: u8 = 0;

/// Refuses items that DAG-CBOR has not.
pub(crate) fn allow(item: Item<'_>, place: Place) -> Result<(), Fail> {
    let refused = match (place, item) {
        (Place::Key { .. }, Item::Text(_)) => return Ok(()),
        (Place::Key { .. }, _) => Code::DagKey,
        (Place::Tagged, Item::Bytes([LINK_PREFIX, _, ..])) => return Ok(()),
        (Place::Tagged, _) => Code::DagTag,
        (_, Item::Float(value)) if !value.is_finite() => Code::DagFloat,
        (_, Item::Simple(value)) if !(20..=22).contains(&value) => Code::DagSimple,
        (_, Item::Bignum { bytes, .. }) if !fits_integer(bytes) => Code::DagTag,
        _ => return Ok(()),
    };
    Err(Fail::new(refused))
}

/// Refuses containers where DAG-CBOR has none, and tags but that of a link.
pub(crate) fn allow_open(kind: Kind, place: Place) -> Result<(), Fail> {
    let refused = match (place, kind) {
        (Place::Key { .. }, _) => Code::DagKey,
        (Place::Tagged, _) => Code::DagTag,
        (_, Kind::Tag(tag)) if tag != LINK => Code::DagTag,
        _ => return Ok(()),
    };
    Err(Fail::new(refused))
}

/// Is the bignum only a long spelling of an integer?
fn fits_integer(bytes: &[u8]) -> bool {
    bytes.iter().skip_while(|&&byte| byte == 0).count() <= 8
}
