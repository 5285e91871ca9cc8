/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the programs at the scheduler's tracepoints share: tasks, and who wakes
 * them. Include it after mainstay_types.h, bpf_helpers.h and bpf_core_read.h.
 *
 * Every program comes twice. At a tp_btf, a task is a typed pointer that is read
 * directly; at a raw_tp it is a number, read through a helper. So the shared
 * code takes a `struct who`, and two small functions fill it.
 */
#ifndef MAINSTAY_SCHED_H
#define MAINSTAY_SCHED_H

/* In whose context a task is woken. Twin of `WakerClass` in kernel-scope. */
enum waker_class {
	WAKER_UNKNOWN = 0, /* this kernel does not tell task from interrupt */
	WAKER_TASK = 1,
	WAKER_SOFTIRQ = 2,
	WAKER_HARDIRQ = 3,
	WAKER_IDLE = 4, /* the idle task itself, not what interrupts it */
};

/* include/linux/preempt.h; not in BTF, but the same from 2.6 on. */
#define PREEMPT_COUNT_SOFTIRQ 0x00000100 /* serving one; 0x200: only disabled */
#define PREEMPT_COUNT_HARDIRQ 0x00ff0000 /* and NMI */

/* What user space found in the kernel's BTF: the distance from the per-CPU
 * variable `runqueues` to the one that holds the preempt count; 0: not found. */
const volatile __s64 preempt_count_offset = 0;

#define RQ_CPUS 512
/* Where each CPU's runqueue is; 0: not looked up yet. The same for ever. */
__u64 rq_of_cpu[RQ_CPUS];

struct who {
	__u64 task;	/* its address: while it lives, nobody else's */
	__u64 start_ns; /* with the tid it is never given twice */
	__u32 tid;
	__u32 tgid;
	__u32 on_cpu;
	__u32 is_kernel;
	const void *comm; /* kernel address */
};

static __always_inline struct who who_btf(struct task_struct *p)
{
	struct who who = {
		.task = (__u64)p,
		.start_ns = p->start_time,
		.tid = p->pid,
		.tgid = p->tgid,
		.on_cpu = p->on_cpu,
		.is_kernel = !p->mm,
		.comm = &p->comm,
	};
	return who;
}

static __always_inline struct who who_raw(__u64 address)
{
	struct task_struct *p = (void *)address;
	struct who who = {
		.task = address,
		.start_ns = BPF_CORE_READ(p, start_time),
		.tid = BPF_CORE_READ(p, pid),
		.tgid = BPF_CORE_READ(p, tgid),
		.on_cpu = BPF_CORE_READ(p, on_cpu),
		.is_kernel = !BPF_CORE_READ(p, mm),
		.comm = (void *)address + bpf_core_field_offset(struct task_struct, comm),
	};
	return who;
}

/* A program may not name a per-CPU variable unless kallsyms has it, which
 * without CONFIG_KALLSYMS_ALL is never. But the running task knows its
 * runqueue, which is such a variable, and BTF knows the way from there. */
static __always_inline __u64 this_rq(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct task_struct *task;
	__u64 rq;

	if (cpu >= RQ_CPUS)
		return 0;
	rq = rq_of_cpu[cpu];
	if (rq)
		return rq;
	task = (struct task_struct *)bpf_get_current_task();
	if (!bpf_core_field_exists(struct sched_entity, cfs_rq))
		return 0;
	rq = (__u64)BPF_CORE_READ(task, se.cfs_rq, rq);
	rq_of_cpu[cpu] = rq;
	return rq;
}

/* In whose context this program runs. An interrupt runs on top of whatever task
 * was there, which has nothing to do with it. */
static __always_inline __u32 waker_class(__u32 current_tid)
{
	struct thread_info___arm64 *info;
	__u64 rq;
	__u32 count = 0;

	if (bpf_core_field_exists(struct thread_info___arm64, preempt_count)) {
		info = (void *)bpf_get_current_task();
		bpf_probe_read_kernel(&count, sizeof(count),
				      (void *)info + bpf_core_field_offset(
					      struct thread_info___arm64, preempt_count));
	} else {
		rq = this_rq();
		if (!preempt_count_offset || !rq)
			return WAKER_UNKNOWN;
		if (bpf_probe_read_kernel(&count, sizeof(count),
					  (void *)(rq + preempt_count_offset)))
			return WAKER_UNKNOWN;
	}
	if (count & PREEMPT_COUNT_HARDIRQ)
		return WAKER_HARDIRQ;
	if (count & PREEMPT_COUNT_SOFTIRQ)
		return WAKER_SOFTIRQ;
	return current_tid ? WAKER_TASK : WAKER_IDLE;
}

/* The arguments of sched_switch: preempt, prev, next, prev_state. */
static __always_inline bool is_runnable(const __u64 *ctx)
{
	return (ctx[0] & 1) || !(__u32)ctx[3];
}

/* Both programs at a tracepoint whose first argument is a task: they call
 * on_NAME(). */
#define AT_TASK(name, tracepoint)                                           \
	SEC("tp_btf/" #tracepoint)                                          \
	int btf_##name(__u64 *ctx)                                          \
	{                                                                   \
		struct who who = who_btf((struct task_struct *)ctx[0]);     \
                                                                            \
		return on_##name(&who);                                     \
	}                                                                   \
                                                                            \
	SEC("raw_tp/" #tracepoint)                                          \
	int raw_##name(__u64 *ctx)                                          \
	{                                                                   \
		struct who who = who_raw(ctx[0]);                           \
                                                                            \
		return on_##name(&who);                                     \
	}

#endif /* MAINSTAY_SCHED_H */
