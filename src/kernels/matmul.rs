//! Products of matrices on the CPU, in [`SCRATCH`] bytes a thread whatever the shapes.
//!
//! [`matmul`] takes slices, checks that every element the product touches lies within them, and
//! runs on the calling thread: callers split the work into fixed blocks, so that no result depends
//! on the number of threads. On one processor a result depends on shapes, strides and values
//! alone; processors with other instructions round differently.
//!
//! Reading order: `tile`, the innermost loops; `blocks`, the loops around them; `pack`, the copies.

mod blocks;
pub(crate) mod pack;
mod tile;

use std::ops::Range;

pub(crate) use blocks::has_scratch;

use super::simd::Element;

/// Bytes that each thread keeps for copies, from its first product on and whatever the shapes. A
/// plan of memory counts them once for every thread that computes.
pub(crate) const SCRATCH: usize = 72 << 10;

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
    // each other.
    unsafe { T::dispatch(blocks::Product { c, a, b, write }) };
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

    use super::blocks::Product;
    use super::*;
    use crate::kernels::simd;

    /// Whole numbers from -4 to 4: no sum of a few thousand of their products is ever rounded, so
    /// every order of adding gives the same bits.
    fn whole(n: usize, seed: u64) -> Vec<f32> {
        let scrambled = |i: u64| (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (0..n as u64).map(|i| (scrambled(i) % 9) as f32 - 4.0).collect()
    }

    /// In what order the elements of a matrix lie, with gaps between them.
    #[derive(Clone, Copy, Debug)]
    enum Order {
        ByColumns { gap: usize },
        ByRows { gap: usize },
        Scattered,
    }

    impl Order {
        /// `[row_stride, col_stride]`
        fn strides(self, [rows, cols]: [usize; 2]) -> [usize; 2] {
            match self {
                Self::ByColumns { gap } => [1, rows + gap],
                Self::ByRows { gap } => [cols + gap, 1],
                Self::Scattered => [3, 3 * rows + 2],
            }
        }

        fn data(self, sides: [usize; 2], seed: u64) -> Vec<f32> {
            whole(span(sides, self.strides(sides)).unwrap(), seed)
        }

        fn matrix<T>(self, data: &[T], [rows, cols]: [usize; 2]) -> Matrix<'_, T> {
            let [row_stride, col_stride] = self.strides([rows, cols]);
            Matrix { data, rows, cols, row_stride, col_stride }
        }
    }

    fn order() -> impl Strategy<Value = Order> {
        prop_oneof![
            (0usize..4).prop_map(|gap| Order::ByColumns { gap }),
            (0usize..4).prop_map(|gap| Order::ByRows { gap }),
            Just(Order::Scattered),
        ]
    }

    /// Sizes on both sides of every edge of a tile, a panel and a block.
    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 0usize..20, 2 => 20usize..100, 1 => 100usize..300]
    }

    fn depth() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 0usize..40, 2 => 40usize..300, 1 => 380usize..390, 1 => 760usize..780]
    }

    /// The plain triple loop.
    fn plain(c: &mut [f32], stride: usize, a: Matrix<f32>, b: Matrix<f32>) {
        for i in 0..a.rows {
            for l in 0..a.cols {
                let x = a.data[i * a.row_stride + l * a.col_stride];
                for j in 0..b.cols {
                    c[i * stride + j] += x * b.data[l * b.row_stride + j * b.col_stride];
                }
            }
        }
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().copied().map(f64::from).collect()
    }

    /// Holds every product against the triple loop: both ways of writing, and what lies between
    /// the rows of `C` is left alone. NaN stands wherever nothing may be read.
    fn check([m, n, k]: [usize; 3], [a_order, b_order]: [Order; 2], gap: usize, seed: u64) {
        let (a, b) = (a_order.data([m, k], seed), b_order.data([k, n], seed + 1));
        let (a, b) = (a_order.matrix(&a, [m, k]), b_order.matrix(&b, [k, n]));
        let row_stride = n + gap;
        let is_gap = |i: usize| i % row_stride.max(1) >= n;
        let mut before = whole(m * row_stride, seed + 2);
        (0..before.len()).filter(|&i| is_gap(i)).for_each(|i| before[i] = f32::NAN);
        let mut sums = before.clone();
        plain(&mut sums, row_stride, a, b);
        let bits = |c: &[f32]| c.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for set in 0..simd::SETS {
            let context = format!("set {set}: {m} {n} {k} {a_order:?} {b_order:?}");
            let mut got = before.clone();
            let c = MatrixMut { data: &mut got, row_stride };
            // SAFETY: the matrices were made to fit.
            let is_known = unsafe { simd::run(set, Product { c, a, b, write: Write::Add }) };
            if !is_known {
                continue;
            }
            assert!(bits(&got) == bits(&sums), "adding, {context}");

            let mut got = vec![f32::NAN; before.len()];
            let c = MatrixMut { data: &mut got, row_stride };
            // SAFETY: as above.
            unsafe { simd::run(set, Product { c, a, b, write: Write::Set }) };
            for (i, (got, (sum, before))) in got.iter().zip(sums.iter().zip(&before)).enumerate() {
                assert!(if is_gap(i) { got.is_nan() } else { got + before == *sum }, "setting, {context}");
            }
        }
        let (a_wide, b_wide) = (wide(a.data), wide(b.data));
        let (a, b) = (a_order.matrix(&a_wide, [m, k]), b_order.matrix(&b_wide, [k, n]));
        let mut got = wide(&before);
        matmul(MatrixMut { data: &mut got, row_stride }, a, b, Write::Add);
        for (got, sum) in got.iter().zip(wide(&sums)) {
            assert!(got.is_nan() == sum.is_nan() && (sum.is_nan() || *got == sum), "f64, {m} {n} {k}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn products_are_those_of_the_triple_loop(
            (m, n, k) in (size(), size(), depth()),
            (a, b) in (order(), order()),
            gap in 0usize..3,
            seed in 0u64..1 << 40,
        ) {
            check([m, n, k], [a, b], gap, seed);
        }
    }

    #[test]
    fn products_at_the_edges_of_blocks_are_those_of_the_triple_loop() {
        let by_rows = Order::ByRows { gap: 0 };
        let by_columns = Order::ByColumns { gap: 0 };
        for sides in [[171, 49, 384], [195, 97, 385], [300, 20, 300], [16, 49, 256], [33, 1, 500], [1, 50, 1]]
        {
            check(sides, [by_rows, by_rows], 1, 1);
            check(sides, [by_rows, by_columns], 0, 2);
            check(sides, [by_columns, by_rows], 0, 3);
        }
        // Rows of `B` that are 4096 bytes apart are copied.
        check([100, 60, 40], [by_rows, Order::ByRows { gap: 1024 - 60 }], 0, 4);
    }

    #[test]
    fn equal_products_have_equal_bits_on_any_thread() {
        let thirds: Vec<f32> = (0..300 * 300).map(|i| (i % 1009) as f32 / 3.0).collect();
        let product = || {
            let mut c = vec![0.0; 300 * 300];
            let a = Matrix::row_major(&thirds, 300, 300);
            matmul(MatrixMut { data: &mut c, row_stride: 300 }, a, a.transpose(), Write::Set);
            c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let here = product();
        assert!(std::thread::scope(|scope| scope.spawn(product).join().unwrap()) == here);
        assert!(product() == here);
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
