//! Copies of parts of a matrix, in the order in which the innermost loops read them.

use super::Matrix;
use crate::kernels::simd::Element;

/// Rows that are transposed together: few enough that what is read of a column, and what is
/// written, stays in the first-level cache until the cache lines are used up.
const STRIP: usize = 32;

/// Copies `matrix` to `to` row by row, `width` elements a row: missing columns become 0.
///
/// # Panics
///
/// When `to` has fewer than `rows * width` elements, or `width` is less than `cols`.
pub(crate) fn rows<T: Element>(to: &mut [T], matrix: Matrix<T>, width: usize) {
    let Matrix { data, rows, cols, row_stride, col_stride } = matrix;
    let to = &mut to[..rows * width];
    assert!(cols <= width, "a row does not fit");
    if cols < width {
        to.fill(T::default());
    }
    if row_stride == 1 {
        return transposed(to, matrix, width);
    }
    for (l, to) in to.chunks_exact_mut(width).enumerate() {
        let from = &data[l * row_stride..];
        if col_stride == 1 {
            to[..cols].copy_from_slice(&from[..cols]);
        } else {
            to.iter_mut().zip(from.iter().step_by(col_stride)).take(cols).for_each(|(to, &x)| *to = x);
        }
    }
}

/// [`rows`] of a matrix whose columns are contiguous, four by four elements at a time.
fn transposed<T: Element>(to: &mut [T], matrix: Matrix<T>, width: usize) {
    let Matrix { data, rows, cols, col_stride, .. } = matrix;
    assert!(cols <= width && rows * width <= to.len(), "the copy does not fit");
    let fours = cols - cols % 4;
    for start in (0..rows).step_by(STRIP) {
        let end = rows.min(start + STRIP);
        let column = |j: usize| &data[j * col_stride..][start..end];
        for j in (0..fours).step_by(4) {
            let from = [column(j), column(j + 1), column(j + 2), column(j + 3)];
            let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = from.map(<[T]>::as_chunks::<4>);
            let mut at = start * width + j;
            let mut write = |row: [T; 4]| {
                // SAFETY: columns `j..j + 4` are within the width, and no more than `rows` rows
                // are written, which all fit into `to` as asserted above. An array needs no more
                // alignment than its elements.
                unsafe { *to.as_mut_ptr().wrapping_add(at).cast::<[T; 4]>() = row };
                at += width;
            };
            for (((&a, &b), &c), &d) in a.iter().zip(b).zip(c).zip(d) {
                T::transpose([a, b, c, d]).into_iter().for_each(&mut write);
            }
            for (((&a, &b), &c), &d) in a_rest.iter().zip(b_rest).zip(c_rest).zip(d_rest) {
                write([a, b, c, d]);
            }
        }
        for j in fours..cols {
            for (l, &x) in column(j).iter().enumerate() {
                to[(start + l) * width + j] = x;
            }
        }
    }
}
