//! Every path of the convolutions beside the plain one.

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
        let conv = Conv2d { padding, dilation, groups, activation, ..Conv2d::valid(groups * o, k, stride) };
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

/// Numbers that are not changed by rounding to `bf16`.
fn rounded(x: &Tensor) -> Tensor {
    cast(&cast(x, DType::BF16), DType::F32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Direct sums of rounded numbers are those of the numbers; over tiles what is rounded are values
    /// at points, to one part in 256 each.
    #[test]
    fn pairs_give_the_sums_of_rounded_numbers((conv, shape) in convolutions(), wide in 1usize..20, seed in any::<u64>()) {
        let rng = &mut Rng::new(seed);
        // An activation may cut off the numbers that differences are small beside.
        let conv = Conv2d { outputs: conv.outputs * wide, activation: None, ..conv };
        let shape = [shape[0], shape[1] * wide, shape[2], shape[3]];
        let w_shape = conv.weight_shape(shape[1]);
        let sizes = Sizes::new(&conv, &shape, &w_shape).unwrap();
        let [x, w] = [&shape[..], &w_shape].map(|shape| rounded(&normal(shape, rng)));
        let bias = cast(&normal(&[conv.outputs], rng), DType::F32);
        let want = slow::forward(&sizes, &x, &w, Epilogue { bias: Some(&bias), residual: None }).unwrap();
        let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let Some(pairs) = pairs(&sizes, &numbers(&w)).unwrap() else { return Ok(()) };
        assert_eq!(unpaired(&sizes, &pairs), numbers(&w));
        let mut y = vec![f32::NAN; want.elem_count()];
        let mut scratch = vec![f32::NAN; scratch_len::<f32>(&sizes, rayon::current_num_threads())];
        let bias = numbers(&bias);
        let finish = Finish { activation: None, bias: Some(&bias), residual: None };
        forward_into(&sizes, (&numbers(&x), Weights::Pairs(&pairs)), &finish, (&mut y, &mut scratch));
        let over_tiles = winograd::Winograd::of(&Correlation::forward(&sizes)).is_some();
        assert_close(&tensor(y, want.dims()).unwrap(), &want, if over_tiles { OF_PAIRS } else { CLOSE });
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
pub(super) fn whole(shape: &[usize], seed: usize) -> Tensor {
    let numbers = (0..shape.iter().product()).map(|i| ((i + seed) * 2_654_435_761 % 7919 % 7) as f32 - 3.0);
    tensor(numbers.collect::<Vec<f32>>(), shape).unwrap()
}

#[test]
fn every_set_of_instructions_gives_the_same_sums() {
    let grouped = Conv2d { groups: 2, ..Conv2d::same(6, 3, 1) };
    // Channels too few for tiles, whose values at points are no whole numbers.
    let dilated = Conv2d { dilation: 2, padding: 2, ..Conv2d::same(40, 3, 1) };
    let cases = [
        (Conv2d::same(70, 3, 1), [2, 5, 9, 13]),
        (Conv2d::same(33, 3, 2), [1, 20, 7, 8]),
        // With a stride: parts, panels and images of several tasks; planes in pieces.
        (Conv2d::same(130, 3, 2), [17, 70, 9, 8]),
        (Conv2d::same(9, 3, 2), [2, 5, 40, 17]),
        (Conv2d::same(16, 1, 1), [3, 4, 5, 5]),
        (Conv2d::valid(50, 1, 3), [1, 3, 10, 7]),
        (dilated, [1, 15, 6, 31]),
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
            /// `$how` of these numbers and weights.
            macro_rules! fill {
                ($how:expr, $source:expr, $target:expr) => {{
                    let (how, source, weights) = ($how, $source, Weights::Plain(&w));
                    let (target, finish) = (share::unwritten($target), &Finish::NONE);
                    let scratch = &mut vec![0.0; how.scratch_len::<f32>(rayon::current_num_threads())];
                    // SAFETY: the job demands nothing beside its processor.
                    #[allow(unsafe_code)]
                    unsafe {
                        simd::run(set, Sums { how, source, weights, finish, target, scratch })
                    };
                }};
            }
            let (mut got_y, mut got_dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            fill!(&Correlation::forward(&sizes), &x, &mut got_y);
            match &Spread::of(&sizes) {
                Some(how) => fill!(how, &dy, &mut got_dx),
                None => fill!(&Correlation::backward(&sizes), &dy, &mut got_dx),
            }
            let got_dw = dw::dw_on(set, (&sizes, widths), [&dy, &x]).unwrap();
            assert_close(&tensor(got_y, &sizes.y_shape()).unwrap(), &y, EXACT);
            assert_close(&tensor(got_dx, &shape).unwrap(), &want_dx, EXACT);
            assert_close(&tensor(got_dw, want_dw.dims()).unwrap(), &want_dw, EXACT);
        }
    }
}

/// Rows and columns of the padding that are read for themselves.
#[test]
fn a_window_wholly_outside_gives_zero() {
    for (conv, shape) in [
        (Conv2d { padding: 3, ..Conv2d::valid(2, 1, 10) }, [1, 4, 20, 1]),
        (Conv2d { dilation: 15, padding: 7, ..Conv2d::valid(2, 2, 3) }, [1, 4, 20, 2]),
    ] {
        let rng = &mut Rng::new(4);
        let (x, w) = (normal(&shape, rng), normal(&conv.weight_shape(4), rng));
        let sizes = Sizes::new(&conv, &shape, &conv.weight_shape(4)).unwrap();
        let dy = normal(&sizes.y_shape(), rng);
        let y = forward(&conv, &x, &w, Epilogue::default()).unwrap();
        assert_close(&y, &slow::forward(&sizes, &x, &w, Epilogue::default()).unwrap(), CLOSE);
        assert_close(&dx(&conv, &dy, &w, &shape).unwrap(), &slow::dx(&sizes, &dy, &w).unwrap(), CLOSE);
        assert_close(&dw(&conv, &dy, &x).unwrap(), &slow::dw(&sizes, &dy, &x).unwrap(), CLOSE);
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
    assert_eq!(refuse(Conv2d::valid(0, 3, 1)), "node `conv2d`: 4 channels in and 0 out: there must be some");
    let error = Sizes::of(&Conv2d::same(2, 3, 1), [1, 4, 0, 8]).unwrap_err().to_string();
    assert_eq!(error, "node `conv2d`: no window fits into 0 x 8 pixels");
    let error = refuse(Conv2d { dilation: 2, ..conv });
    assert_eq!(error, "node `conv2d`: no window fits into 3 x 3 pixels");
}
