//! Convolution as matrix products over columns, a few output rows at a time.
//!
//! Work is split by image: no sum is over images, so the result is the same on any number of
//! threads.

use std::ops::Range;

use super::{CONVOLVING, Finish, Sizes};
use crate::error::Result;
use crate::graph::op::Conv2d;
use crate::kernels::Real;
use crate::kernels::matmul::{Matrix, MatrixMut, Write, matmul};
use crate::kernels::share::{self, zeros};
use crate::kernels::unfold::Unfold;

/// Elements of a tile of columns: 128 KiB of f32, which the second-level cache holds beside
/// weights and output.
const TILE: usize = 32 * 1024;

impl Sizes {
    /// Output rows that are computed together when columns are `depth` long.
    pub(super) fn tiles(&self, depth: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let Unfold { oh, ow, .. } = self.unfold;
        let most = (TILE / (depth * ow).max(1)).clamp(1, oh.max(1));
        let rows = oh.div_ceil(oh.div_ceil(most).max(1)).max(1);
        (0..oh).step_by(rows).map(move |start| start..(start + rows).min(oh))
    }

    /// Elements of the largest tile.
    pub(super) fn tile_len(&self, depth: usize) -> usize {
        self.tiles(depth).map(|rows| rows.len()).max().unwrap_or(0) * self.unfold.ow * depth
    }

    /// Elements of one group of one image, and of one group's weight.
    fn group_lens(&self) -> [usize; 3] {
        let groups = self.conv.groups;
        [self.x_len() / groups, self.y_len() / groups, self.weight_len() / groups]
    }
}

pub(super) fn forward<T: Real>(sizes: &Sizes, [x, w]: [&[T]; 2], finish: &Finish<T>) -> Result<Vec<T>> {
    let mut y = zeros(CONVOLVING, sizes.n * sizes.y_len())?;
    let mut scratch = share::scratch(CONVOLVING, sizes.n, columns_len(sizes))?;
    forward_into(sizes, [x, w], finish, (&mut y, &mut scratch));
    Ok(y)
}

/// Fills `y`, with [`scratch_len`] elements of scratch or more.
pub(super) fn forward_into<T: Real>(
    sizes: &Sizes,
    [x, w]: [&[T]; 2],
    finish: &Finish<T>,
    (y, scratch): (&mut [T], &mut [T]),
) {
    let images = y.chunks_mut(sizes.y_len().max(1)).enumerate();
    share::share((scratch, columns_len(sizes)), (sizes.n, images), |columns, (i, y)| {
        let x = &x[i * sizes.x_len()..][..sizes.x_len()];
        forward_image(sizes, x, w, y, columns);
        finish_image(sizes, y, i, finish);
    });
}

/// Elements of a worker's columns.
fn columns_len(sizes: &Sizes) -> usize {
    if sizes.unfold.is_plain() { 0 } else { sizes.tile_len(sizes.depth()) }
}

/// Elements beside `y`.
pub(super) fn scratch_len(sizes: &Sizes, threads: usize) -> usize {
    share::scratch_len(sizes.n, columns_len(sizes), threads)
}

fn forward_image<T: Real>(sizes: &Sizes, x: &[T], w: &[T], y: &mut [T], columns: &mut [T]) {
    let [x_len, y_len, w_len] = sizes.group_lens();
    let Unfold { oh, ow, .. } = sizes.unfold;
    let pixels = oh * ow;
    let groups = x.chunks_exact(x_len).zip(w.chunks_exact(w_len)).zip(y.chunks_exact_mut(y_len));
    for ((x, w), y) in groups {
        let w = Matrix::row_major(w, w_len / sizes.depth(), sizes.depth());
        if sizes.unfold.is_plain() {
            let x = Matrix::row_major(x, sizes.depth(), pixels);
            matmul(MatrixMut { data: y, row_stride: pixels }, w, x, Write::Set);
            continue;
        }
        for rows in sizes.tiles(sizes.depth()) {
            let columns = &mut columns[..sizes.depth() * rows.len() * ow];
            sizes.unfold.columns(x, &rows, columns);
            let columns = Matrix::row_major(columns, sizes.depth(), rows.len() * ow);
            matmul(MatrixMut { data: &mut y[rows.start * ow..], row_stride: pixels }, w, columns, Write::Set);
        }
    }
}

fn finish_image<T: Real>(sizes: &Sizes, y: &mut [T], image: usize, finish: &Finish<T>) {
    let pixels = sizes.unfold.oh * sizes.unfold.ow;
    for (channel, plane) in y.chunks_exact_mut(pixels).enumerate() {
        finish.apply(plane, channel, image * sizes.y_len() + channel * pixels);
    }
}

