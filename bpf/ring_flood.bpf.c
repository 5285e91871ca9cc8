// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * ring-flood: writes numbered records to a ring as fast as it can, for the
 * tests of ebpf-ring. Run with BPF_PROG_TEST_RUN; one run writes `count`
 * records in the kernel, so the reader is the slow side when it wants to be.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include "mainstay_ring.h"
#include "ring_flood.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} flood SEC(".maps");

MR_COUNTERS(flood_counts, 1);

static long write_one(__u32 index, void *ctx)
{
	const struct ring_flood_args *args = ctx;
	struct ring_flood_record *record;

	record = mr_reserve(&flood, &flood_counts, 0, sizeof(*record));
	if (!record)
		return 0;
	record->producer = args->producer;
	record->index = index;
	record->check = ((__u64)args->producer << 32 | index) * RING_FLOOD_CHECK;
	if (args->discard_every && index % args->discard_every == 0)
		mr_discard(&flood_counts, 0, record);
	else if (args->wake_bytes)
		mr_submit_flags(record, mr_wake_from(&flood, args->wake_bytes));
	else
		mr_submit(record);
	return 0;
}

SEC("syscall")
int write_records(struct ring_flood_args *args)
{
	struct ring_flood_args copy = *args;

	bpf_loop(copy.count, write_one, &copy, 0);
	return 0;
}

static long output_one(__u32 index, void *ctx)
{
	const struct ring_flood_args *args = ctx;
	struct ring_flood_record record = {
		.producer = args->producer,
		.index = index,
		.check = ((__u64)args->producer << 32 | index) * RING_FLOOD_CHECK,
	};
	__u64 flags = args->wake_bytes ? mr_wake_from(&flood, args->wake_bytes) : 0;

	mr_output_flags(&flood, &flood_counts, 0, &record, sizeof(record), flags);
	return 0;
}

SEC("syscall")
int output_records(struct ring_flood_args *args)
{
	struct ring_flood_args copy = *args;

	bpf_loop(copy.count, output_one, &copy, 0);
	return 0;
}

/* Larger than the ring: never fits, whatever the reader does. */
static char large[1 << 17];

SEC("syscall")
int write_too_large(struct ring_flood_args *args)
{
	return mr_output(&flood, &flood_counts, 0, large, sizeof(large)) ? 1 : 0;
}

/* With its header exactly the ring, which is never filled to its last byte. */
SEC("syscall")
int write_as_large(struct ring_flood_args *args)
{
	return mr_output(&flood, &flood_counts, 0, large, 64 * 1024 - 8) ? 1 : 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
