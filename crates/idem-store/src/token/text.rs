//! base64url without padding (RFC 4648, section 5), strictly: one text for each value.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const NONE: u8 = 0xFF;

const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut at = 0;
    while at < 64 {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};

/// The text of `bytes`; `CHARS` is `BYTES` * 4 / 3, rounded up.
pub(super) fn encode<const BYTES: usize, const CHARS: usize>(bytes: [u8; BYTES]) -> [u8; CHARS] {
    const { assert!(CHARS == (BYTES * 4).div_ceil(3)) };
    let mut text = [0; CHARS];
    for (group, out) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for (at, out) in out.iter_mut().enumerate() {
            *out = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
        }
    }
    text
}

/// The bytes of a text of exactly `CHARS` characters; the error says what is wrong.
pub(super) fn decode<const BYTES: usize, const CHARS: usize>(
    text: &str,
) -> Result<[u8; BYTES], &'static str> {
    const { assert!(CHARS == (BYTES * 4).div_ceil(3)) };
    let text: &[u8; CHARS] = text
        .as_bytes()
        .try_into()
        .map_err(|_| "it has another length")?;
    let mut bytes = [0; BYTES];
    for (group, out) in text.chunks(4).zip(bytes.chunks_mut(3)) {
        let mut bits = 0_u32;
        for (at, character) in group.iter().enumerate() {
            let value = VALUES[usize::from(*character)];
            if value == NONE {
                return Err("it has a character that is not of base64url");
            }
            bits |= u32::from(value) << (18 - 6 * at);
        }
        let [_, all @ ..] = bits.to_be_bytes();
        let (kept, unused) = all.split_at(out.len());
        if unused.iter().any(|byte| *byte != 0) {
            return Err("its last character has bits that mean nothing");
        }
        out.copy_from_slice(kept);
    }
    Ok(bytes)
}
