//! The sample: nodes on grids of 30 s, with jitter and loads that walk by at most 2; and how little it could take.

use std::collections::HashMap;

use heartbeat_codec::node::NodeBeat;
use mainstay_benches::random::Random;

pub(crate) const INTERVAL_MS: u32 = 30_000;

/// Each node's beats, one after the other.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Vec<NodeBeat>>,
    /// Bits a beat of who knows the grids and the distributions: the sum of the entropies of jitter and change of load.
    pub(crate) entropy_bits: f64,
}

impl Fleet {
    pub(crate) fn new(sigma_ms: f64, nodes: u64, rounds: u64) -> Self {
        let mut random = Random(1);
        let (mut jitters, mut changes) = (HashMap::new(), HashMap::new());
        let node = |node_id| {
            let phase_ms = 1_700_000_000_000 + random.next_u64() % u64::from(INTERVAL_MS);
            let mut load = 50;
            let beat = |round: u64| {
                let before = load;
                load = (load + (random.next_u64() % 5) as i64 - 2).clamp(0, 100);
                let jitter_ms = (sigma_ms * random.normal()).round() as i64;
                *jitters.entry(jitter_ms).or_insert(0u64) += 1;
                *changes.entry(load - before).or_insert(0u64) += 1;
                let grid_ms = phase_ms + round * u64::from(INTERVAL_MS);
                NodeBeat {
                    timestamp_ms: grid_ms.saturating_add_signed(jitter_ms),
                    node_id,
                    load_percent: Some(load as u8),
                }
            };
            (0..rounds).map(beat).collect()
        };
        let nodes = (100_000..100_000 + nodes).map(node).collect();
        Fleet {
            nodes,
            entropy_bits: entropy(&jitters) + entropy(&changes),
        }
    }

    /// All beats in the order of their times, as a relay hears them.
    pub(crate) fn in_order(&self) -> Vec<NodeBeat> {
        let mut all: Vec<NodeBeat> = self.nodes.iter().flatten().copied().collect();
        all.sort_by_key(|beat| beat.timestamp_ms);
        all
    }
}

fn entropy(histogram: &HashMap<i64, u64>) -> f64 {
    let all: u64 = histogram.values().sum();
    let share = |count: &u64| *count as f64 / all as f64;
    let bits = histogram
        .values()
        .map(|count| -share(count) * share(count).log2());
    bits.sum()
}
