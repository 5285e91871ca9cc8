/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The kernel types and constants that the programs in this folder use, and no
 * others. Each struct names only the members that are read; libbpf relocates
 * their offsets against the running kernel's BTF (CO-RE), so neither a
 * generated vmlinux.h nor kernel headers are needed to compile.
 */
#ifndef MAINSTAY_TYPES_H
#define MAINSTAY_TYPES_H

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef _Bool bool;
#define false 0
#define true 1

/* include/uapi/linux/bpf.h: stable numbers. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_STACK_TRACE = 7,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_HASH_OF_MAPS = 13,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
};

#define BPF_F_USER_STACK (1ULL << 8)

#define BPF_F_CURRENT_CPU 0xffffffffULL

enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

enum {
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
};

enum {
	BPF_CMD_MAP_GET_NEXT_KEY = 4,
};

enum {
	ENOENT = 2,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file {
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct thread_info {
	unsigned long flags;
};

/* Only x86 has it. */
struct thread_info___x86 {
	__u32 status;
};

/* Not on x86, where it is a per-CPU variable. */
struct thread_info___arm64 {
	__u64 preempt_count;
};

struct rq;

struct cfs_rq {
	struct rq *rq;
};

/* Without CONFIG_FAIR_GROUP_SCHED there is no cfs_rq in it. */
struct sched_entity {
	struct cfs_rq *cfs_rq;
};

struct mm_struct;

struct task_struct {
	struct thread_info thread_info;
	int on_cpu;
	struct sched_entity se;
	struct mm_struct *mm;
	int pid;
	int tgid;
	struct task_struct *group_leader;
	__u64 start_time;
	char comm[16];
	struct files_struct *files;
};

struct pt_regs___x86 {
	unsigned long di;
	unsigned long si;
};

struct pt_regs___arm64 {
	__u64 regs[31];
};

struct bpf_map {
	enum bpf_map_type map_type;
	__u32 key_size;
	__u32 max_entries;
	__u32 id;
	char name[16];
};

/* kernel/bpf/hashtab.c */
struct hlist_nulls_node {
	struct hlist_nulls_node *next;
};

struct hlist_nulls_head {
	struct hlist_nulls_node *first;
};

struct bucket {
	struct hlist_nulls_head head;
};

struct htab_elem {
	struct hlist_nulls_node hash_node;
	__u32 hash;
	char key[0];
};

struct bpf_htab {
	struct bpf_map map;
	struct bucket *buckets;
	__u32 n_buckets;
	__u32 hashrnd;
};

struct trace_entry {
	int pid;
};

struct trace_event_raw_sys_enter {
	struct trace_entry ent;
	long id;
	unsigned long args[6];
};

struct trace_event_raw_sys_exit {
	struct trace_entry ent;
	long id;
	long ret;
};

#pragma clang attribute pop

/* Not relocated: the context of a raw tracepoint is an array of u64. */
struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

#endif /* MAINSTAY_TYPES_H */
