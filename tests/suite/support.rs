//! What the topics share: golden files, random tensors, closeness, derivatives by differences.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use archrepair::eval::Deployed;
use archrepair::rng::Rng;
use archrepair::storage::WeightFile;
use archrepair::zoo::{Model, Overrides};
use candle_core::{DType, Device, Tensor};
use proptest::test_runner::{Config, RngSeed};

/// How far two numbers may be apart: `absolute + relative * (greatest wanted magnitude)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f64,
    pub(crate) relative: f64,
}

/// Equal bits: same device, same order of sums.
pub(crate) const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };

/// Two orders of the same `f32` sum.
pub(crate) const CLOSE: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-5 };

/// A derivative beside a central difference in `f64`: see [`numeric_gradient`].
pub(crate) const DIFFERENCE: Tolerance = Tolerance { absolute: 1e-6, relative: 1e-6 };

/// A file of the folder `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The network `name` of the folder `tests/data`, for images of `size`, height by width.
pub(crate) fn open_network(name: &str, size: [usize; 2]) -> Deployed {
    let overrides = Overrides { size: Some(size), ..Overrides::default() };
    let model = Model::open(&data(&format!("{name}.safetensors")), &overrides).unwrap();
    let params = model.params().unwrap();
    Deployed::new(model.network, params)
}

/// As many cases of a property, the same ones on every run: differences across a kink of a
/// ReLU would fail once in some hundred runs.
pub(crate) fn repeatable(cases: u32) -> Config {
    Config { rng_seed: RngSeed::Fixed(2111_13330), failure_persistence: None, ..Config::with_cases(cases) }
}

/// A file of golden tensors that remembers which of them were looked at.
pub(crate) struct Golden {
    pub(crate) file: WeightFile,
    seen: RefCell<BTreeSet<String>>,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        Self { file: WeightFile::open(&data(name)).unwrap(), seen: RefCell::default() }
    }

    /// The tensor of this name in `f32`.
    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        let shape = self.file.shape(name).unwrap_or_else(|| panic!("no golden tensor {name}"));
        self.seen.borrow_mut().insert(name.into());
        self.file.tensor(name, shape, &Device::Cpu).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.file.shape(name).is_some()
    }

    /// The 64-bit whole numbers of this name.
    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        self.seen.borrow_mut().insert(name.into());
        let (numbers, rest) = self.file.raw(name).unwrap().as_chunks::<8>();
        assert!(rest.is_empty(), "{name} is not of 64-bit numbers");
        numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }

    /// Names of the tensors that nothing looked at.
    pub(crate) fn unseen(&self) -> Vec<&str> {
        self.file.names().filter(|name| !self.seen.borrow().contains(*name)).collect()
    }
}

/// Draws from the normal distribution, in `f64`.
pub(crate) fn normal(shape: &[usize], rng: &mut Rng) -> Tensor {
    let draws = (0..shape.iter().product()).map(|_| f64::from(rng.normal())).collect();
    Tensor::from_vec::<_, f64>(draws, shape, &Device::Cpu).unwrap()
}

/// Fails unless `got` has the shape of `want` and its values within `tolerance`.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: Tolerance) {
    assert_eq!(got.dims(), want.dims(), "{what}: shapes");
    let (got, want) = (values(got), values(want));
    let bound = bound(&want, tolerance);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!(is_near(*got, *want, bound), "{what}: element {i} is {got}, expected {want} within {bound}");
    }
}

/// All elements in order, as `f64`.
pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bound(want: &[f64], tolerance: Tolerance) -> f64 {
    let greatest = want.iter().fold(0.0f64, |greatest, x| greatest.max(x.abs()));
    tolerance.absolute + tolerance.relative * greatest
}

fn is_near(got: f64, want: f64, bound: f64) -> bool {
    got == want || (got - want).abs() <= bound
}

/// Steps of differences. The first is off by its square times a third derivative and by 1e-16
/// over it times the size of what is differenced: 1e-10 and 1e-11 times numbers that stay below
/// 1e4 in these tests. The second, off by 1e-9 times that size, is for an element whose first
/// step crosses a kink of a ReLU or exchanges a maximum.
const STEPS: [f64; 2] = [1e-5, 1e-7];

/// Fails unless `got` is the gradient by `x` of `sum(dy * f(x))`, by central differences in `f64`.
#[track_caller]
pub(crate) fn assert_gradient(
    what: &str,
    got: &Tensor,
    (x, dy): (&Tensor, &Tensor),
    f: impl Fn(&Tensor) -> Tensor,
) {
    assert_eq!(got.dims(), x.dims(), "{what}: shapes");
    let (start, dy, got) = (values(x), values(dy), values(got));
    let at = |i: usize, step: f64| {
        let mut moved = start.clone();
        moved[i] += step;
        let y = values(&f(&Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap()));
        assert_eq!(y.len(), dy.len(), "{what}: elements of y and dy");
        y
    };
    // Differences before weights: terms that x_i does not touch cancel exactly.
    let slope = |i: usize, step: f64| {
        let (up, down) = (at(i, step), at(i, -step));
        let sum: f64 = up.iter().zip(&down).zip(&dy).map(|((up, down), dy)| (up - down) * dy).sum();
        sum / (2.0 * step)
    };
    let bound = bound(&got, DIFFERENCE);
    for (i, &got) in got.iter().enumerate() {
        let near = STEPS.iter().any(|&step| is_near(got, slope(i, step), bound));
        assert!(near, "{what}: element {i} is {got}, expected {} within {bound}", slope(i, STEPS[0]));
    }
}

#[test]
fn the_difference_of_a_square_is_twice_its_root() {
    let x = normal(&[2, 3], &mut Rng::new(1));
    let dy = normal(&[2, 3], &mut Rng::new(2));
    let dx = ((&x * 2.0).unwrap() * &dy).unwrap();
    assert_gradient("x^2", &dx, (&x, &dy), |x| (x * x).unwrap());
}

#[test]
#[should_panic(expected = "element 0 is")]
fn a_wrong_gradient_is_not_the_difference() {
    let x = normal(&[2, 3], &mut Rng::new(1));
    let dy = normal(&[2, 3], &mut Rng::new(2));
    assert_gradient("x^2", &(&dy * 2.0).unwrap(), (&x, &dy), |x| (x * x).unwrap());
}
