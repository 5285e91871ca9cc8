// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * perf-flood: writes numbered records to the perf buffer of its CPU as fast as
 * it can, for the tests of ebpf-ring. Run with BPF_PROG_TEST_RUN. Raw tracepoint
 * programs, because syscall programs may not call bpf_perf_event_output.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include "mainstay_ring.h"
#include "perf_flood.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} perf_flood SEC(".maps");

MR_COUNTERS(flood_counts, 1);

struct writing {
	struct bpf_raw_tracepoint_args *ctx;
	__u32 producer;
};

static long write_one(__u32 index, void *ctx)
{
	const struct writing *writing = ctx;
	__u64 id = (__u64)writing->producer << 32 | index;
	struct perf_flood_record record = {
		.producer = writing->producer,
		.index = index,
		.check = id * PERF_FLOOD_CHECK,
		.at_the_end = id * PERF_FLOOD_CHECK,
	};

	mr_perf_output(writing->ctx, &perf_flood, &flood_counts, 0, &record, sizeof(record));
	return 0;
}

/* args: records to write, producer. */
SEC("raw_tp")
int write_records(struct bpf_raw_tracepoint_args *ctx)
{
	struct writing writing = { .ctx = ctx, .producer = ctx->args[1] };

	bpf_loop(ctx->args[0], write_one, &writing, 0);
	return 0;
}

static char large[1 << 16];

/* args: bytes of the one record. */
SEC("raw_tp")
int write_sized(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 size = ctx->args[0];

	if (size > sizeof(large))
		return 1;
	mr_perf_output(ctx, &perf_flood, &flood_counts, 0, large, size);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
