//! Weights in the order in which the innermost loops read them, from wherever they are.
//!
//! A *panel* is the output channels that a tile holds side by side: `width` of them, filled up to whole
//! registers. Its weights lie `[c][taps][width]`. They are copied into that order a part at a time, or
//! once and for all where a network runs often: [`packed`](super::packed::packed).

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use super::correlation::Correlation;
use crate::kernels::Real;
use crate::kernels::matmul::Matrix;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::simd::{Isa, Kernel, Lanes, Num, widened};

/// The weights of a convolution.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a, T> {
    /// `[outputs, inputs of a group, k, k]` in half precision, and lists of factors for each output,
    /// which apply one after another.
    Halves(&'a [f16], &'a [Arc<[T]>]),
    /// `[outputs, inputs of a group, k, k]`
    Plain(&'a [T]),
    /// What [`packed`](super::packed::packed) made of them.
    Packed(&'a [T]),
    /// What [`pairs`](super::packed::pairs) made of them: to be multiplied as pairs.
    Pairs(&'a [T]),
    /// The same of numbers in half precision, with factors as above.
    PackedHalves(&'a [f16], &'a [Arc<[T]>]),
}

impl<T> Weights<'_, T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Halves(halves, _) | Self::PackedHalves(halves, _) => halves.len(),
            Self::Packed(numbers) | Self::Pairs(numbers) | Self::Plain(numbers) => numbers.len(),
        }
    }
}

impl Correlation {
    /// Elements that these weights must have.
    pub(super) fn weight_len<T: Real>(&self, weights: &Weights<T>) -> usize {
        let (taps, packed) = (self.k * self.k, self.groups * self.group_width::<T>());
        match weights {
            Weights::Packed(_) | Weights::PackedHalves(..) => packed * self.inputs * taps,
            Weights::Pairs(_) => packed * self.inputs.div_ceil(2) * taps,
            Weights::Halves(..) | Weights::Plain(_) => self.groups * self.outputs * self.inputs * taps,
        }
    }

    /// Widths of all panels of a group together.
    fn group_width<T: Real>(&self) -> usize {
        let [lanes, widest] = T::widths();
        let panel = self.panel(widest);
        let whole = self.outputs / panel;
        whole * panel.next_multiple_of(lanes) + (self.outputs % panel).next_multiple_of(lanes)
    }

