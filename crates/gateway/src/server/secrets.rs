//! What only this run of the gateway can know: sessions' tokens, computed again when they are asked for instead of
//! kept for each session.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::proto::SessionToken;

/// A random key. It dies with the process, and every token with it.
pub(crate) struct Secrets([u8; 32]);

impl Secrets {
    pub(crate) fn random() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the kernel's random source works after boot");
        Self(key)
    }

    /// The token of a session: HMAC-SHA-256 of its epoch under the key, the first half.
    pub(crate) fn session_token(&self, epoch: u64) -> SessionToken {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        let tag: [u8; 32] = mac
            .chain_update(epoch.to_le_bytes())
            .finalize()
            .into_bytes()
            .into();
        let mut token = SessionToken::default();
        token.0.copy_from_slice(&tag[..16]);
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_one_epoch_of_one_run() {
        let (one, other) = (Secrets::random(), Secrets::random());
        assert_eq!(one.session_token(1), one.session_token(1));
        assert_ne!(one.session_token(1), one.session_token(2));
        assert_ne!(one.session_token(1), other.session_token(1));
    }
}
