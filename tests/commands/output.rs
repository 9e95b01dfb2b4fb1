//! What the subcommands print, as text and as JSON, and that they agree with the library and
//! with each other.

use std::fs;

use archrepair::data;
use archrepair::engine::packing::has_bf16;
use archrepair::eval::accuracy;
use archrepair::storage::{Digest, Patch};
use archrepair::zoo::{Model, Overrides};
use image::{GrayImage, ImageBuffer};
use serde_json::Value;

use crate::support::{Folder, REPAIR, labelled, network, noise};

const QUICK: &str = "--method weights --level last-layer --steps 40 --rate 0.05";

#[test]
fn inspect_lists_every_part_with_its_size() {
    let folder = Folder::new();
    let value = folder.json("inspect model.safetensors");
    let bytes = fs::read(folder.path("model.safetensors")).unwrap();
    assert_eq!(value["digest"], Digest::of(&bytes).to_string());
    assert_eq!(value["file_bytes"], bytes.len());
    assert_eq!((&value["architecture"], &value["input_from"]), (&"resnet18".into(), &"preset".into()));
    let parts = value["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 10);
    // 8 filters of 3x3 on one channel, and 4 vectors of the batch norm.
    assert_eq!((&parts[0]["name"], &parts[0]["params"]), (&"stem".into(), &(72 + 4 * 8).into()));
    assert_eq!(parts[0]["macs"], 72 * 28 * 28);
    assert_eq!(parts[0]["bytes"], 2 * (72 + 4 * 8));
    assert_eq!(parts[3]["output"], serde_json::json!([16, 14, 14]));

    let text = folder.run("inspect model.safetensors").stdout;
    for part in parts {
        assert!(text.contains(part["name"].as_str().unwrap()), "{text}");
    }
    assert!(text.contains(&Digest::of(&bytes).to_string()) && text.contains("live values"));
}

#[test]
fn flags_say_what_a_file_does_not() {
    let folder = Folder::new();
    let value = folder.json("inspect model.safetensors --mean 0.5 --std 0.25 --size 32x40");
    assert_eq!(value["input"], serde_json::json!({ "shape": [1, 32, 40], "mean": [0.5], "std": [0.25] }));
}

#[test]
fn infer_names_the_class_that_the_library_finds() {
    let folder = Folder::new();
    let images = noise(2, 60, 9);
    for i in 0..2 {
        let picture: GrayImage = ImageBuffer::from_raw(28, 28, images.image(i).to_vec()).unwrap();
        picture.save(folder.path(&format!("{i}.png"))).unwrap();
        picture.save(folder.path(&format!("{i}.bmp"))).unwrap();
    }
    let want = network().1.runner().unwrap().classes(&images).unwrap();
    let value = folder.json("infer model.safetensors 0.png 1.png 0.bmp --top 2");
    let classes: Vec<&Value> =
        value["images"].as_array().unwrap().iter().map(|image| &image["classes"][0]["class"]).collect();
    assert_eq!(classes, [want[0], want[1], want[0]]);
    assert_eq!(value["images"][0]["classes"].as_array().unwrap().len(), 2);
    assert!(value["images"][0]["classes"][0]["probability"].as_f64().unwrap() > 0.1);

    let text = folder.run("infer model.safetensors 0.png").stdout;
    assert!(text.starts_with(&format!("0.png: {} ", want[0])) && text.matches(" %").count() == 3, "{text}");
}

#[test]
fn corrupt_writes_what_the_library_makes_and_refuses_what_is_there() {
    let folder = Folder::new();
    for format in ["npy", "folder", "idx"] {
        let task = format!("corrupt replay --corruption fog:3,contrast:3 --format {format} --out {format}");
        let value = folder.json(&task);
        assert_eq!((&value["images"], &value["corruptions"][1]["name"]), (&60.into(), &"contrast:3".into()));
        assert_eq!(folder.run(&task).status, 12);
    }
    let [clean, fog] = ["replay", "idx/fog/3"].map(|name| data::open(&folder.path(name), "guard").unwrap());
    let want = "fog:3".parse::<data::corrupt::Corruption>().unwrap().apply(&clean, 0);
    assert_eq!((fog.pixels(), fog.labels()), (want.pixels(), want.labels()));
    assert_eq!(fs::read(folder.path("npy/fog.npy")).unwrap()[128..], want.pixels()[..]);
    assert_eq!(data::open(&folder.path("folder/contrast/3"), "guard").unwrap().len(), 60);
}

/// Of 19 columns with 2 pixels around each, and 6 rows.
#[test]
fn corrupt_draws_one_image_under_all() {
    let folder = Folder::new();
    let value = folder.json("corrupt replay --corruption all --contact-sheet sheet.png");
    assert_eq!(value["contact_sheet"], "sheet.png");
    let sheet = image::open(folder.path("sheet.png")).unwrap().into_luma8();
    assert_eq!(sheet.dimensions(), (19 * 30 + 2, 6 * 30 + 2));
    let clean = data::open(&folder.path("replay"), "guard").unwrap().subset(&[0]);
    let cell = |left: u32, top: u32| -> Vec<u8> {
        (0..784).map(|at| sheet.get_pixel(left + at % 28, top + at / 28).0[0]).collect()
    };
    assert_eq!((cell(2, 2), cell(542, 2)), (clean.image(0).to_vec(), clean.image(0).to_vec()));
    // The tenth kind is fog; severity 5 is the last row.
    let fog = "fog:5".parse::<data::corrupt::Corruption>().unwrap().apply(&clean, 0);
    assert_eq!(cell(272, 152), fog.image(0));
    let uneven = folder.run("corrupt replay --corruption fog:1,fog:2,snow:1 --contact-sheet other.png");
    assert!(
        uneven.status == 10 && uneven.stderr.contains("as many severities of each kind"),
        "{}",
        uneven.stderr
    );
}

#[test]
fn larger_pictures_are_reduced_and_smaller_ones_enlarged_when_asked() {
    let folder = Folder::new();
    for (name, size) in [("large/0", (40, 33)), ("small/0", (20, 28))] {
        fs::create_dir_all(folder.path(name)).unwrap();
        GrayImage::from_pixel(size.0, size.1, image::Luma([90]))
            .save(folder.path(&format!("{name}/p.png")))
            .unwrap();
    }
    assert_eq!(folder.json("eval model.safetensors large")["conditions"][0]["images"], 1);
    let classes = |task: &str| folder.json(task)["images"][0]["classes"].clone();
    let flat = classes("infer model.safetensors large/0/p.png --filter bicubic");
    assert_eq!(flat, classes("infer model.safetensors small/0/p.png --resize 28"));
    let refused = folder.run("eval model.safetensors small");
    assert!(
        refused.status == 22 && refused.stderr.contains("--resize enlarges smaller ones"),
        "{}",
        refused.stderr
    );
    assert_eq!(folder.run("infer model.safetensors small/0/p.png --resize 20").status, 10);
    let value = folder.json("corrupt large --corruption fog:3 --size 28 --format npy --out c");
    assert_eq!(value["images"], 1);
    assert_eq!(data::open(&folder.path("c/fog.npy"), "guard").unwrap().shape(), [1, 28, 28]);
}

#[test]
fn eval_measures_clean_and_corrupted_images() {
    let folder = Folder::new();
    let value = folder.json("eval model.safetensors replay --corruption all,contrast:2:imagenet");
    let conditions = value["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 1 + 19 * 5 + 1);
    assert_eq!((&conditions[0]["name"], &conditions[0]["accuracy"]), (&"clean".into(), &1.0.into()));
    assert_eq!(
        (&conditions[0]["images"], &conditions[96]["name"]),
        (&60.into(), &"contrast:2:imagenet".into())
    );
    let of_classes: u64 = conditions[3]["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["images"].as_u64().unwrap())
        .sum();
    assert_eq!(of_classes, 60);

    let text = folder.run("eval model.safetensors failures --corruption contrast:2").stdout;
    let clean: Vec<&str> =
        text.lines().find(|line| line.starts_with("clean")).unwrap().split_whitespace().collect();
    assert_eq!(clean[..5], ["clean", "30", "0", "0.00", "%"]);
    assert!(text.contains("\ncontrast:2 ") && text.contains("\nclass "), "{text}");
}

/// On random weights and noise most classes stay; a processor that cannot says so.
#[test]
fn eval_computes_in_bf16_where_the_processor_does() {
    let folder = Folder::new();
    let ran = folder.run("eval model.safetensors replay --precision bf16");
    if !has_bf16() {
        assert_eq!(ran.status, 10);
        assert!(ran.stderr.contains("this processor has no instructions for bf16"), "{}", ran.stderr);
        return;
    }
    let accuracy = |ran: &str| folder.json(ran)["conditions"][0]["accuracy"].as_f64().unwrap();
    let [whole, halves] = ["f32", "bf16"]
        .map(|precision| accuracy(&format!("eval model.safetensors replay --precision {precision}")));
    assert!((whole - halves).abs() < 0.1, "{whole} in f32, {halves} in bf16");
}

/// Folders are named by classes and need not be all there.
#[test]
fn a_folder_of_images_takes_its_labels_from_its_names() {
    let folder = Folder::new();
    let images = labelled(&noise(1, 60, 9), 0);
    let class = images.label(0);
    fs::create_dir_all(folder.path(&format!("photos/{class}"))).unwrap();
    let picture: GrayImage = ImageBuffer::from_raw(28, 28, images.image(0).to_vec()).unwrap();
    picture.save(folder.path(&format!("photos/{class}/a.png"))).unwrap();
    assert_eq!(folder.json("eval model.safetensors photos")["conditions"][0]["accuracy"], 1.0);
    fs::rename(folder.path(&format!("photos/{class}")), folder.path("photos/boot")).unwrap();
    let ran = folder.run("eval model.safetensors photos");
    assert_eq!(ran.status, 23);
    assert!(ran.stderr.contains("unknown class `boot` of `photos`"), "{}", ran.stderr);
}

#[test]
fn localize_ranks_every_block() {
    let folder = Folder::new();
    let localize = "localize model.safetensors --failures failures --replay replay --candidates 2";
    let value = folder.json(&format!("{localize} --race-steps 3 --formula tarantula"));
    let blocks = value["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 8);
    assert_eq!(blocks.iter().filter(|block| !block["trial"].is_null()).count(), 2);
    assert!(value["abstains"].is_boolean());

    let ran = folder.run(&format!("{localize} --race-steps 0"));
    assert!(ran.stdout.starts_with("block ") && ran.stdout.contains("confidence"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "looking for the block to repair\n");
}

/// One repair through all that can be done with its patch.
#[test]
fn a_repair_becomes_a_patch_that_every_other_subcommand_takes() {
    let folder = Folder::new();
    let base = fs::read(folder.path("model.safetensors")).unwrap();
    let report = folder.json(&format!("{REPAIR} {QUICK} --out out.patch"));
    assert_eq!(report["verdict"]["accepted"], true);
    assert_eq!(report["base"], Digest::of(&base).to_string());
    let patch = Patch::open(&folder.path("out.patch")).unwrap();
    assert_eq!(
        fs::metadata(folder.path("out.patch")).unwrap().len(),
        report["patch_bytes"].as_u64().unwrap()
    );
    assert!(report["peak_bytes"].as_u64().unwrap() > base.len() as u64);

    let verified = folder.json("verify model.safetensors out.patch");
    assert_eq!(verified["provenance"], patch.header.provenance);
    assert_eq!(verified["parts"][0]["part"], patch.header.blocks.keys().next().unwrap().as_str());
    assert!(
        folder.run("verify model.safetensors out.patch").stdout.contains("out.patch is whole and fits model")
    );

    let inspected = folder.json("inspect model.safetensors --patch out.patch");
    let patched: Vec<&Value> =
        inspected["parts"].as_array().unwrap().iter().filter(|p| p["patched"] == true).collect();
    assert_eq!(patched.len(), verified["parts"].as_array().unwrap().len());

    let compared = folder.json("eval model.safetensors failures --patch out.patch");
    let fixed = &compared["conditions"][0]["fixed"];
    assert_eq!(fixed, &report["verdict"]["failures"]["fixed"]);
    assert!(fixed.as_u64().unwrap() > 0);

    folder.json("export model.safetensors --patch out.patch --format safetensors --store f32 --out merged");
    let merged = Model::open(&folder.path("merged"), &Overrides::default()).unwrap();
    assert!(merged.file.names().eq(network().1.params.iter().map(|(name, _)| name.as_str())));
    let merged = folder.json("eval merged failures");
    assert_eq!(merged["conditions"][0]["right"], compared["conditions"][0]["right"]);
    assert_eq!(fs::read(folder.path("model.safetensors")).unwrap(), base);
}

#[test]
fn a_refused_repair_ends_with_status_3_and_writes_nothing() {
    let folder = Folder::new();
    let before = folder.files();
    let ran = folder.run(&format!(
        "{} --out out.patch --steps 1 {}",
        REPAIR.replace("--max-p 1", "--max-p 0"),
        "--method weights --level last-layer"
    ));
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    let (_, reasons) = ran.stdout.split_once("Refused, nothing was written:\n").unwrap();
    assert!(reasons.contains("the improvement may be chance"), "{reasons}");
    assert!(folder.files() == before);
}

#[test]
fn an_exported_model_keeps_the_numbers_and_the_type_of_its_base() {
    let folder = Folder::new();
    let value = folder.json("export model.safetensors --format safetensors --out copy.safetensors");
    assert_eq!(value["store"], "f16");
    let copy = Model::open(&folder.path("copy.safetensors"), &Overrides::default()).unwrap();
    let (base, _) = network();
    for name in copy.file.names() {
        assert_eq!(copy.file.raw(name), base.file.raw(name), "{name}");
    }
    let replay = data::open(&folder.path("replay"), "replay").unwrap();
    let classes = network().1.runner().unwrap().classes(&replay).unwrap();
    assert_eq!(accuracy(&classes, &replay.targets()), 1.0);
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    let folder = Folder::new();
    let tasks = ["demo", "inspect", "infer", "eval", "localize", "repair", "verify", "export", "train"];
    for command in tasks.into_iter().chain(["bench footprint", "bench speed"]) {
        let ran = folder.run(&format!("{command} --help"));
        assert_eq!(ran.status, 0);
        let (_, examples) = ran.stdout.split_once("Example").unwrap();
        assert!(examples.contains(&format!("  archrepair {command}")), "{examples}");
    }
    assert_eq!(folder.run("--version").stdout, concat!("archrepair ", env!("CARGO_PKG_VERSION"), "\n"));
}
