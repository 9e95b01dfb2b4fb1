//! What tests of kernels share: random tensors, closeness, derivatives by differences.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::Strategy;

use crate::error::Result;
use crate::rng::Rng;

/// How far two numbers may be apart: `absolute + relative * (greatest wanted magnitude)`.
///
/// The greatest magnitude of the tensor, not of the element: a sum that happens to cancel
/// keeps the rounding errors of its terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    absolute: f64,
    relative: f64,
}

/// Equal bits: same device, same order of sums.
pub(crate) const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };

/// Two orders of the same `f32` sum; `f64` has room to spare.
pub(crate) const CLOSE: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-5 };

/// Sums of `f32` terms that are rounded more often than the terms of a plain sum.
pub(crate) const ROUNDED: Tolerance = Tolerance { absolute: 1e-6, relative: 5e-5 };

/// Sums over tiles whose values at points were rounded to 8 bits: outputs take some of them up to 8 times.
pub(crate) const OF_PAIRS: Tolerance = Tolerance { absolute: 1e-6, relative: 6e-2 };

/// Results that are halves, rounded two or three times, none of them a sum under way: a half is off by a part
/// in 2,048 at most.
pub(crate) const HALVES: Tolerance = Tolerance { absolute: 1e-3, relative: 2e-3 };

/// A derivative beside a central difference in `f64`. With the step 1e-5 the difference is off
/// by step^2 = 1e-10 times a third derivative, and by 1e-16 / step = 1e-11 times the size of
/// the weighted sum that is differenced, which stays below 1e4 in these tests.
pub(crate) const DIFFERENCE: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };

const STEP: f64 = 1e-5;

/// Draws from the normal distribution, in `f64`.
pub(crate) fn normal(shape: &[usize], rng: &mut Rng) -> Tensor {
    let draws = (0..shape.iter().product()).map(|_| f64::from(rng.normal())).collect();
    Tensor::from_vec::<_, f64>(draws, shape, &Device::Cpu).unwrap()
}

/// Distinct odd multiples of 1/120, 1/30 apart, in random order: steps of [`STEP`] cross no
/// kink and exchange no maximum.
pub(crate) fn distinct(shape: &[usize], rng: &mut Rng) -> Tensor {
    let n: usize = shape.iter().product();
    let spread = rng.permutation(n).into_iter().map(|i| (i as f64 - n as f64 / 2.0 + 0.25) / 30.0);
    Tensor::from_vec(spread.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

/// The types of the CPU bodies.
pub(crate) const REALS: [DType; 2] = [DType::F32, DType::F64];

/// `x` in another type.
pub(crate) fn cast(x: &Tensor, dtype: DType) -> Tensor {
    x.to_dtype(dtype).unwrap()
}

/// Small shapes `[n, c, h, w]`, also not square.
pub(crate) fn images() -> impl Strategy<Value = [usize; 4]> {
    (1usize..4, 1usize..5, 1usize..7, 1usize..7).prop_map(|(n, c, h, w)| [n, c, h, w])
}

/// The gradient by `x` of `sum(dy * f(x))`, by central differences; all in `f64`.
pub(crate) fn numeric_gradient(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor, dy: &Tensor) -> Tensor {
    let start = values(x);
    let dy = values(dy);
    let at = |i: usize, step: f64| {
        let mut moved = start.clone();
        moved[i] += step;
        let y = values(&f(&Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap()).unwrap());
        assert_eq!(y.len(), dy.len(), "elements of y and dy");
        y
    };
    // Differences before weights: terms that x_i does not touch cancel exactly.
    let slope = |i| {
        let (up, down) = (at(i, STEP), at(i, -STEP));
        let sum: f64 = up.iter().zip(&down).zip(&dy).map(|((up, down), dy)| (up - down) * dy).sum();
        sum / (2.0 * STEP)
    };
    let slopes: Vec<f64> = (0..start.len()).map(slope).collect();
    Tensor::from_vec(slopes, x.shape(), &Device::Cpu).unwrap()
}

/// Fails unless `got` has the shape of `want` and its values within `tolerance`.
#[track_caller]
pub(crate) fn assert_close(got: &Tensor, want: &Tensor, tolerance: Tolerance) {
    assert_eq!(got.dims(), want.dims(), "shapes");
    assert!(got.is_contiguous(), "not contiguous");
    let (got, want) = (values(got), values(want));
    let greatest = want.iter().fold(0.0f64, |greatest, x| greatest.max(x.abs()));
    let bound = tolerance.absolute + tolerance.relative * greatest;
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let near = got == want || (got - want).abs() <= bound;
        assert!(near, "element {i} is {got}, expected {want} within {bound}");
    }
}

/// Fails unless each element of `got` is the one of `want` but for the rounding of its sum, whose terms
/// have the magnitudes `terms` together: terms that cancel leave no more than their rounding.
#[track_caller]
pub(crate) fn assert_sums(got: &Tensor, want: &Tensor, terms: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "shapes");
    for (i, ((got, want), terms)) in values(got).iter().zip(values(want)).zip(values(terms)).enumerate() {
        let bound = 2e-6 * terms;
        assert!((got - want).abs() <= bound, "element {i} is {got}, expected {want} within {bound}");
    }
}

/// All elements in order, as `f64`.
pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_difference_of_a_square_is_twice_its_root() {
    let x = normal(&[2, 3], &mut Rng::new(1));
    let dy = normal(&[2, 3], &mut Rng::new(2));
    let got = numeric_gradient(|x| Ok((x * x).unwrap()), &x, &dy);
    assert_close(&got, &((x * 2.0).unwrap() * dy).unwrap(), DIFFERENCE);
}
