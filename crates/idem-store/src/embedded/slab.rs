//! Values in chunks that never move, named by small numbers. Pure.

/// Values that come and go. The place of one that went is used by the next one that comes, so
/// that what is new lies together and is warm, however many there are.
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

const CHUNK: usize = 1024;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            *self.place(number) = Some(value);
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = self.chunks.len() - 1;
        let chunk = &mut self.chunks[full];
        let number = full * CHUNK + chunk.len();
        chunk.push(Some(value));
        u32::try_from(number).expect("memory ends before four billion values")
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        let place = &self.chunks[number as usize / CHUNK][number as usize % CHUNK];
        place.as_ref().expect(HELD)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> &mut T {
        self.place(number).as_mut().expect(HELD)
    }

    pub(crate) fn remove(&mut self, number: u32) -> T {
        let value = self.place(number).take().expect(HELD);
        self.free.push(number);
        value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().flatten()
    }

    fn place(&mut self, number: u32) -> &mut Option<T> {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}

const HELD: &str = "a number is used from insert to remove";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_their_values_and_are_used_again() {
        let mut slab = Slab::default();
        let numbers: Vec<u32> = (0..3_000).map(|value| slab.insert(value)).collect();
        for (value, &number) in numbers.iter().enumerate() {
            assert_eq!(*slab.get(number), value);
        }
        assert_eq!(slab.remove(numbers[7]), 7);
        assert_eq!(slab.remove(numbers[2_500]), 2_500);
        assert_eq!(slab.iter().count(), 2_998);

        let again = [slab.insert(10_000), slab.insert(10_001)];
        assert_eq!(again, [numbers[2_500], numbers[7]]);
        *slab.get_mut(again[0]) += 1;
        assert_eq!(*slab.get(again[0]), 10_001);
        assert_eq!(slab.iter().count(), 3_000);
        assert_eq!(slab.chunks.len(), 3, "nothing grew");
    }
}
