//! Seeded cuts of a set into parts that share no image.

use crate::error::{Error, Result};
use crate::rng::Rng;

/// Disjoint random parts of `0..n`, one of each size in `sizes`; what is left over is in none.
///
/// # Errors
///
/// [`Error::Config`] when the sizes sum to more than `n`.
pub fn split(n: usize, sizes: &[usize], rng: &mut Rng) -> Result<Vec<Vec<usize>>> {
    cut(rng.permutation(n), sizes)
}

/// As [`split`], each part holding the classes in the proportions of the whole.
///
/// The members of a class of `m`, in random order, get the places `(j + u) / m` for `j` from 0
/// and one random `u` below 1 a class. All images in order of their places are cut into parts.
/// When classes are of equal size, no class is off its share of a part by two images or more:
/// places from `a` to `b` hold `m (b - a)` of a class, give or take less than 1, and the cuts
/// are exact to less than one image a class.
///
/// # Errors
///
/// [`Error::Config`] when the sizes sum to more than the number of `labels`.
///
/// # Source
///
/// Derived here; it is systematic sampling within strata.
pub fn split_by_class(labels: &[u32], sizes: &[usize], rng: &mut Rng) -> Result<Vec<Vec<usize>>> {
    let mut order = rng.permutation(labels.len());
    order.sort_by_key(|i| labels[*i]);
    let mut places = Vec::with_capacity(order.len());
    for class in order.chunk_by(|a, b| labels[*a] == labels[*b]) {
        let start = f64::from(rng.uniform());
        let m = class.len() as f64;
        places.extend(class.iter().enumerate().map(|(j, i)| ((j as f64 + start) / m, *i)));
    }
    // The sort is stable and the order before it seeded, so ties are reproducible.
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    cut(places.into_iter().map(|(_, i)| i).collect(), sizes)
}

/// Consecutive pieces of `order`.
fn cut(order: Vec<usize>, sizes: &[usize]) -> Result<Vec<Vec<usize>>> {
    let sum = sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size));
    if sum.is_none_or(|sum| sum > order.len()) {
        let want = format!("at most {} images in sum", order.len());
        return Err(Error::Config { field: "sizes of the parts", got: format!("{sizes:?}"), want });
    }
    let mut rest = order.into_iter();
    Ok(sizes.iter().map(|size| rest.by_ref().take(*size).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_their_sizes_and_share_nothing() {
        let parts = split(10, &[3, 0, 5], &mut Rng::new(1)).unwrap();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 5]);
        let mut all = parts.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
        assert!(all.iter().all(|i| *i < 10));
        assert_eq!(parts, split(10, &[3, 0, 5], &mut Rng::new(1)).unwrap());
        assert_ne!(parts, split(10, &[3, 0, 5], &mut Rng::new(2)).unwrap());
    }

    #[test]
    fn more_than_there_is_cannot_be_split() {
        let text = split(10, &[6, 5], &mut Rng::new(1)).unwrap_err().to_string();
        assert_eq!(text, "sizes of the parts is [6, 5], expected at most 10 images in sum");
        assert_eq!(split(10, &[usize::MAX, 2], &mut Rng::new(1)).unwrap_err().code(), 10);
    }

    #[test]
    fn a_split_by_class_keeps_every_class_within_two_images_of_its_share() {
        let labels: Vec<u32> = (0..400).map(|i| i % 4).collect();
        for seed in 0..50 {
            let parts = split_by_class(&labels, &[40, 100, 200], &mut Rng::new(seed)).unwrap();
            for (part, size) in parts.iter().zip([40, 100, 200]) {
                assert_eq!(part.len(), size);
                for class in 0..4 {
                    let got = part.iter().filter(|i| labels[**i] == class).count();
                    assert!(got.abs_diff(size / 4) < 2, "{got} of {size}");
                }
            }
            let mut all = parts.concat();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 340);
        }
    }

    #[test]
    fn a_rare_class_lands_in_every_part_by_its_share_over_seeds() {
        let labels: Vec<u32> = (0..100).map(|i| u32::from(i < 2)).collect();
        let first = |seed| split_by_class(&labels, &[50, 50], &mut Rng::new(seed)).unwrap()[0].clone();
        assert!((0..20).all(|seed| first(seed).iter().filter(|i| labels[**i] == 1).count() == 1));
    }
}
