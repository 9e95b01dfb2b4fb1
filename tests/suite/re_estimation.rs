//! Batch-norm statistics from small batches.

use archrepair::eval::Deployed;
use archrepair::memory::Levers;
use archrepair::repair::batch_norm::re_estimate;

use crate::determinism::noise;
use crate::support::open_network;

/// More batches than either set has images would leave some of them empty.
#[test]
fn no_batch_is_empty_however_small_batches_are() {
    let base = open_network("resnet18_cifar", [28, 28]);
    for (infer_batch, failures, replay) in [(1, 5, 40), (1, 40, 5), (2, 7, 9), (3, 1, 64)] {
        let deployed = Deployed { levers: Levers { infer_batch, ..Levers::FASTEST }, ..base.clone() };
        let found = re_estimate(&deployed, &noise(failures, 1), &noise(replay, 2), 0).unwrap();
        for (name, weight) in found.params.iter() {
            let numbers = weight.tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(numbers.iter().all(|x| x.is_finite()), "{name} in batches of {infer_batch}");
        }
        assert!(
            !found
                .params
                .find("bn1.running_var")
                .unwrap()
                .is_same(base.params.find("bn1.running_var").unwrap())
        );
    }
}
