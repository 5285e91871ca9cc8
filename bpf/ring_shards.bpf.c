// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * ring-shards: as ring-flood, to the ring of the CPU that it runs on, found in
 * an array and in a hash of maps.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include "mainstay_ring.h"
#include "ring_flood.h"

struct mr_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__array(values, struct mr_ring);
} in_array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__array(values, struct mr_ring);
} in_hash SEC(".maps");

MR_COUNTERS(flood_counts, 1);

static __always_inline void fill(struct ring_flood_record *record, __u32 index,
				 const struct ring_flood_args *args)
{
	record->producer = args->producer;
	record->index = index;
	record->check = ((__u64)args->producer << 32 | index) * RING_FLOOD_CHECK;
}

static long write_to_array_one(__u32 index, void *ctx)
{
	struct ring_flood_record *record;

	record = mr_reserve_here(&in_array, &flood_counts, 0, sizeof(*record));
	if (!record)
		return 0;
	fill(record, index, ctx);
	mr_submit(record);
	return 0;
}

static long write_to_hash_one(__u32 index, void *ctx)
{
	struct ring_flood_record record;

	fill(&record, index, ctx);
	mr_output_here(&in_hash, &flood_counts, 0, &record, sizeof(record));
	return 0;
}

SEC("syscall")
int write_to_array(struct ring_flood_args *args)
{
	struct ring_flood_args copy = *args;

	bpf_loop(copy.count, write_to_array_one, &copy, 0);
	return 0;
}

SEC("syscall")
int write_to_hash(struct ring_flood_args *args)
{
	struct ring_flood_args copy = *args;

	bpf_loop(copy.count, write_to_hash_one, &copy, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
