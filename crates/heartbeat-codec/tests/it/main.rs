//! Behaviour of the codec as its users see it.

mod beat;
mod capability;
mod delta;
mod detector;
mod fixed;
mod frame;
mod vectors;
