// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * fds: which descriptors are opened and closed, by whom and from where.
 *
 * Where functions of the kernel can be watched, fd_install() tells of every
 * descriptor whatever made it; only dup2() goes around it. Elsewhere the exits of
 * the system calls that are known to make descriptors tell of theirs. Neither is
 * trusted to be complete: the iterator `snapshot` lists what is open, and user
 * space takes from the events only who opened it.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "mainstay_ring.h"
#include "mainstay_stack.h"
#include "mainstay_syscall.h"
#include "fds.h"

#define PF_IO_WORKER 0x10
#define EBADF 9

#define CLONE_FILES 0x400
#define CLOSE_RANGE_UNSHARE 2
#define CLOSE_RANGE_CLOEXEC 4
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define SCM_MAX_FD 253
/* What is looked at of the messages of one call and of the parts of one message.
 * What lies beyond is found by the snapshot, without its call. */
#define MESSAGES_MAX 8
#define PARTS_MAX 4

/* Commands of bpf(2) that return a descriptor: MAP_CREATE, PROG_LOAD, OBJ_GET, the
 * three GET_FD_BY_ID of old, RAW_TRACEPOINT_OPEN, BTF_LOAD, BTF and LINK GET_FD_BY_ID,
 * LINK_CREATE, ENABLE_STATS, ITER_CREATE, TOKEN_CREATE. */
#define BPF_COMMANDS                                                              \
	(1ULL << 0 | 1ULL << 5 | 1ULL << 7 | 1ULL << 13 | 1ULL << 14 | 1ULL << 17 | \
	 1ULL << 18 | 1ULL << 19 | 1ULL << 28 | 1ULL << 30 | 1ULL << 32 | 1ULL << 33 | \
	 1ULL << 36)

/* Knobs, set before load. */
const volatile __u32 target_pid = 0;  /* 0: every process */
const volatile bool ignores_reader = true; /* the tool itself */
const volatile bool sees_installs = false; /* fd_install() is watched, too */
const volatile __u8 call_kinds[FDS_CALLS_MAX] = {}; /* enum fds_call_kind */

/* The process that reads the snapshots. It may know itself by another number. */
__u32 reader_pid = 0;

/* The table of the target, by the snapshot: others may share it (CLONE_FILES). */
__u64 target_table = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* Shard 0: events. Shard 1: stacks. */
MR_COUNTERS(event_counts, 2);

/* When calls began that close, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} closing SEC(".maps");

#define STACK_FRAMES_MAX 64

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 1); /* user space says */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_FRAMES_MAX * sizeof(__u64));
} stacks SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___flags {
	unsigned int flags;
};

struct pt_regs___x86_fds {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long r10;
	unsigned long orig_ax;
};

struct pt_regs___arm64_fds {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

static __always_inline struct task_struct *current_task(void)
{
	return (void *)bpf_get_current_task();
}

/* The number of the system call that was entered with these registers. */
static __always_inline __s64 number_in(const void *at)
{
	if (bpf_core_field_exists(struct pt_regs___x86_fds, orig_ax)) {
		const struct pt_regs___x86_fds *regs = at;

		return BPF_CORE_READ(regs, orig_ax);
	}
	if (bpf_core_field_exists(struct pt_regs___arm64_fds, syscallno)) {
		const struct pt_regs___arm64_fds *regs = at;

		return BPF_CORE_READ(regs, syscallno);
	}
	return -1;
}

/* A system call and its arguments, as far as its exit still has them. */
struct entered {
	__s64 nr;
	__u64 arg[4];
};

static __always_inline struct entered entered_with(const void *at, __s64 nr)
{
	struct entered call = { .nr = nr };

	if (bpf_core_field_exists(struct pt_regs___x86_fds, orig_ax)) {
		const struct pt_regs___x86_fds *regs = at;

		call.arg[0] = BPF_CORE_READ(regs, di);
		call.arg[1] = BPF_CORE_READ(regs, si);
		call.arg[2] = BPF_CORE_READ(regs, dx);
		call.arg[3] = BPF_CORE_READ(regs, r10);
	} else if (bpf_core_field_exists(struct pt_regs___arm64_fds, syscallno)) {
		const struct pt_regs___arm64_fds *regs = at;

		call.arg[0] = BPF_CORE_READ(regs, orig_x0);
		call.arg[1] = BPF_CORE_READ(regs, regs[1]);
		call.arg[2] = BPF_CORE_READ(regs, regs[2]);
		call.arg[3] = BPF_CORE_READ(regs, regs[3]);
	}
	return call;
}

static __always_inline struct files_struct *current_table(void)
{
	return BPF_CORE_READ(current_task(), files);
}

static __always_inline bool is_ignored(__u32 pid)
{
	return ignores_reader && pid == reader_pid;
}

static __always_inline bool is_watched(void)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	if (is_ignored(pid))
		return false;
	return !target_pid || pid == target_pid ||
	       (target_table && target_table == (__u64)current_table());
}

