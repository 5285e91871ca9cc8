/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * System calls seen at the raw tracepoints sys_enter and sys_exit. Include it
 * after mainstay_types.h, bpf_helpers.h and bpf_core_read.h.
 */
#ifndef MAINSTAY_SYSCALL_H
#define MAINSTAY_SYSCALL_H

#define TS_COMPAT 2

/* A 32-bit program's system call: the numbers and layouts are others. */
static __always_inline bool is_compat(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct thread_info___x86 *info = (void *)&task->thread_info;

	return bpf_core_field_exists(info->status) &&
	       (BPF_CORE_READ(info, status) & TS_COMPAT);
}

/* The first argument; 0 where the registers are not known. `address` is of the
 * struct pt_regs. */
static __always_inline __u64 syscall_arg0(__u64 address)
{
	if (bpf_core_field_exists(struct pt_regs___x86, di)) {
		struct pt_regs___x86 *regs = (void *)address;

		return BPF_CORE_READ(regs, di);
	}
	if (bpf_core_field_exists(struct pt_regs___arm64, regs)) {
		struct pt_regs___arm64 *regs = (void *)address;

		return BPF_CORE_READ(regs, regs[0]);
	}
	return 0;
}

/* The second, likewise. */
static __always_inline __u64 syscall_arg1(__u64 address)
{
	if (bpf_core_field_exists(struct pt_regs___x86, si)) {
		struct pt_regs___x86 *regs = (void *)address;

		return BPF_CORE_READ(regs, si);
	}
	if (bpf_core_field_exists(struct pt_regs___arm64, regs)) {
		struct pt_regs___arm64 *regs = (void *)address;

		return BPF_CORE_READ(regs, regs[1]);
	}
	return 0;
}

#endif /* MAINSTAY_SYSCALL_H */
