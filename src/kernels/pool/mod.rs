//! Windows reduced to their greatest value or their mean; any side, stride and padding.
//!
//! Padded positions never win and are not counted. Windows: [`Pool::window`]. Shapes:
//! `x` `dx` `[n, c, h, w]`, `y` `dy` `[n, c, h', w']`.
//!
//! candle's own gradients of pooling are restricted to `k == stride` and of the wrong size
//! where maxima tie, so the slow bodies are built from other operations: a maximum over taps
//! gathered by index, and means as products with two small matrices, one an axis.

mod avg;
#[allow(unsafe_code)] // vector instructions
mod compare;
mod greatest;
mod max;

use std::ops::Range;

use candle_core::Tensor;

pub(crate) use self::avg::avg_into;
pub use self::avg::{avg, avg_dx};
pub(crate) use self::max::max_into;
pub use self::max::{max, max_dx, max_only};
use super::planes::image_dims;
use super::share;
use crate::error::{During, Result};
use crate::graph::op::Pool;

const POOLING: &str = "pooling";

/// Where the windows of a pooling lie on images of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    h: Axis,
    w: Axis,
    k: usize,
}

/// The windows along one axis, each cut to the pixels that exist; never empty.
#[derive(Clone, Copy, Debug)]
struct Axis {
    pixels: usize,
    stride: usize,
    padding: usize,
    k: usize,
    count: usize,
}

/// Most bytes that a pass in `f32` on the CPU allocates beside its results, for `x` of shape
/// `[n, c, h, w]` on `threads` threads: a number for each window of a plane, and for each thread as many
/// again, or for maxima a few lines of windows and their positions.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when no window fits.
pub fn scratch_bytes(pool: &Pool, x_shape: &[usize], threads: usize) -> Result<usize> {
    let [h, w] = [2, 3].map(|i| x_shape.get(i).copied().unwrap_or(0));
    let windows = Windows::sized(pool, [h, w])?;
    let plane = avg_scratch_len(&windows) * size_of::<f32>();
    let workers = threads * plane.max(max::worker_len(&windows) * size_of::<f32>());
    Ok(plane + share::scratch_bytes::<u8>(workers))
}

/// Elements of scratch that [`avg_into`] takes.
pub(crate) fn avg_scratch_len(windows: &Windows) -> usize {
    windows.outputs()
}

/// Elements of scratch that [`max_into`] takes for `planes` planes on `threads` threads.
pub(crate) fn max_scratch_len(windows: &Windows, planes: usize, threads: usize) -> usize {
    share::scratch_len(max::tasks(windows, planes), max::worker_len(windows), threads)
}

impl Windows {
    fn new(pool: &Pool, x: &Tensor) -> Result<Self> {
        let [_, _, h, w] = image_dims(x)?;
        Self::sized(pool, [h, w])
    }

    pub(crate) fn sized(pool: &Pool, [h, w]: [usize; 2]) -> Result<Self> {
        match (Axis::new(pool, h), Axis::new(pool, w)) {
            (Some(h), Some(w)) => Ok(Self { h, w, k: pool.k }),
            _ => Err(candle_core::Error::Msg(format!("{pool:?} does not fit {h} x {w} pixels")))
                .during(POOLING),
        }
    }

    fn outputs(&self) -> usize {
        self.h.count() * self.w.count()
    }

    fn pixels(&self) -> usize {
        self.h.pixels * self.w.pixels
    }

    fn shape(&self, x: &Tensor) -> [usize; 4] {
        [x.dims()[0], x.dims()[1], self.h.count(), self.w.count()]
    }
}

impl Axis {
    fn new(pool: &Pool, pixels: usize) -> Option<Self> {
        // With more padding than half a window, a window could hold no pixel at all.
        if pool.padding > pool.k / 2 || pixels == 0 {
            return None;
        }
        let count = pool.window().count(pixels)?;
        Some(Self { pixels, stride: pool.stride, padding: pool.padding, k: pool.k, count })
    }

    fn count(&self) -> usize {
        self.count
    }

    /// The pixels of window `i`.
    fn window(&self, i: usize) -> Range<usize> {
        let start = i * self.stride;
        start.saturating_sub(self.padding)..(start + self.k - self.padding).min(self.pixels)
    }

    /// The windows with a pixel under tap `tap`, and that pixel of the first of them.
    fn of_tap(&self, tap: usize) -> (Range<usize>, usize) {
        let start = self.padding.saturating_sub(tap).div_ceil(self.stride);
        let end = (self.pixels + self.padding).saturating_sub(tap).div_ceil(self.stride).min(self.count);
        let start = start.min(end);
        (start..end, (start * self.stride + tap).saturating_sub(self.padding).min(self.pixels))
    }

