/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What ring_flood.bpf.c is told and what it writes. The Rust twins are in
 * crates/ebpf-ring/tests/it/kernel.rs, asserted there as here.
 */
#ifndef RING_FLOOD_H
#define RING_FLOOD_H

#define RING_FLOOD_CHECK 0x9e3779b97f4a7c15ULL

struct ring_flood_args {
	__u32 count;	     /* records to write */
	__u32 producer;	     /* repeated in each record */
	__u32 discard_every; /* 0: never */
	__u32 wake_bytes;    /* 0: as the kernel sees fit */
};

struct ring_flood_record {
	__u32 producer;
	__u32 index;
	__u64 check; /* (producer << 32 | index) * RING_FLOOD_CHECK */
};

_Static_assert(sizeof(struct ring_flood_args) == 16, "size");
_Static_assert(__builtin_offsetof(struct ring_flood_args, count) == 0, "count");
_Static_assert(__builtin_offsetof(struct ring_flood_args, producer) == 4, "producer");
_Static_assert(__builtin_offsetof(struct ring_flood_args, discard_every) == 8, "discard_every");
_Static_assert(__builtin_offsetof(struct ring_flood_args, wake_bytes) == 12, "wake_bytes");
_Static_assert(sizeof(struct ring_flood_record) == 16, "size");
_Static_assert(__builtin_offsetof(struct ring_flood_record, producer) == 0, "producer");
_Static_assert(__builtin_offsetof(struct ring_flood_record, index) == 4, "index");
_Static_assert(__builtin_offsetof(struct ring_flood_record, check) == 8, "check");

#endif /* RING_FLOOD_H */
