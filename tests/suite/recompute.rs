//! What is let go and computed again changes no bit, and is gone in between.

use archrepair::engine::checkpoint::{Depth, cut};
use archrepair::engine::grad::units::units;
use archrepair::engine::grad::{Gradients, Norms, Recompute, Trace, Wanted, backward, forward_recomputing};
use archrepair::error::Error;
use archrepair::rng::Rng;
use candle_core::Tensor;

use crate::random_graphs::Drawn;
use crate::support::normal;

fn run(drawn: &Drawn, wanted: Wanted, recompute: &Recompute) -> Result<Trace, Error> {
    forward_recomputing(&drawn.graph, &drawn.params, &drawn.x, (wanted, recompute))
}

fn gradients(drawn: &Drawn, (wanted, trace): (Wanted, Trace)) -> Gradients {
    let dy = normal(trace.y.dims(), &mut Rng::new(5));
    backward(&drawn.graph, &drawn.params, wanted, (trace, dy)).unwrap()
}

fn bits(of: &Tensor) -> Vec<u64> {
    of.flatten_all().unwrap().to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect()
}

/// Disjoint random ranges of `n` units.
fn segments(n: usize, rng: &mut Rng) -> Vec<std::ops::Range<usize>> {
    let (mut segments, mut start) = (Vec::new(), 0);
    while start < n {
        let end = (start + 1 + rng.below(6)).min(n);
        if rng.below(3) > 0 {
            segments.push(start..end);
        }
        start = end;
    }
    segments
}

#[test]
fn gradients_have_the_same_bits_whatever_is_recomputed() {
    for seed in 0..60 {
        let drawn = Drawn::new(seed);
        let rng = &mut Rng::new(seed);
        let subset: Vec<String> = drawn.trainable().into_iter().filter(|_| rng.below(2) == 0).collect();
        let trained = |name: &str| subset.iter().any(|of| of == name);
        for norms in [Norms::Fixed, Norms::Batch] {
            let wanted = Wanted { trained: &trained, input: rng.below(2) == 0, norms };
            let kept = run(&drawn, wanted, &Recompute::NOTHING).unwrap();
            let ends = 8 * (drawn.x.elem_count() + kept.y.elem_count());
            let statistics = kept.statistics.len();
            let want = gradients(&drawn, (wanted, kept));
            for streamed in [false, true] {
                let n = units(&drawn.graph, streamed).len();
                let recompute = match rng.below(3) {
                    0 => cut(&drawn.graph, drawn.input(), wanted, Depth::Mixtures).unwrap(),
                    1 => cut(&drawn.graph, drawn.input(), wanted, Depth::Segments).unwrap(),
                    _ => Recompute { streamed, segments: segments(n, rng) },
                };
                let trace = run(&drawn, wanted, &recompute).unwrap();
                assert_eq!(trace.statistics.len(), statistics, "each batch is reported once");
                let everything = Recompute { streamed, segments: std::iter::once(0..n).collect() };
                assert!(run(&drawn, wanted, &everything).unwrap().kept_bytes() <= ends);
                let got = gradients(&drawn, (wanted, trace));
                assert_eq!(got.input.as_ref().map(bits), want.input.as_ref().map(bits), "seed {seed}");
                assert!(got.params.iter().map(|(name, _)| name).eq(want.params.iter().map(|(name, _)| name)));
                for (name, tensor) in want.params.iter() {
                    let got = got.params.get(name).unwrap();
                    assert_eq!(bits(&got), bits(&tensor.tensor().unwrap()), "seed {seed}: {name}");
                }
            }
        }
    }
}

#[test]
fn segments_that_do_not_fit_are_refused() {
    let drawn = Drawn::new(1);
    let n = drawn.graph.nodes.len();
    for segments in [vec![0..2, 1..3], vec![0..1, n..n + 1], vec![2..4, 0..1]] {
        let recompute = Recompute { streamed: false, segments };
        let error = run(&drawn, Wanted::INPUT_ONLY, &recompute).unwrap_err();
        assert!(error.to_string().starts_with("node `recompute`: segment "), "{error}");
    }
}

#[test]
fn a_trace_of_another_graph_is_refused() {
    let (a, b) = (Drawn::new(1), Drawn::new(2));
    assert_ne!(a.graph.nodes.len(), b.graph.nodes.len());
    let trace = run(&a, Wanted::INPUT_ONLY, &Recompute::NOTHING).unwrap();
    let dy = trace.y.clone();
    assert!(backward(&b.graph, &b.params, Wanted::INPUT_ONLY, (trace, dy)).is_err());
}