    /// The pixels of each window.
    fn windows(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count).map(|i| self.window(i))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::avg::{slow_avg, slow_avg_dx};
    use super::max::{slow_max, slow_max_dx};
    use super::*;
    use crate::kernels::check::*;
    use crate::kernels::tensor;
    use crate::rng::Rng;

    fn pools() -> impl Strategy<Value = Pool> {
        (1usize..5, 1usize..4, 0usize..3).prop_map(|(k, stride, padding)| Pool {
            k,
            stride,
            padding: padding.min(k / 2),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn both_bodies_agree_and_gradients_are_those_of_differences(
            pool in pools(),
            [n, c, h, w] in images(),
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let x = distinct(&[n, c, h, w], rng);
            let Ok(windows) = Windows::new(&pool, &x) else { return Ok(()) };
            let dy = normal(&windows.shape(&x), rng);
            for dtype in REALS {
                // Rounding makes ties, which both bodies must break alike.
                let (x, dy) = (cast(&(&x * 4.0).unwrap().round().unwrap(), dtype), cast(&dy, dtype));
                let (y, at) = max(&pool, &x).unwrap();
                let (slow_y, slow_at) = slow_max(&windows, &x).unwrap();
                assert_close(&y, &slow_y, EXACT);
                assert_close(&max_only(&pool, &x).unwrap(), &slow_y, EXACT);
                assert_close(&at, &slow_at, EXACT);
                let dx = max_dx(&dy, &at, x.dims()).unwrap();
                assert_close(&dx, &slow_max_dx(&dy, &at, x.dims()).unwrap(), CLOSE);
                assert_close(&avg(&pool, &x).unwrap(), &slow_avg(&windows, &x).unwrap(), CLOSE);
                let dx = avg_dx(&pool, &dy, x.dims()).unwrap();
                assert_close(&dx, &slow_avg_dx(&windows, &dy).unwrap(), CLOSE);
            }
            let (_, at) = max(&pool, &x).unwrap();
            let numeric = numeric_gradient(|x| max(&pool, x).map(|(y, _)| y), &x, &dy);
            assert_close(&max_dx(&dy, &at, x.dims()).unwrap(), &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|x| avg(&pool, x), &x, &dy);
            assert_close(&avg_dx(&pool, &dy, x.dims()).unwrap(), &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn padding_neither_wins_nor_counts_and_the_first_of_equals_gets_the_gradient() {
        let x = tensor(vec![-1.0f32, -2.0, -1.0, -4.0], &[1, 1, 2, 2]).unwrap();
        let pool = Pool { k: 3, stride: 2, padding: 1 };
        let (y, at) = max(&pool, &x).unwrap();
        assert_eq!((values(&y), values(&at)), (vec![-1.0], vec![0.0]));
        assert_eq!(values(&avg(&pool, &x).unwrap()), [-2.0]);
        let dy = tensor(vec![8.0f32], &[1, 1, 1, 1]).unwrap();
        assert_eq!(values(&max_dx(&dy, &at, &[1, 1, 2, 2]).unwrap()), [8.0, 0.0, 0.0, 0.0]);
        assert_eq!(values(&avg_dx(&pool, &dy, &[1, 1, 2, 2]).unwrap()), [2.0; 4]);
    }

    #[test]
    fn not_a_number_wins_and_minus_infinity_has_a_position() {
        let pool = Pool { k: 2, stride: 2, padding: 0 };
        for dtype in REALS {
            let x = [
                1.0,
                f64::NAN,
                f64::NAN,
                9.0,
                f64::NEG_INFINITY,
                f64::NEG_INFINITY,
                f64::NEG_INFINITY,
                f64::NEG_INFINITY,
            ];
            let x = cast(&tensor(x.to_vec(), &[2, 1, 2, 2]).unwrap(), dtype);
            let slow = slow_max(&Windows::new(&pool, &x).unwrap(), &x).unwrap();
            for (y, at) in [max(&pool, &x).unwrap(), slow] {
                assert!(values(&y)[0].is_nan() && values(&y)[1] == f64::NEG_INFINITY);
                assert_eq!(values(&at), [1.0, 0.0]);
            }
        }
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        let x = normal(&[1, 1, 2, 9], &mut Rng::new(1));
        for pool in [(3, 1, 0), (2, 0, 0), (2, 1, 2), (0, 1, 0)] {
            let pool = Pool { k: pool.0, stride: pool.1, padding: pool.2 };
            assert!(max(&pool, &x).is_err() && avg(&pool, &x).is_err(), "{pool:?}");
        }
        let far = tensor(vec![4u32], &[1, 1, 1, 1]).unwrap();
        assert!(max_dx(&normal(&[1, 1, 1, 1], &mut Rng::new(1)), &far, &[1, 1, 2, 2]).is_err());
    }
}
