//! Every family of the zoo: from tensor names of others to PyTorch's logits, and repaired block by block.

use std::collections::BTreeMap;

use archrepair::data::Images;
use archrepair::engine::infer::infer;
use archrepair::eval::Deployed;
use archrepair::fit::samples::Store;
use archrepair::fit::{self, Level, Samples, Sets, Site};
use archrepair::memory::cache::Precision;
use archrepair::rng::Rng;
use archrepair::search::bilevel::Data;
use archrepair::search::candidate::CleanStatistics;
use archrepair::search::{self, space};
use archrepair::storage::{Storage, WeightFile, serialize};
use archrepair::zoo::{InputFrom, Model, Overrides};
use candle_core::{Device, Tensor};

use crate::support::{CLOSE, Golden, Tolerance, assert_close, data, open_network};

/// Up to two hundred layers of `f32` sums in another order than PyTorch's.
const LOGITS: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };

/// Files, the architecture they are of, their blocks, and the size of their images.
const NETWORKS: [(&str, &str, usize, [usize; 2]); 15] = [
    ("densenet", "densenet[2,1,2,1]", 9, [64, 64]),
    ("densenet_cifar", "densenet[2,1,2]", 7, [16, 24]),
    ("efficientnet_b0", "efficientnet_b0", 16, [64, 64]),
    ("efficientnet_b0_timm", "efficientnet_b0", 16, [63, 64]),
    ("efficientnet_lite0", "efficientnet_lite0", 16, [63, 64]),
    ("efficientnet_lite0_tf", "efficientnet_lite0", 16, [63, 64]),
    ("mobilenet_v2", "mobilenet_v2", 17, [64, 64]),
    ("mobilenet_v2_timm", "mobilenet_v2", 17, [63, 64]),
    ("mobilenet_v3_large", "mobilenet_v3_large", 15, [63, 64]),
    ("mobilenet_v3_small", "mobilenet_v3_small", 11, [64, 64]),
    ("mobilenet_v3_small_timm", "mobilenet_v3_small", 11, [64, 64]),
    ("resnext", "resnext[1,2,1,1]_4x32d", 5, [64, 64]),
    ("vgg", "vgg11_bn", 5, [64, 64]),
    ("vgg_timm", "vgg11_bn", 5, [64, 64]),
    ("wide_resnet", "wide_resnet[1,1,1,1]_2", 4, [64, 64]),
];

fn open(name: &str, size: [usize; 2]) -> Deployed {
    open_network(&format!("zoo/{name}"), size)
}

fn images(golden: &Golden, [h, w]: [usize; 2]) -> Tensor {
    golden.tensor("x").narrow(2, 0, h).unwrap().narrow(3, 0, w).unwrap().contiguous().unwrap()
}

#[test]
fn every_family_gives_pytorchs_logits() {
    let golden = Golden::open("zoo/zoo.safetensors");
    for (name, architecture, blocks, size) in NETWORKS {
        let deployed = open(name, size);
        assert_eq!(deployed.network.architecture, architecture, "{name}");
        assert_eq!(deployed.network.blocks().count(), blocks, "{name}");
        let want = golden.tensor(&format!("{name}/logits"));
        let x = images(&golden, size);
        assert_close(name, &deployed.runner().unwrap().run(&x).unwrap(), &want, LOGITS);
        let whole = deployed.network.joined(0..deployed.network.parts.len());
        assert_close(name, &infer(&whole, &deployed.params, &x).unwrap(), &want, LOGITS);
    }
    assert_eq!(golden.unseen(), [""; 0]);
}

/// Noise of 3 channels with labels below 5.
fn noise(n: usize, [h, w]: [usize; 2], seed: u64) -> Images {
    let mut rng = Rng::new(seed);
    let pixels = (0..n * 3 * h * w).map(|_| rng.below(256) as u8).collect();
    let labels = (0..n).map(|_| rng.below(5) as u32).collect();
    Images::from_parts([3, h, w], pixels, labels, "noise").unwrap()
}

