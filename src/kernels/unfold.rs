//! Windows of an image, and for devices without kernels of our own all of them laid out as columns
//! (im2col), forward and backward.
//!
//! A convolution is then one matrix product. Plain version, for a tap `(ky, kx)` of channel `c`:
//!
//! ```text
//! for oy, ox:  columns[c, ky, kx][oy, ox] = x[c][oy * s + ky * d - p][ox * s + kx * d - p], or 0 outside
//! ```
//!
//! All columns are gathered by one index. Gradients by the input are gathered too, not scattered: no sum of
//! halves is rounded in between, and no order of adding depends on a device.

use std::ops::Range;

use candle_core::Tensor;

use crate::graph::op::Window;

/// Where the windows of one plane lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfold {
    pub(crate) window: Window,
    /// Pixels of the input.
    pub(crate) h: usize,
    pub(crate) w: usize,
    /// Pixels of the output.
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

impl Unfold {
    /// The windows on `h` x `w` pixels; `None` when none fits.
    pub(crate) fn new(window: Window, h: usize, w: usize) -> Option<Self> {
        Some(Self { window, h, w, oh: window.count(h)?, ow: window.count(w)? })
    }

    /// Taps of a window.
    pub(crate) fn taps(&self) -> usize {
        self.window.k * self.window.k
    }

    /// Whether columns are the image itself.
    pub(crate) fn is_plain(&self) -> bool {
        self.window.k == 1 && self.window.stride == 1 && self.window.padding == 0
    }

    /// Output positions along an axis whose tap lies inside `0..pixels`.
    fn inside(&self, tap: usize, pixels: usize, outputs: usize) -> Range<usize> {
        let Window { stride, padding, dilation, .. } = self.window;
        let offset = tap * dilation;
        let start = padding.saturating_sub(offset).div_ceil(stride);
        let end = (pixels + padding).saturating_sub(offset).div_ceil(stride).min(outputs);
        start.min(end)..end
    }

    /// Calls `visit` with the columns' range and the first input position of each run: a tap's
    /// valid outputs in one output row, `stride` input pixels apart.
    pub(crate) fn runs(&self, tap: usize, rows: &Range<usize>, mut visit: impl FnMut(Range<usize>, usize)) {
        let Window { k, stride, padding, dilation } = self.window;
        let (ky, kx) = (tap / k, tap % k);
        let valid_rows = self.inside(ky, self.h, self.oh);
        let across = self.inside(kx, self.w, self.ow);
        if across.is_empty() {
            return;
        }
        let ix = across.start * stride + kx * dilation - padding;
        for oy in rows.start.max(valid_rows.start)..rows.end.min(valid_rows.end) {
            let iy = oy * stride + ky * dilation - padding;
            let at = (oy - rows.start) * self.ow;
            visit(at + across.start..at + across.end, iy * self.w + ix);
        }
    }

    /// `[n, c, h, w]` to `[n, c, taps, oh * ow]`: under each tap the pixel of each output, 0 outside of the
    /// image. In candle's operations.
    pub(crate) fn columns(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut index = vec![(self.h * self.w) as u32; self.taps() * self.oh * self.ow];
        for (tap, column) in index.chunks_exact_mut(self.oh * self.ow).enumerate() {
            self.runs(tap, &(0..self.oh), |to, from| {
                for (i, slot) in column[to].iter_mut().enumerate() {
                    *slot = (from + i * self.window.stride) as u32;
                }
            });
        }
        gathered(x, (index, self.taps()))
    }

    /// `[n, c, oh, ow]` to `[n, c, taps, h * w]`: under each tap the output that each pixel goes to, 0 where
    /// there is none. What an input gets back is then one sum over channels and taps.
    pub(crate) fn adjoint_columns(&self, dy: &Tensor) -> candle_core::Result<Tensor> {
        let mut index = vec![(self.oh * self.ow) as u32; self.taps() * self.h * self.w];
        for (tap, column) in index.chunks_exact_mut(self.h * self.w).enumerate() {
            self.runs(tap, &(0..self.oh), |outputs, from| {
                let pixels = column.iter_mut().skip(from).step_by(self.window.stride);
                pixels.zip(outputs).for_each(|(slot, output)| *slot = output as u32);
            });
        }
        gathered(dy, (index, self.taps()))
    }
}

/// What stands in each plane of `x` at the places of `index`, `taps` columns; 0 one behind its last pixel.
fn gathered(x: &Tensor, (index, taps): (Vec<u32>, usize)) -> candle_core::Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let (zeros, len) = (Tensor::zeros((n, c, 1), x.dtype(), x.device())?, index.len());
    let padded = Tensor::cat(&[&x.reshape((n, c, h * w))?, &zeros], 2)?;
    let columns = padded.index_select(&Tensor::from_vec(index, len, x.device())?, 2)?;
    columns.reshape((n, c, taps, len / taps))
}
