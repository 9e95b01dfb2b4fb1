//! Windows reduced to their greatest value or their mean; any side, stride and padding.
//!
//! Padded positions never win and are not counted. Windows: [`Pool::window`]. Shapes:
//! `x` `dx` `[n, c, h, w]`, `y` `dy` `[n, c, h', w']`.
//!
//! candle's own gradients of pooling are restricted to `k == stride` and of the wrong size
//! where maxima tie, so the slow bodies are built from other operations: a maximum over taps
//! gathered by index, and means as products with two small matrices, one an axis.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::planes::{image_dims, mismatch};
use super::{Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};
use crate::graph::op::Pool;

const POOLING: &str = "pooling";

/// The greatest value of each window, and its position `row * w + column` in the plane of `x`
/// as `U32`. The first of equals wins; NaN is greater than every number.
pub fn max(pool: &Pool, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let windows = Windows::new(pool, x)?;
    if is_slow_path(x) {
        return slow_max(&windows, x).during(POOLING);
    }
    by_dtype!(x, T => {
        let (elements, shape) = (slice::<T>(x)?, windows.shape(x));
        let mut y = vec![0.0 as T; shape.iter().product()];
        let mut at = vec![0; y.len()];
        let planes = y.par_chunks_mut(windows.outputs()).zip(at.par_chunks_mut(windows.outputs()));
        planes.zip(elements.par_chunks(windows.pixels())).for_each(|((y, at), x)| {
            for (row, (y, at)) in y.chunks_mut(windows.w.count()).zip(at.chunks_mut(windows.w.count())).enumerate() {
                max_row(&windows, row, x, (y, at));
            }
        });
        Ok((tensor(y, &shape)?, tensor(at, &shape)?))
    })
}

/// `dx` of [`max`], given the positions it returned and the shape of `x`.
pub fn max_dx(dy: &Tensor, argmax: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
    if dy.dims() != argmax.dims() || x_shape.len() != 4 || dy.dims()[..2] != x_shape[..2] {
        return Err(mismatch(dy, argmax, "max_dx")).during(POOLING);
    }
    if is_slow_path(dy) {
        return slow_max_dx(dy, argmax, x_shape).during(POOLING);
    }
    let outputs = dy.dims()[2..].iter().product::<usize>().max(1);
    let pixels = x_shape[2..].iter().product::<usize>().max(1);
    by_dtype!(dy, T => {
        let (dy, at) = (slice::<T>(dy)?, slice::<u32>(argmax)?);
        if at.iter().any(|&at| at as usize >= pixels) {
            let problem = format!("positions beyond the {pixels} pixels of a plane");
            return Err(candle_core::Error::Msg(problem)).during(POOLING);
        }
        let mut dx = vec![0.0 as T; x_shape.iter().product()];
        let planes = dx.par_chunks_mut(pixels).zip(dy.par_chunks(outputs)).zip(at.par_chunks(outputs));
        planes.for_each(|((dx, dy), at)| {
            for (&dy, &at) in dy.iter().zip(at) {
                dx[at as usize] += dy;
            }
        });
        tensor(dx, x_shape)
    })
}

/// The mean of each window.
pub fn avg(pool: &Pool, x: &Tensor) -> Result<Tensor> {
    let windows = Windows::new(pool, x)?;
    if is_slow_path(x) {
        return slow_avg(&windows, x).during(POOLING);
    }
    by_dtype!(x, T => {
        let (elements, shape) = (slice::<T>(x)?, windows.shape(x));
        let shares = windows.w.shares::<T>();
        let mut y = vec![0.0 as T; shape.iter().product()];
        let planes = y.par_chunks_mut(windows.outputs()).zip(elements.par_chunks(windows.pixels()));
        planes.for_each(|(y, x)| {
            for (row, y) in y.chunks_mut(windows.w.count()).enumerate() {
                avg_row(&windows, row, x, (y, &shares));
            }
        });
        tensor(y, &shape)
    })
}

