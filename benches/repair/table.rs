//! What was measured, as a table.

use archrepair::report::{Table, units};

use crate::Rounds;
use crate::case::Case;
use crate::measured::Measured;
use crate::ratio::{Ratio, median};

const HEADINGS: [&str; 9] =
    ["case", "who", "s", "x", "process s", "VmHWM", "x", "engine peak", "right: failures, replay"];

/// The table of all cases.
pub(crate) fn table(results: &[(&Case, Vec<Rounds>)]) -> Table {
    let mut table = Table::new(&HEADINGS)
        .legend(
            "who",
            "full: PyTorch runs the whole network forward in each step, and takes the gradients of the",
        )
        .legend("", "block; everything: and of all weights; cached: features are computed once, as here")
        .legend("s", "from opening the files to the repaired weights, the median of all rounds")
        .legend("x", "this library's figure over the one before it: below 1 is faster, or smaller; of s")
        .legend("", "the median of the rounds' ratios, and in brackets the least and the most of them")
        .legend("process s", "the same with the start of the program and its libraries, and the last column")
        .legend("VmHWM", "most bytes of the process that were resident, its program and libraries included")
        .legend("engine peak", "most bytes that the engine had allocated at once, where they are counted")
        .legend("right", "of 20 held-back failures and of 400 held-back images of replay");
    for (case, all) in results {
        all.iter().for_each(|rounds| table.row(cells(case, rounds, &all[0])));
    }
    table
}

fn cells(case: &Case, rounds: &Rounds, own: &Rounds) -> Vec<String> {
    let (case, who) = (case.to_string(), rounds.program.to_string());
    let Some(first) = rounds.done.first() else {
        let cells = [case, who, "failed".into()].into_iter();
        return cells.chain(std::iter::repeat(String::new())).take(HEADINGS.len()).collect();
    };
    let seconds = rounds.seconds();
    let process: Vec<f64> = rounds.done.iter().map(|of| of.process_seconds).collect();
    let time = Ratio::new(&own.seconds(), &seconds).map_or("-".into(), |ratio| ratio.to_string());
    let vm_hwm = |of: &Rounds| of.most(|of: &Measured| Some(of.vm_hwm)).unwrap_or(0);
    let engine = rounds.most(|of| of.engine_bytes);
    vec![
        case,
        who,
        format!("{:.2}", median(&seconds)),
        time,
        format!("{:.2}", median(&process)),
        units::bytes(vm_hwm(rounds)),
        format!("{:.2}", vm_hwm(own) as f64 / vm_hwm(rounds) as f64),
        engine.map_or("-".into(), units::bytes),
        format!("{:.0} %, {:.1} %", 100.0 * first.right[0], 100.0 * first.right[1]),
    ]
}
