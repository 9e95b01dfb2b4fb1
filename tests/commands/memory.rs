//! A limit of memory: refused before anything begins, or kept to.

use crate::support::{Folder, REPAIR};

const HOW: &str = "--level block:layer1.0 --search-steps 2 --steps 4 --threads 2 --out p";

/// The least limit that the refusal of a repair within `limit` bytes names. Limits have as many
/// digits as each other, so that the command line takes the same bytes.
#[track_caller]
fn least(folder: &Folder, limit: usize) -> usize {
    let before = folder.files();
    let ran = folder.run(&format!("{REPAIR} {HOW} --memory {limit:09}"));
    assert_eq!(ran.status, 30, "{}", ran.stderr);
    assert_eq!(folder.files(), before, "a refusal leaves nothing behind");
    let named = ran.stderr.split_once("the least that would do is ").unwrap().1;
    named.split_once(',').unwrap().0.parse().unwrap()
}

#[test]
fn the_least_limit_is_named_refused_by_a_byte_less_and_kept_to() {
    let folder = Folder::new();
    let least_named = least(&folder, 1024);
    assert_eq!(least(&folder, least_named - 1), least_named);
    let ran = folder.run(&format!("{REPAIR} {HOW} --json --memory {least_named:09}"));
    // Four steps repair nothing: that the gate refuses them is the other good end.
    assert!([0, 3].contains(&ran.status), "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let peak = report["peak_bytes"].as_u64().unwrap() as usize;
    assert!(peak <= least_named, "{peak} bytes were allocated, {least_named} allowed");
}

#[test]
fn every_block_has_its_least_limit_and_fits_with_it() {
    let folder = Folder::new();
    let blocks = |limit: &str| folder.json(&format!("inspect model.safetensors --batch 8 --memory {limit}"));
    let free = blocks("");
    assert_eq!(free["blocks"].as_array().unwrap().len(), 8);
    for (i, block) in free["blocks"].as_array().unwrap().iter().enumerate() {
        let (least, peak) = (block["least"].as_u64().unwrap(), block["plan"]["peak"].as_u64().unwrap());
        assert!(least < peak, "{block}");
        // What is in use differs by what the command line takes.
        let tight = blocks(&(least + 4096).to_string());
        let plan = &tight["blocks"][i]["plan"];
        assert!(plan["peak"].as_u64().unwrap() <= least + 4096, "{plan}");
        let refused = blocks(&(least - (32 << 10)).to_string());
        assert!(refused["blocks"][i]["plan"].is_null());
    }
}

#[test]
fn a_batch_that_is_none_is_refused() {
    let ran = Folder::new().run("inspect model.safetensors --batch 0 --memory 12MiB");
    assert_eq!(ran.status, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("batch"), "{}", ran.stderr);
}