    /// The weights of a panel, some output channels of a group, and a part of its input channels where they
    /// lie `[c][taps][width]` already, as numbers or as pairs.
    pub(super) fn taps<'a, T: Real>(
        &self,
        weights: Weights<'a, T>,
        ((group, outputs), part): ((usize, &Range<usize>), &Range<usize>),
    ) -> Option<&'a [T]> {
        match weights {
            Weights::Packed(all) => Some(self.rows::<T, T>(all, (group, outputs), (part, 1)).all()),
            Weights::Pairs(all) => Some(self.rows::<T, T>(all, (group, outputs), (part, 2)).all()),
            _ => None,
        }
    }

    /// Their rows, one for each tap, in a packed weight whose elements hold `depth` channels. A part begins
    /// with one. Of a panel it may be some whole registers.
    fn rows<'a, T: Real, N>(
        &self,
        packed: &'a [N],
        (group, outputs): (usize, &Range<usize>),
        (part, depth): (&Range<usize>, usize),
    ) -> Run<'a, N> {
        let ([lanes, widest], taps) = (T::widths(), self.k * self.k);
        let panel = self.panel(widest);
        let (before, first) = (outputs.start / panel, outputs.start % panel);
        let stride = panel.min(self.outputs - before * panel).next_multiple_of(lanes);
        let before = group * self.group_width::<T>() + before * panel.next_multiple_of(lanes);
        let start = (before * self.inputs.div_ceil(depth) + part.start / depth * stride) * taps + first;
        let n = part.len().div_ceil(depth) * taps;
        Run { from: &packed[start..start + n * stride - first], stride, n }
    }

    /// Copies them to the start of `to`, from wherever they are.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    pub(super) unsafe fn copy_taps<'a, T: Real, S: Isa<Register: Lanes<Element = T>>>(
        &self,
        weights: Weights<'a, T>,
        (panel, part): ((usize, &Range<usize>), &Range<usize>),
        to: &mut [T],
    ) {
        let (taps, (group, outputs)) = (self.k * self.k, panel);
        let width = outputs.len().next_multiple_of(S::Register::LANES);
        let to = &mut to[..part.len() * taps * width];
        let [output, input] = self.strides;
        let first = group * self.inputs * self.outputs * taps + outputs.start * output;
        let channels = group * self.outputs + outputs.start..group * self.outputs + outputs.end;
        let of_panel = |factors: &'a [Arc<[T]>]| factors.iter().map(|all| &all[channels.clone()]);
        let others = match weights {
            Weights::Halves(all, factors) => {
                let mut factors = of_panel(factors);
                let from = &all[first + part.start * input..];
                let from = Run { from, stride: output, n: outputs.len() };
                let columns = Columns { to: to.as_mut_ptr(), stride: width, whole: true };
                // SAFETY: the caller promises the processor; there is a row of `width` for each tap.
                unsafe { pack::transposed_halves::<S>(from, taps * part.len(), (columns, factors.next())) };
                factors
            }
            Weights::Packed(all) => {
                let rows = self.rows::<T, T>(all, panel, (part, 1));
                rows.each()
                    .zip(to.chunks_exact_mut(width))
                    .for_each(|(from, to)| to.copy_from_slice(&from[..width]));
                of_panel(&[])
            }
            Weights::Pairs(all) => {
                let from = self.rows::<T, T>(all, panel, (part, 2));
                // SAFETY: the caller promises the processor.
                unsafe { S::vectorize(Parts::<S> { from, to, taps, width }) };
                of_panel(&[])
            }
            Weights::PackedHalves(all, factors) => {
                let mut factors = of_panel(factors);
                let from = self.rows::<T, f16>(all, panel, (part, 1));
                // SAFETY: the caller promises the processor.
                unsafe { pack::widened::<S>(from, width, (to, factors.next())) };
                factors
            }
            Weights::Plain(all) => {
                // SAFETY: the caller promises the processor.
                unsafe { self.pack::<T, S>(&all[first..], (outputs, part), to, width) };
                of_panel(&[])
            }
        };
        others.for_each(|factors| widened(|| multiply(to, width, factors)));
    }

    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn pack<T: Real, S: Isa<Register: Lanes<Element = T>>>(
        &self,
        weight: &[T],
        (outputs, part): (&Range<usize>, &Range<usize>),
        to: &mut [T],
        width: usize,
    ) {
        let taps = self.k * self.k;
        let ([output, input], cols) = (self.strides, outputs.len());
        if output == 1 {
            // Single taps whose outputs stand side by side already.
            let (data, rows) = (&weight[part.start * input..], part.len());
            let matrix = Matrix { data, rows, cols, row_stride: input, col_stride: 1 };
            // SAFETY: the caller promises the processor.
            return unsafe { pack::rows::<S>(to, matrix, width) };
        }
        // Where taps of all channels follow one another, they are rows of one matrix.
        let (rows, at_once) = if input == taps { (taps * part.len(), part.len()) } else { (taps, 1) };
        let channels = part.clone().step_by(at_once.max(1));
        for (c, to) in channels.zip(to.chunks_exact_mut(rows * width)) {
            let data = &weight[c * input..];
            let matrix = Matrix { data, rows, cols, row_stride: 1, col_stride: output };
            // SAFETY: the caller promises the processor.
            unsafe { pack::rows::<S>(to, matrix, width) };
        }
    }
}

/// Takes operands apart: of the `width` first of each row, whole registers, two rows of numbers, `taps` rows
/// apart, the last of which may have no place.
struct Parts<'a, S: Isa> {
    from: Run<'a, Num<S>>,
    to: &'a mut [Num<S>],
    taps: usize,
    width: usize,
}

impl<S: Isa> Kernel<S::Register> for Parts<'_, S> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { from, to, taps, width } = self;
        for (row, from) in from.each().enumerate() {
            let to = &mut to[(row / taps * 2 * taps + row % taps) * width..];
            for at in (0..width).step_by(S::Register::LANES) {
                // SAFETY: the caller promises the processor; a row is whole registers.
                let operand = unsafe { S::Register::load(from[at..width].as_ptr()) };
                // SAFETY: the caller promises the processor.
                let parts = unsafe { S::parts(operand) };
                for (to, part) in to.chunks_mut(taps * width).zip(parts) {
                    // SAFETY: there is place for a row.
                    unsafe { part.store(to[at..width].as_mut_ptr()) };
                }
            }
        }
    }
}

/// Multiplies the columns of rows of `width` elements.
fn multiply<T: Real>(rows: &mut [T], width: usize, factors: &[T]) {
    for row in rows.chunks_exact_mut(width) {
        row.iter_mut().zip(factors).for_each(|(x, &factor)| *x *= factor);
    }
}
