//! eBPF tools as a library: who iterates which BPF map, and more
