//! Networks for other programs, and evaluations beside another network.

use std::fs;

use archrepair::export::merged::MODULE;
use archrepair::export::proto::{FLOAT16, ModelProto};
use archrepair::storage::Digest;
use archrepair::zoo::{Model, Overrides};
use image::{GrayImage, ImageBuffer};
use prost::Message;
use serde_json::{Value, json};

use crate::support::{Folder, network, noise};

#[test]
fn an_onnx_file_is_a_graph_that_tells_where_it_is_from() {
    let folder = Folder::new();
    let task = "export model.safetensors --format onnx --precision f16 --batch 2 --out f.onnx";
    let value = folder.json(task);
    let bytes = fs::read(folder.path("f.onnx")).unwrap();
    assert_eq!((&value["digest"], &value["store"]), (&json!(Digest::of(&bytes).to_string()), &json!("f16")));
    assert_eq!(value["new_tensors"], json!([]));
    let model = ModelProto::decode(&*bytes).unwrap();
    let base = Digest::of(&fs::read(folder.path("model.safetensors")).unwrap()).to_string();
    assert!(model.metadata_props.iter().any(|entry| entry.key == "base" && entry.value == base));
    let graph = model.graph.unwrap();
    assert!(graph.initializer.iter().all(|tensor| tensor.data_type == FLOAT16));
    assert_eq!(graph.name, "resnet18");
    assert_eq!(folder.run(task).status, 12, "nothing is overwritten");
}

#[test]
fn a_folder_for_pytorch_has_weights_and_a_module() {
    let folder = Folder::new();
    folder.json("export model.safetensors --format pytorch --store f32 --out torch");
    let model = Model::open(&folder.path("torch/model.safetensors"), &Overrides::default()).unwrap();
    assert_eq!(model.network, network().0.network);
    assert_eq!(fs::read_to_string(folder.path("torch/model.py")).unwrap(), MODULE);
}

#[test]
fn infer_gives_all_logits_when_asked() {
    let folder = Folder::new();
    let images = noise(1, 60, 9);
    let picture: GrayImage = ImageBuffer::from_raw(28, 28, images.image(0).to_vec()).unwrap();
    picture.save(folder.path("a.png")).unwrap();
    let logits = |value: Value| -> Vec<f32> { serde_json::from_value(value).unwrap() };
    let value = folder.json("infer model.safetensors a.png --top 1 --logits");
    let want = network().1.runner().unwrap().logits(&images).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(logits(value["images"][0]["logits"].clone()), want[0]);
    assert_eq!(folder.json("infer model.safetensors a.png")["images"][0]["logits"], Value::Null);
}

#[test]
fn a_model_against_itself_fixes_and_breaks_nothing() {
    let folder = Folder::new();
    let value = folder.json(
        "eval model.safetensors failures --against model.safetensors --corruption contrast:5,fog:1 --csv f.csv",
    );
    let clean = &value["conditions"][0];
    assert_eq!((&clean["fixed"], &clean["broken"], &clean["p_value"]), (&json!(0), &json!(0), &json!(1.0)));
    assert_eq!(clean["calibration_error"], clean["calibration_error_before"]);
    let errors = &value["corruption_error"];
    assert_eq!((&errors["reference"], &errors["mce"]), (&json!("the network before"), &json!(1.0)));
    assert_eq!(errors["mean"], errors["mean_before"]);
    let csv = fs::read_to_string(folder.path("f.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 3 * (1 + 10));
    assert!(csv.contains("\ncontrast:5,contrast,5,,30,"), "{csv}");
}

/// The same network as its own reference by path has an mCE of 1.
#[test]
fn errors_are_divided_by_those_of_a_model() {
    let folder = Folder::new();
    let value =
        folder.json("eval model.safetensors failures --corruption contrast:5 --reference model.safetensors");
    assert_eq!(value["corruption_error"]["mce"], 1.0);
    assert_eq!(value["conditions"][0]["reference_error"], 1.0);
    let alexnet =
        folder.json("eval model.safetensors failures --corruption all:imagenet --reference alexnet");
    let errors = &alexnet["corruption_error"];
    assert_eq!((&errors["reference"], &errors["is_15_at_5_severities"]), (&json!("alexnet"), &json!(true)));
    assert!(errors["mce"].as_f64().is_some_and(|mce| mce > 1.0), "{errors}");
}

#[test]
fn corrupted_images_that_are_there_give_what_those_made_now_give() {
    let folder = Folder::new();
    let names = "contrast:5,fog:1,fog:2:imagenet";
    folder.json(&format!("corrupt failures --corruption {names} --format idx --out damaged"));
    let mut made = folder.json(&format!("eval model.safetensors failures --corruption {names}"));
    let mut read = folder.json("eval model.safetensors failures --corrupted damaged");
    let sorted = |value: &mut Value| {
        let mut all = value["conditions"].take().as_array().unwrap().clone();
        all.sort_by_key(|condition| condition["name"].to_string());
        all
    };
    assert_eq!(sorted(&mut made), sorted(&mut read));
    assert_eq!(made["corruption_error"], read["corruption_error"]);
    let ran = folder.run("eval model.safetensors failures --corrupted replay");
    assert_eq!(ran.status, 20);
    assert!(ran.stderr.contains("corrupted set replay holds no images"), "{}", ran.stderr);
}
