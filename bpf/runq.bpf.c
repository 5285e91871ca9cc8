// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * runq: how long tasks wait for a CPU after they were woken or preempted, who
 * woke them, and, on request, where they had gone off the CPU.
 *
 * Everything is summed up here, in a row per task: a hundred thousand switches
 * a second are too many to tell one by one. A row's totals change only where its
 * task is switched in, which happens on one CPU at a time; so they need no lock.
 *
 *	sched_waking	the waker's context: who, and when
 *	sched_wakeup	the task is on a queue: the wait has begun
 *	sched_switch	in: the wait is over; out while runnable: another begins
 *
 * A wake-up of a task that is still running, because it has not yet gone to
 * sleep, begins no wait: sched_wakeup sees it on a CPU. sched_waking cannot tell
 * that from a task that is just leaving one.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "mainstay_ring.h"
#include "mainstay_sched.h"
#include "mainstay_stack.h"
#include "runq.h"

#define STACK_DEPTH 127

/* Knobs, set before load. */
const volatile __u32 target_pid = 0; /* 0: every process */
const volatile bool with_stacks = false;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct runq_task_key);
	__type(value, struct runq_task_row);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct runq_waker_row);
	__type(value, struct runq_total_row);
} wakers SEC(".maps");

/* The numbers of threads that ran another program and so took the place, the number
 * and the beginning of their leader, and when: the row by the old ones is never
 * found again. Without room it stays until the end. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} left SEC(".maps");

/* Small unless with_stacks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct runq_stack_row);
	__type(value, struct runq_total_row);
} off_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

/* Shard 0: waits. Shard 1: times off the CPU. Shard 2: totals of wakers. Shard 3:
 * stacks. */
MR_COUNTERS(event_counts, 4);

/* What a row begins as: too large for the stack. */
const struct runq_task_row no_task = {};

static __always_inline bool is_watched(const struct who *who)
{
	return who->tid && (!target_pid || who->tgid == target_pid);
}

static __always_inline struct runq_task_row *known_row_of(const struct who *who)
{
	struct runq_task_key key = { .start_ns = who->start_ns, .tid = who->tid };

	return bpf_map_lookup_elem(&tasks, &key);
}

static __always_inline struct runq_task_row *row_of(const struct who *who)
{
	struct runq_task_key key = { .start_ns = who->start_ns, .tid = who->tid };
	struct runq_task_row *row = bpf_map_lookup_elem(&tasks, &key);

	if (row)
		return row;
	bpf_map_update_elem(&tasks, &key, &no_task, BPF_NOEXIST);
	row = bpf_map_lookup_elem(&tasks, &key);
	if (!row)
		return 0;
	row->start_ns = who->start_ns;
	row->tid = who->tid;
	row->tgid = who->tgid;
	bpf_probe_read_kernel(row->comm, sizeof(row->comm), who->comm);
	return row;
}

static __always_inline __u32 slot_of(__u64 ns)
{
	__u64 us = ns / 1000;
	__u32 slot = 0;

	if (us >> (RUNQ_SLOTS - 1))
		return RUNQ_SLOTS - 1;
	if (us >> 16) { slot += 16; us >>= 16; }
	if (us >> 8) { slot += 8; us >>= 8; }
	if (us >> 4) { slot += 4; us >>= 4; }
	if (us >> 2) { slot += 2; us >>= 2; }
	return slot + (us > 1 ? 2 : us);
}

static __always_inline void add_total(void *map, __u32 shard, const void *key, __u64 count,
				      __u64 time_ns, __u64 longest_ns)
{
	struct runq_total_row none = {}, *total = bpf_map_lookup_elem(map, key);

	if (!total) {
		bpf_map_update_elem(map, key, &none, BPF_NOEXIST);
		total = bpf_map_lookup_elem(map, key);
	}
	if (!total) {
		mr_drop(&event_counts, shard, MR_DROP_NO_STATE);
		return;
	}
	__sync_fetch_and_add(&total->count, count);
	__sync_fetch_and_add(&total->time_ns, time_ns);
	if (longest_ns > total->longest_ns)
		total->longest_ns = longest_ns;
}

