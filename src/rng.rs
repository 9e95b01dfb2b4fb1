//! Seeded random numbers: the only source of chance in this crate.
//!
//! candle's CPU generator cannot be seeded, and a generator shared by threads would make
//! results depend on their timing. So every function that needs chance takes a `&mut Rng`,
//! and parallel work gives each item its own stream by [`Rng::stream`].

use rand::Rng as _;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// A reproducible generator: the same seed gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The generator of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// An independent generator for item `index` of `seed`, such as one image of a set.
    #[must_use]
    pub fn stream(seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self(rng)
    }

    /// A seed for an independent generator.
    pub fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from 0 (included) to 1 (excluded).
    pub fn uniform(&mut self) -> f32 {
        // 24 bits fill the mantissa of an f32 exactly.
        (self.0.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// A whole number below `n`, all equally likely; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // A 64-bit product's high half: a bias below n / 2^64.
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A draw from the normal distribution of mean 0 and deviation 1.
    pub fn normal(&mut self) -> f32 {
        StandardNormal.sample(&mut self.0)
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_streams_differ() {
        let draw = |mut rng: Rng| (0..4).map(|_| rng.seed()).collect::<Vec<_>>();
        assert_eq!(draw(Rng::new(7)), draw(Rng::new(7)));
        assert_eq!(draw(Rng::stream(7, 3)), draw(Rng::stream(7, 3)));
        assert_ne!(draw(Rng::stream(7, 3)), draw(Rng::stream(7, 4)));
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut order = Rng::new(1).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let mut rng = Rng::new(2);
        let (mut sum, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..20_000 {
            let x = f64::from(rng.normal());
            sum += x;
            square += x * x;
            uniform += f64::from(rng.uniform());
        }
        // Standard errors: 0.007, 0.01 and 0.002.
        assert!((sum / 20_000.0).abs() < 0.03);
        assert!((square / 20_000.0 - 1.0).abs() < 0.05);
        assert!((uniform / 20_000.0 - 0.5).abs() < 0.01);
    }
}
