//! Values under keys that are never reused.

/// Names a value of a [`Slab`]; stale when the value was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(crate) fn as_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

pub(crate) struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).expect("memory ends before");
                self.slots.push((0, None));
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(value);
        Key {
            index,
            generation: slot.0,
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.slots.get(key.index as usize)?;
        value.as_ref().filter(|_| *generation == key.generation)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(key.index as usize)?;
        value.as_mut().filter(|_| *generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, value) = self.slots.get_mut(key.index as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = value.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let generation = slot.0;
            let key = Key { index, generation };
            Some((key, slot.1.as_ref()?))
        })
    }

    /// The values in `count` slots from the slot `from`, and the slot behind them, where there is one.
    pub(crate) fn portion_mut(
        &mut self,
        from: usize,
        count: usize,
    ) -> (impl Iterator<Item = &mut T>, Option<usize>) {
        let len = self.slots.len();
        let end = from.saturating_add(count).min(len);
        let portion = &mut self.slots[from.min(end)..end];
        let values = portion.iter_mut().filter_map(|slot| slot.1.as_mut());
        (values, (end < len).then_some(end))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