/// The block in the middle, relaxed, searched for two steps and cut down to a choice, still stands in its
/// network and gives finite logits.
#[test]
fn blocks_of_every_family_can_be_searched() {
    let folder = std::env::temp_dir();
    let store = Store { folder: &folder, precision: Precision::F32 };
    for (name, _, blocks, size) in NETWORKS {
        let deployed = open(name, size);
        let block = deployed.network.blocks().nth(blocks / 2).unwrap().name.clone();
        let site = Site::new(&deployed, Level::Block(block.clone())).unwrap();
        let samples = Samples::new(&site, &noise(4, size, 1), &deployed.normalize().unwrap(), store).unwrap();
        let clean = CleanStatistics::measure(&samples).unwrap();
        let x = samples.batch(&[0, 1, 2, 3]).unwrap();
        let relaxed = space::relax(&site, &clean, &mut Rng::new(1)).unwrap();
        let want = infer(&site.graph, &site.params, &x).unwrap();
        assert_close(name, &infer(&relaxed.graph, &relaxed.params, &x).unwrap(), &want, CLOSE);

        let sets = Sets { failures: &samples, surrogates: None, replay: &samples };
        let data = Data { training: sets, validation: sets, clean: &clean, folder: &folder };
        let config = search::Config { steps: 2, choice_every: 1, ..search::Config::default() };
        let weights = fit::Config { batch: 4, distill: 0.0, ..fit::Config::default() };
        let mut losses = Vec::new();
        let (part, choices) =
            search::search(&site, data, (&config, &weights), &mut Rng::new(1), &mut |_, loss| {
                losses.push(loss)
            })
            .unwrap();
        assert_eq!(choices.len(), relaxed.positions.len(), "{name}");
        assert!(losses.len() == 2 && losses.iter().all(|loss| loss.is_finite()), "{name}: {losses:?}");
        deployed.network.replace_part(&block, part.graph.clone()).unwrap().check().unwrap();
        let lowered = site.lowered(&part.graph, &part.params).unwrap();
        let logits = site.logits(&lowered, &x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{name}");
    }
}

#[test]
fn a_file_beside_the_model_says_what_its_tensors_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("net.safetensors");
    std::fs::copy(data("zoo/efficientnet_lite0_tf.safetensors"), &model).unwrap();
    let open = |overrides: &Overrides| Model::open(&model, overrides);
    let plain = open(&Overrides::default()).unwrap();
    assert_eq!((plain.input_from, &plain.network.input.shape[..]), (InputFrom::Preset, &[3, 224, 224][..]));
    let side = r#"{"architecture": "tf_efficientnet_lite0", "class_names": ["a", "b", "c", "d", "e"],
                   "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": [32, 40]}"#;
    std::fs::write(folder.path().join("net.archrepair.json"), side).unwrap();
    let said = open(&Overrides::default()).unwrap();
    let input = &said.network.input;
    assert_eq!(
        (said.input_from, &input.shape[..], &input.std[..]),
        (InputFrom::SideFile, &[3, 32, 40][..], &[0.25; 3][..])
    );
    assert_eq!(said.network.class_name(4), "e");
    assert_ne!(said.network.parts[0].graph, plain.network.parts[0].graph);
    let flags = Overrides { class_names: Some(vec!["a".into()]), ..Overrides::default() };
    let want = "the number of class names is 1, expected 5, as the network has classes";
    assert_eq!(open(&flags).unwrap_err().to_string(), want);
}

/// A tensor that the network has no use for is a sign of another network.
#[test]
fn a_tensor_that_has_no_place_is_named() {
    let file = WeightFile::open(&data("zoo/vgg.safetensors")).unwrap();
    let tensor = |name: &str| file.tensor(name, file.shape(name).unwrap(), &Device::Cpu).unwrap();
    let names = file.names().filter(|name| !name.ends_with("num_batches_tracked"));
    let mut tensors: BTreeMap<_, _> = names.map(|name| (name.to_owned(), tensor(name))).collect();
    tensors.insert("extra.weight".into(), tensor("features.0.bias"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    std::fs::write(&path, serialize(&tensors, Storage::F16, &BTreeMap::new()).unwrap()).unwrap();
    for (side, want) in [
        (64, "it looks like vgg11_bn, which has no tensor `extra.weight`"),
        (
            96,
            "the classifier takes 2 x 2 pixels and the features have 3 x 3: sides of images must be equal, \
              and a multiple of 64",
        ),
    ] {
        let overrides = Overrides { size: Some([side, side]), ..Overrides::default() };
        let error = Model::open(&path, &overrides).unwrap_err();
        assert_eq!(error.code(), 17);
        assert!(error.to_string().ends_with(want), "{error}");
    }
}
