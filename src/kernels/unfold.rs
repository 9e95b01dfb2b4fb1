//! Windows of an image, and for devices that are not the CPU all of them laid out as columns (im2col), forward and
//! backward: by a kernel of our own where there is one, else in candle's operations.
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

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};

use super::fused::{has_kernels, rounded, widened};
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
    /// image.
    pub(crate) fn columns(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Columns { unfold: self, adjoint: false }.of(x)
    }

    /// `[n, c, oh, ow]` to `[n, c, taps, h * w]`: under each tap the output that each pixel goes to, 0 where
    /// there is none. What an input gets back is then one sum over channels and taps.
    pub(crate) fn adjoint_columns(&self, dy: &Tensor) -> candle_core::Result<Tensor> {
        Columns { unfold: self, adjoint: true }.of(dy)
    }
}

/// Columns of a value, or of a gradient.
struct Columns<'a> {
    unfold: &'a Unfold,
    adjoint: bool,
}

impl Columns<'_> {
    fn of(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if has_kernels(x) {
            return x.contiguous()?.apply_op1_no_bwd(self);
        }
        let (n, c, h, w) = x.dims4()?;
        let (zeros, index) = (Tensor::zeros((n, c, 1), x.dtype(), x.device())?, self.index());
        let padded = Tensor::cat(&[&x.reshape((n, c, h * w))?, &zeros], 2)?;
        let len = index.len();
        padded
            .index_select(&Tensor::from_vec(index, len, x.device())?, 2)?
            .reshape(self.shape(n, c).as_slice())
    }

    fn shape(&self, n: usize, c: usize) -> [usize; 4] {
        let Unfold { h, w, oh, ow, .. } = self.unfold;
        [n, c, self.unfold.taps(), if self.adjoint { h * w } else { oh * ow }]
    }

    /// Which number of a plane stands at each place of its columns; one behind the last for 0.
    fn index(&self) -> Vec<u32> {
        let Unfold { h, w, oh, ow, window } = *self.unfold;
        let (from, to) = if self.adjoint { (oh * ow, h * w) } else { (h * w, oh * ow) };
        let mut index = vec![from as u32; self.unfold.taps() * to];
        for (tap, column) in index.chunks_exact_mut(to).enumerate() {
            self.unfold.runs(tap, &(0..oh), |outputs, first| {
                let pixels = (first..).step_by(window.stride);
                for (output, pixel) in outputs.zip(pixels) {
                    let (place, number) = if self.adjoint { (pixel, output) } else { (output, pixel) };
                    column[place] = number as u32;
                }
            });
        }
        index
    }
}

impl CustomOp1 for Columns<'_> {
    fn name(&self) -> &'static str {
        "columns"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        let numbers: Vec<f32> = widened(x, layout)?.flatten_all()?.to_vec1()?;
        let index = self.index();
        let planes = numbers.chunks_exact((h * w).max(1));
        let columns =
            planes.flat_map(|plane| index.iter().map(|&at| *plane.get(at as usize).unwrap_or(&0.0)));
        let columns: Vec<f32> = columns.collect();
        rounded(&Tensor::from_vec(columns, self.shape(n, c).as_slice(), &Device::Cpu)?, x)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use super::fused::cuda;

        let (n, c, ..) = layout.shape().dims4()?;
        let at = cuda::Windows::of(self.unfold, [n, c, c]);
        let (kernel, shape) = (if self.adjoint { "adjoint_columns" } else { "columns" }, self.shape(n, c));
        let columns = cuda::columns(kernel, (x, layout), shape.iter().product(), at)?;
        Ok((columns, shape.as_slice().into()))
    }
}
