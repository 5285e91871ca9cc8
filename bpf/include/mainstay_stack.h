/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Stacks that are kept in a BPF_MAP_TYPE_STACK_TRACE. Include it after
 * mainstay_types.h, bpf_helpers.h and mainstay_ring.h.
 */
#ifndef MAINSTAY_STACK_H
#define MAINSTAY_STACK_H

/* The map has one place for all stacks whose hashes end alike: this stack came
 * upon another one there, or upon a full map. Twin of `LOST` in symbols.rs. */
#define STACK_LOST -17

#define ENOMEM 12

/* The number of a stack; negative: there is none, or it is lost. A lost one is
 * counted in `shard` of `counters`. */
static __always_inline __s32 stack_number(void *ctx, void *stacks, __u64 flags, void *counters,
					  __u32 shard)
{
	__s64 number = bpf_get_stackid(ctx, stacks, flags);

	if (number != STACK_LOST && number != -ENOMEM)
		return number;
	mr_drop(counters, shard, MR_DROP_NO_STATE);
	return STACK_LOST;
}

#endif /* MAINSTAY_STACK_H */
