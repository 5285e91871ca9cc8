//! The command as a user starts it.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod support;
#[cfg(all(test, feature = "trace", target_os = "linux"))]
mod trace;
