//! What the gateway keeps in the store: claim keys, claim memos and outcomes, byte by byte in
//! `docs/FORMAT.md` of this crate.

use crate::proto::{BootId, CommandId, DeviceId};

const VERSION: u8 = 1;

/// Scope of a command's key in the store: the device, then the caller's `Idempotency-Key`.
///
/// ```
/// use gateway::server::{device_and_key, store_key};
///
/// let key = store_key("sensor-1", "order-17");
/// assert_eq!(device_and_key(&key), Some(("sensor-1", "order-17")));
/// assert_eq!(device_and_key(b"order-17"), None);
/// ```
///
/// # Panics
/// A device id has at most 64 bytes: one of more than 255 panics.
#[must_use]
pub fn store_key(device: &str, idempotency_key: &str) -> Vec<u8> {
    let device_bytes = u8::try_from(device.len()).expect("a device id has at most 64 bytes");
    let mut key = Vec::with_capacity(2 + device.len() + idempotency_key.len());
    key.extend_from_slice(&[VERSION, device_bytes]);
    key.extend_from_slice(device.as_bytes());
    key.extend_from_slice(idempotency_key.as_bytes());
    key
}

/// The device in a [`store_key`]; `None` when the key was not made by this gateway.
pub(crate) fn device_of(store_key: &[u8]) -> Option<DeviceId<'_>> {
    let (&version, rest) = store_key.split_first()?;
    let (&device_bytes, rest) = rest.split_first()?;
    let device = rest.get(..usize::from(device_bytes))?;
    (version == VERSION)
        .then(|| DeviceId::parse(device).ok())
        .flatten()
}

/// The device and the caller's key in a [`store_key`]; `None` when it was not made by a gateway.
#[must_use]
pub fn device_and_key(store_key: &[u8]) -> Option<(&str, &str)> {
    let device = device_of(store_key)?.as_str();
    let key = std::str::from_utf8(&store_key[2 + device.len()..]).ok()?;
    let visible = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    visible.then_some((device, key))
}

/// What a claim remembers: which command it is, and which memory of the device would recognise it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memo {
    pub(crate) id: CommandId,
    /// The boot id of the device that the command may have reached; `None` before it was sent.
    pub(crate) boot: Option<BootId>,
}

impl Memo {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(33);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(self.boot.as_ref().map_or(&[], |boot| &boot.0));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (id, boot) = rest.split_first_chunk::<16>()?;
        let boot = match boot {
            [] => None,
            boot => Some(BootId(boot.try_into().ok()?)),
        };
        (version == VERSION).then_some(Self {
            id: CommandId(*id),
            boot,
        })
    }
}

/// How a command ended, for ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The device executed it and answered JSON.
    Json(Vec<u8>),
    /// The device executed it and answered bytes of its own kind.
    Opaque(Vec<u8>),
    /// The device lost its memory while the command was out.
    DeviceForgot,
    /// The device was interrupted inside the command.
    Interrupted,
}

impl Outcome {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, body): (u8, &[u8]) = match self {
            Self::Json(body) => (0, body),
            Self::Opaque(body) => (1, body),
            Self::DeviceForgot => (2, &[]),
            Self::Interrupted => (3, &[]),
        };
        let mut bytes = Vec::with_capacity(2 + body.len());
        bytes.extend_from_slice(&[VERSION, kind]);
        bytes.extend_from_slice(body);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, kind], body) = bytes.split_first_chunk::<2>()? else {
            return None;
        };
        match kind {
            0 => Some(Self::Json(body.to_vec())),
            1 => Some(Self::Opaque(body.to_vec())),
            2 => Some(Self::DeviceForgot),
            3 => Some(Self::Interrupted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether docs/FORMAT.md prints these bytes.
    fn printed(bytes: &[u8]) -> bool {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let page = include_str!("../../docs/FORMAT.md");
        page.contains(&format!("`{}`", hex.join(" ")))
    }

    #[test]
    fn stored_bytes_are_those_of_the_page() {
        let ids: Vec<u8> = (0..16).chain(0xa0..0xb0).collect();
        let [boot, command] = [&ids[..16], &ids[16..]].map(|id| id.try_into().unwrap());
        let memo = Memo {
            id: CommandId(command),
            boot: Some(BootId(boot)),
        };
        assert!(printed(&store_key("pump-7", "k-1")));
        assert!(printed(&memo.encode()));
        for outcome in [
            Outcome::Json(b"42".to_vec()),
            Outcome::Opaque(vec![255]),
            Outcome::DeviceForgot,
            Outcome::Interrupted,
        ] {
            assert!(printed(&outcome.encode()), "{outcome:?}");
        }
        let payload = br#"{"b":1e2,"a":1.0}"#;
        let fingerprint = idem_store::Fingerprint::of_json(payload).unwrap();
        assert!(printed(&fingerprint.0));
    }

    #[test]
    fn keys_name_their_device() {
        let key = store_key("pump-7", "order 1");
        assert_eq!(device_of(&key).map(DeviceId::as_str), Some("pump-7"));
        assert_ne!(store_key("a", "bc"), store_key("ab", "c"));
        assert_eq!(device_of(b"\x01\x09short"), None);
        assert_eq!(device_of(b""), None);
    }

    #[test]
    fn memos_and_outcomes_read_back() {
        let memo = Memo {
            id: CommandId([7; 16]),
            boot: Some(BootId([9; 16])),
        };
        assert_eq!(Memo::decode(&memo.encode()), Some(memo));
        let unsent = Memo { boot: None, ..memo };
        assert_eq!(Memo::decode(&unsent.encode()), Some(unsent));
        assert_eq!(Memo::decode(&memo.encode()[..20]), None);
        for outcome in [
            Outcome::Json(b"{}".to_vec()),
            Outcome::Opaque(vec![0, 255]),
            Outcome::DeviceForgot,
            Outcome::Interrupted,
        ] {
            assert_eq!(Outcome::decode(&outcome.encode()), Some(outcome));
        }
        assert_eq!(Outcome::decode(&[2, 0]), None);
    }
}
