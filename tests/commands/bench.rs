//! Tables of memory and time: every run has its rows, however it ended, and every size of batch.

use std::path::Path;
use std::process::Command;

use archrepair::engine::packing::has_bf16;
use archrepair::repair::patching::{Origin, difference};
use archrepair::storage::Storage;
use serde_json::Value;

use crate::support::{Folder, network};

/// The network that is shipped, and a block of it.
fn footprint(rest: &str) -> String {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-resnet18/model.safetensors");
    format!("bench footprint {} --level block:layer4.1 --steps 1 --threads 2 {rest}", model.display())
}

const SPEED: &str = "bench speed model.safetensors --seconds 0 --threads 2";

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn every_phase_takes_no_more_than_planned_and_a_limit_that_is_refused_stands_in_the_table() {
    let folder = Folder::new();
    let before = folder.files();
    let table = folder.json(&footprint("--memory none,12MiB,1MiB"));
    assert_eq!(folder.files(), before, "nothing is left behind");
    let rows = table["rows"].as_array().unwrap();
    let phases: Vec<&str> = rows.iter().map(|row| row["phase"].as_str().unwrap()).collect();
    let repair = ["prepare", "features", "weights", "search", "judge", "all"];
    assert_eq!(phases[..5], ["start", "opened", "inference", "widened", "inference, widened"]);
    assert_eq!(
        (&phases[5..11], &phases[11..17], &phases[17..]),
        (&repair[..], &repair[..], &["refused"][..])
    );
    for row in rows[5..17].iter().chain([&rows[2], &rows[4]]) {
        assert!(bytes(&row["planned_bytes"]) >= bytes(&row["peak_bytes"]), "{row}");
        assert!(row["seconds"].as_f64().unwrap() > 0.0 && row["kept"] == true, "{row}");
    }
    assert!(rows[5..17].iter().all(|row| row["factor"].is_f64()));
    assert_eq!(rows[16]["limit"], 12 << 20);
    if cfg!(target_os = "linux") {
        assert!(bytes(&rows[16]["process"]["vm_hwm"]) > bytes(&rows[0]["process"]["vm_hwm"]));
    }
    let refused = &rows[17];
    assert!(bytes(&refused["planned_bytes"]) > 1 << 20 && refused["kept"] == true, "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("the least that would do is"), "{refused}");
}

#[test]
fn the_table_names_each_run_and_progress_counts_them() {
    let ran = Folder::new().run(&footprint("--memory 1MiB"));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr, "run 1 of 2: inference\nrun 2 of 2: block:layer4.1, limit 1.0 MiB\n");
    assert!(ran.stdout.starts_with("level ") && ran.stdout.contains("VmHWM"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n  block:layer4.1, limit 1.0 MiB, refused: the repair"), "{}", ran.stdout);
}

/// The plan fits the limit, but the system does not give as much: stacks are not in the plan.
#[test]
fn a_run_that_does_not_end_stands_in_the_table_and_in_the_exit_status() {
    let ran = Folder::new().run(&footprint("--memory 12MiB --spare 1"));
    if Command::new("prlimit").arg("--version").output().is_err() {
        assert_eq!(ran.status, 10, "{}", ran.stderr);
        assert!(ran.stderr.contains("prlimit of util-linux"), "{}", ran.stderr);
        return;
    }
    assert_eq!(ran.status, 31, "{}", ran.stderr);
    assert!(ran.stdout.contains("limit 12.0 MiB, failed: "), "{}", ran.stdout);
    assert!(ran.stderr.contains("error: 1 of 2 runs took more memory than planned"), "{}", ran.stderr);
}

#[test]
fn flags_that_make_no_sense_are_refused_before_the_first_run() {
    let folder = Folder::new();
    for (flags, status) in [
        ("--memory lots", 2),
        ("--steps 0", 2),
        ("--failures 9", 2),
        ("--speed 1", 2),
        ("--level somewhere", 23),
        ("--level block:layer9", 23),
    ] {
        let ran = folder.run(&footprint(flags));
        assert_eq!((ran.status, &*ran.stdout), (status, ""), "{flags}: {}", ran.stderr);
        assert!(!ran.stderr.contains("run 1"), "{flags}: {}", ran.stderr);
    }
    for flags in ["--batch 0", "--batch 1,x", "--seconds -1", "--seconds NaN", "--level auto"] {
        let ran = folder.run(&format!("{SPEED} {flags}"));
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{flags}: {}", ran.stderr);
    }
    assert_eq!(folder.run("bench").status, 2);
    assert_eq!(folder.run("bench footprint").status, 2);
    assert_eq!(folder.run("bench speed").status, 2);
}

/// Halves on the CPU take the way that devices take.
#[test]
fn speed_of_halves_has_a_row_for_each_batch() {
    let folder = Folder::new();
    let speed = folder.json(&format!("{SPEED} --batch 4,1 --precision f16"));
    let rows = speed["rows"].as_array().unwrap();
    let cases: Vec<_> = rows.iter().map(|row| (bytes(&row["batch"]), row["weights"].as_str())).collect();
    assert_eq!(cases, [(4, Some("device_f16")), (1, Some("device_f16"))]);
    for row in rows {
        assert!(row["share_of_peak"].is_null() && row["seconds"].as_f64().unwrap() > 0.0, "{row}");
        assert!(bytes(&row["peak_bytes"]) > 0, "{row}");
    }
    let refused = folder.run(&format!("{SPEED} --layers --precision f16"));
    assert_eq!(refused.status, 10, "{}", refused.stderr);
    assert!(refused.stderr.contains("layers is cpu in f16"), "{}", refused.stderr);
    assert_eq!(folder.run(&format!("{SPEED} --precision bf16")).status, 10);
}

#[test]
fn speed_has_a_row_for_each_batch_and_place_of_the_weights_and_a_line_for_each_operation() {
    let folder = Folder::new();
    let before = folder.files();
    let speed = folder.json(&format!("{SPEED} --batch 4,1 --layers"));
    assert_eq!(folder.files(), before, "nothing is left behind");
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&speed["peak_macs_per_second"]) > 0.0 && speed["threads"] == 2, "{speed}");
    let rows = speed["rows"].as_array().unwrap();
    let cases: Vec<_> = rows.iter().map(|row| (bytes(&row["batch"]), row["weights"].as_str())).collect();
    let places = if has_bf16() { &["mapped", "heap", "bf16"][..] } else { &["mapped", "heap"] };
    let want: Vec<_> =
        [4, 1].into_iter().flat_map(|batch| places.iter().map(move |&at| (batch, Some(at)))).collect();
    assert_eq!(cases, want);
    for row in rows {
        let images = number(&row["images_per_second"]) * number(&row["seconds"]);
        assert!(
            (images - number(&row["batch"])).abs() < 1e-6 && number(&row["share_of_peak"]) > 0.0,
            "{row}"
        );
    }
    // Weights on the heap are what a mapped pass does without.
    assert!(bytes(&rows[1]["peak_bytes"]) > bytes(&rows[0]["peak_bytes"]), "{speed}");

    let (_, deployed) = network();
    let macs: u64 = deployed.network.costs().unwrap().iter().map(|cost| cost.macs).sum();
    let layers = speed["layers"].as_array().unwrap();
    for batch in [4, 1] {
        let layers = || layers.iter().filter(move |layer| layer["batch"] == batch);
        assert_eq!(layers().map(|layer| bytes(&layer["macs"])).sum::<u64>(), batch * macs);
        assert_eq!(layers().next_back().unwrap()["output"], serde_json::json!([10]));
        assert!(layers().all(|layer| layer["heap_seconds"].is_f64() && layer["mapped_seconds"].is_f64()));
    }
}

#[test]
fn the_speed_of_a_patched_model_is_measured_too() {
    let folder = Folder::new();
    let (model, old) = network();
    let mut new = old.clone();
    new.params.insert("fc.bias", (old.params.get("fc.bias").unwrap() + 1.0).unwrap());
    let patch = difference(model.file.digest(), &old, &new, Origin::default()).unwrap();
    folder.put("out.patch", &patch.to_bytes(Storage::F32).unwrap());
    let ran = folder.run(&format!("{SPEED} --batch 1 --patch out.patch"));
    assert_eq!((ran.status, &*ran.stderr), (0, "passes over batches of 1\n"));
    assert!(ran.stdout.starts_with("threads 2, ") && !ran.stdout.contains("operation"), "{}", ran.stdout);
    assert_eq!(folder.run(&format!("{SPEED} --patch model.safetensors")).status, 13);
}
