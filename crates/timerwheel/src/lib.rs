//! When does it fire? Millions of deadlines in a hierarchical timer wheel.
//!
//! [`Wheel<T>`] holds values that fall due at a tick. Insert, cancel and reschedule are O(1); nothing fires
//! early; the clock is an argument, so that every behaviour can be tested without one.
//!
//! ```
//! use timerwheel::Wheel;
//!
//! let mut wheel = Wheel::new(1_000); // the clock reads 1,000 ticks
//! let hello = wheel.insert(1_030, "hello timeout");
//! wheel.insert(1_500, "idle timeout");
//! assert_eq!(wheel.cancel(hello), Some("hello timeout"));
//!
//! assert_eq!(wheel.pop_due(1_499), None);
//! assert!(matches!(wheel.pop_due(1_500), Some((_, "idle timeout"))));
//! ```
//!
//! | | |
//! |---|---|
//! | [`Wheel<T>`] | values fire in the order of their deadlines' ticks; `no_std` and `alloc` |
//! | [`OrderedWheel<T, P>`] | in the order of deadline, priority, insertion, to the unit |
//! | `service::TimerService` | feature `service`: threads that fire, microseconds late; cancel from anywhere |
//! | `service::FdTimers` | feature `service`: a descriptor for your own event loop |
//! | `service::Sleeps`, `service::DelayQueue` | feature `tokio`: sleep, timeout and a stream, in any runtime |
//!
//! # How it works
//!
//! Write a deadline as eight digits of eight bits. A timer lives on the level of the highest digit in which
//! its deadline differs from the wheel's cursor, in the slot of that digit (George Varghese and Tony Lauck,
//! "Hashed and Hierarchical Timing Wheels", SOSP 1987; the difference rule makes each level hold only slots
//! ahead of the cursor, so that nothing wraps and any `u64` is a valid deadline). One bitmap per level says
//! which slots hold timers, so empty time costs nothing. When the cursor reaches a slot of a higher level, its
//! timers move to lower ones: at most seven moves in a timer's life, and each move counts against the caller's
//! budget.
//!
//! What was measured decided the rest (a million timers, random order; `cargo xtask bench timers`):
//!
//! - **Buckets hold packed entries, not list links.** An entry is eight bytes: 16 bits of the tick, the timer's
//!   index, a stamp. Lists threaded through the timers cost a cache miss per timer and move, and three per cancel:
//!   304 ns an expiry and 67 ns a cancel; entries, 65 and 38. They lie 31 to a chunk and move down in sequence. The
//!   lowest level, whose slots mostly hold a timer or none, links single entries instead.
//! - **Cancel does not look for its entry.** It takes the value out of the slab at once and changes the stamp; the
//!   entry left behind is dead and is dropped where it surfaces. When the dead outnumber the living by half, every
//!   further cancel looks through one chunk for them: memory stays bounded, and no call does more than a chunk of
//!   this work.
//! - **A timer pushed back stays where it is** until its old place comes up: that is one store per arrival for an
//!   idle timeout.
//! - **The last move reads the timers**, a chunk at a time and independently of each other, so that these cache
//!   misses overlap and the timers are at hand when they fire.
//! - **Free nodes are bits**, the lowest first: new timers lie together.
//! - **Slab and buckets grow by blocks**: no insert ever moves more than one small block.
//!
//! # What it does not do
//!
//! The wheels start no thread, read no clock and sleep nowhere: ask [`Wheel::next_deadline`] and wait as you like,
//! or use the feature `service`.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(feature = "service")]
extern crate std;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod buckets;
mod levels;
mod ordered;
#[cfg(feature = "service")]
mod rt;
#[cfg(feature = "service")]
pub mod service;
mod slab;
mod ticks;
mod wheel;

pub use ordered::OrderedWheel;
pub use slab::Key;
pub use wheel::{Advance, Iter, Wheel};