static __always_inline int on_waking(const struct who *who)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct runq_task_row *row;
	__u32 tid = pid_tgid, class;

	if (!is_watched(who))
		return 0;
	row = row_of(who);
	if (!row)
		return 0;
	class = waker_class(tid);
	if (class != WAKER_TASK)
		tid = 0;
	if (row->waking_tid != tid || row->waking_class != class) {
		row->waking_tid = tid;
		row->waking_class = class;
		if (tid)
			bpf_get_current_comm(row->waking_comm, sizeof(row->waking_comm));
		else
			__builtin_memset(row->waking_comm, 0, sizeof(row->waking_comm));
	}
	row->waking_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int on_wakeup(const struct who *who)
{
	struct runq_task_row *row;

	if (!is_watched(who) || who->on_cpu)
		return 0;
	row = row_of(who);
	if (!row) {
		mr_drop(&event_counts, 0, MR_DROP_NO_STATE);
		return 0;
	}
	/* Preempted on its way to sleep: it has been waiting all the time. */
	if (row->queued_ns)
		return 0;
	row->kind = RUNQ_WOKEN | (row->kind & RUNQ_WOKEN_MIGRATED);
	row->queued_ns = row->waking_ns ? row->waking_ns : bpf_ktime_get_ns();
	return 0;
}

static __always_inline int on_wakeup_new(struct who *who)
{
	on_waking(who);
	who->on_cpu = 0;
	return on_wakeup(who);
}

static __always_inline int on_migrate(const struct who *who)
{
	struct runq_task_row *row;

	if (!is_watched(who))
		return 0;
	row = known_row_of(who);
	if (!row)
		return 0;
	row->migrations++;
	if (row->queued_ns || row->waking_ns)
		row->kind |= RUNQ_WOKEN_MIGRATED;
	return 0;
}

/* A thread is named after its row was made: by itself, or by exec. who->comm is
 * the new name, which the task does not have yet. */
static __always_inline int on_rename(const struct who *who)
{
	struct runq_task_row *row;
	char comm[16] = {};

	if (!is_watched(who))
		return 0;
	row = known_row_of(who);
	if (!row)
		return 0;
	/* The name ends where it ends: a directory entry's has no 16 bytes. */
	bpf_probe_read_kernel_str(comm, sizeof(comm), who->comm);
	__builtin_memcpy(row->comm, comm, sizeof(row->comm));
	return 0;
}

static __always_inline int on_exec(const struct who *who, __u32 old_tid)
{
	__u64 now;

	if (!is_watched(who) || who->tid == old_tid)
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&left, &old_tid, &now, BPF_ANY);
	return 0;
}

/* After its last switch: nothing changes the row any more. */
static __always_inline int on_process_free(const struct who *who)
{
	struct runq_task_row *row;

	if (!is_watched(who))
		return 0;
	row = known_row_of(who);
	if (row)
		row->dead = 1;
	return 0;
}

/* Moves what the row holds of its last waker to the map, and takes up the next. */
static __always_inline void change_waker(struct runq_task_row *row)
{
	struct runq_waker_row key;

	if (row->waker_count) {
		key.start_ns = row->start_ns;
		key.tid = row->tid;
		key.waker_tid = row->waker_tid;
		key.waker_class = row->waker_class;
		__builtin_memcpy(key.waker_comm, row->waker_comm, sizeof(key.waker_comm));
		key.zero = 0;
		add_total(&wakers, 2, &key, row->waker_count, row->waker_ns,
			  row->waker_longest_ns);
	}
	row->waker_count = 0;
	row->waker_ns = 0;
	row->waker_longest_ns = 0;
	row->waker_tid = row->waking_tid;
	row->waker_class = row->waking_class;
	__builtin_memcpy(row->waker_comm, row->waking_comm, sizeof(row->waker_comm));
}

static __always_inline void end_of_wait(struct runq_task_row *row, __u64 now)
{
	struct mr_counters *counts;
	__u32 kind = row->kind & 3, shard = 0, slot;
	__u64 ns = now > row->queued_ns ? now - row->queued_ns : 0;

	slot = slot_of(ns);
	slot += kind * RUNQ_SLOTS;
	if (slot < 4 * RUNQ_SLOTS)
		row->slots[slot]++;
	row->wait_ns[kind] += ns;
	if (ns > row->longest_ns[kind])
		row->longest_ns[kind] = ns;
	if (kind < RUNQ_PREEMPTED) {
		if (row->waker_tid != row->waking_tid || row->waker_class != row->waking_class)
			change_waker(row);
		row->waker_count++;
		row->waker_ns += ns;
		if (ns > row->waker_longest_ns)
			row->waker_longest_ns = ns;
	}
	/* Counted apart from the row: so the sum of the rows can be checked. */
	counts = bpf_map_lookup_elem(&event_counts, &shard);
	if (counts)
		mr_add(&counts->seen);
}

