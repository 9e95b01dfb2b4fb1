//! Every operation against PyTorch: outputs and all gradients.
//!
//! `tests/data/README.md` says how the cases were made. The last test makes sure that no case,
//! and no tensor of any case, goes unchecked.

use archrepair::graph::op::{Activation, Conv2d, Pool};
use archrepair::kernels::batch_norm::{Affine, Statistics};
use archrepair::kernels::conv2d::Epilogue;
use archrepair::kernels::{
    activation, batch_norm, conv2d, cross_entropy, global_pool, instance_norm, linear, pool,
};
use candle_core::{Device, Tensor};
use serde::Deserialize;

use crate::support::{CLOSE, Golden, assert_close};

/// One entry of the file's list of cases.
#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(flatten)]
    operation: Operation,
}

/// An operation and its settings; one that is not here makes every test fail.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Operation {
    Activation { kind: Activation },
    AvgPool(Windows),
    BatchNorm { eps: f64, mode: Mode },
    Conv2d(Convolution),
    CrossEntropy {},
    GlobalAvgPool {},
    InstanceNorm { eps: f64 },
    Linear { bias: bool },
    MaxPool(Windows),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Batch,
    Fixed,
}

#[derive(Deserialize)]
struct Windows {
    kernel: usize,
    stride: usize,
    padding: usize,
}

#[derive(Deserialize)]
struct Convolution {
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    groups: usize,
    bias: bool,
}

/// A case and its tensors.
struct Case<'a> {
    golden: &'a Golden,
    name: &'a str,
}

impl Case<'_> {
    fn tensor(&self, key: &str) -> Tensor {
        self.golden.tensor(&format!("{}/{key}", self.name))
    }

    #[track_caller]
    fn check(&self, key: &str, got: &Tensor) {
        assert_close(&format!("{}/{key}", self.name), got, &self.tensor(key), CLOSE);
    }

    #[track_caller]
    fn check_all(&self, (dx, dweight, dbias): &(Tensor, Tensor, Tensor)) {
        self.check("dx", dx);
        self.check("dweight", dweight);
        self.check("dbias", dbias);
    }

    fn bias(&self, expected: bool) -> Option<Tensor> {
        assert_eq!(self.golden.has(&format!("{}/bias", self.name)), expected, "{}", self.name);
        expected.then(|| self.tensor("bias"))
    }

    fn affine_of<R>(&self, eps: f64, run: impl FnOnce(&Affine) -> R) -> R {
        let (weight, bias) = (self.tensor("weight"), self.tensor("bias"));
        run(&Affine { weight, bias, eps })
    }
}

/// Checks the cases that `of` takes, and returns how many there were.
fn check(golden: &Golden, of: impl Fn(&Operation) -> bool) -> usize {
    let listed: Vec<Listed> = serde_json::from_str(&golden.file.metadata()["cases"]).unwrap();
    let taken = listed.iter().filter(|listed| of(&listed.operation));
    taken.map(|Listed { name, operation }| run(operation, &Case { golden, name })).count()
}

fn check_file(of: impl Fn(&Operation) -> bool) -> usize {
    check(&Golden::open("operations.safetensors"), of)
}

fn run(operation: &Operation, case: &Case) {
    match operation {
        Operation::Activation { kind } => check_activation(*kind, case),
        Operation::AvgPool(windows) => check_avg_pool(windows, case),
        Operation::BatchNorm { eps, mode: Mode::Batch } => check_batch_norm_of_batches(*eps, case),
        Operation::BatchNorm { eps, mode: Mode::Fixed } => check_fixed_batch_norm(*eps, case),
        Operation::Conv2d(settings) => check_conv2d(settings, case),
        Operation::CrossEntropy {} => check_cross_entropy(case),
        Operation::GlobalAvgPool {} => check_global_avg_pool(case),
        Operation::InstanceNorm { eps } => check_instance_norm(*eps, case),
        Operation::Linear { bias } => check_linear(*bias, case),
        Operation::MaxPool(windows) => check_max_pool(windows, case),
    }
}

fn check_activation(kind: Activation, case: &Case) {
    let x = case.tensor("x");
    let y = activation::forward(kind, &x).unwrap();
    case.check("y", &y);
    let kept = activation::keep(kind, &x, &y).unwrap();
    case.check("dx", &activation::dx(kind, &case.tensor("dy"), &kept).unwrap());
}

impl Windows {
    fn pool(&self) -> Pool {
        Pool { k: self.kernel, stride: self.stride, padding: self.padding }
    }
}

fn check_avg_pool(windows: &Windows, case: &Case) {
    let (pool, x) = (windows.pool(), case.tensor("x"));
    case.check("y", &pool::avg(&pool, &x).unwrap());
    case.check("dx", &pool::avg_dx(&pool, &case.tensor("dy"), x.dims()).unwrap());
}

fn check_max_pool(windows: &Windows, case: &Case) {
    let x = case.tensor("x");
    let (y, argmax) = pool::max(&windows.pool(), &x).unwrap();
    case.check("y", &y);
    case.check("dx", &pool::max_dx(&case.tensor("dy"), &argmax, x.dims()).unwrap());
}

fn check_global_avg_pool(case: &Case) {
    let x = case.tensor("x");
    let (_, _, h, w) = x.dims4().unwrap();
    case.check("y", &global_pool::avg(&x).unwrap());
    case.check("dx", &global_pool::avg_dx(&case.tensor("dy"), [h, w]).unwrap());
}

