//! Convolution: `y = act(x * w + bias + residual)` and its gradients.
//!
//! Plain version, for one image and one group:
//!
//! ```text
//! y[o][oy, ox]  = sum over c, ky, kx of  w[o][c, ky, kx] * x[c][oy s + ky d - p][ox s + kx d - p]
//! ```
//!
//! Bodies: `correlate`, which computes outputs and gradients by inputs, and `dw`, both on images as they are;
//! `winograd`, both with a quarter of the products, for the windows most networks have; `depthwise`, where an
//! output has one input channel; and for other devices `slow`, candle's products with gathered columns, and
//! `fused`. The epilogue's gradient is the activation's, taken before these functions.
//!
//! Reading order: `tile`, the innermost loops; `axis`, where windows lie; `source`, what is read; `weights`, in
//! which order; `correlation`, how work is cut; `sums`; `correlate` and `dw`, the loops around; `winograd`.

mod axis;
#[allow(unsafe_code)] // addresses of tiles, and tasks that write to one slice
mod correlate;
mod correlation;
#[allow(unsafe_code)] // addresses of tiles
mod depthwise;
#[allow(unsafe_code)] // addresses of tiles
mod dw;
mod finish;
mod fused;
mod slow;
mod source;
#[allow(unsafe_code)] // tasks that write to one slice
mod sums;
#[allow(unsafe_code)] // vector instructions
mod tile;
#[allow(unsafe_code)] // addresses of taps
mod weights;
mod winograd;

use std::mem::MaybeUninit;

use candle_core::Tensor;

use self::correlation::{Correlation, phase_pairs, phases};
pub(crate) use self::finish::Finish;
use self::sums::Sums;
pub(crate) use self::weights::{Weights, packed, unpacked};
use super::unfold::Unfold;
use super::{Pass, Real, by_dtype, is_slow_path, planes, share, slice, tensor};
use crate::error::{During, Error, Result};
use crate::graph::op::Conv2d;

const CONVOLVING: &str = "a convolution";

/// What is added and applied to the sums of a convolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[outputs]`
    pub bias: Option<&'a Tensor>,
    /// Of the output's shape.
    pub residual: Option<&'a Tensor>,
}

/// Sizes of one convolution, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    conv: Conv2d,
    unfold: Unfold,
    /// Images.
    n: usize,
    /// Channels in.
    c: usize,
}

impl Sizes {
    fn new(conv: &Conv2d, x: &[usize], w: &[usize]) -> Result<Self> {
        let &[n, c, h, width] = x else { return Err(problem(format!("takes [n, c, h, w], got {x:?}"))) };
        let sizes = Self::of(conv, [n, c, h, width])?;
        if w != conv.weight_shape(c) {
            return Err(problem(format!("weight {w:?}, expected {:?}", conv.weight_shape(c))));
        }
        Ok(sizes)
    }

    /// The sizes for `x` of this shape and a weight that fits. Allocates nothing.
    pub(crate) fn of(conv: &Conv2d, [n, c, h, width]: [usize; 4]) -> Result<Self> {
        if conv.groups == 0 || !c.is_multiple_of(conv.groups) || !conv.outputs.is_multiple_of(conv.groups) {
            return Err(problem(format!("{} groups do not divide {c} channels", conv.groups)));
        }
        let unfold = Unfold::new(conv.window(), h, width)
            .ok_or_else(|| problem(format!("no window fits into {h} x {width} pixels")))?;
        Ok(Self { conv: *conv, unfold, n, c })
    }

    fn is_depthwise(&self) -> bool {
        !reads_panels(&self.conv, self.c)
    }

    fn x_shape(&self) -> [usize; 4] {
        [self.n, self.c, self.unfold.h, self.unfold.w]
    }

    fn y_shape(&self) -> [usize; 4] {
        [self.n, self.conv.outputs, self.unfold.oh, self.unfold.ow]
    }

    /// Elements of one image.
    fn x_len(&self) -> usize {
        self.c * self.unfold.h * self.unfold.w
    }

    fn y_len(&self) -> usize {
        self.conv.outputs * self.unfold.oh * self.unfold.ow
    }

    /// Weights of an output: input channels of its group times taps.
    fn depth(&self) -> usize {
        self.c / self.conv.groups * self.unfold.taps()
    }

    fn weight_len(&self) -> usize {
        self.conv.outputs * self.depth()
    }
}

