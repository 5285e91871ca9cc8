//! What tests of the command share: the real binary as a process, and an HTTP client.

pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod random;
#[cfg(feature = "redis")]
#[expect(dead_code, reason = "the store's own tests use all of it")]
#[path = "../../../../idem-store/tests/it/redis/server.rs"]
pub(crate) mod redis;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
pub(crate) mod servers;
#[cfg(any(feature = "mysql", feature = "postgres"))]
#[expect(dead_code, reason = "the store's own tests use all of it")]
#[path = "../../../../idem-store/tests/it/sql/server.rs"]
pub(crate) mod sql;
