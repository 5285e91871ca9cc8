use std::collections::HashMap;

use libbpf_rs::MapCore;

use super::row::{TaskId, TaskRow};
use super::task::{Task, Waker};
use super::total::TotalRow;
use super::waker_key::WakerKey;
use crate::bytes::word;
use crate::entries::{Entry, entries};
use crate::error::ScopeError;

/// Tasks that have ended, taken out of the kernel to make room there.
#[derive(Debug)]
pub(super) struct Ended {
    /// As many as the kernel has room for.
    tasks: HashMap<TaskId, Task>,
    tasks_max: usize,
    /// Waits of further ones.
    ungrouped: u64,
}

impl Ended {
    pub(super) fn new(tasks_max: usize) -> Self {
        Self {
            tasks: HashMap::new(),
            tasks_max,
            ungrouped: 0,
        }
    }

    /// Takes the rows of tasks that have ended, and of their wakers, out of the maps. `left`: numbers
    /// that threads gave up for their leader's when they ran another program, and when; what they were
    /// by those has ended too.
    ///
    /// A row that cannot be taken out stays, is told from there, and keeps none of the others back:
    /// its error comes when all of them are done.
    pub(super) fn harvest(
        &mut self,
        tasks: &impl MapCore,
        wakers: &impl MapCore,
        left: &impl MapCore,
    ) -> Result<(), ScopeError> {
        let left_at: HashMap<_, _> = entries(left)?.into_iter().collect();
        let dead = dead_among(&entries(tasks)?, &left_at)?;
        if dead.is_empty() && left_at.is_empty() {
            return Ok(());
        }
        // Everything that is only read comes first: a failure of it must not cost what is taken out.
        let waker_keys = entries(wakers)?.into_iter().map(|(key, _)| key);
        let waker_keys: Vec<_> = waker_keys.collect();

        let mut failed = Ok(());
        let mut found = HashMap::new();
        for key in &dead {
            let taken = take(tasks, key, TaskRow::from_bytes);
            if let Some(row) = or_later(taken, &mut failed) {
                let mut task = Task::new(&row);
                task.has_ended = true;
                found.insert(row.id(), task);
            }
        }
        for bytes in &waker_keys {
            let key = WakerKey::from_bytes(bytes);
            let Some(key) = or_later(key.map(Some), &mut failed) else {
                continue;
            };
            if let Some(task) = found.get_mut(&key.task()) {
                let taken = take(wakers, bytes, TotalRow::from_bytes);
                if let Some(total) = or_later(taken, &mut failed) {
                    task.add_waker(Waker::new(&key, &total));
                }
            }
        }
        for tid in left_at.keys() {
            or_later(take(left, tid, |_| Ok(())), &mut failed);
        }
        found.into_iter().for_each(|(id, task)| self.add(id, task));
        failed
    }

    fn add(&mut self, id: TaskId, task: Task) {
        let waits = task.all_waits().count();
        if waits == 0 {
            return;
        }
        if self.tasks.len() < self.tasks_max {
            self.tasks.insert(id, task);
        } else {
            self.ungrouped += waits;
        }
    }

    pub(super) fn tasks(&self) -> &HashMap<TaskId, Task> {
        &self.tasks
    }

    /// Waits of tasks beyond those that are kept.
    pub(super) fn ungrouped(&self) -> u64 {
        self.ungrouped
    }

    /// Waits of all, those that are not kept apart included.
    pub(super) fn waits(&self) -> u64 {
        let kept = self.tasks.values().map(|task| task.all_waits().count());
        kept.sum::<u64>() + self.ungrouped
    }
}

/// The keys of tasks that have ended.
fn dead_among(
    tasks: &[Entry],
    left_at: &HashMap<Vec<u8>, Vec<u8>>,
) -> Result<Vec<Vec<u8>>, ScopeError> {
    let mut dead = Vec::new();
    for (key, row) in tasks {
        let row = TaskRow::from_bytes(row)?;
        let left_at = left_at.get(&row.tid.to_ne_bytes()[..]);
        // Who has the number since then began later.
        if row.dead != 0 || left_at.is_some_and(|at| row.start_ns < word(at, 0)) {
            dead.push(key.clone());
        }
    }
    Ok(dead)
}

/// What is at `key`, and no longer; `None` when it is gone already.
fn take<T>(
    map: &impl MapCore,
    key: &[u8],
    parse: impl Fn(&[u8]) -> Result<T, ScopeError>,
) -> Result<Option<T>, ScopeError> {
    let value = map.lookup_and_delete(key);
    let value = value.map_err(|e| ScopeError::bpf("taking a row out of a map", e))?;
    value.map(|value| parse(&value)).transpose()
}

