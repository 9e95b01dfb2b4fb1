//! Outputs, and gradients by inputs.

use std::ops::Range;

use super::cut::{Lens, Task, Winograd};
use super::points::Points;
use super::strip::{Planes, Tiles};
use super::transform::Outputs;
use super::windows::Windows;
use super::{COPIED, POINTS};
use crate::kernels::Real;
use crate::kernels::conv2d::Finish;
use crate::kernels::conv2d::correlation::Correlation;
use crate::kernels::conv2d::sums::{Sums, Target};
use crate::kernels::conv2d::tile::{self, Pixels, Rows};
use crate::kernels::conv2d::weights::Weights;
use crate::kernels::matmul::pack::{self, Columns, Run};
use crate::kernels::share::share_places;
use crate::kernels::simd::{Isa, Job, Lanes};

impl<T: Real> Job<T> for Sums<'_, T, Winograd> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        let Self { how, source, weights, finish, target, scratch } = self;
        let widths = [1, S::BUDGET.panel].map(|registers| registers * S::Register::LANES);
        let (tasks, lens) = (how.tasks(widths), how.lens(widths));
        let (target, points) = (Target::new(target), &Points::new());
        let work = Work { cut: how, how: &how.how, source, weights, finish, target, lens, points };
        share_places((scratch, lens.sum()), tasks, |scratch, index| {
            // SAFETY: the caller promises the processor, and every task has outputs of its own.
            unsafe { work.task::<S>(&how.task(index, widths), scratch) };
        });
    }
}

struct Work<'a, T> {
    cut: &'a Winograd,
    how: &'a Correlation,
    source: &'a [T],
    weights: Weights<'a, T>,
    finish: &'a Finish<'a, T>,
    target: Target<'a, T>,
    lens: Lens,
    points: &'a Points<T>,
}