/// Whether outputs of this convolution of `c` channels read [`Weights`] of every kind; else only plain ones.
pub(crate) fn reads_panels(conv: &Conv2d, c: usize) -> bool {
    conv.groups != c || c == 1 || conv.k * conv.k > depthwise::MOST_TAPS
}

fn problem(problem: String) -> Error {
    Error::Graph { node: "conv2d".into(), problem }
}

/// The result of a convolution, `[n, outputs, oh, ow]`, for `x` `[n, c, h, w]` and `w`
/// `[outputs, c / groups, k, k]`.
///
/// # Errors
///
/// [`Error::Graph`] when the shapes do not fit, [`Error::Tensor`] when the device refuses.
pub fn forward(conv: &Conv2d, x: &Tensor, w: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    let sizes = Sizes::new(conv, x.dims(), w.dims())?;
    if is_slow_path(x) {
        return slow::forward(&sizes, x, w, epilogue);
    }
    by_dtype!(x, T => forward_cpu::<T>(&sizes, x, w, epilogue))
}

/// The gradient by the input, of shape `x_shape`.
///
/// # Errors
///
/// As [`forward`].
pub fn dx(conv: &Conv2d, dy: &Tensor, w: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
    let sizes = Sizes::new(conv, x_shape, w.dims())?;
    if is_slow_path(dy) {
        return slow::dx(&sizes, dy, w);
    }
    by_dtype!(dy, T => dx_cpu::<T>(&sizes, dy, w))
}

/// The gradient by the weight.
///
/// # Errors
///
/// As [`forward`].
pub fn dw(conv: &Conv2d, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let c = x.dims().get(1).copied().unwrap_or(0);
    let sizes = Sizes::new(conv, x.dims(), &conv.weight_shape(c))?;
    if is_slow_path(dy) {
        return slow::dw(&sizes, dy, x);
    }
    by_dtype!(dy, T => dw_cpu::<T>(&sizes, dy, x))
}

/// The gradient by the bias, `[outputs]`: the sum of `dy` over images and pixels.
///
/// # Errors
///
/// [`Error::Tensor`] when the device refuses.
pub fn dbias(dy: &Tensor) -> Result<Tensor> {
    if is_slow_path(dy) {
        return planes::wide(dy).and_then(|dy| dy.sum((0, 2, 3))).during("summing a bias gradient");
    }
    let [n, c, h, w] = planes::image_dims(dy)?;
    by_dtype!(dy, T => {
        let dy = slice::<T>(dy)?;
        let sum = |plane| planes::sum([plane], |[y]| y);
        let of_channel = |j| planes::of_channel(&dy, j, c, h * w).map(sum).sum::<f64>() as T;
        let sums = planes::each(c, n * h * w, of_channel);
        tensor(sums, &[c])
    })
}

/// Most bytes that a pass in `f32` on the CPU allocates beside its result, for `x` of shape
/// `[n, c, h, w]` on `threads` threads; what matrix products keep for each thread is not counted.
///
/// For each thread copies of a part of the weight and of the input rows that a task reads, and its
/// sums; for `dw` a block of at most 128 KiB (more only where a single input channel needs more), twice, and
/// copies of the rows it reads; over tiles about a MiB. How much depends on the processor's registers.
/// [`dbias`] needs none.
///
/// # Errors
///
/// [`Error::Graph`] when the shape does not fit.
pub fn scratch_bytes(conv: &Conv2d, x_shape: &[usize], pass: Pass, threads: usize) -> Result<usize> {
    let c = x_shape.get(1).copied().unwrap_or(0);
    let sizes = Sizes::new(conv, x_shape, &conv.weight_shape(c))?;
    Ok(match pass {
        Pass::Dw if sizes.is_depthwise() => {
            depthwise::dw_scratch_len::<f32>(&sizes, threads) * size_of::<f32>()
        }
        Pass::Dw => dw::scratch_bytes::<f32>(&sizes, threads),
        Pass::Dx => dx_scratch_len::<f32>(&sizes, threads) * size_of::<f32>(),
        Pass::Forward => scratch_len::<f32>(&sizes, threads) * size_of::<f32>(),
    })
}

/// Elements of scratch that [`forward_into`] takes on `threads` threads.
pub(crate) fn scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    if sizes.is_depthwise() {
        return depthwise::scratch_len::<T>(sizes, threads);
    }
    sums::scratch_len::<T>(&Correlation::forward(sizes), threads)
}

