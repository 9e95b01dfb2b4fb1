//! Products of matrices on the CPU, in [`SCRATCH`] bytes a thread whatever the shapes.
//!
//! [`matmul`] takes slices, checks that every element the product touches lies within them, and
//! runs on the calling thread: callers split the work into fixed blocks, so that no result depends
//! on the number of threads. On one processor a result depends on shapes, strides and values
//! alone; processors with other instructions round differently.
//!
//! Reading order: `tile`, the innermost loops, written once for every kind of register; `blocks`,
//! the loops around them; `pack`, the copies; `lanes`, what a processor brings along, and after it
//! `x86`, `neon` and `portable`.

mod blocks;
mod lanes;
mod pack;
mod portable;
mod tile;

#[cfg(target_arch = "aarch64")]
#[path = "matmul/neon.rs"]
mod native;
#[cfg(target_arch = "x86_64")]
#[path = "matmul/x86.rs"]
mod native;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
use portable as native;

use std::ops::Range;

pub(crate) use blocks::SCRATCH;
pub(crate) use lanes::Element;

/// A matrix to read: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// The matrix whose rows of `cols` elements follow each other in `data`.
    pub(crate) fn row_major(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same elements with rows and columns exchanged; nothing moves.
    pub(crate) fn transpose(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// These rows only.
    pub(crate) fn rows_in(self, rows: Range<usize>) -> Self {
        let data = self.data.get(rows.start * self.row_stride..).unwrap_or_default();
        Self { data, rows: rows.len(), ..self }
    }

    /// These rows and columns only.
    fn part(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        let start = rows.start * self.row_stride + cols.start * self.col_stride;
        let data = self.data.get(start..).unwrap_or_default();
        Self { data, rows: rows.len(), cols: cols.len(), ..self }
    }

    /// Elements `data` must have.
    fn span(&self) -> Option<usize> {
        span([self.rows, self.cols], [self.row_stride, self.col_stride])
    }
}

/// A row-major matrix to write: element `(i, j)` is `data[i * row_stride + j]`.
pub(crate) struct MatrixMut<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) row_stride: usize,
}

/// What happens to the elements that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// `C += A B`
    Add,
    /// `C = A B`; what `C` held is not read.
    Set,
}

/// Writes `A B` to `c`, whose shape is `a.rows` x `b.cols`.
///
/// # Panics
///
/// When the shapes do not meet, a matrix reaches past its slice, or rows of `c` overlap: faults
/// of the caller, like an index out of bounds.
pub(crate) fn matmul<T: Element>(c: MatrixMut<T>, a: Matrix<T>, b: Matrix<T>, write: Write) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "columns of a and rows of b");
    assert!(m <= 1 || c.row_stride >= n, "rows of c overlap");
    let fits = |have: usize, need: Option<usize>| need.is_some_and(|need| need <= have);
    assert!(fits(a.data.len(), a.span()), "a reaches past its slice");
    assert!(fits(b.data.len(), b.span()), "b reaches past its slice");
    assert!(fits(c.data.len(), span([m, n], [c.row_stride, 1])), "c reaches past its slice");
    // SAFETY: the assertions above keep every element of the three matrices within its slice. `c`
    // is borrowed exclusively, so it overlaps neither `a` nor `b`, and its rows do not overlap
    // each other. `T` names a product that this processor knows.
    unsafe { T::product()(c, a, b, write) };
}

/// Elements from the first to one past the last of a matrix; `None` when not addressable.
fn span(sides: [usize; 2], strides: [usize; 2]) -> Option<usize> {
    if strides.iter().any(|&stride| isize::try_from(stride).is_err()) {
        return None;
    }
    if sides.contains(&0) {
        return Some(0);
    }
    let rows = (sides[0] - 1).checked_mul(strides[0])?;
    let cols = (sides[1] - 1).checked_mul(strides[1])?;
    rows.checked_add(cols)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn normal(n: usize, rng: &mut Rng) -> Vec<f64> {
        (0..n).map(|_| f64::from(rng.normal())).collect()
    }

    /// The plain triple loop, in f64.
    fn plain(c: &mut [f64], stride: usize, a: Matrix<f64>, b: Matrix<f64>) {
        for i in 0..a.rows {
            for j in 0..b.cols {
                for l in 0..a.cols {
                    c[i * stride + j] += a.data[i * a.row_stride + l * a.col_stride]
                        * b.data[l * b.row_stride + j * b.col_stride];
                }
            }
        }
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_triple_loop(
            (m, n, k) in (0usize..9, 0usize..40, 0usize..9),
            gap in 0usize..3,
            seed in any::<u64>(),
        ) {
            let mut rng = Rng::new(seed);
            let (a, b) = (normal(m * k, &mut rng), normal(k * n, &mut rng));
            let a = Matrix::row_major(&a, k, m).transpose();
            let b = Matrix::row_major(&b, k, n);
            let row_stride = n + gap;
            let before = normal(m * row_stride, &mut rng);
            let mut want = before.clone();
            plain(&mut want, row_stride, a, b);
            let mut got = before.clone();
            matmul(MatrixMut { data: &mut got, row_stride }, a, b, Write::Add);
            prop_assert!(want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-12));

            let mut fresh = vec![f64::NAN; m * row_stride];
            matmul(MatrixMut { data: &mut fresh, row_stride }, a, b, Write::Set);
            for (i, (sum, fresh)) in want.iter().zip(&fresh).enumerate() {
                let written = i % row_stride.max(1) < n;
                let close = (sum - before[i] - fresh).abs() < 1e-12;
                prop_assert_eq!((close, fresh.is_nan()), (written, !written));
            }
        }
    }

    #[test]
    fn single_precision_is_close_to_double() {
        let a: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let mut c = [0.0f32; 4];
        let a = Matrix::row_major(&a, 2, 3);
        matmul(MatrixMut { data: &mut c, row_stride: 2 }, a, a.transpose(), Write::Set);
        assert_eq!(c, [5.0, 14.0, 14.0, 50.0]);
    }

    #[test]
    #[should_panic(expected = "b reaches past its slice")]
    fn a_matrix_longer_than_its_slice_is_refused() {
        let mut c = [0.0; 4];
        let (a, b) = ([1.0; 4], [1.0; 3]);
        let (a, b) = (Matrix::row_major(&a, 2, 2), Matrix::row_major(&b, 2, 2));
        matmul(MatrixMut { data: &mut c, row_stride: 2 }, a, b, Write::Set);
    }
}