fn check_conv2d(settings: &Convolution, case: &Case) {
    let &Convolution { kernel, stride, padding, dilation, groups, bias } = settings;
    let [x, w, dy] = ["x", "weight", "dy"].map(|key| case.tensor(key));
    let conv = Conv2d { padding, dilation, groups, bias, ..Conv2d::valid(w.dims()[0], kernel, stride) };
    let bias = case.bias(bias);
    let epilogue = Epilogue { bias: bias.as_ref(), residual: None };
    case.check("y", &conv2d::forward(&conv, &x, &w, epilogue).unwrap());
    case.check("dx", &conv2d::dx(&conv, &dy, &w, x.dims()).unwrap());
    case.check("dweight", &conv2d::dw(&conv, &dy, &x).unwrap());
    if bias.is_some() {
        case.check("dbias", &conv2d::dbias(&dy).unwrap());
    }
}

fn check_linear(bias: bool, case: &Case) {
    let [x, w, dy] = ["x", "weight", "dy"].map(|key| case.tensor(key));
    let bias = case.bias(bias);
    case.check("y", &linear::forward(&x, &w, bias.as_ref()).unwrap());
    case.check("dx", &linear::dx(&dy, &w).unwrap());
    case.check("dweight", &linear::dw(&dy, &x).unwrap());
    if bias.is_some() {
        case.check("dbias", &linear::dbias(&dy).unwrap());
    }
}

fn check_instance_norm(eps: f64, case: &Case) {
    let [x, weight, bias, dy] = ["x", "weight", "bias", "dy"].map(|key| case.tensor(key));
    case.check("y", &instance_norm::forward(&x, &weight, &bias, eps).unwrap());
    case.check_all(&instance_norm::backward(&dy, &x, &weight, eps).unwrap());
}

fn check_fixed_batch_norm(eps: f64, case: &Case) {
    let [x, mean, var, dy] = ["x", "running_mean", "running_var", "dy"].map(|key| case.tensor(key));
    let at = Statistics { mean, var };
    case.affine_of(eps, |affine| {
        case.check("y", &batch_norm::fixed(&x, affine, &at).unwrap());
        case.check("dx", &batch_norm::fixed_dx(&dy, affine, &at).unwrap());
        let (dweight, dbias) = batch_norm::fixed_dparams(&dy, &x, affine, &at).unwrap();
        case.check("dweight", &dweight);
        case.check("dbias", &dbias);
    });
}

fn check_batch_norm_of_batches(eps: f64, case: &Case) {
    let [x, mean, var, dy] = ["x", "running_mean", "running_var", "dy"].map(|key| case.tensor(key));
    let at = case.affine_of(eps, |affine| {
        let (y, at) = batch_norm::batch(&x, affine).unwrap();
        case.check("y", &y);
        case.check_all(&batch_norm::batch_backward(&dy, &x, affine, &at).unwrap());
        at
    });
    case.check("batch_mean", &at.mean);
    case.check("batch_var", &at.var);
    // PyTorch moves its running variance by the unbiased one: divided by the count less one.
    let count = (x.elem_count() / mean.elem_count()) as f64;
    let moved =
        |old: &Tensor, new: &Tensor, factor: f64| ((old * 0.9).unwrap() + (new * factor).unwrap()).unwrap();
    case.check("running_mean_after", &moved(&mean, &at.mean, 0.1));
    case.check("running_var_after", &moved(&var, &at.var, 0.1 * count / (count - 1.0)));
}

fn check_cross_entropy(case: &Case) {
    let logits = case.tensor("x");
    let (n, classes) = logits.dims2().unwrap();
    let labels = case.golden.integers(&format!("{}/labels", case.name));
    let mut targets = vec![0f32; n * classes];
    labels.iter().enumerate().for_each(|(i, label)| targets[i * classes + *label as usize] = 1.0);
    let targets = Tensor::from_vec(targets, (n, classes), &Device::Cpu).unwrap();
    // The case is of the mean loss, and `dy` is 1.
    assert_eq!(case.tensor("dy").to_vec1::<f32>().unwrap(), [1.0]);
    let (losses, dx) = cross_entropy::forward_backward(&logits, &targets, &vec![1.0 / n as f64; n]).unwrap();
    let mean = Tensor::new(&[losses.iter().sum::<f64>() / n as f64], &Device::Cpu).unwrap();
    case.check("y", &mean);
    case.check("dx", &dx);
}

#[test]
fn activations_are_those_of_pytorch() {
    assert_eq!(check_file(|op| matches!(op, Operation::Activation { .. })), 5);
}

#[test]
fn batch_norms_are_those_of_pytorch() {
    assert_eq!(check_file(|op| matches!(op, Operation::BatchNorm { .. })), 4);
}

#[test]
fn convolutions_are_those_of_pytorch() {
    assert_eq!(check_file(|op| matches!(op, Operation::Conv2d(_))), 17);
}

#[test]
fn cross_entropies_are_those_of_pytorch() {
    assert_eq!(check_file(|op| matches!(op, Operation::CrossEntropy {})), 2);
}

#[test]
fn instance_norms_are_those_of_pytorch() {
    assert_eq!(check_file(|op| matches!(op, Operation::InstanceNorm { .. })), 2);
}

#[test]
fn linear_layers_are_those_of_pytorch() {
    assert_eq!(check_file(|op| matches!(op, Operation::Linear { .. })), 2);
}

#[test]
fn poolings_are_those_of_pytorch() {
    let is_pooling = |op: &Operation| {
        matches!(op, Operation::AvgPool(_) | Operation::GlobalAvgPool {} | Operation::MaxPool(_))
    };
    assert_eq!(check_file(is_pooling), 7);
}

#[test]
fn no_tensor_of_the_file_goes_unchecked() {
    let golden = Golden::open("operations.safetensors");
    assert_eq!(check(&golden, |_| true), 39);
    assert_eq!(golden.unseen(), Vec::<&str>::new());
}