impl<T: Real> Work<'_, T> {
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and no other task may have these outputs.
    unsafe fn task<S: Isa<Register: Lanes<Element = T>>>(&self, task: &Task, scratch: &mut [T]) {
        let [windows, inputs, _] = self.lens.points;
        let (taps, scratch) = scratch.split_at_mut(self.lens.taps);
        let (windows, scratch) = scratch.split_at_mut(POINTS * windows);
        let (inputs, scratch) = scratch.split_at_mut(POINTS * inputs);
        let (strip, products) = scratch.split_at_mut(self.lens.strip);
        let registers = task.outputs.len().div_ceil(S::Register::LANES);
        let of_part = S::DEPTH * self.cut.part;
        for first in (0..self.how.inputs).step_by(of_part) {
            let part = first..self.how.inputs.min(first + of_part);
            // SAFETY: the caller promises the processor.
            unsafe { self.windows::<S>(task, &part, (taps, windows)) };
            let step = part.len().next_multiple_of(S::Register::LANES) / S::DEPTH;
            for (i, at) in task.strips.clone().enumerate() {
                let (image, row) = (at / self.cut.strips.tiles[0], at % self.cut.strips.tiles[0]);
                let channel = (image * self.how.groups + task.group) * self.how.inputs + part.start;
                let data = &self.source[channel * self.how.source[0] * self.how.source[1]..];
                let from = (Planes { data, channels: part.len() }, row);
                let to = &mut inputs[i * self.cut.strips.tiles[1] * step..];
                let to = &mut Tiles { to, point: self.lens.points[1], step };
                // SAFETY: the caller promises the processor; there is place for all strips of the task.
                unsafe { self.cut.strips.inputs::<S>(from, (self.points, strip), to) };
            }
            let tiles = task.strips.len() * self.cut.strips.tiles[1];
            // SAFETY: the caller promises the processor.
            unsafe { self.multiply::<S>((tiles, &part), [windows, inputs], (products, registers)) };
        }
        for (i, at) in task.strips.clone().enumerate() {
            let width = registers * S::Register::LANES;
            let from = &products[i * self.cut.strips.tiles[1] * width..];
            // SAFETY: the caller promises the processor and the outputs.
            unsafe { self.outputs::<S>(task, at, (from, width), strip) };
        }
    }

    /// Windows of a part at the points: `[point][c][width]` operands.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn windows<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        task: &Task,
        part: &Range<usize>,
        (taps, to): (&mut [T], &mut [T]),
    ) {
        let width = task.outputs.len().next_multiple_of(S::Register::LANES);
        let flipped = self.cut.strips.flipped();
        for first in part.clone().step_by(COPIED) {
            let copied = first..part.end.min(first + COPIED);
            let panel = (task.group, &task.outputs);
            // Packed weights too: to read them in order and then jump among them takes half the time.
            // SAFETY: the caller promises the processor.
            unsafe { self.how.copy_taps::<T, S>(self.weights, (panel, &copied), taps) };
            let (channel, operands) = (9 * width, copied.len().div_ceil(S::DEPTH));
            // A channel that there is not.
            taps[copied.len() * channel..operands * S::DEPTH * channel].fill(T::zero());
            for (i, taps) in taps.chunks_exact(S::DEPTH * channel).enumerate().take(operands) {
                let to = to[((first - part.start) / S::DEPTH + i) * width..].as_mut_ptr();
                let (point, from) = (self.lens.points[0], taps.as_ptr());
                let kernel = Windows::<S> { points: self.points, from, to, point, width, flipped };
                // SAFETY: the caller promises the processor. There are nine taps, and room for all
                // channels of a part at each point.
                unsafe { S::vectorize(kernel) };
            }
        }
    }

    /// Adds a part to the products of `tiles` tiles: `[point][tile][width]`.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`.
    unsafe fn multiply<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        (tiles, part): (usize, &Range<usize>),
        [windows, inputs]: [&[T]; 2],
        (products, registers): (&mut [T], usize),
    ) {
        let width = registers * S::Register::LANES;
        let step = part.len().next_multiple_of(S::Register::LANES) / S::DEPTH;
        let [windows_len, inputs_len, products_len] = self.lens.points;
        for point in 0..POINTS {
            let (w, x) = (&windows[point * windows_len..], &inputs[point * inputs_len..]);
            let sums = &mut products[point * products_len..][..tiles * width];
            let pixels = Pixels {
                x: x.as_ptr(),
                x_step: step,
                x_strides: [1, 0, 0],
                w: w.as_ptr(),
                w_strides: [width, 0, 0],
                counts: [part.len().div_ceil(S::DEPTH), 1, 1],
                sums: sums.as_mut_ptr(),
                width,
                adds: part.start > 0,
            };
            // SAFETY: the caller promises the processor. Windows and inputs hold all channels of the part at
            // this point, and there are sums for all tiles.
            unsafe { tile::pixels::<S>(&pixels, (Rows::ONE, tiles), registers) };
        }
    }

    /// Writes the outputs of a strip.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`, and no other task may have these outputs.
    unsafe fn outputs<S: Isa<Register: Lanes<Element = T>>>(
        &self,
        task: &Task,
        at: usize,
        (from, width): (&[T], usize),
        strip: &mut [T],
    ) {
        let ([h, w], lanes) = (self.how.target, S::Register::LANES);
        let (room, strip) = strip.split_at_mut(self.cut.strips.lens(lanes)[0]);
        let (image, at) = (at / self.cut.strips.tiles[0], at % self.cut.strips.tiles[0]);
        let rows = self.cut.strips.rows(at);
        let first = (image * self.how.groups + task.group) * self.how.outputs + task.outputs.start;
        let channel = task.group * self.how.outputs + task.outputs.start;
        for start in (0..task.outputs.len()).step_by(lanes) {
            let channels = lanes.min(task.outputs.len() - start);
            for columns in self.cut.strips.columns() {
                let kernel = Outputs {
                    points: self.points,
                    from: from[columns.tile * width + start..].as_ptr(),
                    strides: [self.lens.points[2], width],
                    to: strip.as_mut_ptr(),
                    room: room.as_mut_ptr(),
                    row: w,
                    rows: rows.n,
                    columns,
                };
                // SAFETY: the caller promises the processor; the strip has room for its pixels.
                unsafe { S::vectorize(kernel) };
            }
            for [i, y, n] in rows.runs() {
                let from = Run { from: &strip[i * w * lanes..], stride: lanes, n: n * w };
                let to = self.target.at((first + start) * h * w + y * w);
                // SAFETY: the caller promises the processor. The pixels of the strip in each of these
                // channels lie within the target, and no other task has them.
                unsafe { pack::transposed::<S>(from, channels, Columns { to, stride: h * w, whole: false }) };
            }
        }
        for [_, y, n] in rows.runs() {
            let (planes, pixels) = (first..first + task.outputs.len(), y * w..(y + n) * w);
            // SAFETY: as above, and they were written.
            unsafe { self.target.finish(self.finish, (planes, channel), h * w, pixels) };
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;
    use crate::graph::op::Conv2d;
    use crate::kernels::check::*;
    use crate::kernels::conv2d::dw::dw_on;
    use crate::kernels::conv2d::{Epilogue, Sizes, slow};
    use crate::kernels::share::unwritten;
    use crate::kernels::simd::{self, Element};
    use crate::kernels::tensor;
    use crate::rng::Rng;

    /// Sums by one of the sets of instructions.
    fn on<T: Real>(run: impl Fn(Sums<T, Winograd>), how: &Correlation, of: [&[T]; 2]) -> Vec<T> {
        let ([source, weight], cut) = (of, &Winograd::cut(how).unwrap());
        let mut target = vec![T::zero(); how.images * how.groups * how.outputs * how.pixels()];
        // What is read before it is written shows.
        let mut scratch = vec![T::from_f64(f64::NAN); cut.scratch_len::<T>(3)];
        let (finish, target_of, scratch) = (&Finish::NONE, unwritten(&mut target), &mut scratch[..]);
        let weights = Weights::Plain(weight);
        run(Sums { how: cut, source, weights, finish, target: target_of, scratch });
        target
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn sums_are_those_over_windows(
            (groups, c, o) in (1usize..3, 1usize..40, 1usize..80),
            (n, h, w) in (1usize..5, 1usize..20, 1usize..20),
            (padding, dilation) in (0usize..4, 1usize..4),
            seed in any::<u64>(),
        ) {
            let conv = Conv2d { padding, dilation, groups, ..Conv2d::valid(groups * o, 3, 1) };
            let least = (2 * dilation + 1).saturating_sub(2 * padding).max(1);
            let shape = [n, groups * c, h.max(least), w.max(least)];
            let sizes = Sizes::of(&conv, shape).unwrap();
            let rng = &mut Rng::new(seed);
            let [x, w, dy] = [&shape[..], &conv.weight_shape(shape[1]), &sizes.y_shape()].map(|of| normal(of, rng));
            let y = slow::forward(&sizes, &x, &w, Epilogue::default()).unwrap();
            let dx = slow::dx(&sizes, &dy, &w).unwrap();
            let numbers = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let (dy_wide, x_wide) = (dy.clone(), x.clone());
            let [x, w, dy] = [&x, &w, &dy].map(numbers);
            let narrow = [&x, &w, &dy].map(|wide| wide.iter().map(|&x| x as f32).collect::<Vec<f32>>());
            let dw = slow::dw(&sizes, &dy_wide, &x_wide).unwrap();
            let backward = Correlation::backward(&sizes);
            for (how, [from, of], want) in [(Correlation::forward(&sizes), [0, 1], &y), (backward, [2, 1], &dx)] {
                let wide = [&x, &w, &dy];
                // SAFETY: the job demands nothing beside its processor.
                let got = on(|sums| unsafe { f64::dispatch(sums) }, &how, [wide[from], wide[of]]);
                assert_close(&tensor(got, want.dims()).unwrap(), want, CLOSE);
                for set in (0..simd::SETS).filter(|&set| simd::widths(set).is_some()) {
                    // SAFETY: as above.
                    let run = |sums: Sums<f32, _>| assert!(unsafe { simd::run(set, sums) });
                    let got = tensor(on(run, &how, [&narrow[from], &narrow[of]]), want.dims()).unwrap();
                    assert_close(&cast(&got, DType::F64), want, ROUNDED);
                }
            }
            for (set, widths) in (0..simd::SETS).filter_map(|set| Some((set, simd::widths(set)?))) {
                let got = dw_on(set, (&sizes, widths), [&narrow[2], &narrow[0]]).unwrap();
                assert_close(&cast(&tensor(got, dw.dims()).unwrap(), DType::F64), &dw, ROUNDED);
            }
        }
    }
}
