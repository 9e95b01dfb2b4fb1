//! Joining values along their channels, `[n, c_i, ...]` to `[n, sum c_i, ...]`.

use candle_core::Tensor;

use super::planes::mismatch;
use super::share::room;
use super::{Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const JOINING: &str = "joining along channels";
const SPLITTING: &str = "splitting along channels";

/// The channels of the first value, then of the second, and so on.
pub fn forward(xs: &[&Tensor]) -> Result<Tensor> {
    let shape = joined(xs)?;
    if is_slow_path(xs[0]) {
        return Tensor::cat(xs, 1).during(JOINING);
    }
    by_dtype!(xs[0], T => {
        let slices = xs.iter().map(|x| slice::<T>(x)).collect::<Result<Vec<_>>>()?;
        let image: usize = shape[1..].iter().product();
        let mut y = room(JOINING, shape[0] * image)?;
        for i in 0..shape[0] {
            for x in &slices {
                let len = x.len() / shape[0];
                y.extend_from_slice(&x[i * len..][..len]);
            }
        }
        tensor(y, &shape)
    })
}

/// Fills `y` with `n` images of all `xs`.
pub(crate) fn forward_into<'a, T: Real>(n: usize, xs: impl Iterator<Item = &'a [T]>, y: &mut [T]) {
    let image = y.len() / n.max(1);
    let mut start = 0;
    for x in xs {
        let len = x.len() / n.max(1);
        for (y, x) in y.chunks_exact_mut(image.max(1)).zip(x.chunks_exact(len.max(1))) {
            y[start..start + len].copy_from_slice(x);
        }
        start += len;
    }
}

/// The gradient of each input, given how many channels each had.
pub fn dx(dy: &Tensor, channels: &[usize]) -> Result<Vec<Tensor>> {
    if dy.rank() < 2 || channels.iter().sum::<usize>() != dy.dims()[1] {
        let problem = format!("{channels:?} channels do not make up {:?}", dy.dims());
        return Err(candle_core::Error::Msg(problem)).during(SPLITTING);
    }
    let starts = channels.iter().scan(0, |next, c| Some(std::mem::replace(next, *next + c)));
    let parts = starts.zip(channels);
    if is_slow_path(dy) {
        return parts.map(|(start, &c)| slow_part(dy, start, c).during(SPLITTING)).collect();
    }
    by_dtype!(dy, T => {
        let elements = slice::<T>(dy)?;
        let pixels: usize = dy.dims()[2..].iter().product();
        let image = (dy.dims()[1] * pixels).max(1);
        parts.map(|(start, &c)| {
            let mut shape = dy.dims().to_vec();
            shape[1] = c;
            let mut dx = room(SPLITTING, shape.iter().product())?;
            for dy in elements.chunks(image) {
                dx.extend_from_slice(&dy[start * pixels..(start + c) * pixels]);
            }
            tensor(dx, &shape)
        }).collect()
    })
}

/// The shape of the whole, if there is one.
fn joined(xs: &[&Tensor]) -> Result<Vec<usize>> {
    let Some(first) = xs.first().filter(|x| x.rank() >= 2) else {
        return Err(candle_core::Error::Msg("no values with channels".into())).during(JOINING);
    };
    let mut shape = first.dims().to_vec();
    for x in &xs[1..] {
        let meets = x.rank() == shape.len() && x.dims()[0] == shape[0] && x.dims()[2..] == shape[2..];
        if !meets {
            return Err(mismatch(first, x, "concat")).during(JOINING);
        }
        shape[1] += x.dims()[1];
    }
    Ok(shape)
}

fn slow_part(dy: &Tensor, start: usize, c: usize) -> candle_core::Result<Tensor> {
    dy.narrow(1, start, c)?.contiguous()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn both_bodies_agree_and_splitting_undoes_joining(
            [n, _, h, w] in images(),
            channels in prop::collection::vec(1usize..4, 1..5),
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let shape = |c| if h == 1 { vec![n, c] } else { vec![n, c, h, w] };
            let xs: Vec<Tensor> = channels.iter().map(|&c| normal(&shape(c), rng)).collect();
            for dtype in REALS {
                let xs: Vec<Tensor> = xs.iter().map(|x| cast(x, dtype)).collect();
                let refs: Vec<&Tensor> = xs.iter().collect();
                let y = forward(&refs).unwrap();
                assert_close(&y, &Tensor::cat(&refs, 1).unwrap(), EXACT);
                let mut start = 0;
                for (x, part) in xs.iter().zip(dx(&y, &channels).unwrap()) {
                    assert_close(&part, x, EXACT);
                    assert_close(&part, &slow_part(&y, start, x.dims()[1]).unwrap(), EXACT);
                    start += x.dims()[1];
                }
            }
        }
    }

    #[test]
    fn values_that_do_not_meet_are_refused() {
        let x = |shape: &[usize]| normal(shape, &mut Rng::new(1));
        assert!(forward(&[]).is_err());
        assert!(forward(&[&x(&[2, 3, 4, 4]), &x(&[2, 3, 4, 5])]).is_err());
        assert!(dx(&x(&[2, 3]), &[2]).is_err());
    }
}
