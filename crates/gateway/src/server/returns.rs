//! When devices come back after this gateway was lost, so that they do not come all at once.
//!
//! A connection's place in its shard makes a number that no other open connection has, and the numbers of connected
//! devices are nearly dense: those of closed connections are used again first. So the number alone says which slot
//! is free, and nothing has to be remembered.

use conn_reactor::Token;

use super::Shared;

/// Numbers fill one stretch of this length after the other. Over no less than this, the window in which devices
/// without a slot come back: a gateway that is started again takes a moment, and who comes before it is there comes twice.
const STRETCH_MS: u64 = 2_000;

/// A number that no other open connection has; `None` when the connection has a place that makes none.
pub(crate) fn connection_number(shards: usize, shard: usize, connection: Token) -> Option<u32> {
    let number = u64::from(connection.slot()) * shards as u64 + shard as u64;
    u32::try_from(number).ok()
}

/// How long after a loss the connection of this number comes back, when `per_s` of them may do so in a second.
///
/// Inside a stretch neighbours are spread by multiples of the golden ratio: however many numbers of it are taken, they
/// lie about evenly.
fn slot_ms(number: u32, per_s: u32) -> u32 {
    const GOLDEN: u32 = 0x9e37_79b9;
    let (number, in_stretch) = (u64::from(number), u64::from(per_s) * STRETCH_MS / 1_000);
    // The remainder of a `u32` is one too.
    let (stretch, place) = (number / in_stretch, (number % in_stretch) as u32);
    let within_ms = (u64::from(place.wrapping_mul(GOLDEN)) * STRETCH_MS) >> 32;
    // The largest of all means that there is none.
    u32::try_from(stretch * STRETCH_MS + within_ms).map_or(u32::MAX - 1, |ms| ms.min(u32::MAX - 1))
}

impl Shared {
    /// The slot for WELCOME; `None` when slots are turned off.
    pub(crate) fn return_slot_ms(&self, shard: usize, connection: Token) -> Option<u32> {
        let per_s = self.config.devices.return_per_s;
        let number = connection_number(self.reports.len(), shard, connection)?;
        (per_s > 0).then(|| slot_ms(number, per_s))
    }

    /// The window for the GOAWAYs of a shard with so many `connections`, taking the others to have as many. It takes the
    /// place of slots: devices that were written before those come back in it too.
    pub(crate) fn return_within_ms(&self, connections: usize) -> u32 {
        const AT_LEAST_MS: u32 = 5_000;
        let devices = connections as u64 * self.reports.len() as u64;
        let window_ms = (devices * 1_000).checked_div(self.config.devices.return_per_s.into());
        u32::try_from(window_ms.unwrap_or(0)).map_or(u32::MAX, |ms| ms.max(AT_LEAST_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most slots that fall into any second, by tenths.
    fn busiest_second(numbers: impl Iterator<Item = u32>, per_s: u32) -> usize {
        let mut tenths = Vec::new();
        for number in numbers {
            let tenth = slot_ms(number, per_s) as usize / 100;
            tenths.resize(tenths.len().max(tenth + 1), 0);
            tenths[tenth] += 1;
        }
        tenths
            .windows(10)
            .map(|second| second.iter().sum())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn a_million_devices_take_their_number_over_the_rate_and_no_second_has_more_than_that() {
        let last_ms = (0..1_000_000).map(|number| slot_ms(number, 20_000)).max();
        assert_eq!(last_ms.unwrap().div_ceil(1_000), 50);
        let busiest = busiest_second(0..1_000_000, 20_000);
        assert!((19_990..=20_040).contains(&busiest), "{busiest}");
    }

    #[test]
    fn a_small_fleet_is_spread_over_the_first_stretch() {
        for devices in [2, 3, 10, 100, 5_000_u32] {
            let mut slots: Vec<u32> = (0..devices).map(|number| slot_ms(number, 20_000)).collect();
            slots.sort_unstable();
            let ends = [slots[0], 2_000 - slots[slots.len() - 1]];
            let gaps = slots.windows(2).map(|pair| pair[1] - pair[0]);
            let widest = gaps.chain(ends).max().unwrap();
            // Three times what an even spread has, and a millisecond for rounding.
            assert!(widest <= 3 * 2_000 / devices + 1, "{devices}: {widest}");
        }
    }

    #[test]
    fn shards_that_are_not_all_used_leave_the_rate_below_what_is_asked() {
        let one_of_four = (0..250_000).map(|place| place * 4);
        let busiest = busiest_second(one_of_four, 20_000);
        assert!((4_900..=5_100).contains(&busiest), "{busiest}");
    }

    #[test]
    fn the_slowest_rate_ends_before_the_number_that_means_none() {
        assert_eq!(
            [0, 1, 2].map(|number| slot_ms(number, 1)),
            [0, 1_236, 2_000]
        );
        assert_eq!(slot_ms(u32::MAX, 1), u32::MAX - 1);
    }

    #[test]
    fn a_rate_beyond_any_machine_has_one_stretch_for_everybody() {
        for per_s in [(1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX] {
            let slots = [0, 1, 2, u32::MAX].map(|number| slot_ms(number, per_s));
            assert_eq!(slots[..3], [0, 1_236, 472], "{per_s}");
            assert!(slots[3] <= 4_000, "{per_s}: {slots:?}");
        }
    }
}
