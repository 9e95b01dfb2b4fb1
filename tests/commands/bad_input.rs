//! Input that cannot be used: one line that says why, an exit status of its own, and no file
//! written, changed or removed.

use std::collections::BTreeMap;

use archrepair::data::Images;
use archrepair::repair::patching::{Origin, difference};
use archrepair::storage::{Digest, Storage};
use candle_core::{DType, Device, Tensor};
use image::{GrayImage, Luma};

use crate::support::{Folder, changed, labelled, network, noise};

/// Runs the program and checks how it ends.
#[track_caller]
fn assert_refused(folder: &Folder, arguments: &str, (status, message): (i32, &str)) {
    let before = folder.files();
    let ran = folder.run(arguments);
    assert_eq!(ran.status, status, "{arguments}\n{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "", "{arguments}");
    let last = ran.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains(message), "{arguments}\n{last}");
    let after = folder.files();
    assert!(after == before, "{arguments} changed files: {:?}", after.keys());
}

const REPAIR: &str = "repair model.safetensors --failures failures --replay replay";

/// A patch that adds `change` to the bias of the last layer, for the base with this digest.
fn patch(base: Digest, change: f32) -> Vec<u8> {
    let (_, old) = network();
    let mut new = old.clone();
    let bias = (old.params.get("fc.bias").unwrap() + f64::from(change)).unwrap();
    new.params.insert("fc.bias", bias);
    difference(base, &old, &new, Origin::default()).unwrap().to_bytes(Storage::F32).unwrap()
}

fn good_patch() -> Vec<u8> {
    patch(network().0.file.digest(), 1.0)
}

#[test]
fn a_model_that_is_cut_or_of_another_kind_is_refused() {
    let folder = Folder::new();
    let whole = std::fs::read(folder.path("model.safetensors")).unwrap();
    folder.put("cut.safetensors", &whole[..whole.len() - 100]);
    folder.put("empty.safetensors", &[]);
    folder.put("other.safetensors", &changed(|tensors| drop(tensors.remove("conv1.weight"))));
    for command in ["inspect", "infer", "eval"] {
        let rest = if command == "inspect" { "" } else { "replay" };
        let cut = (13, "cut.safetensors is damaged or not of this format");
        assert_refused(&folder, &format!("{command} cut.safetensors {rest}"), cut);
    }
    assert_refused(&folder, "inspect empty.safetensors", (13, "it is empty"));
    assert_refused(&folder, "inspect missing.safetensors", (11, "cannot open missing.safetensors"));
    assert_refused(
        &folder,
        "inspect other.safetensors",
        (17, "other.safetensors is of no known architecture"),
    );
}

#[test]
fn a_tensor_that_is_missing_or_misshaped_is_named() {
    let folder = Folder::new();
    folder.put("missing.safetensors", &changed(|tensors| drop(tensors.remove("layer1.0.bn1.weight"))));
    let nine = Tensor::ones(9, DType::F32, &Device::Cpu).unwrap();
    folder.put(
        "misshaped.safetensors",
        &changed(|tensors| drop(tensors.insert("layer1.0.bn1.weight".into(), nine))),
    );
    let missing = "missing.safetensors has no tensor `layer1.0.bn1.weight`, expected one of shape [8]";
    assert_refused(&folder, "inspect missing.safetensors", (14, missing));
    let misshaped = "tensor `layer1.0.bn1.weight` in misshaped.safetensors has shape [9], expected [8]";
    assert_refused(&folder, "infer misshaped.safetensors any.png", (15, misshaped));
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let folder = Folder::new();
    let (model, _) = network();
    let mut bytes = std::fs::read(folder.path("model.safetensors")).unwrap();
    let raw = model.file.raw("fc.weight").unwrap();
    let at = bytes.windows(raw.len()).position(|window| window == raw).unwrap();
    bytes[at + 6..at + 8].copy_from_slice(&[0x00, 0x7E]); // the fourth number, a NaN in f16
    folder.put("nan.safetensors", &bytes);
    let message = "tensor `fc.weight` in nan.safetensors holds NaN at element 3";
    assert_refused(&folder, "inspect nan.safetensors", (16, message));
    let repair = REPAIR.replace("model.safetensors", "nan.safetensors");
    assert_refused(&folder, &format!("{repair} --out out.patch"), (16, message));
}

