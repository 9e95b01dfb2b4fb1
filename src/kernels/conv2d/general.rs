//! Convolution as matrix products over columns, a few output rows at a time.
//!
//! Work is split by image, and sums over images are kept in a number of partial sums that
//! depends on the shapes alone: the result is the same on any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::{Finish, Sizes};
use crate::graph::op::Conv2d;
use crate::kernels::Real;
use crate::kernels::matmul::{Matrix, MatrixMut, Write, matmul};
use crate::kernels::unfold::Unfold;

/// Elements of a tile of columns: 128 KiB of f32, which the second-level cache holds beside
/// weights and output.
const TILE: usize = 32 * 1024;

/// Most partial sums of a weight gradient, and most elements in all of them together.
const PARTIALS: usize = 8;
const PARTIAL_ELEMENTS: usize = 1 << 21;

impl Sizes {
    /// Output rows that are computed together.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Unfold { oh, ow, .. } = self.unfold;
        let most = (TILE / (self.depth() * ow).max(1)).clamp(1, oh.max(1));
        let rows = oh.div_ceil(oh.div_ceil(most).max(1)).max(1);
        (0..oh).step_by(rows).map(move |start| start..(start + rows).min(oh))
    }

    fn tile_len(&self) -> usize {
        self.tiles().map(|rows| rows.len()).max().unwrap_or(0) * self.unfold.ow * self.depth()
    }

    /// Elements of one group of one image, and of one group's weight.
    fn group_lens(&self) -> [usize; 3] {
        let groups = self.conv.groups;
        [self.x_len() / groups, self.y_len() / groups, self.weight_len() / groups]
    }
}

