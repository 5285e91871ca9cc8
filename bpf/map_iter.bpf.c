// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * map-iter: who iterates which BPF map.
 *
 * Every step of a walk from user space is one bpf(BPF_MAP_GET_NEXT_KEY). The
 * entry of the call says which map and which key; its exit says how it went.
 * Two pairs of programs share the code: syscall tracepoints, which the kernel
 * filters by system call but which need tracefs, and raw tracepoints, which see
 * every system call but need nothing. User space loads one pair.
 */
#include "mainstay_types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "mainstay_ring.h"
#include "mainstay_stack.h"
#include "mainstay_syscall.h"
#include "map_iter.h"

/* The longest key that is looked up and hashed as a whole. */
#define KEY_MAX 64
#define KEY_WORDS (KEY_MAX / 8)
/* The longest bucket chain that is followed. */
#define CHAIN_MAX 64
#define STACK_DEPTH 127
#define JHASH_INITVAL 0xdeadbeef

/* Knobs, set before load. */
const volatile __u32 target_pid = 0; /* 0: every process */
const volatile __s64 bpf_syscall_nr = 321; /* x86-64's; for the raw pair */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* Shard 0: events. Shard 1: stacks. */
MR_COUNTERS(event_counts, 2);

/* What the entry of a call leaves for its exit. */
struct call {
	__u64 start_ns;
	__u64 next_key; /* user address */
	__u64 key_hash;
	__u32 map_id;
	__u32 map_type;
	__u32 key_size;
	__u32 flags;
	__s32 user_stack;
	char map_name[16];
};

/* A task is inside one system call at a time; the limit is on tasks that are
 * inside this one at once. Beyond it the step is counted as MR_DROP_NO_STATE. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct call);
} calls SEC(".maps");

/* Callers of walks: few, since a walk has one place in a program. The emptier the
 * map, the fewer are lost. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

/* The head of union bpf_attr for the element commands: stable. */
struct elem_attr {
	__u32 map_fd;
	__u64 key;
	__u64 next_key;
};

/* Makes clang forget what it knows about `size` and test it again here: kernels
 * as old as 6.1 forget the bounds of a value that was spilled to the stack. */
static __always_inline __u32 at_most_key_max(__u32 size)
{
	barrier_var(size);
	return size > KEY_MAX ? KEY_MAX : size;
}

/* Zero-padded, and long enough for the last round of jhash. */
struct key_buf {
	__u64 word[KEY_WORDS + 1];
};

static __always_inline bool read_key(struct key_buf *buf, __u64 addr, __u32 size)
{
	__builtin_memset(buf, 0, sizeof(*buf));
	return bpf_probe_read_user(buf, at_most_key_max(size), (const void *)addr) == 0;
}

