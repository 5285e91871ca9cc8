// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * wake: which system calls sleep, how long, and who wakes them.
 *
 * A row per task follows the call that it is in. Its number would not do: an exec
 * gives a thread that of its leader, which may still stand in the call that ended it.
 *
 *	sys_enter	the call begins
 *	sched_switch	out and not runnable: it sleeps
 *	sched_waking	the waker's context: who, and when
 *	sched_wakeup	that wake-up counts: see runq.bpf.c
 *	sched_switch	in: it runs again
 *	sys_exit	the call ends; a record, if it slept
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "mainstay_ring.h"
#include "mainstay_sched.h"
#include "mainstay_syscall.h"
#include "wake.h"

/* Knobs, set before load. */
const volatile __u32 target_pid = 0; /* 0: every process */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* Shard 0: events. Shard 1: calls that were not followed. */
MR_COUNTERS(event_counts, 2);

struct call {
	/* What the record will be, if there is one. */
	struct wake_event event;
	/* The sleep under way. */
	__u64 blocked_ns; /* 0: it does not sleep */
	__u64 waking_ns;
	__u64 woken_ns;	  /* 0: not woken yet */
	__u32 waker_class;
	__u32 waker_pid;
	__u32 waker_tid;
	__u32 inside;	  /* of a call */
	char waker_comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64); /* struct task_struct: its address */
	__type(value, struct call);
} calls SEC(".maps");

/* What a row begins as. */
const struct call no_call = {};

static __always_inline bool is_watched(const struct who *who)
{
	return who->tid && (!target_pid || who->tgid == target_pid);
}

static __always_inline int on_enter(__u64 regs, __u64 number)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u64 task = bpf_get_current_task();
	struct call *call;

	if (target_pid && target_pid != pid_tgid >> 32)
		return 0;
	if (is_compat())
		return 0;
	call = bpf_map_lookup_elem(&calls, &task);
	if (!call) {
		bpf_map_update_elem(&calls, &task, &no_call, BPF_NOEXIST);
		call = bpf_map_lookup_elem(&calls, &task);
		if (!call) {
			/* Nobody knows whether it will sleep. */
			mr_drop(&event_counts, 1, MR_DROP_NO_STATE);
			return 0;
		}
	}
	call->event.sleeps = 0;
	call->event.call = number;
	call->event.arg0 = syscall_arg0(regs);
	call->event.pid = pid_tgid >> 32;
	call->event.asleep_ns = 0;
	call->event.queued_ns = 0;
	call->event.blocked_ns = 0;
	call->event.woken_ns = 0;
	call->event.running_ns = 0;
	__builtin_memset(call->event.woken_by, 0, sizeof(call->event.woken_by));
	call->blocked_ns = 0;
	call->inside = 1;
	call->event.entered_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int on_exit(__s64 ret)
{
	__u64 task = bpf_get_current_task();
	struct call *call = bpf_map_lookup_elem(&calls, &task);
	struct wake_event *event;

	if (!call || !call->inside)
		return 0;
	call->inside = 0;
	if (!call->event.sleeps)
		return 0;
	event = mr_reserve(&events, &event_counts, 0, sizeof(*event));
	if (!event)
		return 0;
	__builtin_memcpy(event, &call->event, sizeof(*event));
	event->left_ns = bpf_ktime_get_ns();
	event->ret = ret;
	/* Not of its beginning: see above. */
	event->tid = bpf_get_current_pid_tgid();
	event->start_ns = BPF_CORE_READ((struct task_struct *)task, start_time);
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	mr_submit(event);
	return 0;
}

static __always_inline int on_waking(const struct who *who)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u64 task = who->task;
	struct call *call;

	if (!is_watched(who))
		return 0;
	call = bpf_map_lookup_elem(&calls, &task);
	if (!call || !call->inside)
		return 0;
	call->waking_ns = bpf_ktime_get_ns();
	call->waker_class = waker_class(pid_tgid);
	if (call->waker_class == WAKER_TASK) {
		call->waker_pid = pid_tgid >> 32;
		call->waker_tid = pid_tgid;
		bpf_get_current_comm(call->waker_comm, sizeof(call->waker_comm));
	} else {
		call->waker_pid = 0;
		call->waker_tid = 0;
		__builtin_memset(call->waker_comm, 0, sizeof(call->waker_comm));
	}
	return 0;
}

