// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * ring-load: fills a ring or a perf buffer as fast as it can, for benches/ring.
 * Run with BPF_PROG_TEST_RUN. Nothing is counted: what a reader costs is
 * measured here, for readers of any kind.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include "ring_load.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} load SEC(".maps");

#define WRITER(bytes)                                                       \
	static long write_##bytes##_one(__u32 index, void *ctx)              \
	{                                                                    \
		const struct ring_load_args *args = ctx;                     \
		__u64 *record = bpf_ringbuf_reserve(&load, bytes, 0);        \
                                                                             \
		if (!record)                                                 \
			return 0;                                            \
		*record = bpf_ktime_get_ns();                                \
		bpf_ringbuf_submit(record, args->flags);                     \
		return 0;                                                    \
	}                                                                    \
                                                                             \
	SEC("syscall")                                                       \
	int write_##bytes(struct ring_load_args *args)                       \
	{                                                                    \
		struct ring_load_args copy = *args;                          \
                                                                             \
		bpf_loop(copy.count, write_##bytes##_one, &copy, 0);         \
		return 0;                                                    \
	}

/* Each record starts with the time at which it was written. */
WRITER(8)
WRITER(128)
WRITER(2048)

/* Sizes that nobody can guess. */
static long write_mixed_one(__u32 index, void *ctx)
{
	return bpf_get_prandom_u32() & 1 ? write_8_one(index, ctx) : write_128_one(index, ctx);
}

SEC("syscall")
int write_mixed(struct ring_load_args *args)
{
	struct ring_load_args copy = *args;

	bpf_loop(copy.count, write_mixed_one, &copy, 0);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} perf_load SEC(".maps");

#define PERF_WRITER(bytes)                                                          \
	static long write_perf_##bytes##_one(__u32 index, void *ctx)                 \
	{                                                                            \
		__u64 record[bytes / 8] = {};                                        \
                                                                                     \
		record[0] = bpf_ktime_get_ns();                                      \
		bpf_perf_event_output(*(void **)ctx, &perf_load, BPF_F_CURRENT_CPU,  \
				      record, sizeof(record));                       \
		return 0;                                                            \
	}                                                                            \
                                                                                     \
	SEC("raw_tp")                                                                \
	int write_perf_##bytes(struct bpf_raw_tracepoint_args *ctx)                  \
	{                                                                            \
		bpf_loop(ctx->args[0], write_perf_##bytes##_one, &ctx, 0);           \
		return 0;                                                            \
	}

/* Run with one word of context: how many records to write. */
PERF_WRITER(8)
PERF_WRITER(128)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
