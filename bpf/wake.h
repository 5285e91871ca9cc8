/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The record that wake.bpf.c writes for each system call that slept.
 * Its Rust twin is `Event` in crates/kernel-scope/src/wake/event.rs; both sides
 * assert the size and every offset, so neither can move alone.
 */
#ifndef WAKE_H
#define WAKE_H

#define WAKE_CLASSES 5

/* Times are CLOCK_MONOTONIC. A call may sleep several times: the three in the
 * middle, and the waker, are of its longest sleep. */
struct wake_event {
	__u64 entered_ns;
	__u64 blocked_ns;  /* went off the CPU */
	__u64 woken_ns;	   /* somebody began to wake it */
	__u64 running_ns;  /* on a CPU again */
	__u64 left_ns;
	__u64 asleep_ns;   /* all sleeps together, until woken */
	__u64 queued_ns;   /* all waits for a CPU after them */
	__u64 arg0;	   /* the call's first argument: mostly a descriptor */
	__s64 ret;
	__u64 start_ns;	   /* of the thread: its tid is given again */
	__u32 sleeps;
	__u32 call;	   /* its number */
	__u32 pid;	   /* process, in the initial pid namespace */
	__u32 tid;	   /* thread, likewise */
	__u32 waker_class; /* enum waker_class */
	__u32 waker_pid;   /* 0 unless a task woke it */
	__u32 waker_tid;   /* likewise */
	__u32 woken_by[WAKE_CLASSES]; /* the sleeps, by enum waker_class */
	char comm[16];
	char waker_comm[16];
};

_Static_assert(sizeof(struct wake_event) == 160, "size");
_Static_assert(__builtin_offsetof(struct wake_event, entered_ns) == 0, "entered_ns");
_Static_assert(__builtin_offsetof(struct wake_event, blocked_ns) == 8, "blocked_ns");
_Static_assert(__builtin_offsetof(struct wake_event, woken_ns) == 16, "woken_ns");
_Static_assert(__builtin_offsetof(struct wake_event, running_ns) == 24, "running_ns");
_Static_assert(__builtin_offsetof(struct wake_event, left_ns) == 32, "left_ns");
_Static_assert(__builtin_offsetof(struct wake_event, asleep_ns) == 40, "asleep_ns");
_Static_assert(__builtin_offsetof(struct wake_event, queued_ns) == 48, "queued_ns");
_Static_assert(__builtin_offsetof(struct wake_event, arg0) == 56, "arg0");
_Static_assert(__builtin_offsetof(struct wake_event, ret) == 64, "ret");
_Static_assert(__builtin_offsetof(struct wake_event, start_ns) == 72, "start_ns");
_Static_assert(__builtin_offsetof(struct wake_event, sleeps) == 80, "sleeps");
_Static_assert(__builtin_offsetof(struct wake_event, call) == 84, "call");
_Static_assert(__builtin_offsetof(struct wake_event, pid) == 88, "pid");
_Static_assert(__builtin_offsetof(struct wake_event, tid) == 92, "tid");
_Static_assert(__builtin_offsetof(struct wake_event, waker_class) == 96, "waker_class");
_Static_assert(__builtin_offsetof(struct wake_event, waker_pid) == 100, "waker_pid");
_Static_assert(__builtin_offsetof(struct wake_event, waker_tid) == 104, "waker_tid");
_Static_assert(__builtin_offsetof(struct wake_event, woken_by) == 108, "woken_by");
_Static_assert(__builtin_offsetof(struct wake_event, comm) == 128, "comm");
_Static_assert(__builtin_offsetof(struct wake_event, waker_comm) == 144, "waker_comm");

#endif /* WAKE_H */