/// `dx` of [`avg`] for an `x` of this shape: each window's gradient in equal shares.
pub fn avg_dx(pool: &Pool, dy: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
    let &[_, _, h, w] = x_shape else {
        return Err(candle_core::Error::Msg(format!("no images: {x_shape:?}"))).during(POOLING);
    };
    let windows = Windows::sized(pool, [h, w])?;
    if dy.dims() != [x_shape[0], x_shape[1], windows.h.count(), windows.w.count()] {
        let problem = format!("{:?} is not what {pool:?} makes of {x_shape:?}", dy.dims());
        return Err(candle_core::Error::Msg(problem)).during(POOLING);
    }
    if is_slow_path(dy) {
        return slow_avg_dx(&windows, dy).during(POOLING);
    }
    by_dtype!(dy, T => {
        let elements = slice::<T>(dy)?;
        let shares = windows.w.shares::<T>();
        let mut dx = vec![0.0 as T; x_shape.iter().product()];
        let planes = dx.par_chunks_mut(windows.pixels()).zip(elements.par_chunks(windows.outputs()));
        planes.for_each(|(dx, dy)| {
            for (row, dy) in dy.chunks(windows.w.count()).enumerate() {
                spread_row(&windows, row, dx, (dy, &shares));
            }
        });
        tensor(dx, x_shape)
    })
}

/// Where the windows of a pooling lie on images of one size.
struct Windows {
    h: Axis,
    w: Axis,
    k: usize,
}

/// The windows along one axis, each cut to the pixels that exist; never empty.
struct Axis {
    pixels: usize,
    starts: Vec<usize>,
    ends: Vec<usize>,
}

impl Windows {
    fn new(pool: &Pool, x: &Tensor) -> Result<Self> {
        let [_, _, h, w] = image_dims(x)?;
        Self::sized(pool, [h, w])
    }

    fn sized(pool: &Pool, [h, w]: [usize; 2]) -> Result<Self> {
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
        let start = |i: usize| i * pool.stride;
        let starts = (0..count).map(|i| start(i).saturating_sub(pool.padding)).collect();
        let ends = (0..count).map(|i| (start(i) + pool.k - pool.padding).min(pixels)).collect();
        Some(Self { pixels, starts, ends })
    }

    fn count(&self) -> usize {
        self.starts.len()
    }

    /// One over the pixels of each window.
    fn shares<T: Real>(&self) -> Vec<T> {
        self.starts
            .iter()
            .zip(&self.ends)
            .map(|(start, end)| T::from_f64(1.0 / (end - start) as f64))
            .collect()
    }

    /// The pixel under tap `tap` of each window, its last pixel where the window is shorter.
    fn tap(&self, tap: usize) -> Vec<u32> {
        self.starts.iter().zip(&self.ends).map(|(start, end)| (start + tap).min(end - 1) as u32).collect()
    }

    /// The matrix `[count, pixels]` that takes means along this axis.
    fn means(&self, like: &Tensor) -> candle_core::Result<Tensor> {
        let mut means = vec![0.0; self.count() * self.pixels];
        for (row, (&start, &end)) in means.chunks_mut(self.pixels).zip(self.starts.iter().zip(&self.ends)) {
            row[start..end].fill(1.0 / (end - start) as f64);
        }
        let host = Tensor::from_vec(means, (self.count(), self.pixels), &Device::Cpu)?;
        host.to_dtype(like.dtype())?.to_device(like.device())
    }
}

/// One row of windows: `y` gets the greatest values, `at` their positions.
fn max_row<T: Real>(windows: &Windows, row: usize, x: &[T], (y, at): (&mut [T], &mut [u32])) {
    let w = windows.w.pixels;
    let rows = windows.h.starts[row]..windows.h.ends[row];
    let columns = windows.w.starts.iter().zip(&windows.w.ends);
    for ((y, at), (&start, &end)) in y.iter_mut().zip(at).zip(columns) {
        let mut best = rows.start * w + start;
        let mut greatest = x[best];
        for line in rows.clone() {
            for (column, &x) in x[line * w + start..line * w + end].iter().enumerate() {
                // A comparison with NaN is false: the first NaN enters and stays.
                #[allow(clippy::eq_op)]
                if x > greatest || (x != x && greatest == greatest) {
                    (greatest, best) = (x, line * w + start + column);
                }
            }
        }
        (*y, *at) = (greatest, best as u32);
    }
}

