//! The command as a user starts it.

#[cfg(test)]
mod doctor;
#[cfg(test)]
mod store;
#[cfg(all(test, feature = "trace", target_os = "linux"))]
mod trace;
