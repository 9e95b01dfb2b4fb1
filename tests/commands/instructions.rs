//! The vector instructions that the program computes by.

use std::fs;

use archrepair::kernels::instructions::Instructions;

use crate::support::{Folder, REPAIR, Ran};

/// Runs the program by these instructions.
fn run(folder: &Folder, instructions: &str, arguments: &str) -> Ran {
    folder.command(arguments).env("ARCHREPAIR_ISA", instructions).output().unwrap().into()
}

#[test]
fn every_set_of_this_processor_gives_the_same_answers_and_is_named() {
    let folder = Folder::new();
    for set in Instructions::known() {
        let eval = run(&folder, &set.to_string(), "eval model.safetensors replay --json");
        assert_eq!((eval.status, &*eval.stderr), (0, ""), "{}", eval.stdout);
        let eval: serde_json::Value = serde_json::from_str(&eval.stdout).unwrap();
        // Labels of `replay` are what the network says.
        assert_eq!(eval["conditions"][0]["accuracy"], 1.0, "{set}: {eval}");
        let speed = run(&folder, &set.to_string(), "bench speed model.safetensors --batch 1 --seconds 0");
        assert!(speed.stdout.contains(&format!(", {set}, peak rate")), "{}{}", speed.stdout, speed.stderr);
    }
}

#[test]
fn a_repair_by_another_set_repeats_to_the_byte_on_any_number_of_threads() {
    let folder = Folder::new();
    for set in Instructions::known().skip(1) {
        let patch = |threads: usize| {
            let name = format!("{set}-{threads}");
            let how = "--method weights --level block:layer2.0 --steps 6 --rate 0.02";
            let ran =
                run(&folder, &set.to_string(), &format!("{REPAIR} {how} --threads {threads} --out {name}"));
            assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
            fs::read(folder.path(&name)).unwrap()
        };
        let first = patch(1);
        assert!(first == patch(2) && first == patch(3), "{set}");
    }
}

#[test]
fn sets_that_there_are_not_are_refused_before_any_work() {
    let folder = Folder::new();
    let unknown = run(&folder, "mmx", "inspect model.safetensors");
    assert_eq!(unknown.status, 23, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("unknown instruction set `mmx`"), "{}", unknown.stderr);
    let other = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    let missing = run(&folder, other, "inspect model.safetensors");
    assert_eq!(missing.status, 10, "{}", missing.stderr);
    assert!(missing.stderr.contains("one that this processor has: "), "{}", missing.stderr);
}
