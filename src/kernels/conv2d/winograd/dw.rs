//! The gradient by the weight over tiles: as many products fewer as for outputs.
//!
//! A tile of 4 x 4 gradients and the 6 x 6 inputs that their windows read give the 3 x 3 taps by the same
//! points: sums over tiles are taken at the points, and become taps at the end of a task.
//!
//! ```text
//! U[o, c] = sum over tiles of  dY[o] * V[c]        dY: gradients of a tile at the points
//! dw[o, c] = the taps with values U
//! ```

use super::points::Points;
use super::strip::{Planes, Strips, Tiles};
use super::transform::Taps;
use super::{GAP, POINTS, TILES, is_worth_it};
use crate::kernels::Real;
use crate::kernels::conv2d::axis::Axis;
use crate::kernels::conv2d::tile::{self, Pixels, Rows};
use crate::kernels::simd::{Isa, Lanes, Num};

/// Most input channels of a block: sums at the points are then 300 KiB of f32 with AVX-512.
pub(in super::super) const CHANNELS: usize = 32;

/// Tiles instead of pixels.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct ByTiles(Strips);

/// What one task reads: planes of its channels, image by image.
pub(in super::super) struct Read<'a, T> {
    /// Of the first image.
    pub(in super::super) data: &'a [T],
    pub(in super::super) channels: usize,
    /// From an image to the next.
    pub(in super::super) image: usize,
}

impl<T> Read<'_, T> {
    fn planes(&self, image: usize) -> Planes<'_, T> {
        Planes { data: &self.data[image * self.image..], channels: self.channels }
    }
}

impl ByTiles {
    /// Those of the windows of a convolution with these channels in and out, if it is worth it.
    pub(in super::super) fn of(
        source: [usize; 2],
        axes: [Axis; 2],
        channels: [usize; 2],
        images: usize,
    ) -> Option<Self> {
        Strips::of(source, axes).filter(|strips| is_worth_it(channels, strips, images)).map(Self)
    }

    /// Strips that are multiplied together, of `images` images.
    fn strips(&self, images: usize) -> usize {
        (TILES / self.0.tiles[1].max(1)).clamp(1, (images * self.0.tiles[0]).max(1))
    }

    /// Elements from a point to the next: of sums, of inputs and of gradients.
    fn strides(&self, channels: usize, images: usize, [lanes, width]: [usize; 2]) -> [usize; 3] {
        let tiles = self.strips(images) * self.0.tiles[1];
        [channels * width, tiles * channels.next_multiple_of(lanes), tiles * width].map(|n| n + GAP)
    }

    /// Elements that a task needs beside its taps, for `channels` input channels, `images` images and
    /// registers of `lanes`, of which there are `width` numbers side by side.
    pub(in super::super) fn len(&self, channels: usize, images: usize, [lanes, width]: [usize; 2]) -> usize {
        let strides: usize = self.strides(channels, images, [lanes, width]).iter().sum();
        POINTS * strides + self.0.lens(lanes).iter().sum::<usize>()
    }

    /// The sums over `images` images: `[c][taps][width]`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(in super::super) unsafe fn sum<S: Isa>(
        &self,
        (x, dy): (Read<Num<S>>, Read<Num<S>>),
        images: usize,
        (taps, width): (&mut [Num<S>], usize),
        scratch: &mut [Num<S>],
    ) where
        Num<S>: Real,
    {
        let lanes = S::Register::LANES;
        let strides = self.strides(x.channels, images, [lanes, width]);
        let (sums, scratch) = scratch.split_at_mut(POINTS * strides[0]);
        let (inputs, scratch) = scratch.split_at_mut(POINTS * strides[1]);
        let (gradients, strip) = scratch.split_at_mut(POINTS * strides[2]);
        let points = &Points::new();
        sums.fill(Num::<S>::default());
        let strips = images * self.0.tiles[0];
        let step = x.channels.next_multiple_of(lanes);
        for first in (0..strips).step_by(self.strips(images)) {
            let batch = first..strips.min(first + self.strips(images));
            for (i, at) in batch.clone().enumerate() {
                let (image, row) = (at / self.0.tiles[0], at % self.0.tiles[0]);
                let tile = i * self.0.tiles[1];
                let mut to = Tiles { to: &mut inputs[tile * step..], point: strides[1], step };
                // SAFETY: the caller promises the processor; there is place for all strips of a batch.
                unsafe { self.0.inputs::<S>((x.planes(image), row), (points, strip), &mut to) };
                let mut to = Tiles { to: &mut gradients[tile * width..], point: strides[2], step: width };
                // SAFETY: as above.
                unsafe { self.0.gradients::<S>((dy.planes(image), row), (points, strip), &mut to) };
            }
            let tiles = batch.len() * self.0.tiles[1];
            for point in 0..POINTS {
                let of = [&inputs[point * strides[1]..], &gradients[point * strides[2]..]];
                let sums = &mut sums[point * strides[0]..][..x.channels * width];
                // SAFETY: the caller promises the processor; all tiles of the batch are there.
                unsafe { multiply::<S>(of, [tiles, x.channels, step], (sums, width)) };
            }
        }
        for (c, to) in taps.chunks_exact_mut(9 * width).enumerate().take(x.channels) {
            let (from, to) = (sums[c * width..].as_ptr(), to.as_mut_ptr());
            // SAFETY: the caller promises the processor; sums of all channels are there, and nine taps.
            unsafe {
                S::vectorize(Taps { points, from, point: strides[0], to, width, room: strip.as_mut_ptr() })
            };
        }
    }
}

/// Adds the products of `tiles` tiles at one point.
///
/// # Safety
///
/// The processor must know the instructions of `S`; there are inputs and gradients for all tiles.
unsafe fn multiply<S: Isa>(
    [inputs, gradients]: [&[Num<S>]; 2],
    [tiles, channels, step]: [usize; 3],
    (sums, width): (&mut [Num<S>], usize),
) {
    let pixels = Pixels {
        x: inputs.as_ptr(),
        x_step: 1,
        x_strides: [step as isize, 0, 0],
        w: gradients.as_ptr(),
        w_strides: [width, 0, 0],
        counts: [tiles, 1, 1],
        sums: sums.as_mut_ptr(),
        width,
        adds: true,
    };
    // SAFETY: the caller promises the processor and the tiles; the sums of all channels are there.
    unsafe { tile::pixels::<S>(&pixels, (Rows::ONE, channels), width / S::Register::LANES) };
}
