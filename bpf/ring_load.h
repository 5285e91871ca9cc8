/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What ring_load.bpf.c is told. The Rust twin is in benches/benches/ring,
 * asserted there as here.
 */
#ifndef RING_LOAD_H
#define RING_LOAD_H

struct ring_load_args {
	__u32 count; /* records to write */
	__u32 flags; /* of bpf_ringbuf_submit */
};

_Static_assert(sizeof(struct ring_load_args) == 8, "size");
_Static_assert(__builtin_offsetof(struct ring_load_args, count) == 0, "count");
_Static_assert(__builtin_offsetof(struct ring_load_args, flags) == 4, "flags");

#endif /* RING_LOAD_H */
