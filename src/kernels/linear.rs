//! Fully connected layers: `y = x W^T + b`.
//!
//! Shapes: `x` `dx` `[n, f]`, `y` `dy` `[n, o]`, `w` `dw` `[o, f]`, `bias` `dbias` `[o]`.

use candle_core::Tensor;

use super::matmul::{Matrix, MatrixMut, Write, matmul};
use super::planes::{mismatch, wide};
use super::share::{pieces, zeros};
use super::{Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};

const MULTIPLYING: &str = "a linear layer";

/// Rows of a result computed together. Fixed, so that the split of the work, and with it
/// every rounding, is the same on any number of threads.
const ROWS: usize = 32;

/// `x W^T`, plus `bias` if there is one.
pub fn forward(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ([n, f], [o, w_f]) = (dims(x)?, dims(w)?);
    if f != w_f || bias.is_some_and(|bias| bias.dims() != [o]) {
        return Err(mismatch(x, w, "linear")).during(MULTIPLYING);
    }
    if is_slow_path(x) {
        return slow(x, w, bias).during(MULTIPLYING);
    }
    by_dtype!(x, T => {
        let bias = bias.map(slice::<T>).transpose()?;
        let mut y = zeros(MULTIPLYING, n * o)?;
        forward_into([n, f, o], [&slice(x)?, &slice(w)?], bias.as_deref(), &mut y);
        tensor(y, &[n, o])
    })
}

/// Fills `y` `[n, o]` for `x` `[n, f]` and `w` `[o, f]`.
pub(crate) fn forward_into<T: Real>(
    [n, f, o]: [usize; 3],
    [x, w]: [&[T]; 2],
    bias: Option<&[T]>,
    y: &mut [T],
) {
    let (x, w) = (Matrix::row_major(x, n, f), Matrix::row_major(w, o, f));
    let write = match bias {
        Some(bias) => {
            y.chunks_exact_mut(o.max(1)).for_each(|y| y.copy_from_slice(bias));
            Write::Add
        }
        None => Write::Set,
    };
    match n {
        // A single row would leave all but one thread idle: compute it as a column.
        1 => blocks(y, w, x.transpose(), write),
        _ => blocks(y, x, w.transpose(), write),
    }
}

/// `dx = dy W`.
pub fn dx(dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    let ([n, o], [w_o, f]) = (dims(dy)?, dims(w)?);
    if o != w_o {
        return Err(mismatch(dy, w, "linear dx")).during(MULTIPLYING);
    }
    if is_slow_path(dy) {
        return dy.matmul(w).during(MULTIPLYING);
    }
    by_dtype!(dy, T => {
        let (dy, w) = (slice::<T>(dy)?, slice::<T>(w)?);
        let (dy, w) = (Matrix::row_major(&dy, n, o), Matrix::row_major(&w, o, f));
        let mut dx = zeros::<T>(MULTIPLYING, n * f)?;
        blocks(&mut dx, dy, w, Write::Set);
        tensor(dx, &[n, f])
    })
}

/// `dw = dy^T x`.
pub fn dw(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let ([n, o], [x_n, f]) = (dims(dy)?, dims(x)?);
    if n != x_n {
        return Err(mismatch(dy, x, "linear dw")).during(MULTIPLYING);
    }
    if is_slow_path(dy) {
        return slow_dw(dy, x).during(MULTIPLYING);
    }
    by_dtype!(dy, T => {
        let (dy, x) = (slice::<T>(dy)?, slice::<T>(x)?);
        let (dy, x) = (Matrix::row_major(&dy, n, o), Matrix::row_major(&x, n, f));
        let mut dw = zeros::<T>(MULTIPLYING, o * f)?;
        blocks(&mut dw, dy.transpose(), x, Write::Set);
        tensor(dw, &[o, f])
    })
}

