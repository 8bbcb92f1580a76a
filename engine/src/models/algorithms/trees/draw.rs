//! Random rows and features: with replacement, and without.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The random numbers of one piece of work: its own stream, so that it does not matter who does it, or when.
pub(super) fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// `wanted` of `items`, without replacement, in their order.
pub(super) fn some<T: Copy>(items: &[T], wanted: usize, random: &mut ChaCha8Rng) -> Vec<T> {
    // Each with the chance that those still wanted have among those that are left.
    let mut chosen = Vec::with_capacity(wanted);
    for (i, item) in items.iter().enumerate() {
        if random.random_range(0..(items.len() - i) as u64) < (wanted - chosen.len()) as u64 {
            chosen.push(*item);
        }
    }
    chosen
}

/// `wanted` draws among `rows` rows, with replacement: the rows drawn, in order, and how often each was.
pub(super) fn bootstrap(rows: usize, wanted: usize, random: &mut ChaCha8Rng) -> (Vec<u32>, Vec<u32>) {
    let mut times = vec![0u32; rows];
    for _ in 0..wanted {
        times[random.random_range(0..rows as u32) as usize] += 1;
    }
    let drawn = (0..rows as u32).filter(|row| times[*row as usize] > 0).collect();
    times.retain(|times| *times > 0);
    (drawn, times)
}

/// How many of `all` a part of `fraction` is: one at least.
pub(super) fn part(all: usize, fraction: f64) -> usize {
    ((all as f64 * fraction).round() as usize).clamp(1, all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_drawn_without_replacement_and_a_bootstrap_with() {
        let items: Vec<u32> = (0..100).collect();
        let chosen = some(&items, 30, &mut stream(1, 2));
        assert!(chosen.len() == 30 && chosen.is_sorted_by(|a, b| a < b));
        assert_ne!(chosen, some(&items, 30, &mut stream(1, 3)));
        let (drawn, times) = bootstrap(100, 100, &mut stream(1, 2));
        assert!(drawn.len() == times.len() && drawn.len() > 50 && drawn.len() < 80);
        assert_eq!(times.iter().sum::<u32>(), 100);
    }
}
