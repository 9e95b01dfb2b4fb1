//! What training holds beside activations: the optimizer's state, and batches of features.

use archrepair::engine::optim::{Optimizer, Rule};
use archrepair::graph::Params;
use archrepair::kernels::CALL_BYTES;
use archrepair::memory::cache::{Cache, Precision};
use archrepair::memory::meter;

use crate::scratch::normal;

pub(crate) fn steps_allocate_nothing_after_the_first() {
    // The pool's threads keep a little of their own from their first work on.
    rayon::broadcast(|_| ());
    let rules =
        [Rule::ADAM, Rule::Sgd { momentum: 0.9, decay: 0.1 }, Rule::Sgd { momentum: 0.0, decay: 0.1 }];
    for (rule, sizes) in rules.iter().flat_map(|rule| [[10, 2000], [300, 70_000]].map(|sizes| (*rule, sizes)))
    {
        let tensors = |sizes: [usize; 2]| -> Params {
            sizes.into_iter().map(|n| (format!("w{n}"), normal(&[n]))).collect()
        };
        let (mut params, grads) = (tensors(sizes), tensors(sizes));
        let mut optimizer = Optimizer::new(rule);
        let before = meter::current();
        optimizer.step(&mut params, &grads, |_| 0.1).unwrap();
        // The trained tensors were no one else's, so their copies took their place.
        let state = sizes.iter().sum::<usize>() * 4 * rule.states();
        assert_eq!(optimizer.bytes(), state);
        let made = meter::current().saturating_sub(before);
        assert!((state..state + CALL_BYTES).contains(&made), "{rule:?} made {made} for {state}");
        meter::reset_peak();
        let before = meter::current();
        (0..3).for_each(|_| optimizer.step(&mut params, &grads, |_| 0.1).unwrap());
        // A few bytes of candle's locks, and where a tensor is large the thread pool's queue.
        let queue = if sizes[1] > 1 << 14 { CALL_BYTES } else { 100 };
        let made = meter::peak().saturating_sub(before);
        assert!(made <= queue, "{rule:?} allocates {made}");
    }
}

pub(crate) fn a_batch_of_a_cache_is_its_result() {
    for precision in [Precision::F16, Precision::F32] {
        let mut cache = Cache::create(&std::env::temp_dir(), &[16, 28, 28], precision).unwrap();
        let rows = normal(&[64, 16, 28, 28]);
        // Warms up the buffer of the file.
        meter::reset_peak();
        let before = meter::current();
        cache.push(&rows).unwrap();
        cache.finish().unwrap();
        assert!(meter::peak() - before < 32 << 10, "pushing made {} bytes", meter::peak() - before);
        drop(rows);
        let indices: Vec<usize> = (0..32).map(|i| 63 - i).collect();
        let result = 32 * 16 * 28 * 28 * 4;
        meter::reset_peak();
        let before = meter::current();
        let batch = cache.batch(&indices).unwrap();
        let needed = meter::peak().saturating_sub(before);
        assert!((result..result + CALL_BYTES).contains(&needed), "{needed} for {result}");
        assert_eq!(batch.elem_count() * 4, result);
        file_pages_do_not_pile_up(&cache);
    }
}

/// Resident pages of the file are let go after each batch; the kernel rounds by a few of them.
fn file_pages_do_not_pile_up(cache: &Cache) {
    let Some(before) = meter::process() else { return };
    for _ in 0..3 {
        cache.batch(&(0..64).collect::<Vec<_>>()).unwrap();
    }
    let Some(after) = meter::process() else { return };
    let grown = after.rss_file.saturating_sub(before.rss_file);
    assert!(grown < 512 << 10, "{grown} bytes of the file stayed resident");
}
