//! Fields of the structs that programs leave in maps and rings, in the machine's byte order.

/// The `u64` at `at`.
///
/// # Panics
///
/// Where `bytes` ends before it: the caller has checked the length.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The `u32` at `at`; panics as [`word`].
pub(crate) fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// The sixteen bytes at `at`; panics as [`word`].
pub(crate) fn name(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes[at..at + 16].try_into().expect("16 bytes")
}

/// A name up to its first NUL; what is not UTF-8 becomes U+FFFD.
pub(crate) fn text(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(16);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
