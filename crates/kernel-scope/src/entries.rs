use std::os::fd::AsRawFd as _;
use std::ptr;

use libbpf_rs::{MapCore, libbpf_sys};

use crate::error::ScopeError;

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// What is asked for with one system call.
const ENTRIES_AT_ONCE: u32 = 4096;

/// Every entry of a hash map. What is added or removed meanwhile may be among them or not.
///
/// # Errors
///
/// Whatever keeps one entry from being read: there is no silent end before the last one.
pub(crate) fn entries(map: &impl MapCore) -> Result<Vec<Entry>, ScopeError> {
    let read = read_in_batches(map, ENTRIES_AT_ONCE);
    read.map_err(|e| ScopeError::bpf("reading a map", e))
}

/// A batch ends where the next bucket has no room in it, so a short one is not the last one; that is
/// the one that ends with `ENOENT`. A bucket that has no room in an empty batch is `ENOSPC`.
fn read_in_batches(map: &impl MapCore, at_once: u32) -> libbpf_rs::Result<Vec<Entry>> {
    let mut batch = Batch::new(map, at_once);
    let mut entries = Vec::new();
    loop {
        match batch.read_next() {
            0 => batch.take_into(&mut entries),
            errno if errno == -libc::ENOENT => {
                batch.take_into(&mut entries);
                return Ok(entries);
            }
            errno if errno == -libc::EINTR => {}
            // No bucket has more entries than there are.
            errno if errno == -libc::ENOSPC && batch.at_once <= map.max_entries() => {
                batch.make_room_for(batch.at_once * 2);
            }
            errno => return Err(libbpf_rs::Error::from_raw_os_error(-errno)),
        }
    }
}

/// Room for entries of one system call, and where the next one goes on.
struct Batch<'m, M> {
    map: &'m M,
    key_bytes: usize,
    value_bytes: usize,
    at_once: u32,
    keys: Vec<u8>,
    values: Vec<u8>,
    count: u32,
    /// Of the last call that found something.
    position: Option<Vec<u8>>,
    next_position: Vec<u8>,
}

impl<'m, M: MapCore> Batch<'m, M> {
    fn new(map: &'m M, at_once: u32) -> Self {
        /// Of the number of a bucket, which keys may be shorter than.
        const POSITION_BYTES_MIN: usize = 4;
        let key_bytes = map.key_size() as usize;
        let mut batch = Self {
            map,
            key_bytes,
            value_bytes: map.value_size() as usize,
            at_once,
            keys: Vec::new(),
            values: Vec::new(),
            count: 0,
            position: None,
            next_position: vec![0; key_bytes.max(POSITION_BYTES_MIN)],
        };
        batch.make_room_for(at_once);
        batch
    }

    fn make_room_for(&mut self, at_once: u32) {
        self.at_once = at_once;
        self.keys = vec![0; self.key_bytes * at_once as usize];
        self.values = vec![0; self.value_bytes * at_once as usize];
    }

    /// 0, or a negative errno.
    fn read_next(&mut self) -> i32 {
        let options = libbpf_sys::bpf_map_batch_opts {
            sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let position = self.position.as_mut();
        self.count = self.at_once;
        // SAFETY: keys and values have room for `count` of the map's, the two positions for a key
        // and for the four bytes that a hash map writes; none of them overlap.
        unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                self.map.as_fd().as_raw_fd(),
                position.map_or(ptr::null_mut(), |at| at.as_mut_ptr().cast()),
                self.next_position.as_mut_ptr().cast(),
                self.keys.as_mut_ptr().cast(),
                self.values.as_mut_ptr().cast(),
                &raw mut self.count,
                &raw const options,
            )
        }
    }

    /// Moves what was read to `entries`, and on.
    fn take_into(&mut self, entries: &mut Vec<Entry>) {
        let keys = self.keys.chunks_exact(self.key_bytes);
        let values = self.values.chunks_exact(self.value_bytes);
        let found = keys.zip(values).take(self.count as usize);
        entries.extend(found.map(|(key, value)| (key.to_vec(), value.to_vec())));
        self.position = Some(self.next_position.clone());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType, libbpf_sys};

    use super::{entries, read_in_batches};

    /// A hash map, or nothing and the reason why this machine makes none.
    pub(crate) fn map(key_bytes: usize, value_bytes: usize, max_entries: u32) -> Option<MapHandle> {
        let made = make(MapType::Hash, key_bytes, value_bytes, max_entries);
        if let Err(error) = &made {
            crate::skip::skip(format_args!("making a BPF map: {error}"));
        }
        made.ok()
    }

    fn make(
        kind: MapType,
        key_bytes: usize,
        value_bytes: usize,
        max_entries: u32,
    ) -> libbpf_rs::Result<MapHandle> {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let (key, value) = (key_bytes as u32, value_bytes as u32);
        MapHandle::create(kind, None::<&str>, key, value, max_entries, &options)
    }

    const ENTRIES: u32 = 20_000;

    fn full() -> Option<MapHandle> {
        let map = map(4, 8, ENTRIES)?;
        for key in 0..ENTRIES {
            let value = u64::from(key).to_ne_bytes();
            let updated = map.update(&key.to_ne_bytes(), &value, MapFlags::ANY);
            updated.expect("there is room");
        }
        Some(map)
    }

    fn assert_all(found: Vec<super::Entry>) {
        let numbers = found.into_iter().map(|(key, value)| {
            let key = u32::from_ne_bytes(key.try_into().expect("4 bytes"));
            let value = u64::from_ne_bytes(value.try_into().expect("8 bytes"));
            assert_eq!(u64::from(key), value);
            key
        });
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..ENTRIES), "{}", numbers.len());
    }

    #[test]
    fn a_map_of_many_batches_is_read_to_its_end() {
        let Some(map) = full() else {
            return;
        };
        assert_all(entries(&map).expect("it can be read"));
        // Nearly a third of 200 batches end where a bucket of several has no room.
        assert_all(read_in_batches(&map, 100).expect("it can be read"));
    }

    /// There are buckets of several entries: 20,000 of them are in 32,768 buckets.
    #[test]
    fn a_bucket_that_is_larger_than_a_batch_makes_it_grow() {
        let Some(map) = full() else {
            return;
        };
        assert_all(read_in_batches(&map, 1).expect("it can be read"));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_no_end() {
        let Some(empty) = map(4, 8, 1) else {
            return;
        };
        assert!(entries(&empty).expect("it can be read").is_empty());
        // The kernel has no batches of stacks.
        let stacks = make(MapType::StackTrace, 4, 8, 1).expect("made like the other");
        assert!(entries(&stacks).is_err());
    }
}