/// The value; of an error it leaves a note in `failed`.
fn or_later<T>(
    done: Result<Option<T>, ScopeError>,
    failed: &mut Result<(), ScopeError>,
) -> Option<T> {
    done.unwrap_or_else(|error| {
        *failed = Err(error);
        None
    })
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use libbpf_rs::{MapFlags, MapHandle};

    use super::{Ended, MapCore as _, TaskRow, TotalRow, WakerKey, entries};
    use crate::entries::tests::map;

    /// Two tasks that have ended and one that runs; each has waited `tid` times, and thread 9 woke
    /// each once more. And room for numbers that were left.
    fn maps() -> Option<(MapHandle, MapHandle, MapHandle)> {
        let tasks = map(4, size_of::<TaskRow>(), 16)?;
        let wakers = map(size_of::<WakerKey>(), size_of::<TotalRow>(), 16)?;
        for tid in [1u32, 2, 3] {
            let mut row = vec![0; size_of::<TaskRow>()];
            let mut put = |at: usize, word: u32| {
                row[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            };
            put(std::mem::offset_of!(TaskRow, tid), tid);
            put(std::mem::offset_of!(TaskRow, dead), u32::from(tid < 3));
            put(std::mem::offset_of!(TaskRow, slots), tid);
            let (key, any) = (tid.to_ne_bytes(), MapFlags::ANY);
            tasks.update(&key, &row, any).expect("room");
            let mut waker = vec![0; size_of::<WakerKey>()];
            waker[8..12].copy_from_slice(&key);
            waker[12..16].copy_from_slice(&9u32.to_ne_bytes());
            let mut total = vec![0; size_of::<TotalRow>()];
            total[0] = 1;
            wakers.update(&waker, &total, any).expect("room");
        }
        Some((tasks, wakers, map(4, 8, 16)?))
    }

    fn rows(map: &MapHandle) -> usize {
        entries(map).expect("it can be read").len()
    }

    #[test]
    fn the_ended_leave_the_kernel_with_their_wakers() {
        let Some((tasks, wakers, left)) = maps() else {
            return;
        };
        let mut ended = Ended::new(9);
        ended
            .harvest(&tasks, &wakers, &left)
            .expect("maps that work");
        assert_eq!((rows(&tasks), rows(&wakers)), (1, 1));
        assert_eq!((ended.tasks().len(), ended.waits()), (2, 3));
        assert!(ended.tasks().values().all(|task| task.wakers.len() == 1));
    }

    #[test]
    fn of_more_than_are_kept_the_waits_are_counted() {
        let Some((tasks, wakers, left)) = maps() else {
            return;
        };
        let mut ended = Ended::new(1);
        ended
            .harvest(&tasks, &wakers, &left)
            .expect("maps that work");
        assert_eq!((ended.tasks().len(), ended.waits()), (1, 3));
        assert!(ended.ungrouped() > 0);
    }

    /// Thread 3, which began at 0, ran another program in place of its leader.
    #[test]
    fn what_a_thread_was_before_it_took_its_leaders_place_has_ended() {
        let leave = |at: u64| {
            let (tasks, wakers, left) = maps()?;
            let (tid, at) = (3u32.to_ne_bytes(), at.to_ne_bytes());
            left.update(&tid, &at, MapFlags::ANY).expect("room");
            let mut ended = Ended::new(9);
            ended
                .harvest(&tasks, &wakers, &left)
                .expect("maps that work");
            assert_eq!(rows(&left), 0);
            assert!(ended.tasks().values().all(|task| task.has_ended));
            Some((rows(&tasks), ended.tasks().len()))
        };
        let Some(taken) = leave(1) else {
            return;
        };
        assert_eq!(taken, (0, 3));
        assert_eq!(leave(0), Some((1, 2)), "it has the number since");
    }

    /// A frozen map refuses every change.
    #[test]
    fn what_cannot_be_taken_out_stays_and_is_counted_once() {
        let Some((tasks, wakers, left)) = maps() else {
            return;
        };
        tasks.freeze().expect("it is not mapped");
        let mut ended = Ended::new(9);
        assert!(ended.harvest(&tasks, &wakers, &left).is_err());
        assert_eq!((rows(&tasks), rows(&wakers)), (3, 3));
        assert_eq!((ended.tasks().len(), ended.waits()), (0, 0));

        let Some((tasks, wakers, left)) = maps() else {
            return;
        };
        wakers.freeze().expect("it is not mapped");
        assert!(ended.harvest(&tasks, &wakers, &left).is_err());
        assert_eq!((rows(&tasks), rows(&wakers)), (1, 3));
        assert_eq!((ended.tasks().len(), ended.waits()), (2, 3));
    }
}
