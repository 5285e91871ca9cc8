// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * hash-load: what an insertion and a deletion cost in a hash map that is
 * preallocated and in one that is not, for benches/ring. Run with
 * BPF_PROG_TEST_RUN; args: how many keys, the first of them.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>

/* Nanoseconds that an operation took; the last counts all that took longer. */
#define NS_MAX 65536

__u32 took_ns[NS_MAX];

struct value {
	__u64 words[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__type(key, __u64);
	__type(value, struct value);
} preallocated SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, 1); /* BPF_F_NO_PREALLOC */
	__type(key, __u64);
	__type(value, struct value);
} on_demand SEC(".maps");

static const struct value zero;

static __always_inline void count(__u64 started)
{
	__u64 took = bpf_ktime_get_ns() - started;

	took_ns[took < NS_MAX ? took : NS_MAX - 1]++;
}

#define OPERATIONS(map)                                                          \
	static long insert_##map##_one(__u32 index, void *ctx)                    \
	{                                                                         \
		__u64 key = *(__u64 *)ctx + index;                                \
		__u64 started = bpf_ktime_get_ns();                               \
                                                                                  \
		bpf_map_update_elem(&map, &key, &zero, BPF_ANY);              \
		count(started);                                                   \
		return 0;                                                         \
	}                                                                         \
                                                                                  \
	static long delete_##map##_one(__u32 index, void *ctx)                    \
	{                                                                         \
		__u64 key = *(__u64 *)ctx + index;                                \
		__u64 started = bpf_ktime_get_ns();                               \
                                                                                  \
		bpf_map_delete_elem(&map, &key);                                  \
		count(started);                                                   \
		return 0;                                                         \
	}                                                                         \
                                                                                  \
	SEC("raw_tp")                                                             \
	int insert_##map(struct bpf_raw_tracepoint_args *ctx)                     \
	{                                                                         \
		__u64 first = ctx->args[1];                                       \
                                                                                  \
		bpf_loop(ctx->args[0], insert_##map##_one, &first, 0);            \
		return 0;                                                         \
	}                                                                         \
                                                                                  \
	SEC("raw_tp")                                                             \
	int delete_##map(struct bpf_raw_tracepoint_args *ctx)                     \
	{                                                                         \
		__u64 first = ctx->args[1];                                       \
                                                                                  \
		bpf_loop(ctx->args[0], delete_##map##_one, &first, 0);            \
		return 0;                                                         \
	}

OPERATIONS(preallocated)
OPERATIONS(on_demand)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
