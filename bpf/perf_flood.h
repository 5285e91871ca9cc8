/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What perf_flood.bpf.c writes. The Rust twin is in
 * crates/ebpf-ring/tests/it/kernel/perf.rs, asserted there as here.
 */
#ifndef PERF_FLOOD_H
#define PERF_FLOOD_H

#define PERF_FLOOD_CHECK 0x9e3779b97f4a7c15ULL

/* 40 bytes in the buffer, which does not divide it: records wrap. */
struct perf_flood_record {
	__u32 producer;
	__u32 index;
	__u64 check;	/* (producer << 32 | index) * PERF_FLOOD_CHECK */
	__u64 at_the_end; /* the same again */
};

_Static_assert(sizeof(struct perf_flood_record) == 24, "size");
_Static_assert(__builtin_offsetof(struct perf_flood_record, producer) == 0, "producer");
_Static_assert(__builtin_offsetof(struct perf_flood_record, index) == 4, "index");
_Static_assert(__builtin_offsetof(struct perf_flood_record, check) == 8, "check");
_Static_assert(__builtin_offsetof(struct perf_flood_record, at_the_end) == 16, "at_the_end");

#endif /* PERF_FLOOD_H */
