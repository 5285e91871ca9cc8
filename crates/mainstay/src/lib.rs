//! One dependency for services that hold very many long-lived connections and must do every effect
//! at most once, and know it. Each crate is useful alone; this one only re-exports them, one feature a crate, and
//! the feature `full` for all that need no C compiler. A feature of a crate is one here, behind the crate's name:
//! `idem-store-redis` is `redis` of idem-store.
//!
//! | feature | the question it answers |
//! |---|---|
//! | [`canon-ser`](canon_ser), and with it `canon-ser-blake3`, `canon-ser-ciborium`, `canon-ser-rules` | do two machines produce the same bytes for the same value? |
//! | [`timerwheel`], and with it `timerwheel-service`, `timerwheel-tokio` | when does it fire? |
//! | [`idem-store`](idem_store), and with it `-fingerprint`, `-token`, `-tower`; `-redis`, `-redis-cluster`, `-redis-sentinel`, `-redis-tls`, `-postgres`, `-postgres-tls`, `-mysql`; with a C compiler `-redis-tls-ring`, `-postgres-tls-ring` | did this already happen? |
//! | [`heartbeat-codec`](heartbeat_codec), and with a C compiler `heartbeat-codec-batch` | is the other side alive? |
//! | [`conn-reactor`](conn_reactor), and with it `conn-reactor-tokio`, `conn-reactor-tracing` | who is connected, what can be read or written? |
//! | [`ebpf-ring`](ebpf_ring), and with it `ebpf-ring-tokio`, with a C compiler `ebpf-ring-libbpf` | what does the kernel see, now? |
//! | [`circuit`], and with it `circuit-tower` | should I stop trying? |
//! | [`scheduler`], and with it `scheduler-store`, `scheduler-tokio`, `scheduler-bundled-zones` | which job runs now, and only here? |
//! | `kernel-scope` | why was it slow, who leaks, who iterates? |
//! | [`gateway`](gateway::server), and with it `gateway-redis`, `gateway-postgres`, `gateway-mysql`; [`device`](gateway::device) | all of it at work |
//!
//! ```
//! # #[cfg(all(feature = "canon-ser", feature = "timerwheel"))] {
//! let bytes = mainstay::canon_ser::json::canonicalize(br#"{"b": 1e2, "a": 1}"#).unwrap();
//! assert_eq!(bytes, br#"{"a":1,"b":100}"#);
//!
//! let mut wheel = mainstay::timerwheel::Wheel::new(0);
//! wheel.insert(30, "thirty");
//! assert_eq!(wheel.pop_due(29), None);
//! assert_eq!(wheel.pop_due(30).map(|(_, value)| value), Some("thirty"));
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "canon-ser")]
pub use canon_ser;
#[cfg(feature = "circuit")]
pub use circuit;
#[cfg(feature = "conn-reactor")]
pub use conn_reactor;
#[cfg(feature = "ebpf-ring")]
pub use ebpf_ring;
#[cfg(any(feature = "gateway", feature = "device"))]
pub use gateway;
#[cfg(feature = "heartbeat-codec")]
pub use heartbeat_codec;
#[cfg(feature = "idem-store")]
pub use idem_store;
#[cfg(feature = "kernel-scope")]
pub use kernel_scope;
#[cfg(feature = "scheduler")]
pub use scheduler;
#[cfg(feature = "timerwheel")]
pub use timerwheel;