#[test]
fn a_patch_with_a_flipped_bit_is_refused_everywhere() {
    let folder = Folder::new();
    let good = good_patch();
    folder.put("good.patch", &good);
    assert_eq!(folder.run("verify model.safetensors good.patch").status, 0);
    for at in [3, 40, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        folder.put("flipped.patch", &bytes);
        assert_refused(&folder, "verify model.safetensors flipped.patch", (13, "flipped.patch is damaged"));
    }
    let damaged = (13, "flipped.patch is damaged or not of this format: its checksum is");
    for command in [
        "inspect model.safetensors",
        "infer model.safetensors any.png",
        "eval model.safetensors replay",
        "export model.safetensors --format safetensors --out merged",
    ] {
        assert_refused(&folder, &format!("{command} --patch flipped.patch"), damaged);
    }
}

#[test]
fn a_patch_for_another_base_is_refused() {
    let folder = Folder::new();
    folder.put("other.patch", &patch(Digest::of(b"another model"), 1.0));
    let message = "patch other.patch is for a base with digest";
    assert_refused(&folder, "verify model.safetensors other.patch", (18, message));
    assert_refused(&folder, "inspect model.safetensors --patch other.patch", (18, message));
}

#[test]
fn a_patch_whose_tensors_do_not_fit_is_refused() {
    let folder = Folder::new();
    let (model, old) = network();
    let mut patch = difference(model.file.digest(), &old, &old, Origin::default()).unwrap();
    let nine = Tensor::ones(9, DType::F32, &Device::Cpu).unwrap();
    patch.tensors = BTreeMap::from([("nowhere".into(), nine.clone())]);
    folder.put("stray.patch", &patch.to_bytes(Storage::F32).unwrap());
    let stray = (13, "its tensor `nowhere` belongs to no part of the network");
    assert_refused(&folder, "verify model.safetensors stray.patch", stray);
    patch.tensors = BTreeMap::from([("fc.bias".into(), nine)]);
    folder.put("nine.patch", &patch.to_bytes(Storage::F32).unwrap());
    let shape = (15, "tensor `fc.bias` in nine.patch has shape [9], expected [10]");
    assert_refused(&folder, "verify model.safetensors nine.patch", shape);
}

#[test]
fn images_that_do_not_fit_the_network_are_refused() {
    let folder = Folder::new();
    let images = noise(8, 100, 3);
    let eleven = Images::from_parts([1, 28, 28], images.pixels().to_vec(), vec![10; 8], "x").unwrap();
    folder.put_images("labels", &eleven);
    let small =
        Images::from_parts([1, 14, 28], images.pixels()[..8 * 392].to_vec(), vec![0; 8], "x").unwrap();
    folder.put_images("small", &small);
    GrayImage::from_pixel(28, 14, Luma([9])).save(folder.path("small.png")).unwrap();
    folder.put("broken.png", b"\x89PNG\r\n\x1a\nnothing more");

    let label = (19, "label 10 of image 0 in labels");
    assert_refused(&folder, "eval model.safetensors labels", label);
    let size = "of 1x14x28 (channels x height x width), the network takes 1x28x28";
    assert_refused(&folder, "eval model.safetensors small", (22, size));
    assert_refused(&folder, "infer model.safetensors small.png", (22, size));
    assert_refused(&folder, "infer model.safetensors broken.png", (13, "broken.png is damaged"));
    for set in ["failures", "replay"] {
        for (name, expected) in [("labels", label), ("small", (22, size))] {
            let repair = REPAIR.replace(&format!("--{set} {set}"), &format!("--{set} {name}"));
            assert_refused(&folder, &format!("{repair} --out out.patch"), expected);
            assert_refused(&folder, &repair.replace("repair ", "localize "), expected);
        }
    }
}

#[test]
fn sets_that_cannot_be_repaired_from_are_refused() {
    let folder = Folder::new();
    folder.put_images("empty", &noise(0, 0, 0));
    folder.put_images("right", &labelled(&noise(12, 150, 5), 0));
    folder.put_images("few", &labelled(&noise(3, 150, 5), 1));
    let cases = [
        ("empty", 20, "failure set empty holds no images, expected at least 1"),
        ("right", 21, "the network gets all 12 images of the failure set right; nothing to repair"),
        ("few", 10, "failures is 3, expected at least 5"),
        ("nowhere", 11, "cannot open nowhere"),
    ];
    for (set, status, message) in cases {
        let repair = REPAIR.replace("--failures failures", &format!("--failures {set}"));
        assert_refused(&folder, &format!("{repair} --out out.patch"), (status, message));
        assert_refused(&folder, &repair.replace("repair ", "localize "), (status, message));
    }
}