/// One row of windows: `y` gets the means.
fn avg_row<T: Real>(windows: &Windows, row: usize, x: &[T], (y, shares): (&mut [T], &[T])) {
    let w = windows.w.pixels;
    let rows = windows.h.starts[row]..windows.h.ends[row];
    let share = T::from_f64(1.0 / rows.len() as f64);
    let columns = windows.w.starts.iter().zip(&windows.w.ends).zip(shares);
    for (y, ((&start, &end), &across)) in y.iter_mut().zip(columns) {
        let mut sum = T::zero();
        for line in rows.clone() {
            for &x in &x[line * w + start..line * w + end] {
                sum += x;
            }
        }
        *y = sum * share * across;
    }
}

/// One row of windows: `dx` gets the shares of their gradients added.
fn spread_row<T: Real>(windows: &Windows, row: usize, dx: &mut [T], (dy, shares): (&[T], &[T])) {
    let w = windows.w.pixels;
    let rows = windows.h.starts[row]..windows.h.ends[row];
    let share = T::from_f64(1.0 / rows.len() as f64);
    let columns = windows.w.starts.iter().zip(&windows.w.ends).zip(shares);
    for (&dy, ((&start, &end), &across)) in dy.iter().zip(columns) {
        let part = dy * share * across;
        for line in rows.clone() {
            for dx in &mut dx[line * w + start..line * w + end] {
                *dx += part;
            }
        }
    }
}

fn slow_max(windows: &Windows, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    let shape = windows.shape(x);
    let row = |indices: Vec<u32>| Tensor::new(indices, x.device());
    let mut best: Option<(Tensor, Tensor)> = None;
    // Windows cut at the border see their last pixel again, which changes no maximum.
    for (i, j) in (0..windows.k).flat_map(|i| (0..windows.k).map(move |j| (i, j))) {
        let (lines, columns) = (windows.h.tap(i), windows.w.tap(j));
        let position =
            |line: &u32| columns.iter().map(|column| line * windows.w.pixels as u32 + column).collect();
        let positions: Vec<u32> = lines.iter().flat_map(|line| -> Vec<u32> { position(line) }).collect();
        let at = row(positions)?.reshape((1, 1, shape[2], shape[3]))?.broadcast_as(&shape)?.contiguous()?;
        let value = x.index_select(&row(lines)?, 2)?.index_select(&row(columns)?, 3)?;
        best = Some(match best {
            None => (value, at),
            Some((greatest, best)) => {
                let enters = (value.ne(&value)? * greatest.eq(&greatest)?)?;
                let wins = (value.gt(&greatest)? + enters)?;
                (wins.where_cond(&value, &greatest)?, wins.where_cond(&at, &best)?)
            }
        });
    }
    best.ok_or_else(|| candle_core::Error::Msg("a window without taps".into()))
}

fn slow_max_dx(dy: &Tensor, argmax: &Tensor, x_shape: &[usize]) -> candle_core::Result<Tensor> {
    let planes = x_shape[0] * x_shape[1];
    let zeros = Tensor::zeros((planes, x_shape[2] * x_shape[3]), dy.dtype(), dy.device())?;
    let flat = |t: &Tensor| t.reshape((planes, ()));
    zeros.scatter_add(&flat(argmax)?, &flat(dy)?, 1)?.reshape(x_shape)
}

fn slow_avg(windows: &Windows, x: &Tensor) -> candle_core::Result<Tensor> {
    let [n, c, _, _] = windows.shape(x);
    let across =
        x.reshape((n * c * windows.h.pixels, windows.w.pixels))?.matmul(&windows.w.means(x)?.t()?)?;
    let planes = across.reshape((n * c, windows.h.pixels, windows.w.count()))?;
    windows.h.means(x)?.broadcast_matmul(&planes)?.reshape(&windows.shape(x))
}

fn slow_avg_dx(windows: &Windows, dy: &Tensor) -> candle_core::Result<Tensor> {
    let (n, c, h, w) = dy.dims4()?;
    let across = dy.reshape((n * c * h, w))?.matmul(&windows.w.means(dy)?)?;
    let planes = across.reshape((n * c, h, windows.w.pixels))?;
    let shape = (n, c, windows.h.pixels, windows.w.pixels);
    windows.h.means(dy)?.t()?.broadcast_matmul(&planes)?.reshape(shape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
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
