//! The tests of `idem-store`, one module per behaviour.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::print_stderr,
    reason = "long runs tell how far they are, and which seed failed"
)]

mod cached;
#[cfg(any(feature = "postgres-tls-ring", feature = "redis-tls-ring"))]
mod certificate;
mod concurrency;
mod contract;
mod damage;
mod disk;
mod faults;
#[cfg(feature = "fingerprint")]
mod fingerprint;
mod full_disk;
mod golden;
#[cfg(feature = "tower")]
mod http;
mod key_spec;
mod kill;
mod linearizability;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod on_runtime;
#[cfg(any(feature = "postgres-tls-ring", feature = "redis"))]
mod ports;
mod progress;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod proxy;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod shared;
mod simulation;
mod snapshot;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod sql;
#[cfg(feature = "token")]
mod token;
mod upkeep;