/// Elements of scratch for a gradient by the input.
fn dx_scratch_len<T: Real>(sizes: &Sizes, threads: usize) -> usize {
    if sizes.is_depthwise() {
        return depthwise::dx_scratch_len::<T>(sizes, threads);
    }
    phases(sizes).map(|of| sums::scratch_len::<T>(&of, threads)).max().unwrap_or(0)
}

fn forward_cpu<T: Real>(sizes: &Sizes, x: &Tensor, w: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    let bias = epilogue.bias.map(slice::<T>).transpose()?;
    let residual = epilogue.residual.map(slice::<T>).transpose()?;
    let finish =
        Finish { activation: sizes.conv.activation, bias: bias.as_deref(), residual: residual.as_deref() };
    let (x, w) = (slice::<T>(x)?, slice::<T>(w)?);
    let mut scratch = share::zeros(CONVOLVING, scratch_len::<T>(sizes, rayon::current_num_threads()))?;
    let fill =
        |y: &mut [MaybeUninit<T>]| forward_new(sizes, (&x, Weights::Plain(&w)), &finish, (y, &mut scratch));
    // SAFETY: a convolution writes all of its outputs.
    #[allow(unsafe_code)]
    let y = unsafe { share::filled(CONVOLVING, sizes.n * sizes.y_len(), fill) };
    tensor(y?, &sizes.y_shape())
}

/// Fills `y`, with [`scratch_len`] elements of scratch.
pub(crate) fn forward_into<T: Real>(
    sizes: &Sizes,
    of: (&[T], Weights<T>),
    finish: &Finish<T>,
    (y, scratch): (&mut [T], &mut [T]),
) {
    forward_new(sizes, of, finish, (share::unwritten(y), scratch));
}

/// As [`forward_into`], to memory that nothing was written to yet.
fn forward_new<T: Real>(
    sizes: &Sizes,
    (source, weights): (&[T], Weights<T>),
    finish: &Finish<T>,
    (target, scratch): (&mut [MaybeUninit<T>], &mut [T]),
) {
    match weights {
        Weights::Plain(w) if sizes.is_depthwise() => {
            depthwise::forward_into(sizes, [source, w], finish, (target, scratch));
        }
        _ => {
            let how = &Correlation::forward(sizes);
            Sums { how, source, weights, finish, target, scratch }.fill();
        }
    }
}

fn dx_cpu<T: Real>(sizes: &Sizes, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (dy, w) = (slice::<T>(dy)?, slice::<T>(w)?);
    let mut scratch = share::zeros(CONVOLVING, dx_scratch_len::<T>(sizes, rayon::current_num_threads()))?;
    let fill = |dx: &mut [MaybeUninit<T>]| {
        if sizes.is_depthwise() {
            return depthwise::dx_into(sizes, [&dy, &w], (dx, &mut scratch));
        }
        for how in &mut phases(sizes) {
            let (target, scratch) = (&mut dx[..], &mut scratch[..]);
            let finish = &Finish::NONE;
            let weights = Weights::Plain(&w);
            Sums { how: &how, source: &dy, weights, finish, target, scratch }.fill();
        }
    };
    // SAFETY: the phases of an input are all of its positions, and each is written.
    #[allow(unsafe_code)]
    let dx = unsafe { share::filled(CONVOLVING, sizes.n * sizes.x_len(), fill) };
    tensor(dx?, &sizes.x_shape())
}

