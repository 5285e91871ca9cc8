//! Behaviour of the codec as its users see it.

#[cfg(feature = "batch")]
mod batch;
mod beat;
mod capability;
#[cfg(feature = "datagram")]
mod datagram;
mod delta;
mod detector;
#[path = "../../examples/detectors/tables.rs"]
mod detector_tables;
mod fixed;
mod frame;
mod interop;
#[cfg(any(feature = "protobuf", feature = "serde"))]
mod node;
mod pace;
mod random;
mod soak;
mod vectors;
