//! A device's id in 16 bytes.

use std::num::NonZeroU8;

use serde::{Deserialize, Serialize, Serializer};

const SHORT_BYTES: usize = 15;

/// An id of at most 15 bytes (a serial number, a MAC address without colons) lies here; a longer one lies elsewhere, and
/// costs two more allocations.
#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(from = "Box<str>")]
pub(crate) enum Id {
    Short {
        /// Ids have at least one byte. That it is never 0 is what tells the two apart without a byte of its own.
        len: NonZeroU8,
        bytes: [u8; SHORT_BYTES],
    },
    /// One word, where the text itself would take two.
    Long(Box<Box<str>>),
}

impl Id {
    pub(crate) fn new(id: &str) -> Self {
        let short = u8::try_from(id.len()).ok().and_then(NonZeroU8::new);
        match short.filter(|len| usize::from(len.get()) <= SHORT_BYTES) {
            Some(len) => {
                let mut bytes = [0; SHORT_BYTES];
                bytes[..id.len()].copy_from_slice(id.as_bytes());
                Self::Short { len, bytes }
            }
            None => Self::Long(Box::new(id.into())),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(len.get())],
            Self::Long(id) => id.as_bytes(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("it was made of a str")
    }
}

impl From<Box<str>> for Id {
    fn from(id: Box<str>) -> Self {
        Self::new(&id)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        assert_eq!(size_of::<Id>(), 16);
        for len in 0..=64 {
            let text = "é".repeat(len / 2) + &"a".repeat(len % 2);
            let id = Id::new(&text);
            assert_eq!((id.as_str(), id.as_bytes()), (&*text, text.as_bytes()));
            assert_eq!(matches!(id, Id::Short { .. }), (1..=15).contains(&len));
        }
    }
}
