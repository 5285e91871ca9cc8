//! Millions of deadlines: a hierarchical timer wheel with O(1) insert and cancel that never fires early