static __always_inline int on_wakeup(const struct who *who)
{
	__u64 task = who->task;
	struct call *call;

	if (!is_watched(who) || who->on_cpu)
		return 0;
	call = bpf_map_lookup_elem(&calls, &task);
	/* The waker may have looked before the sleeper was gone. */
	if (call && call->blocked_ns)
		call->woken_ns = call->waking_ns > call->blocked_ns ? call->waking_ns :
								      call->blocked_ns;
	return 0;
}

/* Its last call never returned. */
static __always_inline int on_process_free(const struct who *who)
{
	__u64 task = who->task;

	if (is_watched(who))
		bpf_map_delete_elem(&calls, &task);
	return 0;
}

static __always_inline void switched_out(const struct who *prev)
{
	__u64 task = prev->task;
	struct call *call;

	if (!is_watched(prev))
		return;
	call = bpf_map_lookup_elem(&calls, &task);
	if (!call || !call->inside)
		return;
	call->woken_ns = 0;
	call->blocked_ns = bpf_ktime_get_ns();
}

static __always_inline void switched_in(const struct who *next)
{
	__u64 now, longest;
	__u64 task = next->task;
	struct wake_event *event;
	struct call *call;

	if (!is_watched(next))
		return;
	call = bpf_map_lookup_elem(&calls, &task);
	if (!call || !call->blocked_ns)
		return;
	now = bpf_ktime_get_ns();
	if (!call->woken_ns) {
		/* Nobody woke it: it went, and came back at once for a signal. Whoever
		 * woke it before has no part in that. */
		call->woken_ns = now;
		call->waker_class = WAKER_UNKNOWN;
		call->waker_pid = 0;
		call->waker_tid = 0;
		__builtin_memset(call->waker_comm, 0, sizeof(call->waker_comm));
	}
	event = &call->event;
	event->sleeps++;
	if (call->waker_class < WAKE_CLASSES)
		event->woken_by[call->waker_class]++;
	event->asleep_ns += call->woken_ns - call->blocked_ns;
	event->queued_ns += now - call->woken_ns;
	longest = event->running_ns - event->blocked_ns;
	if (event->sleeps == 1 || now - call->blocked_ns > longest) {
		event->blocked_ns = call->blocked_ns;
		event->woken_ns = call->woken_ns;
		event->running_ns = now;
		event->waker_class = call->waker_class;
		event->waker_pid = call->waker_pid;
		event->waker_tid = call->waker_tid;
		__builtin_memcpy(event->waker_comm, call->waker_comm,
				 sizeof(event->waker_comm));
	}
	call->blocked_ns = 0;
}

SEC("tp_btf/sched_switch")
int btf_switch(__u64 *ctx)
{
	struct who prev = who_btf((struct task_struct *)ctx[1]);
	struct who next = who_btf((struct task_struct *)ctx[2]);

	if (!is_runnable(ctx))
		switched_out(&prev);
	switched_in(&next);
	return 0;
}

SEC("raw_tp/sched_switch")
int raw_switch(__u64 *ctx)
{
	struct who prev = who_raw(ctx[1]);
	struct who next = who_raw(ctx[2]);

	if (!is_runnable(ctx))
		switched_out(&prev);
	switched_in(&next);
	return 0;
}

SEC("tp_btf/sys_enter")
int btf_enter(__u64 *ctx)
{
	return on_enter(ctx[0], ctx[1]);
}

SEC("tp_btf/sys_exit")
int btf_exit(__u64 *ctx)
{
	return on_exit(ctx[1]);
}

SEC("raw_tp/sys_enter")
int raw_enter(__u64 *ctx)
{
	return on_enter(ctx[0], ctx[1]);
}

SEC("raw_tp/sys_exit")
int raw_exit(__u64 *ctx)
{
	return on_exit(ctx[1]);
}

AT_TASK(waking, sched_waking)
AT_TASK(wakeup, sched_wakeup)
AT_TASK(process_free, sched_process_free)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