static __always_inline void end_of_off_cpu(struct runq_task_row *row, __u64 now)
{
	struct runq_stack_row key = {};
	__u64 ns = now > row->off_ns ? now - row->off_ns : 0;

	key.tgid = row->tgid;
	key.kernel_stack = row->kernel_stack;
	key.user_stack = row->user_stack;
	key.preempted = row->kind >= RUNQ_PREEMPTED;
	if (!key.preempted) {
		key.waker_class = row->waking_class;
		__builtin_memcpy(key.waker_comm, row->waking_comm, sizeof(key.waker_comm));
	}
	__builtin_memcpy(key.comm, row->comm, sizeof(key.comm));
	add_total(&off_cpu, 1, &key, 1, ns, ns);
	row->off_ns = 0;
}

static __always_inline void switched_in(const struct who *next)
{
	struct runq_task_row *row;
	__u64 now;

	if (!is_watched(next))
		return;
	row = known_row_of(next);
	if (!row || !row->queued_ns)
		return;
	now = bpf_ktime_get_ns();
	end_of_wait(row, now);
	if (with_stacks && row->off_ns)
		end_of_off_cpu(row, now);
	row->queued_ns = 0;
	row->waking_ns = 0;
	row->kind = 0;
}

static __always_inline void switched_out(void *ctx, const struct who *prev, bool runnable)
{
	struct runq_task_row *row;
	__u64 now;

	if (!is_watched(prev) || (!runnable && !with_stacks))
		return;
	row = row_of(prev);
	if (!row) {
		if (runnable)
			mr_drop(&event_counts, 0, MR_DROP_NO_STATE);
		return;
	}
	now = bpf_ktime_get_ns();
	if (with_stacks) {
		row->off_ns = now;
		row->kernel_stack = stack_number(ctx, &stacks, 0, &event_counts, 3);
		row->user_stack = prev->is_kernel ? -1 :
						    stack_number(ctx, &stacks, BPF_F_USER_STACK,
								 &event_counts, 3);
	}
	if (runnable) {
		row->queued_ns = now;
		row->kind = RUNQ_PREEMPTED;
	}
}

SEC("tp_btf/sched_switch")
int btf_switch(__u64 *ctx)
{
	struct who prev = who_btf((struct task_struct *)ctx[1]);
	struct who next = who_btf((struct task_struct *)ctx[2]);

	switched_out(ctx, &prev, is_runnable(ctx));
	switched_in(&next);
	return 0;
}

SEC("raw_tp/sched_switch")
int raw_switch(__u64 *ctx)
{
	struct who prev = who_raw(ctx[1]);
	struct who next = who_raw(ctx[2]);

	switched_out(ctx, &prev, is_runnable(ctx));
	switched_in(&next);
	return 0;
}

/* The arguments of task_rename: the task, its new name. */
SEC("tp_btf/task_rename")
int btf_rename(__u64 *ctx)
{
	struct who who = who_btf((struct task_struct *)ctx[0]);

	who.comm = (const void *)ctx[1];
	return on_rename(&who);
}

SEC("raw_tp/task_rename")
int raw_rename(__u64 *ctx)
{
	struct who who = who_raw(ctx[0]);

	who.comm = (const void *)ctx[1];
	return on_rename(&who);
}

/* The arguments of sched_process_exec: the task, its thread number before. */
SEC("tp_btf/sched_process_exec")
int btf_exec(__u64 *ctx)
{
	struct who who = who_btf((struct task_struct *)ctx[0]);

	return on_exec(&who, ctx[1]);
}

SEC("raw_tp/sched_process_exec")
int raw_exec(__u64 *ctx)
{
	struct who who = who_raw(ctx[0]);

	return on_exec(&who, ctx[1]);
}

AT_TASK(waking, sched_waking)
AT_TASK(wakeup, sched_wakeup)
AT_TASK(wakeup_new, sched_wakeup_new)
AT_TASK(migrate, sched_migrate_task)
AT_TASK(process_free, sched_process_free)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
