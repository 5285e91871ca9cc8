/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * mainstay_ring.h: write to a BPF ring buffer or a perf buffer (mr_perf_output,
 * at the end) so that every record is either delivered or counted as lost. The reading half is the Rust crate ebpf-ring.
 *
 * Include it after vmlinux.h (or linux/bpf.h) and bpf/bpf_helpers.h:
 *
 *	struct {
 *		__uint(type, BPF_MAP_TYPE_RINGBUF);
 *		__uint(max_entries, 256 * 1024);
 *	} events SEC(".maps");
 *	MR_COUNTERS(event_counts, 1);
 *
 *	struct event *e = mr_reserve(&events, &event_counts, 0, sizeof(*e));
 *	if (!e)
 *		return 0;	// counted, with its reason
 *	e->... = ...;
 *	mr_submit(e);
 *
 * Once no program writes any more, for each shard and summed over the CPUs:
 *
 *	seen = delivered + discarded + pending + dropped
 *
 * where delivered, discarded and pending are the reader's, and a record that is
 * reserved but not yet submitted is pending.
 *
 * Counting costs one atomic add per record. It is atomic although the memory is
 * per CPU because an interrupt may run the same program in the middle of an
 * ordinary `count++`, and a count that loses an increment is no account.
 */
#ifndef MAINSTAY_RING_H
#define MAINSTAY_RING_H

/* Why a record was not written. Indexes into mr_counters.dropped. */
enum mr_drop {
	/* The reader was too slow: the record did not fit into the free space. */
	MR_DROP_FULL = 0,
	/* The ring's lock was taken on this CPU (NMI), though there was room. */
	MR_DROP_BUSY = 1,
	/* The record is as large as the whole ring, or larger: it never fits. */
	MR_DROP_TOO_LARGE = 2,
	/* The program had no room for its own state, so it had no record; or no
	 * reader has a buffer or ring for this CPU. */
	MR_DROP_NO_STATE = 3,
	/* Always zero in this version. */
	MR_DROP_REASONS = 6,
};

/* One per CPU and shard. Twin of `Counters` in ebpf-ring; asserted there too. */
struct mr_counters {
	__u64 seen;	/* records that the program wanted to write */
	__u64 discarded; /* records that it reserved and gave up itself */
	__u64 dropped[MR_DROP_REASONS];
};

_Static_assert(sizeof(struct mr_counters) == 64, "mr_counters: size");
_Static_assert(__builtin_offsetof(struct mr_counters, seen) == 0, "mr_counters: seen");
_Static_assert(__builtin_offsetof(struct mr_counters, discarded) == 8, "mr_counters: discarded");
_Static_assert(__builtin_offsetof(struct mr_counters, dropped) == 16, "mr_counters: dropped");

/* Defines the counter map: `shards` entries, one for each ring that shares it. */
#define MR_COUNTERS(name, shards)                      \
	struct {                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, shards);           \
		__type(key, __u32);                    \
		__type(value, struct mr_counters);     \
	} name SEC(".maps")

