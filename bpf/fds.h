/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What fds.bpf.c tells about descriptors. The Rust twins are in
 * crates/kernel-scope/src/fds/; both sides assert sizes and offsets.
 */
#ifndef FDS_H
#define FDS_H

/* What a system call does to the table of descriptors. User space fills
 * call_kinds[] by the numbers of its architecture. Twin of `Kind` in calls.rs. */
enum fds_call_kind {
	FDS_CALL_OTHER = 0,
	FDS_CALL_RETURNS = 1,	 /* returns a new descriptor */
	FDS_CALL_FCNTL = 2,	 /* for two of its commands */
	FDS_CALL_PAIR_AT_0 = 3,	 /* writes two through its first argument */
	FDS_CALL_PAIR_AT_3 = 4,	 /* through its fourth */
	FDS_CALL_SIGNALFD = 5,	 /* a new one if its first argument is -1 */
	FDS_CALL_BPF = 6,	 /* for some of its commands */
	FDS_CALL_RECVMSG = 7,	 /* SCM_RIGHTS */
	FDS_CALL_RECVMMSG = 8,
	FDS_CALL_DUP2 = 9,	 /* like RETURNS, and never through fd_install() */
	FDS_CALL_CLOSE = 10,
	FDS_CALL_CLOSE_RANGE = 11,
	FDS_CALL_UNSHARE = 12,
};

#define FDS_CALLS_MAX 512

enum fds_event_kind {
	FDS_OPEN = 1,
	FDS_CLOSE = 2, /* fd to last, both included */
	FDS_COPY = 3,  /* a task has a new table, a copy of the one in `other` */
	FDS_EXEC = 4,  /* a process runs another program, in the same or a copied table */
};

/* Instead of a system call's number. */
#define FDS_CALL_IO_WORKER -1 /* a thread of the kernel that works for io_uring */
#define FDS_CALL_COMPAT -2    /* a call of a 32-bit program: numbered otherwise */

struct fds_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 table;   /* which files_struct: its address, a name and nothing more */
	__u64 other;   /* FDS_OPEN: which struct file. FDS_CLOSE: when the call began;
			* 0: not known. FDS_COPY: which table; 0: the one that the
			* process had before */
	__u32 pid;     /* process, in the initial pid namespace */
	__u32 tid;     /* thread, likewise */
	__u32 fd;
	__u32 last;
	__s32 stack;   /* of user space, in the map `stacks`; negative: none, or STACK_LOST */
	__s32 call;    /* number of the system call, or FDS_CALL_... */
	__u32 kind;    /* enum fds_event_kind */
	__u32 reserved;
};

_Static_assert(sizeof(struct fds_event) == 56, "size");
_Static_assert(__builtin_offsetof(struct fds_event, time_ns) == 0, "time_ns");
_Static_assert(__builtin_offsetof(struct fds_event, table) == 8, "table");
_Static_assert(__builtin_offsetof(struct fds_event, other) == 16, "other");
_Static_assert(__builtin_offsetof(struct fds_event, pid) == 24, "pid");
_Static_assert(__builtin_offsetof(struct fds_event, tid) == 28, "tid");
_Static_assert(__builtin_offsetof(struct fds_event, fd) == 32, "fd");
_Static_assert(__builtin_offsetof(struct fds_event, last) == 36, "last");
_Static_assert(__builtin_offsetof(struct fds_event, stack) == 40, "stack");
_Static_assert(__builtin_offsetof(struct fds_event, call) == 44, "call");
_Static_assert(__builtin_offsetof(struct fds_event, kind) == 48, "kind");
_Static_assert(__builtin_offsetof(struct fds_event, reserved) == 52, "reserved");

/* An open descriptor, as the iterator `snapshot` finds it. */
struct fds_found_event {
	__u64 table;
	__u64 file;
	__u32 tid; /* the process, or a thread that has a table of its own */
	__u32 fd;
	char comm[16];
};

_Static_assert(sizeof(struct fds_found_event) == 40, "size");
_Static_assert(__builtin_offsetof(struct fds_found_event, table) == 0, "table");
_Static_assert(__builtin_offsetof(struct fds_found_event, file) == 8, "file");
_Static_assert(__builtin_offsetof(struct fds_found_event, tid) == 16, "tid");
_Static_assert(__builtin_offsetof(struct fds_found_event, fd) == 20, "fd");
_Static_assert(__builtin_offsetof(struct fds_found_event, comm) == 24, "comm");

#endif /* FDS_H */