#[test]
fn names_that_are_not_known_are_answered_with_those_that_are() {
    let folder = Folder::new();
    let repair = format!("{REPAIR} --out out.patch");
    let cases = [
        (
            "eval model.safetensors replay --corruption rain:3".into(),
            "unknown corruption `rain`, expected one of",
        ),
        (
            format!("{repair} --method luck"),
            "unknown method `luck`, expected one of batch-norm, search, weights",
        ),
        (format!("{repair} --level layer1.0"), "unknown level `layer1.0`"),
        (format!("{repair} --level block:layer9.0"), "unknown block `layer9.0`, expected one of layer1.0"),
        (format!("{repair} --formula luck"), "unknown formula `luck`, expected one of dstar"),
        ("export model.safetensors --format onyx --out f".into(), "unknown format `onyx`"),
        ("export model.safetensors --format safetensors --store f8 --out f".into(), "unknown storage `f8`"),
        ("demo --corruption rain:1 --out folder".into(), "unknown corruption `rain`"),
    ];
    for (arguments, message) in cases {
        assert_refused(&folder, &arguments, (23, message));
    }
}

#[test]
fn settings_outside_of_their_range_are_refused() {
    let folder = Folder::new();
    let repair = format!("{REPAIR} --out out.patch");
    let cases = [
        ("eval model.safetensors replay --corruption contrast:6".into(), "severity is 6, expected 1 to 5"),
        ("inspect model.safetensors --size 0".into(), "size is 0, expected a side"),
        ("inspect model.safetensors --std -1".into(), "std is [-1.0], expected 1 finite numbers"),
        ("infer model.safetensors x.png --top 0".into(), "top is 0, expected at least 1"),
        (
            "inspect model.safetensors --precision f16".into(),
            "precision is f16, expected f32 for this task; only",
        ),
        (
            format!("{repair} --precision f16 --memory 64MiB"),
            "memory is 67108864, expected none: bytes are planned",
        ),
        (
            format!("{repair} --precision bf16"),
            "precision is bf16, expected f32 for this task; only eval and infer",
        ),
        (
            "export model.safetensors --format onnx --batch 0 --out f".into(),
            "batch is 0, expected dynamic or a number of images",
        ),
        (
            "export model.safetensors --format onnx --store f16 --out f".into(),
            "store is f16, expected --precision for this format",
        ),
        (
            "export model.safetensors --format pytorch --precision f16 --out f".into(),
            "precision is f16, expected --store for this format",
        ),
        (
            "export model.safetensors --format safetensors --normalize --out f".into(),
            "normalize is given, expected --format onnx with it",
        ),
        (
            "eval model.safetensors replay --corruption all --reference alexnet".into(),
            "reference is alexnet, expected --corruption all:imagenet with it",
        ),
        (
            "eval model.safetensors replay --corruption fog:3 --reference before".into(),
            "reference is before, expected --patch or --against with it",
        ),
        (
            "eval model.safetensors replay --reference before".into(),
            "reference is before, expected none without corruptions",
        ),
        (format!("{repair} --steps 0"), "steps is 0, expected at least 1"),
        (format!("{repair} --candidates 0"), "candidates is 0, expected at least 1"),
        (format!("{repair} --max-drop 2"), "max-drop is 2, expected 0 to 1"),
        (format!("{repair} --max-growth 0.5"), "max-growth is 0.5, expected 1 or more"),
    ];
    for (arguments, message) in cases {
        assert_refused(&folder, &arguments, (10, message));
    }
    assert_refused(&folder, "inspect model.safetensors --device cuda", (24, "no cuda in this build"));
}

/// Asked before any work: the model is not even looked for.
#[test]
fn an_output_that_exists_or_cannot_be_written_is_refused_first() {
    let folder = Folder::new();
    folder.put("taken", b"something of value");
    for command in ["export none --format safetensors --out", "repair none --failures no --replay no --out"] {
        assert_refused(&folder, &format!("{command} taken"), (12, "taken exists already"));
        assert_refused(&folder, &format!("{command} taken/out"), (11, "cannot create a file in taken"));
        assert_refused(&folder, &format!("{command} nowhere/out"), (11, "cannot create a file in nowhere"));
    }
    assert_refused(&folder, "demo --out taken", (11, "cannot make the folder taken"));
    std::fs::create_dir(folder.path("full")).unwrap();
    folder.put("full/repair.patch", b"of an earlier demo");
    assert_refused(&folder, "demo --out full", (12, "repair.patch exists already"));
}

#[test]
fn a_command_line_that_cannot_be_understood_ends_with_status_2() {
    let folder = Folder::new();
    for arguments in ["fix", "inspect", "infer model.safetensors", "verify model.safetensors", REPAIR] {
        let ran = folder.run(arguments);
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{arguments}");
        assert!(ran.stderr.contains("Usage: archrepair"), "{}", ran.stderr);
    }
}
