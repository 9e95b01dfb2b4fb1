//! Which images go together: the shuffled batches of an epoch, and draws with replacement.

use crate::error::{Error, Result};
use crate::rng::Rng;

/// The numbers `0..n` in random order, in batches of `size`; the last may be smaller.
///
/// # Errors
///
/// [`Error::Config`] when `size` is 0.
///
/// # Examples
///
/// ```
/// use archrepair::{data::batches::epoch, rng::Rng};
///
/// let batches = epoch(10, 4, &mut Rng::new(0))?;
/// assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
/// # Ok::<(), archrepair::Error>(())
/// ```
pub fn epoch(n: usize, size: usize, rng: &mut Rng) -> Result<Vec<Vec<usize>>> {
    check(size)?;
    Ok(rng.permutation(n).chunks(size).map(<[usize]>::to_vec).collect())
}

/// The numbers `0..n` in their own order, in batches of `size`; the last may be smaller.
///
/// # Errors
///
/// [`Error::Config`] when `size` is 0.
pub fn in_order(n: usize, size: usize) -> Result<Vec<Vec<usize>>> {
    check(size)?;
    Ok((0..n).step_by(size).map(|start| (start..n.min(start.saturating_add(size))).collect()).collect())
}

/// `size` numbers below `n`, each drawn anew.
///
/// # Errors
///
/// [`Error::Config`] when `n` is 0 and `size` is not.
pub fn with_replacement(n: usize, size: usize, rng: &mut Rng) -> Result<Vec<usize>> {
    if n == 0 && size > 0 {
        return Err(Error::Config {
            field: "images to draw from",
            got: "0".into(),
            want: "at least 1".into(),
        });
    }
    Ok((0..size).map(|_| rng.below(n)).collect())
}

fn check(size: usize) -> Result<()> {
    if size > 0 {
        return Ok(());
    }
    Err(Error::Config { field: "batch", got: "0".into(), want: "at least 1".into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_batches_of_an_epoch_hold_every_image_once(n in 0usize..200, size in 1usize..50, seed in any::<u64>()) {
            let batches = epoch(n, size, &mut Rng::new(seed)).unwrap();
            prop_assert_eq!(batches.len(), n.div_ceil(size));
            let mut all = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
            prop_assert_eq!(in_order(n, size).unwrap().concat(), (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_of_one_generator_differ() {
        let mut rng = Rng::new(0);
        assert_ne!(epoch(50, 10, &mut rng).unwrap(), epoch(50, 10, &mut rng).unwrap());
    }

    #[test]
    fn drawing_with_replacement_repeats_and_reaches_all() {
        let mut drawn = with_replacement(10, 200, &mut Rng::new(0)).unwrap();
        assert_eq!(drawn.len(), 200);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn batches_of_nothing_and_draws_from_nothing_are_refused() {
        assert_eq!(epoch(3, 0, &mut Rng::new(0)).unwrap_err().to_string(), "batch is 0, expected at least 1");
        assert_eq!(in_order(3, 0).unwrap_err().code(), 10);
        assert_eq!(with_replacement(0, 1, &mut Rng::new(0)).unwrap_err().code(), 10);
        assert!(with_replacement(0, 0, &mut Rng::new(0)).unwrap().is_empty());
    }
}