/// `dbias`: the sum of `dy` over the images.
pub fn dbias(dy: &Tensor) -> Result<Tensor> {
    let [_, o] = dims(dy)?;
    if is_slow_path(dy) {
        return slow_dbias(dy).during(MULTIPLYING);
    }
    by_dtype!(dy, T => {
        let mut sums = vec![0.0 as T; o];
        for row in slice::<T>(dy)?.chunks(o.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, &dy)| *sum += dy);
        }
        tensor(sums, &[o])
    })
}

/// Writes `A B` to the contiguous rows of `c`, a fixed number of rows a task.
fn blocks<T: Real>(c: &mut [T], a: Matrix<T>, b: Matrix<T>, write: Write) {
    let row_stride = b.cols;
    pieces(c, ROWS * row_stride, &|i, data| {
        let rows = a.rows_in(i * ROWS..a.rows.min((i + 1) * ROWS));
        matmul(MatrixMut { data, row_stride }, rows, b, write);
    });
}

fn dims(x: &Tensor) -> Result<[usize; 2]> {
    x.dims2().map(|(rows, cols)| [rows, cols]).during(MULTIPLYING)
}

fn slow(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> candle_core::Result<Tensor> {
    let y = x.matmul(&w.t()?.contiguous()?)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(y.dtype())?),
        None => Ok(y),
    }
}

fn slow_dw(dy: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
    // The sum over images leaves the product as a half: one rounding of a sum in `f32`.
    wide(&dy.t()?.contiguous()?.matmul(x)?)
}

fn slow_dbias(dy: &Tensor) -> candle_core::Result<Tensor> {
    wide(dy)?.sum(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn both_bodies_agree(n in 1usize..70, f in 1usize..9, o in 1usize..70, seed in any::<u64>()) {
            let rng = &mut Rng::new(seed);
            let [x, dy] = [f, o].map(|cols| normal(&[n, cols], rng));
            let (w, bias) = (normal(&[o, f], rng), normal(&[o], rng));
            for dtype in REALS {
                let [x, dy, w, bias] = [&x, &dy, &w, &bias].map(|t| cast(t, dtype));
                for bias in [None, Some(&bias)] {
                    assert_close(&forward(&x, &w, bias).unwrap(), &slow(&x, &w, bias).unwrap(), CLOSE);
                }
                assert_close(&dx(&dy, &w).unwrap(), &dy.matmul(&w).unwrap(), CLOSE);
                assert_close(&dw(&dy, &x).unwrap(), &slow_dw(&dy, &x).unwrap(), CLOSE);
                assert_close(&dbias(&dy).unwrap(), &slow_dbias(&dy).unwrap(), CLOSE);
            }
        }

        #[test]
        fn gradients_are_those_of_differences(
            n in 1usize..5,
            f in 1usize..6,
            o in 1usize..6,
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let [x, dy] = [f, o].map(|cols| normal(&[n, cols], rng));
            let (w, bias) = (normal(&[o, f], rng), normal(&[o], rng));
            let numeric = numeric_gradient(|x| forward(x, &w, Some(&bias)), &x, &dy);
            assert_close(&dx(&dy, &w).unwrap(), &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|w| forward(&x, w, Some(&bias)), &w, &dy);
            assert_close(&dw(&dy, &x).unwrap(), &numeric, DIFFERENCE);
            let numeric = numeric_gradient(|bias| forward(&x, &w, Some(bias)), &bias, &dy);
            assert_close(&dbias(&dy).unwrap(), &numeric, DIFFERENCE);
        }
    }

    #[test]
    fn shapes_that_do_not_meet_are_refused() {
        let x = |shape: &[usize]| normal(shape, &mut Rng::new(1));
        assert!(forward(&x(&[2, 3]), &x(&[4, 2]), None).is_err());
        assert!(forward(&x(&[2, 3]), &x(&[4, 3]), Some(&x(&[3]))).is_err());
        assert!(dx(&x(&[2, 3]), &x(&[4, 3])).is_err());
        assert!(dw(&x(&[2, 3]), &x(&[4, 3])).is_err());
    }
}
