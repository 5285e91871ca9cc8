use super::stack_key::StackKey;
use super::total::TotalRow;
use crate::bytes::text;
use crate::flame::FlameGraph;
use crate::symbols::{Stacks, Symbols};
use crate::waker::WakerClass;

/// A place where a process went off the CPU, and why it came back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffCpu {
    /// The process.
    pub pid: u32,
    /// The thread's name.
    pub comm: String,
    /// Who woke it; `None` where it was preempted and never slept.
    pub waker: Option<WakerClass>,
    /// The name of the task that woke it, if one did.
    pub waker_comm: String,
    /// Addresses of the kernel, innermost first.
    pub kernel_stack: Vec<u64>,
    /// The program lost them: another stack had their place in its map.
    pub kernel_stack_lost: bool,
    /// Addresses of the process, innermost first; empty for a task of the kernel.
    pub user_stack: Vec<u64>,
    /// The program lost them, likewise.
    pub user_stack_lost: bool,
    /// How often.
    pub count: u64,
    /// From going off the CPU to running again, all together, nanoseconds.
    pub total_ns: u64,
}

impl OffCpu {
    pub(super) fn new(key: &StackKey, total: &TotalRow, stacks: &Stacks) -> Self {
        let woken = key.preempted == 0;
        Self {
            pid: key.tgid,
            comm: text(&key.comm),
            waker: woken.then(|| WakerClass::from_number(key.waker_class)),
            waker_comm: text(&key.waker_comm),
            kernel_stack: stacks.addresses(key.kernel_stack),
            kernel_stack_lost: Stacks::is_lost(key.kernel_stack),
            user_stack: stacks.addresses(key.user_stack),
            user_stack_lost: Stacks::is_lost(key.user_stack),
            count: total.count,
            total_ns: total.time_ns,
        }
    }

    /// Names from the outside in: the reason, the task, its functions, those of the kernel, and who
    /// woke it.
    fn frames(&self, symbols: &Symbols) -> Vec<String> {
        let reason = match self.waker {
            None => "preempted".to_owned(),
            Some(class) => format!("woken by {class}"),
        };
        let mut frames = vec![reason, self.comm.clone()];
        let lost = |is_lost: bool| is_lost.then(|| "[stack lost]".to_owned());
        frames.extend(lost(self.user_stack_lost));
        frames.extend(symbols.user(self.pid, &self.user_stack).into_iter().rev());
        frames.extend(lost(self.kernel_stack_lost));
        let kernel = symbols.kernel(&self.kernel_stack);
        frames.extend(outside_of_the_scheduler(&kernel).iter().rev().cloned());
        if !self.waker_comm.is_empty() {
            frames.push(format!("[{}]", self.waker_comm));
        }
        frames
    }
}

/// Without the innermost frames, which are the switch itself and this program, alike in all.
fn outside_of_the_scheduler(kernel: &[String]) -> &[String] {
    match kernel.iter().rposition(|name| name.contains("__schedule")) {
        Some(at) => &kernel[at + 1..],
        None => kernel,
    }
}

/// Draws where time went off the CPU: by reason at the root, then task, user functions, functions of
/// the kernel, and the waker at the tip; widths in proportion to time.
///
/// Names are those of the program that a process runs now: addresses from before an exec are looked
/// up in the wrong one.
#[must_use]
pub fn flame_graph(off_cpu: &[OffCpu], symbols: &Symbols) -> FlameGraph {
    let mut graph = FlameGraph::new("Off-CPU time by wakeup reason", "us");
    for off in off_cpu {
        graph.add(&off.frames(symbols), off.total_ns / 1000);
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::outside_of_the_scheduler;

    #[test]
    fn the_switch_itself_is_no_news() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let kernel = names("bpf_prog_1 bpf_trace_run4 __schedule schedule pipe_read vfs_read");
        assert_eq!(
            outside_of_the_scheduler(&kernel),
            names("schedule pipe_read vfs_read")
        );
        assert_eq!(outside_of_the_scheduler(&names("a b")), names("a b"));
    }
}
