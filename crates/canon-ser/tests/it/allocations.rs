//! What is promised not to allocate, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use canon_ser::{cbor, json};
use serde::Serialize;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Bytes that are allocated, and the most that were.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn changed(by: isize) {
    NOW.set(NOW.get() + by);
    MOST.set(MOST.get().max(NOW.get()));
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        changed(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        changed(-(layout.size() as isize));
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        changed(size as isize - layout.size() as isize);
        // SAFETY: as in `dealloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

/// The most bytes that this thread has allocated at a time while `work` runs, beyond those before.
fn most_allocated(work: impl FnOnce()) -> isize {
    let before = NOW.get();
    MOST.set(before);
    work();
    MOST.get() - before
}

#[derive(Serialize)]
struct InOrder {
    a: u64,
    b: &'static str,
    c: Vec<f64>,
    d: Option<BTreeMap<u32, [i8; 3]>>,
}

#[derive(Serialize)]
struct Disordered {
    z: InOrder,
    y: &'static str,
    a: u8,
}

fn in_order() -> InOrder {
    // As strings, 100..1000 are in order.
    let map = (100..1000).map(|n| (n, [1, -2, 3])).collect();
    InOrder {
        a: 1 << 53,
        b: "two\n\"three\" é",
        c: vec![0.1, 1e300, -5.0, 1e-7],
        d: Some(map),
    }
}

#[test]
fn to_slice_of_ordered_values_allocates_nothing() {
    let value = in_order();
    let mut buffer = vec![0; 40_000];
    assert_eq!(
        allocations(|| _ = json::to_slice(&value, &mut buffer).unwrap()),
        0
    );
    assert_eq!(
        allocations(|| _ = cbor::to_slice(&value, &mut buffer).unwrap()),
        0
    );
}

#[test]
fn to_slice_of_small_disorder_allocates_nothing() {
    let value = Disordered {
        z: in_order(),
        y: "x",
        a: 1,
    };
    for encode in [
        |value: &Disordered, buffer: &mut [u8]| json::to_slice(value, buffer).unwrap().len(),
        |value: &Disordered, buffer: &mut [u8]| cbor::to_slice(value, buffer).unwrap().len(),
    ] {
        let mut roomy = vec![0; 40_000];
        let len = encode(&value, &mut roomy);
        let mut exact = vec![0; len];
        assert_eq!(
            allocations(|| _ = encode(&value, &mut exact)),
            0,
            "an exact fit is permuted in place"
        );
        assert_eq!(exact, roomy[..len]);
        assert_eq!(
            allocations(|| _ = encode(&value, &mut roomy)),
            0,
            "so is one with room"
        );
    }
}

#[test]
fn a_warm_encoder_allocates_nothing() {
    let map: HashMap<String, Vec<Disordered>> = (0..200)
        .map(|n| {
            (
                format!("key {n}"),
                vec![Disordered {
                    z: in_order_small(),
                    y: "z",
                    a: 3,
                }],
            )
        })
        .collect();
    let text = serde_json::to_vec(&map).unwrap();
    let mut json_encoder = json::Encoder::new();
    let mut cbor_encoder = cbor::Encoder::new();
    json_encoder.encode(&map).unwrap();
    cbor_encoder.encode(&map).unwrap();
    assert_eq!(
        allocations(|| _ = json_encoder.encode(&map).unwrap().len()),
        0
    );
    assert_eq!(
        allocations(|| _ = cbor_encoder.encode(&map).unwrap().len()),
        0
    );
    let canonical = json_encoder.encode_text(&text).unwrap().to_vec();
    assert_eq!(canonical, json::to_vec(&map).unwrap());
    let mut loose = Vec::new();
    ciborium::into_writer(&map, &mut loose).unwrap();
    let canonical = cbor_encoder.encode_item(&loose).unwrap().to_vec();
    assert_eq!(canonical, cbor::to_vec(&map).unwrap());
    assert!(
        cbor_encoder
            .encode_item(b"\xa2\0\0\0\0")
            .unwrap_err()
            .is_duplicate_key()
    );
    assert_eq!(cbor_encoder.encode_item(&loose).unwrap(), canonical);
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let array = cbor::from_json(nested.as_bytes()).unwrap();
    json_encoder.encode_text(nested.as_bytes()).unwrap();
    cbor_encoder.encode_item(&array).unwrap();
    for (text, item) in [(&text, &loose), (&nested.into_bytes(), &array)] {
        let rewritten = allocations(|| _ = json_encoder.encode_text(text).unwrap());
        assert_eq!(rewritten, 0);
        let rewritten = allocations(|| _ = cbor_encoder.encode_item(item).unwrap());
        assert_eq!(rewritten, 0);
    }
}

fn in_order_small() -> InOrder {
    InOrder {
        d: None,
        ..in_order()
    }
}

#[test]
fn checks_allocate_nothing() {
    let value = Disordered {
        z: in_order(),
        y: "\u{1}",
        a: 1,
    };
    let text = json::to_vec(&value).unwrap();
    let bytes = cbor::to_vec(&value).unwrap();
    assert_eq!(allocations(|| json::check(&text).unwrap()), 0);
    assert_eq!(allocations(|| cbor::check(&bytes).unwrap()), 0);
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert_eq!(allocations(|| json::check(deep.as_bytes()).unwrap()), 0);
}

/// Keys from the last to the first.
struct Backwards(u32);

impl Serialize for Backwards {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((100..100 + self.0).rev().map(|key| (key, "value")))
    }
}

/// Writes it with a fixed encoder of 64 entries into `len` bytes, which must allocate nothing, and compares.
fn fixed_json(value: &impl Serialize, len: usize) {
    let mut encoder = json::FixedEncoder::<64>::new();
    let mut buffer = vec![0; len];
    let mut written = 0;
    assert_eq!(
        allocations(|| written = encoder.encode(value, &mut buffer).unwrap().len()),
        0
    );
    assert_eq!(buffer[..written], json::to_vec(value).unwrap());
}

fn fixed_cbor(value: &impl Serialize, len: usize) {
    let mut encoder = cbor::FixedEncoder::<64>::new();
    let mut buffer = vec![0; len];
    let mut written = 0;
    assert_eq!(
        allocations(|| written = encoder.encode(value, &mut buffer).unwrap().len()),
        0
    );
    assert_eq!(buffer[..written], cbor::to_vec(value).unwrap());
}

#[test]
fn a_fixed_encoder_allocates_nothing_whatever_the_buffer() {
    for entries in [0, 1, 2, 20, 21, 33, 64] {
        let value = Backwards(entries);
        let exact = json::to_vec(&value).unwrap().len();
        for room in [0, 1, 15, 100, 5000] {
            fixed_json(&value, exact + room);
        }
        let exact = cbor::to_vec(&value).unwrap().len();
        for room in [0, 1, 15, 100, 5000] {
            fixed_cbor(&value, exact + room);
        }
    }
    fixed_json(&in_order(), 40_000);
    fixed_cbor(&in_order(), 40_000);
}

#[test]
fn a_full_scratch_is_an_error_and_the_encoder_stays_usable() {
    let mut buffer = vec![0; 4000];
    let mut encoder = json::FixedEncoder::<64>::new();
    let failed = encoder.encode(&Backwards(65), &mut buffer).unwrap_err();
    assert!(failed.is_scratch_full() && !failed.is_buffer_full());
    // Disorder that shows only when the scratch is full already.
    let late: Vec<(u32, u8)> = (100..300).chain([10]).map(|key| (key, 1)).collect();
    let late = Late(late);
    assert!(
        encoder
            .encode(&late, &mut buffer)
            .unwrap_err()
            .is_scratch_full()
    );
    let written = encoder.encode(&Backwards(64), &mut buffer).unwrap();
    assert_eq!(written, json::to_vec(&Backwards(64)).unwrap());
    let full = encoder.encode(&Backwards(64), &mut [0; 10]).unwrap_err();
    assert!(full.is_buffer_full() && !full.is_scratch_full());
    let mut none = cbor::FixedEncoder::<0>::new();
    assert!(
        none.encode(&Backwards(2), &mut buffer)
            .unwrap_err()
            .is_scratch_full()
    );
    let written = none.encode(&in_order_small(), &mut buffer).unwrap();
    assert_eq!(written, cbor::to_vec(&in_order_small()).unwrap());
}

struct Late(Vec<(u32, u8)>);

impl Serialize for Late {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// A map of many entries that share their beginnings, and are made while they are serialized; the last key is out of
/// order if asked for.
struct Large {
    entries: u32,
    text: String,
    disordered: bool,
}

impl Large {
    /// 50 MB.
    fn new(disordered: bool) -> Large {
        Large {
            entries: 12_500,
            text: "x".repeat(4_000),
            disordered,
        }
    }
}

impl Serialize for Large {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let len = self.entries + u32::from(self.disordered);
        let mut map = serializer.serialize_map(Some(len as usize))?;
        for n in 0..self.entries {
            map.serialize_entry(&format!("record {n:09}"), &self.text)?;
        }
        if self.disordered {
            map.serialize_entry("a", &self.text)?;
        }
        map.end()
    }
}

/// Adds up, so that the test is about memory.
#[derive(Default)]
struct Sum {
    bytes: usize,
    sum: u64,
}

impl std::io::Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes += bytes.len();
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.sum = self.sum.rotate_left(7) ^ u64::from_le_bytes(*word);
        }
        self.sum = self.sum.wrapping_add(rest.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const SMALL: isize = 256 << 10;

#[test]
#[cfg(feature = "sha2")]
fn a_digest_of_50_mb_in_order_takes_little_memory() {
    use canon_ser::{Profile, digest};
    let value = Large::new(false);
    for &profile in &[Profile::JcsV1, Profile::CborCoreDetV1] {
        let most = most_allocated(|| _ = digest::sha256(profile, &value).unwrap());
        assert!(most < SMALL, "{profile}: {most} bytes");
    }
}

#[test]
fn writing_50_mb_in_order_takes_little_memory() {
    let value = Large::new(false);
    let mut to = Sum::default();
    let most = most_allocated(|| json::to_writer(&mut to, &value).unwrap());
    assert!(most < SMALL && to.bytes > 50_000_000, "{most} bytes");
    let mut to = Sum::default();
    let most = most_allocated(|| cbor::to_writer(&mut to, &value).unwrap());
    assert!(most < SMALL && to.bytes > 50_000_000, "{most} bytes");
}

/// A large container in order, then a smaller one that is not: only that one is held.
#[test]
fn only_what_is_out_of_order_is_held() {
    let small = Large {
        entries: 500,
        disordered: true,
        ..Large::new(false)
    };
    let value = [Large::new(false), small];
    let mut to = Sum::default();
    let most = most_allocated(|| json::to_writer(&mut to, &value).unwrap());
    let held = 500 * 4_000;
    assert!(most > held && most < 4 * held, "{most} bytes");
    let bytes = json::to_vec(&value).unwrap();
    assert_eq!(to.bytes, bytes.len());
}
