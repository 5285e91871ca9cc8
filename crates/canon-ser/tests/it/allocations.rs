//! What is promised not to allocate, counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use canon_ser::{cbor, json};
use serde::Serialize;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
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
