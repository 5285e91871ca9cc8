//! Reader for BPF ring buffers: every record delivered or counted as lost
