//! What was measured, as a table.

use archrepair::report::{Table, units};

use crate::Rounds;
use crate::case::Case;
use crate::program::Program;
use crate::ratio::{Ratio, median};

const HEADINGS: [&str; 9] =
    ["case", "who", "ms", "x ours", "x ORT", "x PyTorch", "VmHWM", "x ORT", "engine peak"];

/// The table of all cases.
pub(crate) fn table(results: &[(&Case, Vec<Rounds>)]) -> Table {
    let mut table = Table::new(&HEADINGS)
        .legend("case", "network : images that run together")
        .legend(
            "who",
            "archrepair: weights on the heap; mapped: in the file, in f16; bf16: pairs on the heap",
        )
        .legend("ms", "of a pass over the batch: the median of a round's passes, of these the median")
        .legend("x ours", "the figure before it over that of archrepair with weights on the heap")
        .legend(
            "x ORT",
            "the figure before it over that of ONNX Runtime: below 1 is faster, or smaller; for ms",
        )
        .legend("", "the median of the rounds' ratios, and in brackets the least and the most of them")
        .legend("x PyTorch", "the same over the fastest of PyTorch's forms in each round")
        .legend("VmHWM", "most bytes of the process that were resident, its program and libraries included")
        .legend("engine peak", "most bytes that the engine had allocated at once, where they are counted");
    for (case, all) in results {
        let onnx = all.iter().find(|rounds| rounds.program == Program::OnnxRuntime);
        let pytorch = fastest(all.iter().filter(|rounds| rounds.program.is_pytorch()));
        let ours = all.first().map_or_else(Vec::new, Rounds::seconds);
        all.iter().for_each(|rounds| table.row(cells(case, rounds, (&ours, onnx, &pytorch))));
    }
    table
}

fn cells(
    case: &Case,
    rounds: &Rounds,
    (ours, onnx, pytorch): (&[f64], Option<&Rounds>, &[f64]),
) -> Vec<String> {
    let (case, who) = (case.to_string(), rounds.program.to_string());
    if rounds.done.is_empty() {
        let cells = [case, who, "failed".into()].into_iter();
        return cells.chain(std::iter::repeat(String::new())).take(HEADINGS.len()).collect();
    }
    let seconds = rounds.seconds();
    let ratio = |others: &[f64]| Ratio::new(&seconds, others).map_or("-".into(), |ratio| ratio.to_string());
    let if_any = |bytes: Option<usize>| bytes.map_or("-".into(), units::bytes);
    let over = vm_hwm(rounds).zip(onnx.and_then(vm_hwm)).filter(|(_, onnx)| *onnx > 0);
    vec![
        case,
        who,
        format!("{:.2}", 1e3 * median(&seconds)),
        ratio(ours),
        ratio(&onnx.map_or_else(Vec::new, Rounds::seconds)),
        ratio(pytorch),
        if_any(vm_hwm(rounds)),
        over.map_or("-".into(), |(own, onnx)| format!("{:.2}", own as f64 / onnx as f64)),
        if_any(rounds.most(|measured| measured.engine_bytes)),
    ]
}

/// Most bytes of the process that were resident at once, in any round.
fn vm_hwm(rounds: &Rounds) -> Option<usize> {
    rounds.most(|measured| Some(measured.vm_hwm))
}

/// The least seconds of some programs in each round that one of them did.
fn fastest<'a>(programs: impl Iterator<Item = &'a Rounds>) -> Vec<f64> {
    let mut least: Vec<f64> = Vec::new();
    for seconds in programs.map(Rounds::seconds) {
        least.resize(least.len().max(seconds.len()), f64::INFINITY);
        least.iter_mut().zip(seconds).for_each(|(least, seconds)| *least = least.min(seconds));
    }
    least
}