pub(super) fn forward<T: Real>(sizes: &Sizes, x: &[T], w: &[T], finish: &Finish<T>) -> Vec<T> {
    let mut y = vec![T::zero(); sizes.n * sizes.y_len()];
    let images = y.par_chunks_mut(sizes.y_len().max(1)).enumerate();
    images.for_each_init(
        || vec![T::zero(); if sizes.unfold.is_plain() { 0 } else { sizes.tile_len() }],
        |columns, (i, y)| {
            let x = &x[i * sizes.x_len()..][..sizes.x_len()];
            forward_image(sizes, x, w, y, columns);
            finish_image(sizes, y, i, finish);
        },
    );
    y
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
        for rows in sizes.tiles() {
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

pub(super) fn dx<T: Real>(sizes: &Sizes, dy: &[T], w: &[T]) -> Vec<T> {
    match turned(sizes) {
        Some(turned) => forward(&turned, dy, &turn(sizes, w), &Finish::NONE),
        None => dx_by_folding(sizes, dy, w),
    }
}

/// The convolution that takes `dy` to `dx`, if there is one: at stride 1 a gradient by the input
/// slides over the padded gradient of the output.
fn turned(sizes: &Sizes) -> Option<Sizes> {
    let Conv2d { k, padding, dilation, groups, .. } = sizes.conv;
    let reach = dilation * (k - 1);
    if sizes.conv.stride != 1 || padding > reach || groups != 1 {
        return None;
    }
    let conv = Conv2d { outputs: sizes.c, padding: reach - padding, activation: None, ..sizes.conv };
    let unfold = Unfold::new(conv.window(), sizes.unfold.oh, sizes.unfold.ow)?;
    Some(Sizes { conv, unfold, n: sizes.n, c: sizes.conv.outputs })
}

/// `[outputs, c, k, k]` to `[c, outputs, k, k]` with the kernel turned by half a circle.
fn turn<T: Real>(sizes: &Sizes, w: &[T]) -> Vec<T> {
    let (outputs, c, taps) = (sizes.conv.outputs, sizes.c, sizes.unfold.taps());
    let mut turned = vec![T::zero(); w.len()];
    for (i, kernel) in w.chunks_exact(taps).enumerate() {
        let (o, c_in) = (i / c, i % c);
        let to = &mut turned[(c_in * outputs + o) * taps..][..taps];
        to.iter_mut().zip(kernel.iter().rev()).for_each(|(t, &k)| *t = k);
    }
    turned
}

/// Columns of `dx` are `w^T dy`; folding adds them up.
fn dx_by_folding<T: Real>(sizes: &Sizes, dy: &[T], w: &[T]) -> Vec<T> {
    let mut dx = vec![T::zero(); sizes.n * sizes.x_len()];
    let [x_len, y_len, w_len] = sizes.group_lens();
    let Unfold { oh, ow, .. } = sizes.unfold;
    let images = dx.par_chunks_mut(sizes.x_len().max(1)).zip(dy.par_chunks(sizes.y_len().max(1)));
    images.for_each_init(
        || vec![T::zero(); sizes.tile_len()],
        |columns, (dx, dy)| {
            let groups = dx.chunks_exact_mut(x_len).zip(w.chunks_exact(w_len)).zip(dy.chunks_exact(y_len));
            for ((dx, w), dy) in groups {
                let w = Matrix::row_major(w, w_len / sizes.depth(), sizes.depth()).transpose();
                for rows in sizes.tiles() {
                    let columns = &mut columns[..sizes.depth() * rows.len() * ow];
                    let dy = window_of(dy, &rows, [oh, ow]);
                    matmul(MatrixMut { data: columns, row_stride: rows.len() * ow }, w, dy, Write::Set);
                    sizes.unfold.fold(columns, &rows, dx);
                }
            }
        },
    );
    dx
}

pub(super) fn dw<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Vec<T> {
    let len = sizes.weight_len();
    let parts = PARTIALS.min(PARTIAL_ELEMENTS / len.max(1)).clamp(1, sizes.n.max(1));
    let images = sizes.n.div_ceil(parts).max(1);
    let partials: Vec<Vec<T>> = dy
        .par_chunks((images * sizes.y_len()).max(1))
        .zip(x.par_chunks((images * sizes.x_len()).max(1)))
        .map(|(dy, x)| dw_of_images(sizes, dy, x))
        .collect();
    let mut partials = partials.into_iter();
    let mut sum = partials.next().unwrap_or_else(|| vec![T::zero(); len]);
    for partial in partials {
        sum.iter_mut().zip(partial).for_each(|(s, p)| *s += p);
    }
    sum
}

fn dw_of_images<T: Real>(sizes: &Sizes, dy: &[T], x: &[T]) -> Vec<T> {
    let mut dw = vec![T::zero(); sizes.weight_len()];
    let mut columns = vec![T::zero(); sizes.tile_len()];
    let [x_len, y_len, w_len] = sizes.group_lens();
    let Unfold { oh, ow, .. } = sizes.unfold;
    for (dy, x) in dy.chunks_exact(sizes.y_len()).zip(x.chunks_exact(sizes.x_len())) {
        let groups = dw.chunks_exact_mut(w_len).zip(dy.chunks_exact(y_len)).zip(x.chunks_exact(x_len));
        for ((dw, dy), x) in groups {
            for rows in sizes.tiles() {
                let columns = &mut columns[..sizes.depth() * rows.len() * ow];
                sizes.unfold.columns(x, &rows, columns);
                let columns = Matrix::row_major(columns, sizes.depth(), rows.len() * ow).transpose();
                let dw = MatrixMut { data: dw, row_stride: sizes.depth() };
                matmul(dw, window_of(dy, &rows, [oh, ow]), columns, Write::Add);
            }
        }
    }
    dw
}

/// Output rows `rows` of all channels, one channel a matrix row.
fn window_of<'a, T>(y: &'a [T], rows: &Range<usize>, [oh, ow]: [usize; 2]) -> Matrix<'a, T> {
    Matrix {
        data: &y[rows.start * ow..],
        rows: y.len() / (oh * ow),
        cols: rows.len() * ow,
        row_stride: oh * ow,
        col_stride: 1,
    }
}