static __always_inline struct fds_event *begin(__u32 kind)
{
	struct fds_event *event = mr_reserve(&events, &event_counts, 0, sizeof(*event));
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	if (!event)
		return 0;
	event->time_ns = bpf_ktime_get_ns();
	event->table = (__u64)current_table();
	event->other = 0;
	event->pid = pid_tgid >> 32;
	event->tid = pid_tgid;
	event->fd = 0;
	event->last = 0;
	event->stack = -1;
	event->call = 0;
	event->kind = kind;
	event->reserved = 0;
	return event;
}

static __always_inline __s32 user_stack(void *ctx)
{
	return stack_number(ctx, &stacks, BPF_F_USER_STACK, &event_counts, 1);
}

static __always_inline void opened(__u32 fd, __u64 file, __s32 call, __s32 stack)
{
	struct fds_event *event = begin(FDS_OPEN);

	if (!event)
		return;
	event->fd = fd;
	event->other = file;
	event->call = call;
	event->stack = stack;
	mr_submit(event);
}

static __always_inline void closed(__u32 fd, __u32 last, __u64 entered_ns)
{
	struct fds_event *event = begin(FDS_CLOSE);

	if (!event)
		return;
	event->other = entered_ns;
	event->fd = fd;
	event->last = last;
	mr_submit(event);
}

static __always_inline void copied(__u32 kind)
{
	struct fds_event *event = begin(kind);

	if (event)
		mr_submit(event);
}

