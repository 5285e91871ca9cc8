//! Persist before send: a token is stored before it is first used, so that every retry uses it too.

use super::error::{Kind, TokenError};
use super::{Token, TokenService};
use crate::{Begin, Begun, Completion, Error, Permit, Store, Stored};

/// The version of what [`Attempt`] puts before the caller's memo.
const MEMO_VERSION: u8 = 1;
const PREFIX_BYTES: usize = 1 + Token::BYTES;

/// What became of a key whose effect is sent with a token, and with which token to send it.
///
/// The token is in the memo of the declared claim: it is durable before this is answered, in the same
/// record, and whoever takes the key over after a crash finds it there.
///
/// ```
/// use idem_store::token::{Attempt, FileWorkers, Generator, GeneratorOptions, TokenService};
/// use idem_store::{Begin, Fingerprint, Options, Store};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Store::open(dir.path().join("store"), Options::new())?;
/// let workers = FileWorkers::new(dir.path().join("workers"));
/// let tokens = TokenService::new(Generator::open(&workers, GeneratorOptions::new())?);
///
/// let begin = Begin::new(b"order-17", Fingerprint([7; 32]), 30_000, 1_000);
/// let Attempt::First { permit, token } = Attempt::begin(&store, &tokens, &begin)? else { panic!() };
/// let sent = token; // ... the request is sent with it, and the process dies ...
/// drop(permit);
///
/// let Attempt::Again { permit, token } = Attempt::begin(&store, &tokens, &begin)? else { panic!() };
/// assert_eq!(token, sent); // the same one: a target that knows it does nothing twice
/// store.complete(permit, b"charged", 86_400_000, 2_000).wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Attempt {
    /// Nobody has sent anything: send it with this token.
    First {
        /// The right to do it.
        permit: Permit,
        /// Stored already.
        token: Token,
    },
    /// A holder vanished; it may have sent. Ask the target by this token, or send again with it if
    /// the target recognises tokens.
    Again {
        /// The right to find out.
        permit: Permit,
        /// The one that was stored before the first attempt.
        token: Token,
    },
    /// It happened: this is its outcome.
    Replay(Stored),
    /// Somebody else is at work.
    InFlight {
        /// End of the holder's lease, Unix milliseconds.
        until_ms: u64,
    },
    /// The key is known with another fingerprint.
    Conflict,
}

impl Attempt {
    /// Begins a key with a token that is durable when this returns. A memo of `begin` is kept after
    /// the token, see [`memo`](Self::memo); the token takes 17 bytes of `memo_bytes_max`.
    ///
    /// # Errors
    /// Those of [`Generator::next`](super::Generator::next), and
    /// [`is_lease_failed`](TokenError::is_lease_failed) with the [`Error`] of
    /// [`Store::begin`] as its source.
    pub fn begin(
        store: &Store,
        tokens: &TokenService,
        begin: &Begin<'_>,
    ) -> Result<Self, TokenError> {
        let begun = Self::start(store, tokens, begin)?.wait();
        Self::of(begun.map_err(failed)?)
    }

    /// As [`begin`](Self::begin), for async code. Only the generator may block: for the next
    /// millisecond, and once per `reserve_ms` for a write.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn begin_async(
        store: &Store,
        tokens: &TokenService,
        begin: &Begin<'_>,
    ) -> Result<Self, TokenError> {
        let begun = Self::start(store, tokens, begin)?.await;
        Self::of(begun.map_err(failed)?)
    }

    /// The caller's own part of a memo that holds a token.
    #[must_use]
    pub fn memo(permit: &Permit) -> &[u8] {
        permit.memo().get(PREFIX_BYTES..).unwrap_or_default()
    }

    fn start(
        store: &Store,
        tokens: &TokenService,
        begin: &Begin<'_>,
    ) -> Result<Completion<Begun>, TokenError> {
        let token = tokens.next(&begin.fingerprint.0)?;
        let mut memo = Vec::with_capacity(PREFIX_BYTES + begin.memo.len());
        memo.push(MEMO_VERSION);
        memo.extend_from_slice(&token.to_bytes());
        memo.extend_from_slice(begin.memo);
        Ok(store.begin(&begin.declare(&memo)))
    }

    fn of(begun: Begun) -> Result<Self, TokenError> {
        Ok(match begun {
            Begun::Fresh(permit) => Self::First {
                token: token_of(&permit)?,
                permit,
            },
            Begun::InDoubt(permit) => Self::Again {
                token: token_of(&permit)?,
                permit,
            },
            Begun::Replay(stored) => Self::Replay(stored),
            Begun::InFlight { until_ms } => Self::InFlight { until_ms },
            Begun::Conflict => Self::Conflict,
        })
    }
}

fn token_of(permit: &Permit) -> Result<Token, TokenError> {
    let foreign = || TokenError::new(Kind::Memo);
    let token = match permit.memo().split_first() {
        Some((&MEMO_VERSION, rest)) => rest.first_chunk(),
        _ => None,
    };
    Token::from_bytes(*token.ok_or_else(foreign)?).map_err(|_| foreign())
}

fn failed(error: Error) -> TokenError {
    TokenError::caused("store the token", error)
}
