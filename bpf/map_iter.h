/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The record that map_iter.bpf.c writes for each BPF_MAP_GET_NEXT_KEY.
 * Its Rust twin is `Event` in crates/kernel-scope/src/map_iter/event.rs; both
 * sides assert the size and every offset, so neither can move alone.
 */
#ifndef MAP_ITER_H
#define MAP_ITER_H

enum map_iter_flags {
	/* The caller passed no key: it asked for the first one. */
	MAP_ITER_FIRST = 1,
	/* The key passed was not in the map when the call began: the kernel
	 * then starts again at the first key. */
	MAP_ITER_KEY_GONE = 2,
	/* Whether the key was in the map could not be told: a map type or a
	 * key size that the program does not look into. */
	MAP_ITER_UNCHECKED = 4,
	/* The key's bytes could not be read; key_hash is 0. */
	MAP_ITER_KEY_UNREAD = 8,
};

struct map_iter_event {
	__u64 time_ns;	     /* CLOCK_MONOTONIC at the end of the call */
	__u64 step_ns;	     /* time inside the call */
	__u64 key_hash;	     /* of the key passed; 0 with MAP_ITER_FIRST */
	__u64 next_hash;     /* of the key returned; 0 unless ret is 0 */
	__u32 pid;	     /* process, in the initial pid namespace */
	__u32 tid;	     /* thread, likewise */
	__u32 map_id;	     /* 0 when the call did not prove that fd is a map */
	__u32 map_type;
	__s32 ret;	     /* 0, or a negative errno; -ENOENT ends a walk */
	__u32 flags;	     /* enum map_iter_flags */
	char comm[16];
	char map_name[16];
	__s32 user_stack;    /* where the walk began or restarted; negative: not known, or
			      * STACK_LOST */
	__u32 zero;
	__u64 start_ns;	     /* of the process, CLOCK_MONOTONIC: its pid is given again */
};

_Static_assert(sizeof(struct map_iter_event) == 104, "size");
_Static_assert(__builtin_offsetof(struct map_iter_event, time_ns) == 0, "time_ns");
_Static_assert(__builtin_offsetof(struct map_iter_event, step_ns) == 8, "step_ns");
_Static_assert(__builtin_offsetof(struct map_iter_event, key_hash) == 16, "key_hash");
_Static_assert(__builtin_offsetof(struct map_iter_event, next_hash) == 24, "next_hash");
_Static_assert(__builtin_offsetof(struct map_iter_event, pid) == 32, "pid");
_Static_assert(__builtin_offsetof(struct map_iter_event, tid) == 36, "tid");
_Static_assert(__builtin_offsetof(struct map_iter_event, map_id) == 40, "map_id");
_Static_assert(__builtin_offsetof(struct map_iter_event, map_type) == 44, "map_type");
_Static_assert(__builtin_offsetof(struct map_iter_event, ret) == 48, "ret");
_Static_assert(__builtin_offsetof(struct map_iter_event, flags) == 52, "flags");
_Static_assert(__builtin_offsetof(struct map_iter_event, comm) == 56, "comm");
_Static_assert(__builtin_offsetof(struct map_iter_event, map_name) == 72, "map_name");
_Static_assert(__builtin_offsetof(struct map_iter_event, user_stack) == 88, "user_stack");
_Static_assert(__builtin_offsetof(struct map_iter_event, zero) == 92, "zero");
_Static_assert(__builtin_offsetof(struct map_iter_event, start_ns) == 96, "start_ns");

#endif /* MAP_ITER_H */
