/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What runq.bpf.c keeps in its maps. The Rust twins are in
 * crates/kernel-scope/src/runq; both sides assert sizes and offsets.
 */
#ifndef RUNQ_H
#define RUNQ_H

/* Why a task waited for a CPU, and whether it was moved to another meanwhile. */
enum runq_kind {
	RUNQ_WOKEN = 0,
	RUNQ_WOKEN_MIGRATED = 1,
	RUNQ_PREEMPTED = 2,
	RUNQ_PREEMPTED_MIGRATED = 3,
	RUNQ_KINDS = 4,
};

/* Slot 0: less than 1 us; slot n: 2^(n-1) us to less than 2^n us; the last: more. */
#define RUNQ_SLOTS 28

/* A key of the map `tasks`. A tid is given again, to a task that began later. */
struct runq_task_key {
	__u64 start_ns; /* CLOCK_MONOTONIC */
	__u32 tid;
	__u32 zero;
};

_Static_assert(sizeof(struct runq_task_key) == 16, "size");
_Static_assert(__builtin_offsetof(struct runq_task_key, start_ns) == 0, "start_ns");
_Static_assert(__builtin_offsetof(struct runq_task_key, tid) == 8, "tid");
_Static_assert(__builtin_offsetof(struct runq_task_key, zero) == 12, "zero");

/* One task. */
struct runq_task_row {
	/* The wait under way. */
	__u64 waking_ns;    /* somebody began to wake it; 0: nobody */
	__u64 queued_ns;    /* since when it waits; 0: it does not */
	__u64 off_ns;	    /* since when it is off the CPU; with stacks */
	/* Waits that ended. */
	__u64 wait_ns[4];   /* sums, by kind */
	__u64 longest_ns[4];
	/* Those of them that began with a wake-up by the last waker. */
	__u64 waker_ns;
	__u64 waker_longest_ns;
	__u64 waker_count;
	__u64 migrations;
	__u64 start_ns;	    /* its own; as in its key */
	__u32 tid;
	__u32 tgid;
	__u32 kind;	    /* of the wait under way: enum runq_kind */
	__u32 dead;	    /* it has ended: nothing changes any more */
	__u32 waking_tid;   /* of the wake-up under way; 0 unless a task's */
	__u32 waking_class; /* likewise: enum waker_class */
	__u32 waker_tid;    /* of the last wait that ended */
	__u32 waker_class;
	__s32 kernel_stack; /* where it went off the CPU; with stacks */
	__s32 user_stack;
	char comm[16];
	char waking_comm[16];
	char waker_comm[16];
	__u32 slots[4 * RUNQ_SLOTS]; /* how many waits of each kind and length */
};

_Static_assert(sizeof(struct runq_task_row) == 664, "size");
_Static_assert(__builtin_offsetof(struct runq_task_row, waking_ns) == 0, "waking_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, queued_ns) == 8, "queued_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, off_ns) == 16, "off_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, wait_ns) == 24, "wait_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, longest_ns) == 56, "longest_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, waker_ns) == 88, "waker_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, waker_longest_ns) == 96, "waker_longest_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, waker_count) == 104, "waker_count");
_Static_assert(__builtin_offsetof(struct runq_task_row, migrations) == 112, "migrations");
_Static_assert(__builtin_offsetof(struct runq_task_row, start_ns) == 120, "start_ns");
_Static_assert(__builtin_offsetof(struct runq_task_row, tid) == 128, "tid");
_Static_assert(__builtin_offsetof(struct runq_task_row, tgid) == 132, "tgid");
_Static_assert(__builtin_offsetof(struct runq_task_row, kind) == 136, "kind");
_Static_assert(__builtin_offsetof(struct runq_task_row, dead) == 140, "dead");
_Static_assert(__builtin_offsetof(struct runq_task_row, waking_tid) == 144, "waking_tid");
_Static_assert(__builtin_offsetof(struct runq_task_row, waking_class) == 148, "waking_class");
_Static_assert(__builtin_offsetof(struct runq_task_row, waker_tid) == 152, "waker_tid");
_Static_assert(__builtin_offsetof(struct runq_task_row, waker_class) == 156, "waker_class");
_Static_assert(__builtin_offsetof(struct runq_task_row, kernel_stack) == 160, "kernel_stack");
_Static_assert(__builtin_offsetof(struct runq_task_row, user_stack) == 164, "user_stack");
_Static_assert(__builtin_offsetof(struct runq_task_row, comm) == 168, "comm");
_Static_assert(__builtin_offsetof(struct runq_task_row, waking_comm) == 184, "waking_comm");
_Static_assert(__builtin_offsetof(struct runq_task_row, waker_comm) == 200, "waker_comm");
_Static_assert(__builtin_offsetof(struct runq_task_row, slots) == 216, "slots");

/* A key of the map `wakers`: wake-ups of one task by one waker, but for those by
 * its last waker, which its row holds. */
struct runq_waker_row {
	__u64 start_ns; /* of the task that was woken */
	__u32 tid;
	__u32 waker_tid;
	__u32 waker_class;
	char waker_comm[16];
	__u32 zero;
};

_Static_assert(sizeof(struct runq_waker_row) == 40, "size");
_Static_assert(__builtin_offsetof(struct runq_waker_row, start_ns) == 0, "start_ns");
_Static_assert(__builtin_offsetof(struct runq_waker_row, tid) == 8, "tid");
_Static_assert(__builtin_offsetof(struct runq_waker_row, waker_tid) == 12, "waker_tid");
_Static_assert(__builtin_offsetof(struct runq_waker_row, waker_class) == 16, "waker_class");
_Static_assert(__builtin_offsetof(struct runq_waker_row, waker_comm) == 20, "waker_comm");
_Static_assert(__builtin_offsetof(struct runq_waker_row, zero) == 36, "zero");

/* A key of the map `off_cpu`: where processes went off the CPU and why they came
 * back. */
struct runq_stack_row {
	__u32 tgid;
	__s32 kernel_stack;
	__s32 user_stack;
	__u32 preempted;   /* it never slept; then the waker is all zero */
	__u32 waker_class;
	char comm[16];
	char waker_comm[16];
};

_Static_assert(sizeof(struct runq_stack_row) == 52, "size");
_Static_assert(__builtin_offsetof(struct runq_stack_row, tgid) == 0, "tgid");
_Static_assert(__builtin_offsetof(struct runq_stack_row, kernel_stack) == 4, "kernel_stack");
_Static_assert(__builtin_offsetof(struct runq_stack_row, user_stack) == 8, "user_stack");
_Static_assert(__builtin_offsetof(struct runq_stack_row, preempted) == 12, "preempted");
_Static_assert(__builtin_offsetof(struct runq_stack_row, waker_class) == 16, "waker_class");
_Static_assert(__builtin_offsetof(struct runq_stack_row, comm) == 20, "comm");
_Static_assert(__builtin_offsetof(struct runq_stack_row, waker_comm) == 36, "waker_comm");

/* The value of `wakers` and of `off_cpu`. */
struct runq_total_row {
	__u64 count;
	__u64 time_ns;
	__u64 longest_ns;
};

_Static_assert(sizeof(struct runq_total_row) == 24, "size");
_Static_assert(__builtin_offsetof(struct runq_total_row, count) == 0, "count");
_Static_assert(__builtin_offsetof(struct runq_total_row, time_ns) == 8, "time_ns");
_Static_assert(__builtin_offsetof(struct runq_total_row, longest_ns) == 16, "longest_ns");

#endif /* RUNQ_H */
