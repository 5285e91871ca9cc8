//! The command as a user starts it.

#[cfg(test)]
mod doctor;
