//! Where a function or type stands in the kernel's BTF: its id, which tracing programs are loaded with.
//!
//! Source: Documentation/bpf/btf.rst. A header of u32 words (magic and version first; header length,
//! type section offset and length, string section offset and length), then types, then strings.
//! A type is three words, the second of which tells its kind and how many entries follow; ids count
//! from 1 in order.

/// The kinds that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Typedef = 8,
    Func = 12,
}

const MAGIC_AND_VERSION: [u8; 3] = [0x9f, 0xeb, 1];
const MAGIC_AND_VERSION_BIG: [u8; 3] = [0xeb, 0x9f, 1];

/// The id of the first type of this kind and name; `None` when there is none, or `btf` is no BTF of
/// this machine's byte order.
pub(super) fn find(btf: &[u8], kind: Kind, name: &str) -> Option<u32> {
    let magic = if cfg!(target_endian = "little") {
        MAGIC_AND_VERSION
    } else {
        MAGIC_AND_VERSION_BIG
    };
    if !btf.starts_with(&magic) {
        return None;
    }
    let [head, types_at, types_bytes, strings_at] =
        [4, 8, 12, 16].map(|offset| word(btf, offset).map(|word| word as usize));
    let start = head?.checked_add(types_at?)?;
    let types = btf.get(start..start.checked_add(types_bytes?)?)?;
    let strings = btf.get(head?.checked_add(strings_at?)?..)?;

    let (mut at, mut id) = (0, 1);
    loop {
        let (name_at, info) = (word(types, at)?, word(types, at + 4)?);
        if info >> 24 & 0x1f == kind as u32 && is_named(strings, name_at, name) {
            return Some(id);
        }
        at += 12 + trailing_bytes(info)?;
        id += 1;
    }
}

fn is_named(strings: &[u8], at: u32, name: &str) -> bool {
    let rest = strings
        .get(at as usize..)
        .and_then(|rest| rest.strip_prefix(name.as_bytes()));
    rest.is_some_and(|rest| rest.first() == Some(&0))
}

/// Bytes behind a type's three words; `None` for a kind of which this does not know.
fn trailing_bytes(info: u32) -> Option<usize> {
    let entries = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        1 | 14 | 17 => 4,                // INT, VAR, DECL_TAG
        2 | 7..=12 | 16 | 18 => 0,       // PTR, FWD to FUNC, FLOAT, TYPE_TAG
        3 => 12,                         // ARRAY
        4 | 5 | 15 | 19 => entries * 12, // STRUCT, UNION, DATASEC, ENUM64
        6 | 13 => entries * 8,           // ENUM, FUNC_PROTO
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{Kind, find};

    /// An int, a struct of two members, a typedef and a function of the same name.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0pair\0name\0";
        let types: Vec<u32> = [
            vec![1, 1 << 24, 4, 32],
            vec![5, 4 << 24 | 2, 8, 1, 1, 0, 1, 1, 32],
            vec![10, 8 << 24, 1],
            vec![10, 12 << 24, 3],
        ]
        .concat();
        let types_bytes = types.len() as u32 * 4;
        let mut btf: Vec<u8> = 0xeb9f_u16.to_ne_bytes().to_vec();
        btf.extend([1, 0]);
        for word in [24, 0, types_bytes, types_bytes, strings.len() as u32] {
            btf.extend(word.to_ne_bytes());
        }
        btf.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        btf.extend(strings);
        btf
    }

    #[test]
    fn ids_count_types_of_every_length() {
        let btf = sample();
        assert_eq!(find(&btf, Kind::Typedef, "name"), Some(3));
        assert_eq!(find(&btf, Kind::Func, "name"), Some(4));
        assert_eq!(find(&btf, Kind::Func, "nam"), None);
        assert_eq!(find(&btf, Kind::Func, "pair"), None);
    }

    #[test]
    fn no_cut_or_changed_byte_is_a_panic() {
        let btf = sample();
        for len in 0..btf.len() {
            find(&btf[..len], Kind::Func, "name");
        }
        for at in 0..btf.len() {
            let mut damaged = btf.clone();
            damaged[at] ^= 0xff;
            find(&damaged, Kind::Func, "none");
        }
    }
}