static __always_inline void mr_add(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

/* Counts one record that could not be written for a reason of the program's. */
static __always_inline void mr_drop(void *counters, __u32 shard, enum mr_drop reason)
{
	struct mr_counters *c = bpf_map_lookup_elem(counters, &shard);

	if (!c || reason >= MR_DROP_REASONS)
		return;
	mr_add(&c->seen);
	mr_add(&c->dropped[reason]);
}

/* The kernel does not say why a reservation failed; the ring's fill does. A
 * reader that frees space in between turns "full" into "busy": the total stays
 * exact, the reason is the best that can be told. */
static __always_inline enum mr_drop mr_reason(void *ring, __u64 size)
{
	__u64 ring_size = bpf_ringbuf_query(ring, BPF_RB_RING_SIZE);
	__u64 used = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	__u64 need = ((size + 7) & ~7ULL) + 8;

	/* One byte always stays free: the kernel refuses to fill the ring. */
	if (need > ring_size - 1)
		return MR_DROP_TOO_LARGE;
	return used + need > ring_size - 1 ? MR_DROP_FULL : MR_DROP_BUSY;
}

/* Reserves `size` bytes (a constant, as the verifier demands), or counts the
 * loss and returns NULL. `shard` < shards of MR_COUNTERS: a record for a shard
 * that does not exist is refused without a count. */
static __always_inline void *mr_reserve(void *ring, void *counters, __u32 shard, __u64 size)
{
	struct mr_counters *c = bpf_map_lookup_elem(counters, &shard);
	void *record;

	if (!c)
		return 0;
	mr_add(&c->seen);
	record = bpf_ringbuf_reserve(ring, size, 0);
	if (!record)
		mr_add(&c->dropped[mr_reason(ring, size)]);
	return record;
}

/* Hands a reserved record to the reader. */
static __always_inline void mr_submit(void *record)
{
	bpf_ringbuf_submit(record, 0);
}

/* Flags for mr_submit_flags and mr_output_flags: the reader is woken when `wake_bytes` or more lie
 * unread, records in their headers included, and left asleep before. A wake-up
 * costs more than a small record, so this is what raises the rate of a busy
 * ring; what lies below the threshold waits for the reader's own timeout. A
 * record that is reserved counts, one that mr_output_flags is about to write does
 * not yet. */
static __always_inline __u64 mr_wake_from(void *ring, __u64 wake_bytes)
{
	__u64 unread = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);

	return unread >= wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* As mr_submit, with BPF_RB_NO_WAKEUP, BPF_RB_FORCE_WAKEUP or mr_wake_from. */
static __always_inline void mr_submit_flags(void *record, __u64 flags)
{
	bpf_ringbuf_submit(record, flags);
}

/* Gives a reserved record up; the reader skips it and counts it as discarded. */
static __always_inline void mr_discard(void *counters, __u32 shard, void *record)
{
	struct mr_counters *c = bpf_map_lookup_elem(counters, &shard);

	if (c)
		mr_add(&c->discarded);
	bpf_ringbuf_discard(record, 0);
}

/* Copies `size` bytes, which need not be a constant, into the ring, or counts
 * the loss. Returns 0 or the helper's negative errno. `flags` as those of
 * mr_submit_flags. */
static __always_inline long mr_output_flags(void *ring, void *counters, __u32 shard, void *data,
					    __u64 size, __u64 flags)
{
	struct mr_counters *c = bpf_map_lookup_elem(counters, &shard);
	long err;

	if (!c)
		return -22; /* EINVAL: no such shard */
	mr_add(&c->seen);
	err = bpf_ringbuf_output(ring, data, size, flags);
	if (err)
		mr_add(&c->dropped[mr_reason(ring, size)]);
	return err;
}

/* As mr_output_flags, waking the reader as the kernel sees fit. */
static __always_inline long mr_output(void *ring, void *counters, __u32 shard, void *data,
				      __u64 size)
{
	return mr_output_flags(ring, counters, shard, data, size, 0);
}

/*
 * One ring per group of CPUs: writers on different groups do not meet at one
 * lock. `rings` is an ARRAY_OF_MAPS or HASH_OF_MAPS from a CPU's number to the
 * ring of its group, which ShardedRings of ebpf-ring fills in:
 *
 *	struct mr_ring {
 *		__uint(type, BPF_MAP_TYPE_RINGBUF);
 *		__uint(max_entries, 4096);	// the reader chooses the size
 *	};
 *	struct {
 *		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
 *		__uint(max_entries, 1024);	// more than CPUs
 *		__type(key, __u32);
 *		__array(values, struct mr_ring);
 *	} rings SEC(".maps");
 *
 * The counters are per CPU, so one shard of them serves all groups. Records of
 * one CPU stay in order, those of different groups have none.
 */

/* As mr_reserve, in the ring of this CPU; `no_state` while it has none. */
static __always_inline void *mr_reserve_here(void *rings, void *counters, __u32 shard,
					     __u64 size)
{
	__u32 cpu = bpf_get_smp_processor_id();
	void *ring = bpf_map_lookup_elem(rings, &cpu);

	if (!ring) {
		mr_drop(counters, shard, MR_DROP_NO_STATE);
		return 0;
	}
	return mr_reserve(ring, counters, shard, size);
}

/* As mr_output, to the ring of this CPU. */
static __always_inline long mr_output_here(void *rings, void *counters, __u32 shard, void *data,
					   __u64 size)
{
	__u32 cpu = bpf_get_smp_processor_id();
	void *ring = bpf_map_lookup_elem(rings, &cpu);

	if (!ring) {
		mr_drop(counters, shard, MR_DROP_NO_STATE);
		return -2; /* ENOENT */
	}
	return mr_output(ring, counters, shard, data, size);
}

/* The largest record of a perf buffer: its size, with 12 bytes before it and
 * padded to 8, is told in 16 bits. The kernel does not check that: a larger one
 * would be written over its neighbours. */
#define MR_PERF_BYTES_MAX 65516

/* A record that is larger than the whole buffer is "full", too: a program
 * cannot ask how large that is. */
static __always_inline enum mr_drop mr_perf_reason(long err)
{
	switch (err) {
	case -28: /* ENOSPC */
		return MR_DROP_FULL;
	case -16: /* EBUSY: interrupted too often in the middle of this */
		return MR_DROP_BUSY;
	default: /* ENOENT, E2BIG, EOPNOTSUPP: nothing for this CPU in the map */
		return MR_DROP_NO_STATE;
	}
}

/* Copies `size` bytes to this CPU's perf buffer in `map`, a PERF_EVENT_ARRAY, or
 * counts the loss. `ctx` is what the program was called with: syscall programs
 * have no such thing and may not do this. Returns 0 or a negative errno. */
static __always_inline long mr_perf_output(void *ctx, void *map, void *counters, __u32 shard,
					   void *data, __u64 size)
{
	struct mr_counters *c = bpf_map_lookup_elem(counters, &shard);
	long err;

	if (!c)
		return -22; /* EINVAL: no such shard */
	mr_add(&c->seen);
	if (size > MR_PERF_BYTES_MAX) {
		mr_add(&c->dropped[MR_DROP_TOO_LARGE]);
		return -7; /* E2BIG */
	}
	err = bpf_perf_event_output(ctx, map, BPF_F_CURRENT_CPU, data, size);
	if (err)
		mr_add(&c->dropped[mr_perf_reason(err)]);
	return err;
}

#endif /* MAINSTAY_RING_H */