/* Not the kernel's hash: its own, so that equal keys of different maps agree. */
static __always_inline __u64 hash_key(const struct key_buf *buf)
{
	__u64 hash = 0xcbf29ce484222325ULL;

#pragma unroll
	for (int i = 0; i < KEY_WORDS; i++) {
		hash = (hash ^ buf->word[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	/* 0 means "no key". */
	return hash ? hash : 1;
}

static __always_inline __u32 rol32(__u32 word, __u32 shift)
{
	return (word << shift) | (word >> (32 - shift));
}

/* include/linux/jhash.h. On little endian, zero padding makes the byte-wise and
 * the word-wise form of the kernel agree, so one serves every key size. */
static __always_inline __u32 jhash(const __u32 *k, __u32 length, __u32 initval)
{
	__u32 a, b, c;

	a = b = c = JHASH_INITVAL + length + initval;
	for (int i = 0; i < KEY_MAX / 12 && length > 12; i++) {
		a += k[0];
		b += k[1];
		c += k[2];
		a -= c; a ^= rol32(c, 4); c += b;
		b -= a; b ^= rol32(a, 6); a += c;
		c -= b; c ^= rol32(b, 8); b += a;
		a -= c; a ^= rol32(c, 16); c += b;
		b -= a; b ^= rol32(a, 19); a += c;
		c -= b; c ^= rol32(b, 4); b += a;
		length -= 12;
		k += 3;
	}
	a += k[0];
	b += k[1];
	c += k[2];
	c ^= b; c -= rol32(b, 14);
	a ^= c; a -= rol32(c, 11);
	b ^= a; b -= rol32(a, 25);
	c ^= b; c -= rol32(b, 16);
	a ^= c; a -= rol32(c, 4);
	b ^= a; b -= rol32(a, 14);
	c ^= b; c -= rol32(b, 24);
	return c;
}

static __always_inline bool elem_has_key(struct htab_elem *elem, const struct key_buf *key,
					 __u32 key_size)
{
	struct key_buf other = {};
	__u64 differs = 0;

	if (bpf_probe_read_kernel(&other, at_most_key_max(key_size),
				  (void *)elem + bpf_core_field_offset(struct htab_elem, key)))
		return false;
#pragma unroll
	for (int i = 0; i < KEY_WORDS; i++)
		differs |= other.word[i] ^ key->word[i];
	return !differs;
}

/* Looks `key` up as htab_map_get_next_key() will: MAP_ITER_KEY_GONE when it is
 * not there, 0 when it is, MAP_ITER_UNCHECKED when that could not be told. */
static __always_inline __u32 check_hash_key(struct bpf_map *map, const struct key_buf *key,
					    __u32 key_size)
{
	struct bpf_htab *htab = (struct bpf_htab *)map;
	__u32 hash, n_buckets;
	struct hlist_nulls_node *node;
	struct bucket *bucket;

	if (key_size > KEY_MAX || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
		return MAP_ITER_UNCHECKED;
	n_buckets = BPF_CORE_READ(htab, n_buckets);
	hash = jhash((const __u32 *)key, key_size, BPF_CORE_READ(htab, hashrnd));
	bucket = (void *)BPF_CORE_READ(htab, buckets) +
		 (__u64)(hash & (n_buckets - 1)) * bpf_core_type_size(struct bucket);
	node = BPF_CORE_READ(bucket, head.first);
	for (int i = 0; i < CHAIN_MAX; i++) {
		struct htab_elem *elem = (struct htab_elem *)node;

		/* The end of a chain is an odd number, not NULL. */
		if (!node || ((__u64)node & 1))
			return MAP_ITER_KEY_GONE;
		if (BPF_CORE_READ(elem, hash) == hash && elem_has_key(elem, key, key_size))
			return 0;
		node = BPF_CORE_READ(node, next);
	}
	return MAP_ITER_UNCHECKED;
}

static __always_inline __u32 check_key(struct bpf_map *map, const struct call *call,
				       const struct key_buf *key)
{
	switch (call->map_type) {
	case BPF_MAP_TYPE_HASH:
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
	case BPF_MAP_TYPE_HASH_OF_MAPS:
		return check_hash_key(map, key, call->key_size);
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
		return (__u32)key->word[0] >= BPF_CORE_READ(map, max_entries) ?
			       MAP_ITER_KEY_GONE : 0;
	default:
		return MAP_ITER_UNCHECKED;
	}
}

/* The object behind a descriptor of the current process. Nothing here proves
 * that it is a map; see on_exit(). */
static __always_inline struct bpf_map *map_of_fd(__u32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **slot, *file = 0;

	if (!fdt || fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	slot = BPF_CORE_READ(fdt, fd) + fd;
	if (bpf_probe_read_kernel(&file, sizeof(file), slot) || !file)
		return 0;
	return BPF_CORE_READ(file, private_data);
}

static __always_inline int on_enter(void *ctx, __u64 cmd, __u64 attr_addr)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct elem_attr attr = {};
	struct call call = {};
	struct key_buf key;
	struct bpf_map *map;
	__u32 tid = pid_tgid;

	if ((__u32)cmd != BPF_CMD_MAP_GET_NEXT_KEY)
		return 0;
	if (target_pid && target_pid != pid_tgid >> 32)
		return 0;
	bpf_probe_read_user(&attr, sizeof(attr), (const void *)attr_addr);
	map = map_of_fd(attr.map_fd);
	if (map) {
		call.map_id = BPF_CORE_READ(map, id);
		call.map_type = BPF_CORE_READ(map, map_type);
		call.key_size = BPF_CORE_READ(map, key_size);
		BPF_CORE_READ_STR_INTO(&call.map_name, map, name);
	}
	call.next_key = attr.next_key;
	if (!attr.key) {
		call.flags = MAP_ITER_FIRST;
	} else if (read_key(&key, attr.key, call.key_size)) {
		call.key_hash = hash_key(&key);
		call.flags = map ? check_key(map, &call, &key) : MAP_ITER_UNCHECKED;
	} else {
		call.flags = MAP_ITER_KEY_UNREAD | MAP_ITER_UNCHECKED;
	}
	/* Not at every step: it costs more than the rest together. */
	call.user_stack = call.flags & (MAP_ITER_FIRST | MAP_ITER_KEY_GONE) ?
				  stack_number(ctx, &stacks, BPF_F_USER_STACK, &event_counts, 1) :
				  -1;
	/* Last, so that what the program itself does is not in the step. */
	call.start_ns = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&calls, &tid, &call, BPF_ANY))
		mr_drop(&event_counts, 0, MR_DROP_NO_STATE);
	return 0;
}

static __always_inline int on_exit(__s64 ret)
{
	__u64 end_ns = bpf_ktime_get_ns();
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = pid_tgid;
	struct call *call = bpf_map_lookup_elem(&calls, &tid);
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct map_iter_event *event;
	struct key_buf key;

	if (!call)
		return 0;
	event = mr_reserve(&events, &event_counts, 0, sizeof(*event));
	if (!event)
		goto forget;
	event->time_ns = end_ns;
	event->step_ns = end_ns - call->start_ns;
	event->key_hash = call->key_hash;
	event->next_hash = 0;
	event->pid = pid_tgid >> 32;
	event->tid = tid;
	event->ret = ret;
	event->flags = call->flags;
	event->user_stack = call->user_stack;
	event->zero = 0;
	event->start_ns = BPF_CORE_READ(task, group_leader, start_time);
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	/* Only these two answers prove that the descriptor was a map's: the
	 * address of bpf_map_fops is not in every kernel's kallsyms. */
	if (ret == 0 || ret == -ENOENT) {
		event->map_id = call->map_id;
		event->map_type = call->map_type;
		__builtin_memcpy(event->map_name, call->map_name, sizeof(event->map_name));
	} else {
		event->map_id = 0;
		event->map_type = 0;
		__builtin_memset(event->map_name, 0, sizeof(event->map_name));
	}
	if (ret == 0 && read_key(&key, call->next_key, call->key_size))
		event->next_hash = hash_key(&key);
	mr_submit(event);
forget:
	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

SEC("tp/syscalls/sys_enter_bpf")
int tp_enter(struct trace_event_raw_sys_enter *ctx)
{
	return on_enter(ctx, ctx->args[0], ctx->args[1]);
}

SEC("tp/syscalls/sys_exit_bpf")
int tp_exit(struct trace_event_raw_sys_exit *ctx)
{
	return on_exit(ctx->ret);
}

SEC("raw_tp/sys_enter")
int raw_enter(struct bpf_raw_tracepoint_args *ctx)
{
	if ((__s64)ctx->args[1] != bpf_syscall_nr || is_compat())
		return 0;
	return on_enter(ctx, syscall_arg0(ctx->args[0]), syscall_arg1(ctx->args[0]));
}

SEC("raw_tp/sys_exit")
int raw_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return on_exit((__s64)ctx->args[1]);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
