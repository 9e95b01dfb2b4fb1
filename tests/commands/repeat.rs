//! The same repair, run again, on one thread and on two.

use std::fs;

use crate::support::{Folder, REPAIR};

/// The patches of three runs: as it is, again, and on another number of threads.
#[track_caller]
fn assert_repeats(how: &str) {
    let folder = Folder::new();
    let patch = |name: &str, threads: usize| {
        let ran = folder.run(&format!("{REPAIR} {how} --threads {threads} --out {name}"));
        assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
        fs::read(folder.path(name)).unwrap()
    };
    let first = patch("first", 1);
    assert_eq!(first, patch("again", 1));
    assert_eq!(first, patch("two-threads", 2));
}

#[test]
fn a_repair_of_weights_repeats_to_the_byte() {
    assert_repeats("--method weights --level last-layer --steps 40 --rate 0.05");
}

#[test]
fn a_localized_search_repeats_to_the_byte() {
    assert_repeats("--candidates 2 --race-steps 6 --search-steps 6 --steps 30 --rate 0.02");
}
