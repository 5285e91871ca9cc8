//! The identifiers that travel in frames.

use std::fmt;

use super::{DEVICE_ID_BYTES_MAX, ErrorCode, Violation};

/// Declares an opaque 16-byte identifier that prints as 32 hexadecimal digits.
macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id16! {
    /// Names one command for ever: random, chosen by the gateway, recognised by the device.
    CommandId
}
id16! {
    /// Names the memory in which a device remembers commands. A device that lost that memory
    /// says HELLO with a new boot id, and the gateway knows that it cannot recognise old ids.
    BootId
}
id16! {
    /// Given out in WELCOME. A HELLO that carries the live session's token takes that session over.
    SessionToken
}

/// A device's name: 1 to 64 bytes of UTF-8 without control characters.
///
/// ```
/// use gateway::proto::DeviceId;
/// assert_eq!(DeviceId::parse(b"pump-7").unwrap().as_str(), "pump-7");
/// assert!(DeviceId::parse(b"").is_err());
/// assert!(DeviceId::parse(b"\xff").is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceId<'a>(&'a str);

impl<'a> DeviceId<'a> {
    /// Checks length, encoding and characters.
    ///
    /// # Errors
    ///
    /// A [`Violation`] with [`ErrorCode::BadDeviceId`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Violation> {
        let bad = |detail| Err(Violation::new(ErrorCode::BadDeviceId, detail));
        if bytes.is_empty() || bytes.len() > DEVICE_ID_BYTES_MAX {
            return bad("a device id has 1 to 64 bytes");
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().any(char::is_control) => {
                bad("a device id has no control characters")
            }
            Ok(text) => Ok(Self(text)),
            Err(_) => bad("a device id is UTF-8"),
        }
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }
}