fn dw_cpu<T: Real>(sizes: &Sizes, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (dy, x) = (slice::<T>(dy)?, slice::<T>(x)?);
    let sums = if sizes.is_depthwise() { depthwise::dw(sizes, &dy, &x) } else { dw::dw(sizes, &dy, &x) };
    tensor(sums?, &sizes.conv.weight_shape(sizes.c))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;
    use crate::graph::op::Activation;
    use crate::kernels::check::*;
    use crate::kernels::simd;
    use crate::rng::Rng;

    const ACTIVATIONS: [Option<Activation>; 6] = [
        None,
        Some(Activation::HardSwish),
        Some(Activation::Relu),
        Some(Activation::Relu6),
        Some(Activation::Sigmoid),
        Some(Activation::Silu),
    ];

    /// Dense, grouped and depthwise settings, and an input shape into which the window fits.
    fn convolutions() -> impl Strategy<Value = (Conv2d, [usize; 4])> {
        let windows = (1usize..=5, 1usize..=3, 0usize..=3, 1usize..=2);
        // Groups, channels of a group in, channels of a group out.
        let channels = (1usize..5, 1usize..4, 1usize..4);
        let sizes = (1usize..=3, 0usize..9, 0usize..9);
        let activation = prop::sample::select(&ACTIVATIONS[..]);
        (windows, channels, sizes, activation).prop_map(|(window, (groups, c, o), (n, h, w), activation)| {
            let (k, stride, padding, dilation) = window;
            let conv =
                Conv2d { padding, dilation, groups, activation, ..Conv2d::valid(groups * o, k, stride) };
            let least = (dilation * (k - 1) + 1).saturating_sub(2 * padding).max(1);
            (conv, [n, groups * c, least + h, least + w])
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn both_bodies_agree(
            (conv, shape) in convolutions(),
            has_bias in any::<bool>(),
            has_residual in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let rng = &mut Rng::new(seed);
            let w_shape = conv.weight_shape(shape[1]);
            let sizes = Sizes::new(&conv, &shape, &w_shape).unwrap();
            let shapes: [&[usize]; 5] = [&shape, &w_shape, &[conv.outputs], &sizes.y_shape(), &sizes.y_shape()];
            let drawn = shapes.map(|shape| normal(shape, rng));
            for dtype in REALS {
                let [x, w, bias, residual, dy] = drawn.each_ref().map(|t| cast(t, dtype));
                let bias = has_bias.then_some(&bias);
                let epilogue = Epilogue { bias, residual: has_residual.then_some(&residual) };
                let y = slow::forward(&sizes, &x, &w, epilogue).unwrap();
                assert_close(&forward(&conv, &x, &w, epilogue).unwrap(), &y, CLOSE);
                assert_close(&dx(&conv, &dy, &w, &shape).unwrap(), &slow::dx(&sizes, &dy, &w).unwrap(), CLOSE);
                // Long sums, beside exact ones of the same numbers.
                let [dy_wide, x_wide] = [&dy, &x].map(|t| cast(t, DType::F64));
                let [dy_terms, x_terms] = [&dy_wide, &x_wide].map(|t| t.abs().unwrap());
                let (want, terms) =
                    (slow::dw(&sizes, &dy_wide, &x_wide), slow::dw(&sizes, &dy_terms, &x_terms));
                assert_sums(&dw(&conv, &dy, &x).unwrap(), &want.unwrap(), &terms.unwrap());
                let [want, terms] = [&dy_wide, &dy_terms].map(|t| t.sum((0, 2, 3)).unwrap());
                assert_sums(&dbias(&dy).unwrap(), &want, &terms);
            }
        }
    }

    proptest! {
        /// An executor has scratch for its largest batch, and runs smaller ones.
        #[test]
        fn fewer_images_never_take_more_scratch(
            (k, stride, c, o) in (1usize..6, 1usize..3, 1usize..70, 1usize..140),
            (n, h, w) in (1usize..9, 5usize..40, 5usize..40),
            threads in 1usize..4,
        ) {
            let conv = Conv2d::same(o, k, stride);
            let len = |n: usize| scratch_len::<f32>(&Sizes::of(&conv, [n, c, h, w]).unwrap(), threads);
            prop_assert!(len(n) <= len(n + 1), "{} for {n}, {} for one more", len(n), len(n + 1));
        }
    }

    /// Blocks of 43 and 42 channels over several tiles and parts, and of one channel each.
    #[test]
    fn a_weight_cut_into_uneven_blocks_is_summed_whole() {
        let cases = [(Conv2d::same(128, 3, 1), [5, 85, 11, 40]), (Conv2d::same(3, 3, 2), [1, 7, 9, 9])];
        for (conv, shape) in cases {
            let rng = &mut Rng::new(1);
            let sizes = Sizes::new(&conv, &shape, &conv.weight_shape(shape[1])).unwrap();
            let (x, dy) = (normal(&shape, rng), normal(&sizes.y_shape(), rng));
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| dw(&conv, &dy, &x).unwrap())
            };
            assert_close(&on(1), &slow::dw(&sizes, &dy, &x).unwrap(), CLOSE);
            assert_close(&on(3), &on(1), EXACT);
        }
    }

    /// Whole numbers from -3 to 3: no sum of them is rounded, so every order of adding gives its bits.
    fn whole(shape: &[usize], seed: usize) -> Tensor {
        let numbers =
            (0..shape.iter().product()).map(|i| ((i + seed) * 2_654_435_761 % 7919 % 7) as f32 - 3.0);
        tensor(numbers.collect::<Vec<f32>>(), shape).unwrap()
    }

    #[test]
    fn every_set_of_instructions_gives_the_same_sums() {
        let grouped = Conv2d { groups: 2, ..Conv2d::same(6, 3, 1) };
        let dilated = Conv2d { dilation: 2, padding: 2, ..Conv2d::same(40, 3, 1) };
        let cases = [
            (Conv2d::same(70, 3, 1), [2, 5, 9, 13]),
            (Conv2d::same(33, 3, 2), [1, 20, 7, 8]),
            (Conv2d::same(16, 1, 1), [3, 4, 5, 5]),
            (Conv2d::valid(50, 1, 3), [1, 3, 10, 7]),
            (dilated, [1, 16, 6, 31]),
            (grouped, [2, 4, 5, 6]),
        ];
        for (conv, shape) in cases {
            let sizes = Sizes::of(&conv, shape).unwrap();
            let (x, w) = (whole(&shape, 1), whole(&conv.weight_shape(shape[1]), 2));
            let dy = whole(&sizes.y_shape(), 3);
            let y = slow::forward(&sizes, &x, &w, Epilogue::default()).unwrap();
            let (want_dx, want_dw) = (slow::dx(&sizes, &dy, &w).unwrap(), slow::dw(&sizes, &dy, &x).unwrap());
            let [x, w, dy] = [&x, &w, &dy].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            for set in 0..simd::SETS {
                let Some(widths) = simd::widths(set) else { continue };
                let fill = |how: &Correlation, [source, weight]: [&[f32]; 2], target: &mut [f32]| {
                    let (target, weights) = (share::unwritten(target), Weights::Plain(weight));
                    let scratch = &mut vec![0.0; how.scratch_len::<f32>(rayon::current_num_threads())];
                    // SAFETY: the job demands nothing beside its processor.
                    #[allow(unsafe_code)]
                    unsafe {
                        simd::run(set, Sums { how, source, weights, finish: &Finish::NONE, target, scratch })
                    };
                };
                let (mut got_y, mut got_dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
                fill(&Correlation::forward(&sizes), [&x, &w], &mut got_y);
                phases(&sizes).for_each(|how| fill(&how, [&dy, &w], &mut got_dx));
                let got_dw = dw::dw_on(set, (&sizes, widths), [&dy, &x]).unwrap();
                assert_close(&tensor(got_y, &sizes.y_shape()).unwrap(), &y, EXACT);
                assert_close(&tensor(got_dx, &shape).unwrap(), &want_dx, EXACT);
                assert_close(&tensor(got_dw, want_dw.dims()).unwrap(), &want_dw, EXACT);
            }
        }
    }

    /// 2 x 2 ones on 2 x 2 pixels with one pixel of padding: each output counts the pixels that
    /// its window covers.
    #[test]
    fn a_window_of_ones_adds_up_what_it_covers() {
        let conv = Conv2d { padding: 1, ..Conv2d::valid(1, 2, 1) };
        let x = tensor(vec![1f32, 2.0, 3.0, 4.0], &[1, 1, 2, 2]).unwrap();
        let w = tensor(vec![1f32; 4], &[1, 1, 2, 2]).unwrap();
        let y = forward(&conv, &x, &w, Epilogue::default()).unwrap();
        assert_eq!(values(&y), [1.0, 3.0, 2.0, 4.0, 10.0, 6.0, 3.0, 7.0, 4.0]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_told() {
        let (x, w) = (normal(&[1, 4, 3, 3], &mut Rng::new(1)), normal(&[2, 4, 3, 3], &mut Rng::new(2)));
        let refuse = |conv: Conv2d| forward(&conv, &x, &w, Epilogue::default()).unwrap_err().to_string();
        let conv = Conv2d::valid(2, 3, 1);
        assert_eq!(refuse(Conv2d { groups: 0, ..conv }), "node `conv2d`: 0 groups do not divide 4 channels");
        assert_eq!(refuse(Conv2d { groups: 3, ..conv }), "node `conv2d`: 3 groups do not divide 4 channels");
        let error = refuse(Conv2d { outputs: 3, ..conv });
        assert_eq!(error, "node `conv2d`: weight [2, 4, 3, 3], expected [3, 4, 3, 3]");
        assert!(dw(&Conv2d { groups: 0, ..conv }, &x, &x).is_err());
        let error = refuse(Conv2d { dilation: 2, ..conv });
        assert_eq!(error, "node `conv2d`: no window fits into 3 x 3 pixels");
    }
}
