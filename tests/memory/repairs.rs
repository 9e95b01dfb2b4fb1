//! Whole repairs, held against what their plans said before they ran.

use std::path::Path;

use archrepair::data::Images;
use archrepair::fit::Level;
use archrepair::memory::meter;
use archrepair::repair::patching::deploy_mapped;
use archrepair::repair::{Config, Counts, Inputs, Method, Target, plan, repair_as_planned};
use archrepair::rng::Rng;
use archrepair::zoo::{Model, Overrides};

fn open(path: &str) -> Model {
    Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &Overrides::default()).unwrap()
}

/// Noise of which the network says `right` or something else.
fn labelled(model: &Model, n: usize, right: bool) -> Images {
    let shape = [0, 1, 2].map(|i| model.network.input.shape[i]);
    let rng = &mut Rng::new(u64::from(right));
    let top = if right { 100 } else { 256 };
    let pixels: Vec<u8> = (0..n * shape.iter().product::<usize>()).map(|_| rng.below(top) as u8).collect();
    let noise = Images::from_parts(shape, pixels.clone(), vec![0; n], "noise").unwrap();
    let classes = deploy_mapped(model, None).unwrap().runner().unwrap().classes(&noise).unwrap();
    let label = |class: usize| ((class + usize::from(!right)) % model.network.classes) as u32;
    Images::from_parts(shape, pixels, classes.into_iter().map(label).collect(), "noise").unwrap()
}

pub(crate) fn explore() {
    let temporary = std::env::temp_dir();
    for path in ["tests/data/resnet18_cifar.safetensors", "models/fashion-resnet18/model.safetensors"] {
        let model = open(path);
        let [failures, replay] = [labelled(&model, 30, false), labelled(&model, 60, true)];
        let inputs = Inputs { failures: &failures, replay: &replay, guard: None, folder: &temporary };
        for block in ["layer1.1", "layer2.0", "layer1.0", "layer3.0", "layer4.1", "layer4.0"] {
            for method in [Method::Search, Method::Weights] {
                let mut config =
                    Config { target: Target::Fixed(Level::Block(block.into())), method, ..Config::default() };
                config.search.steps = 3;
                config.fit.steps = 5;
                config.fit.batch = 32;
                let free = plan(&model, &config, Counts::of(&inputs)).unwrap();
                for i in 0..7 {
                    config.memory = match i {
                        0 => None,
                        1 => Some(free.least),
                        i => Some(free.least + (free.peak - free.least) * (i - 1) / 6),
                    };
                    let planned = plan(&model, &config, Counts::of(&inputs)).unwrap();
                    let mut spent: Vec<(&str, usize)> = Vec::new();
                    let mut now = "";
                    meter::reset_peak();
                    let mut tell = |stage: archrepair::repair::pipeline::Stage, _: &str, _: usize| {
                        let mut name = stage.phase();
                        if name == "weights" && spent.iter().any(|s| s.0 == "search")
                            || now == "search" && name == "weights"
                        {
                            name = "search";
                        }
                        if name != now {
                            let bytes = meter::mark();
                            if !now.is_empty() {
                                spent.push((now, bytes));
                            }
                            now = name;
                        }
                    };
                    let outcome = repair_as_planned(&model, inputs, (&config, &planned), &mut tell);
                    spent.push((now, meter::mark()));
                    let ok = outcome.is_ok();
                    if let Err(e) = &outcome {
                        println!("{e}");
                    }
                    drop(outcome);
                    println!(
                        "{path} {block} {method} limit {:?} ok {ok} said {} got {} ratio {:.3} levers {:?} before {}",
                        config.memory,
                        planned.peak,
                        meter::peak(),
                        planned.peak as f64 / meter::peak() as f64,
                        planned.levers,
                        planned.before
                    );
                    for (name, bytes) in &spent {
                        let said = planned.phases.iter().find(|p| p.name == *name);
                        let Some(said) = said else { continue };
                        println!(
                            "    {name:<10} said {:>9} got {bytes:>9} over {:>8} {:.3}  {:?}",
                            said.bytes,
                            said.bytes as i64 - *bytes as i64,
                            said.bytes as f64 / *bytes as f64,
                            said.of
                        );
                    }
                }
            }
        }
    }
}

pub(crate) fn sizes() {
    for path in [
        "tests/data/resnet18_cifar.safetensors",
        "models/fashion-resnet18/model.safetensors",
        "tests/data/resnet50_small.safetensors",
    ] {
        let before = meter::current();
        let model = open(path);
        let a = meter::current();
        let net = model.network.clone();
        let b = meter::current();
        let params = model.mapped_params().unwrap();
        let c = meter::current();
        let params2 = params.clone();
        let d = meter::current();
        let whole = net.joined(0..net.parts.len());
        let e = meter::current();
        let lowered = archrepair::graph::lower::lower(&whole, &params).unwrap();
        let f = meter::current();
        let res = params.resident().unwrap();
        let g = meter::current();
        let deployed = archrepair::eval::Deployed::new(net.clone(), params.clone());
        let g1 = meter::current();
        let site = archrepair::fit::Site::new(&deployed, Level::Block("layer1.0".into())).unwrap();
        let h = meter::current();
        println!(
            "{path}: model {} network {} mapped params {} clone {} joined {} lowered {} resident {} (numbers {}) site {}",
            a - before,
            b - a,
            c - b,
            d - c,
            e - d,
            f - e,
            g - f,
            res.bytes(),
            h - g1
        );
        drop((params2, lowered, site));
    }
}
