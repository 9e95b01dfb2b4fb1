//! Copies of parts of a matrix, in the order in which the innermost loops read them.

use super::Matrix;
use super::lanes::Element;

/// Copies `matrix` to `to` row by row, `width` elements a row: missing columns become 0.
///
/// # Panics
///
/// When `to` has fewer than `rows * width` elements, or `width` is less than `cols`.
#[inline(always)]
pub(super) fn rows<T: Element>(to: &mut [T], matrix: Matrix<T>, width: usize) {
    let Matrix { data, rows, cols, row_stride, col_stride } = matrix;
    let to = &mut to[..rows * width];
    if cols < width {
        to.fill(T::default());
    }
    if col_stride == 1 {
        for (l, to) in to.chunks_exact_mut(width).enumerate() {
            to[..cols].copy_from_slice(&data[l * row_stride..][..cols]);
        }
    } else if row_stride == 1 {
        transposed(to, matrix, width);
    } else {
        for (l, to) in to.chunks_exact_mut(width).enumerate() {
            for (j, to) in to[..cols].iter_mut().enumerate() {
                *to = data[l * row_stride + j * col_stride];
            }
        }
    }
}

/// Rows that are transposed together: the part of a column that is read stays in a few cache
/// lines, and so does what is written.
const STRIP: usize = 32;

/// [`rows`] of a matrix whose columns are contiguous.
#[inline(always)]
fn transposed<T: Element>(to: &mut [T], matrix: Matrix<T>, width: usize) {
    let Matrix { data, rows, cols, col_stride, .. } = matrix;
    for (strip, to) in to.chunks_mut(STRIP * width).enumerate() {
        let start = strip * STRIP;
        let column = |j: usize| &data[j * col_stride + start..][..STRIP.min(rows - start)];
        let fours = cols - cols % 4;
        for j in (0..fours).step_by(4) {
            four_columns(to, [column(j), column(j + 1), column(j + 2), column(j + 3)], j, width);
        }
        for j in fours..cols {
            for (to, &x) in to.chunks_exact_mut(width).zip(column(j)) {
                to[j] = x;
            }
        }
    }
}

/// Writes four columns of equal length from column `j` on.
#[inline(always)]
fn four_columns<T: Element>(to: &mut [T], columns: [&[T]; 4], j: usize, width: usize) {
    let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = columns.map(|column| column.as_chunks::<4>());
    let fours = to.chunks_exact_mut(4 * width);
    for ((((to, &a), &b), &c), &d) in fours.zip(a).zip(b).zip(c).zip(d) {
        for (to, row) in to.chunks_exact_mut(width).zip(T::transpose([a, b, c, d])) {
            to[j..j + 4].copy_from_slice(&row);
        }
    }
    let rest = to.chunks_exact_mut(width).skip(4 * a.len());
    for ((((to, &a), &b), &c), &d) in rest.zip(a_rest).zip(b_rest).zip(c_rest).zip(d_rest) {
        to[j..j + 4].copy_from_slice(&[a, b, c, d]);
    }
}