/* The open file behind a descriptor of this task; 0 when there is none (any more). */
static __always_inline __u64 file_of(__u32 fd)
{
	struct fdtable *fdt = BPF_CORE_READ(current_table(), fdt);
	struct file **slot, *file = 0;

	if (!fdt || fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	slot = BPF_CORE_READ(fdt, fd) + fd;
	bpf_probe_read_kernel(&file, sizeof(file), slot);
	return (__u64)file;
}

static __always_inline void returned(void *ctx, __s64 fd, __s64 nr)
{
	if (fd >= 0)
		opened(fd, file_of(fd), nr, user_stack(ctx));
}

static __always_inline void returned_pair(void *ctx, __u64 address, __s64 nr)
{
	int pair[2];

	if (bpf_probe_read_user(pair, sizeof(pair), (void *)address))
		return;
	returned(ctx, pair[0], nr);
	returned(ctx, pair[1], nr);
}

/* struct user_msghdr and struct cmsghdr of 64-bit programs: stable. */
struct message {
	__u64 name;
	__u64 name_len;
	__u64 iov;
	__u64 iov_len;
	__u64 control;
	__u64 control_len; /* after the call: how much the kernel wrote */
	__u64 flags;
};

struct part {
	__u64 len;
	__s32 level;
	__s32 type;
};

struct rights {
	__u64 address;
	__u32 count;
	__s32 call;
	__s32 stack;
};

static long received_one(__u64 at, struct rights *rights)
{
	__s32 fd;

	if (at >= rights->count ||
	    bpf_probe_read_user(&fd, sizeof(fd), (void *)(rights->address + at * sizeof(fd))))
		return 1;
	opened(fd, file_of(fd), rights->call, rights->stack);
	return 0;
}

/* What a message brought along. */
static __noinline int received(__u64 address, __s32 call, __s32 stack)
{
	struct rights rights = { .call = call, .stack = stack };
	struct message message;
	__u64 at, end;

	if (bpf_probe_read_user(&message, sizeof(message), (void *)address))
		return 0;
	at = message.control;
	end = at + message.control_len;
	for (int i = 0; i < PARTS_MAX; i++) {
		struct part part;

		if (at + sizeof(part) > end ||
		    bpf_probe_read_user(&part, sizeof(part), (void *)at) ||
		    part.len < sizeof(part) || part.len > end - at)
			return 0;
		if (part.level == SOL_SOCKET && part.type == SCM_RIGHTS) {
			rights.address = at + sizeof(part);
			rights.count = (part.len - sizeof(part)) / sizeof(__s32);
			bpf_loop(SCM_MAX_FD, received_one, &rights, 0);
		}
		at += (part.len + 7) & ~7ULL;
	}
	return 0;
}

static __always_inline void received_many(void *ctx, const struct entered *call, __s64 count)
{
	/* struct mmsghdr: a message and its length, padded. */
	const __u64 stride = sizeof(struct message) + 8;
	__s32 stack = user_stack(ctx);

	for (int i = 0; i < MESSAGES_MAX && i < count; i++)
		received(call->arg[1] + i * stride, call->nr, stack);
}

static __always_inline void close_range(const struct entered *call, __u64 entered_ns)
{
	__u32 flags = call->arg[2];

	if (flags & CLOSE_RANGE_UNSHARE)
		copied(FDS_COPY);
	if (!(flags & CLOSE_RANGE_CLOEXEC))
		closed(call->arg[0], call->arg[1], entered_ns);
}

static __always_inline __u8 kind_of(__u64 nr)
{
	return nr < FDS_CALLS_MAX ? call_kinds[nr] : FDS_CALL_OTHER;
}

static __always_inline bool closes(__u8 kind)
{
	return kind == FDS_CALL_CLOSE || kind == FDS_CALL_CLOSE_RANGE;
}

SEC("raw_tp/sys_enter")
int raw_enter(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 now;

	if (!closes(kind_of(ctx->args[1])) || !is_watched() || is_compat())
		return 0;
	now = bpf_ktime_get_ns();
	/* Without room, the close is taken for one that began long ago. */
	bpf_map_update_elem(&closing, &tid, &now, BPF_ANY);
	return 0;
}

/* When the closing call of this task began; 0: not known. */
static __always_inline __u64 closing_since(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *found = bpf_map_lookup_elem(&closing, &tid);
	__u64 since = found ? *found : 0;

	if (found)
		bpf_map_delete_elem(&closing, &tid);
	return since;
}

SEC("raw_tp/sys_exit")
int raw_exit(struct bpf_raw_tracepoint_args *ctx)
{
	const void *regs = (const void *)ctx->args[0];
	__s64 nr = number_in(regs), ret = ctx->args[1];
	__u8 kind = kind_of(nr);
	struct entered call;
	__u64 since = 0;

	/* At every system call of the machine: no more than this before it. */
	if (kind == FDS_CALL_OTHER || (sees_installs && kind < FDS_CALL_DUP2) ||
	    !is_watched() || is_compat())
		return 0;
	call = entered_with(regs, nr);
	if (closes(kind))
		since = closing_since();
	switch (kind) {
	case FDS_CALL_RETURNS:
		returned(ctx, ret, nr);
		break;
	case FDS_CALL_FCNTL:
		if ((__u32)call.arg[1] == F_DUPFD || (__u32)call.arg[1] == F_DUPFD_CLOEXEC)
			returned(ctx, ret, nr);
		break;
	case FDS_CALL_PAIR_AT_0:
		if (!ret)
			returned_pair(ctx, call.arg[0], nr);
		break;
	case FDS_CALL_PAIR_AT_3:
		if (!ret)
			returned_pair(ctx, call.arg[3], nr);
		break;
	case FDS_CALL_SIGNALFD:
		if ((__s32)call.arg[0] == -1)
			returned(ctx, ret, nr);
		break;
	case FDS_CALL_BPF:
		if (call.arg[0] < 64 && (BPF_COMMANDS >> call.arg[0] & 1))
			returned(ctx, ret, nr);
		break;
	case FDS_CALL_RECVMSG:
		if (ret >= 0)
			received(call.arg[1], nr, user_stack(ctx));
		break;
	case FDS_CALL_RECVMMSG:
		received_many(ctx, &call, ret);
		break;
	case FDS_CALL_DUP2:
		if ((__u32)call.arg[0] != (__u32)call.arg[1])
			returned(ctx, ret, nr);
		break;
	case FDS_CALL_CLOSE:
		/* Whatever else it returns, the descriptor is gone. */
		if (ret != -EBADF)
			closed(call.arg[0], call.arg[0], since);
		break;
	case FDS_CALL_CLOSE_RANGE:
		if (!ret)
			close_range(&call, since);
		break;
	case FDS_CALL_UNSHARE:
		if (!ret && (call.arg[0] & CLONE_FILES))
			copied(FDS_COPY);
		break;
	}
	return 0;
}

/* Which system call this task is in. */
static __always_inline __s32 current_call(void)
{
	struct task_struct___flags *flags = (void *)current_task();
	struct task_struct *task;

	if (BPF_CORE_READ(flags, flags) & PF_IO_WORKER)
		return FDS_CALL_IO_WORKER;
	if (is_compat())
		return FDS_CALL_COMPAT;
	task = bpf_get_current_task_btf();
	return number_in((void *)bpf_task_pt_regs(task));
}

static __always_inline int on_install(void *ctx, __u32 fd, __u64 file)
{
	if (is_watched())
		opened(fd, file, current_call(), user_stack(ctx));
	return 0;
}

SEC("fentry/fd_install")
int fentry_install(__u64 *ctx)
{
	return on_install(ctx, ctx[0], ctx[1]);
}

SEC("kprobe/fd_install")
int kprobe_install(void *ctx)
{
	if (bpf_core_field_exists(struct pt_regs___x86_fds, orig_ax)) {
		struct pt_regs___x86_fds *regs = ctx;

		return on_install(ctx, BPF_CORE_READ(regs, di), BPF_CORE_READ(regs, si));
	}
	if (bpf_core_field_exists(struct pt_regs___arm64_fds, syscallno)) {
		struct pt_regs___arm64_fds *regs = ctx;

		return on_install(ctx, BPF_CORE_READ(regs, regs[0]),
				  BPF_CORE_READ(regs, regs[1]));
	}
	return 0;
}

/* A child with a table of its own has copies of its parent's descriptors. */
SEC("raw_tp/sched_process_fork")
int raw_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0];
	struct task_struct *child = (void *)ctx->args[1];
	__u64 from = (__u64)BPF_CORE_READ(parent, files);
	__u64 table = (__u64)BPF_CORE_READ(child, files);
	__u32 pid = BPF_CORE_READ(child, tgid);
	struct fds_event *event;

	if (!table || table == from || is_ignored(pid) || (target_pid && target_pid != pid))
		return 0;
	event = begin(FDS_COPY);
	if (!event)
		return 0;
	event->table = table;
	event->other = from;
	event->pid = pid;
	event->tid = BPF_CORE_READ(child, pid);
	mr_submit(event);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int raw_exec(struct bpf_raw_tracepoint_args *ctx)
{
	if (is_watched())
		copied(FDS_EXEC);
	return 0;
}

SEC("iter/task_file")
int snapshot(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct fds_found_event found = {};
	__u32 pid;

	reader_pid = bpf_get_current_pid_tgid() >> 32;
	if (!task || !file)
		return 0;
	pid = BPF_CORE_READ(task, tgid);
	if (is_ignored(pid) || (target_pid && pid != target_pid))
		return 0;
	found.table = (__u64)BPF_CORE_READ(task, files);
	found.file = (__u64)file;
	found.tid = BPF_CORE_READ(task, pid);
	found.fd = ctx->fd;
	bpf_probe_read_kernel_str(found.comm, sizeof(found.comm),
				  (void *)task + bpf_core_field_offset(struct task_struct, comm));
	if (target_pid && found.tid == pid)
		target_table = found.table;
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
