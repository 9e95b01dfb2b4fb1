//! What failures say: the text and the code of every variant, each once.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs;
use std::path::Path;

use archrepair::Error;
use candle_core::Error as TensorError;

use crate::support::data;

type Said = (Error, u8, &'static str);

fn of_files() -> Vec<Said> {
    vec![
        (
            Error::Exists { path: "out.safetensors".into() },
            12,
            "out.safetensors exists already; choose another name or remove it first",
        ),
        (
            Error::File { action: "map", path: "a.safetensors".into(), source: denied() },
            11,
            "cannot map a.safetensors",
        ),
        (
            Error::Malformed { path: "a.idx".into(), problem: "7 bytes, expected 16".into() },
            13,
            "a.idx is damaged or not of this format: 7 bytes, expected 16",
        ),
        (
            Error::Version { path: "a.patch".into(), got: 2, want: 1 },
            28,
            "a.patch has format version 2, this program reads version 1; update archrepair",
        ),
    ]
}

fn of_models() -> Vec<Said> {
    vec![
        (
            Error::BaseMismatch { patch: "a.patch".into(), want: "b3:01".into(), got: "b3:02".into() },
            18,
            "patch a.patch is for a base with digest b3:01, this base has b3:02; use the model the patch was made \
             from",
        ),
        (
            Error::MissingTensor { path: "a".into(), name: "fc.bias".into(), want: vec![10] },
            14,
            "a has no tensor `fc.bias`, expected one of shape [10]",
        ),
        (
            Error::NotFinite { path: "a".into(), name: "fc.bias".into(), index: 3, value: f32::NAN },
            16,
            "tensor `fc.bias` in a holds NaN at element 3; every weight must be finite",
        ),
        (
            Error::Shape { path: "a".into(), name: "fc.bias".into(), want: vec![10], got: vec![2, 5] },
            15,
            "tensor `fc.bias` in a has shape [2, 5], expected [10]",
        ),
        (
            Error::UnknownArchitecture { path: "a".into(), problem: "no tensor `conv1.weight`".into() },
            17,
            "a is of no known architecture: no tensor `conv1.weight`",
        ),
    ]
}

fn of_data() -> Vec<Said> {
    vec![
        (
            Error::Empty { set: "failure", path: "fog".into() },
            20,
            "failure set fog holds no images, expected at least 1",
        ),
        (
            Error::ImageSize { path: "fog".into(), want: "1x28x28".into(), got: "3x32x32".into() },
            22,
            "fog holds images of 3x32x32 (channels x height x width), the network takes 1x28x28",
        ),
        (
            Error::Label { path: "fog".into(), index: 4, got: 10, classes: 10 },
            19,
            "label 10 of image 4 in fog: the network has 10 classes, 0 to 9",
        ),
        (
            Error::NothingToRepair { n: 50 },
            21,
            "the network gets all 50 images of the failure set right; nothing to repair",
        ),
    ]
}

fn of_work() -> Vec<Said> {
    vec![
        (
            Error::Config { field: "steps", got: "0".into(), want: "at least 1".into() },
            10,
            "steps is 0, expected at least 1",
        ),
        (
            Error::DeviceNotBuilt { device: "cuda" },
            24,
            "no cuda in this build, rebuild with `--features cuda`",
        ),
        (
            Error::Diverged { what: "block layer1.0".into(), step: 7, loss: f64::INFINITY },
            27,
            "the loss became inf at step 7 of block layer1.0; lower the learning rate or check the data",
        ),
        (
            Error::Graph { node: "add".into(), problem: "cannot combine [4] and [3]".into() },
            26,
            "node `add`: cannot combine [4] and [3]",
        ),
        (
            Error::Memory { what: "a convolution".into(), need: 4096, limit: 1000, in_use: 200 },
            29,
            "a convolution needs 4096 bytes, 200 bytes are in use and the limit is 1000; raise it",
        ),
        (
            Error::Limit { what: "the repair".into(), limit: 1000, least: 4096 },
            30,
            "the repair does not fit into 1000 bytes: the least that would do is 4096, raise --memory",
        ),
        (
            Error::Overflow { precision: "f16" },
            32,
            "gradients overflow f16 even where the loss is not multiplied; use --precision f32",
        ),
        (
            Error::Overrun { runs: 1, all: 4 },
            31,
            "1 of 4 runs took more memory than planned or did not come to an end; see the table",
        ),
        (
            Error::Tensor { during: "convolving", source: TensorError::Msg("no memory".into()) },
            25,
            "convolving failed",
        ),
        (
            Error::UnknownName { kind: "block", got: "layer9".into(), known: "layer1.0, layer1.1".into() },
            23,
            "unknown block `layer9`, expected one of layer1.0, layer1.1",
        ),
    ]
}

fn all() -> Vec<Said> {
    [of_files(), of_models(), of_data(), of_work()].into_iter().flatten().collect()
}

fn denied() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::PermissionDenied, "denied")
}

/// The name of a variant.
fn variant(error: &Error) -> String {
    format!("{error:?}").split(' ').next().unwrap().to_owned()
}

#[test]
fn every_variant_says_its_text_and_has_its_code() {
    for (error, code, text) in all() {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.code(), code, "{text}");
    }
}

/// Variants are the only lines of the file that are indented by four and open a brace.
#[test]
fn no_variant_is_left_out_here() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/error.rs");
    let text = fs::read_to_string(path).unwrap();
    let name = |line: &str| Some(line.strip_prefix("    ")?.strip_suffix(" {")?.to_owned());
    let written = text.lines().filter_map(name).filter(|name| name.chars().all(char::is_alphanumeric));
    let tested: Vec<String> = all().iter().map(|(error, ..)| variant(error)).collect();
    assert_eq!(tested.iter().cloned().collect::<BTreeSet<_>>(), written.collect::<BTreeSet<_>>());
}

#[test]
fn no_two_variants_share_a_code_and_none_is_below_ten() {
    let codes: BTreeSet<u8> = all().iter().map(|(error, ..)| error.code()).collect();
    assert_eq!(codes.len(), all().len());
    assert!(codes.first().is_some_and(|least| *least >= 10));
}

#[test]
fn a_text_is_lower_case_without_a_full_stop_and_does_not_repeat_its_source() {
    for (error, _, text) in all() {
        assert!(!text.ends_with('.') && !text.starts_with(char::is_uppercase), "{text}");
        let source = error.source().map(ToString::to_string);
        assert!(source.is_none_or(|source| !text.contains(&source)), "{text}");
    }
}

#[test]
fn what_the_system_said_is_the_source() {
    let error = archrepair::zoo::Model::open(&data("no such file"), &Default::default()).unwrap_err();
    assert_eq!(variant(&error), "File");
    assert!(error.source().unwrap().to_string().contains("No such file"));
}