pub(super) fn dx<T: Real>(sizes: &Sizes, dy: &[T], w: &[T]) -> Result<Vec<T>> {
    match turned(sizes) {
        Some(turned) => forward(&turned, [dy, &turn(sizes, w)?], &Finish::NONE),
        None => dx_by_folding(sizes, dy, w),
    }
}

/// Bytes beside `dx` for elements of `size` bytes: a turned copy of the weight where there is
/// one, and columns.
pub(super) fn dx_scratch_bytes(sizes: &Sizes, size: usize, threads: usize) -> usize {
    match turned(sizes) {
        Some(turned) => (sizes.weight_len() + scratch_len(&turned, threads)) * size,
        None => scratch_len(sizes, threads) * size,
    }
}

/// The convolution that takes `dy` to `dx`, if there is one: at stride 1 a gradient by the input
/// slides over the padded gradient of the output.
fn turned(sizes: &Sizes) -> Option<Sizes> {
    let Conv2d { k, padding, dilation, groups, .. } = sizes.conv;
    let reach = dilation * (k - 1);
    // Without a kernel to turn, the product of `dx_by_folding` needs neither copy nor columns.
    if sizes.conv.stride != 1 || padding > reach || groups != 1 || sizes.unfold.is_plain() {
        return None;
    }
    let conv = Conv2d { outputs: sizes.c, padding: reach - padding, activation: None, ..sizes.conv };
    let unfold = Unfold::new(conv.window(), sizes.unfold.oh, sizes.unfold.ow)?;
    Some(Sizes { conv, unfold, n: sizes.n, c: sizes.conv.outputs })
}

/// `[outputs, c, k, k]` to `[c, outputs, k, k]` with the kernel turned by half a circle.
fn turn<T: Real>(sizes: &Sizes, w: &[T]) -> Result<Vec<T>> {
    let (outputs, c, taps) = (sizes.conv.outputs, sizes.c, sizes.unfold.taps());
    let mut turned = zeros(CONVOLVING, w.len())?;
    for (i, kernel) in w.chunks_exact(taps).enumerate() {
        let (o, c_in) = (i / c, i % c);
        let to = &mut turned[(c_in * outputs + o) * taps..][..taps];
        to.iter_mut().zip(kernel.iter().rev()).for_each(|(t, &k)| *t = k);
    }
    Ok(turned)
}

/// Columns of `dx` are `w^T dy`; folding adds them up.
fn dx_by_folding<T: Real>(sizes: &Sizes, dy: &[T], w: &[T]) -> Result<Vec<T>> {
    let mut dx = zeros(CONVOLVING, sizes.n * sizes.x_len())?;
    let mut scratch = share::scratch(CONVOLVING, sizes.n, columns_len(sizes))?;
    let [x_len, y_len, w_len] = sizes.group_lens();
    let images = dx.chunks_mut(sizes.x_len().max(1)).zip(dy.chunks(sizes.y_len().max(1)));
    share::share((&mut scratch, columns_len(sizes)), (sizes.n, images), |columns, (dx, dy)| {
        let groups = dx.chunks_exact_mut(x_len).zip(w.chunks_exact(w_len)).zip(dy.chunks_exact(y_len));
        for ((dx, w), dy) in groups {
            let w = Matrix::row_major(w, w_len / sizes.depth(), sizes.depth()).transpose();
            fold_group(sizes, dy, w, (dx, columns));
        }
    });
    Ok(dx)
}

fn fold_group<T: Real>(sizes: &Sizes, dy: &[T], w: Matrix<T>, (dx, columns): (&mut [T], &mut [T])) {
    let Unfold { oh, ow, .. } = sizes.unfold;
    if sizes.unfold.is_plain() {
        let dy = window_of(dy, &(0..oh), [oh, ow]);
        return matmul(MatrixMut { data: dx, row_stride: oh * ow }, w, dy, Write::Set);
    }
    for rows in sizes.tiles(sizes.depth()) {
        let columns = &mut columns[..sizes.depth() * rows.len() * ow];
        let dy = window_of(dy, &rows, [oh, ow]);
        matmul(MatrixMut { data: columns, row_stride: rows.len() * ow }, w, dy, Write::Set);
        sizes.unfold.fold(columns, &rows, dx);
    }
}

/// Output rows `rows` of all channels, one channel a matrix row.
pub(super) fn window_of<'a, T>(y: &'a [T], rows: &Range<usize>, [oh, ow]: [usize; 2]) -> Matrix<'a, T> {
    Matrix {
        data: &y[rows.start * ow..],
        rows: y.len() / (oh * ow),
        cols: rows.len() * ow,
        row_stride: oh * ow,
        col_stride: 1,
    }
}
