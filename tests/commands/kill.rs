//! What a repair leaves behind when it is killed.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use archrepair::rng::Rng;

use crate::support::{Folder, REPAIR};

/// The output is there as a whole or not at all, and nothing else is there or has changed.
#[test]
fn a_kill_at_any_of_twenty_instants_leaves_no_half_of_a_patch_and_the_base_untouched() {
    let folder = Folder::new();
    let before = folder.files();
    let out = folder.path("out.patch");
    let repair = format!(
        "{REPAIR} --candidates 1 --race-steps 3 --search-steps 3 --steps 20 --rate 0.05 --out out.patch"
    );
    let start = Instant::now();
    assert_eq!(folder.run(&repair).status, 0);
    let mut whole = start.elapsed();
    let patch = fs::read(&out).unwrap();
    fs::remove_file(&out).unwrap();

    let mut rng = Rng::new(20);
    let mut interrupted = 0;
    for instant in 0..20 {
        // Every second kill falls into the last tenth, where the output is written.
        let share = if instant % 2 == 0 { rng.uniform() } else { 0.9 + 0.15 * rng.uniform() };
        let mut command = folder.command(&repair);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        match ended_within(&mut child, whole.mul_f32(share)) {
            // Other tests run beside this one, so the time of a run changes.
            Some(sooner) => whole = sooner,
            None => {
                child.kill().unwrap();
                interrupted += usize::from(!child.wait().unwrap().success());
            }
        }
        let mut after = folder.files();
        if let Some(written) = after.remove(&out) {
            assert!(written == patch, "instant {instant}: the output is not the whole patch");
            fs::remove_file(&out).unwrap();
        }
        assert!(after == before, "instant {instant}: {:?}", after.keys());
    }
    assert!(interrupted >= 5, "only {interrupted} of 20 runs were killed before their end");
}

/// The time after which `child` ended by itself, if it did.
fn ended_within(child: &mut Child, limit: Duration) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return Some(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}
