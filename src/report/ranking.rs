//! The ranking of blocks as a table.

use super::table::Table;
use crate::localize::Ranking;
use crate::localize::rank::Ranked;

/// Lines for people; for programs [`Ranking`] itself is JSON.
#[must_use]
pub fn text(ranking: &Ranking) -> String {
    let mut table = table(ranking).to_string();
    if ranking.abstains {
        table.push_str(
            "No block is a clear winner: the first one wins in less than half of the resamplings.\n\
             Bring more failures, or choose a block by hand with --level block:NAME.\n",
        );
    }
    table
}

fn table(ranking: &Ranking) -> Table {
    let headings = [
        "block",
        "trial loss",
        "fixed",
        "kept",
        "steps",
        "score",
        "spectrum",
        "gradient",
        "mismatch",
        "confidence",
    ];
    let mut table = Table::new(&headings)
        .legend(
            "trial loss",
            "of a short trial repair of this block, on images held back from it; less is better",
        )
        .legend(
            "fixed, kept",
            "what that trial got right of the failures, of the other images; after so many steps",
        )
        .legend("score", "how suspicious the block's neurons are, 0 to 1, from the next two")
        .legend("spectrum", "how much more often they are active when the network fails")
        .legend("gradient", "how much harder the loss of failures pulls at them")
        .legend(
            "mismatch",
            "how far clean images are from the statistics the block stores; high means damage",
        )
        .legend(
            "confidence",
            "how often the block is chosen when the images are drawn again: of equally good ones the earliest",
        );
    ranking.blocks.iter().for_each(|block| table.row(row(block)));
    table
}

fn row(block: &Ranked) -> [String; 10] {
    let of_trial = |text: &dyn Fn(&crate::localize::rank::TrialResult) -> String| {
        block.trial.as_ref().map_or_else(|| "-".into(), text)
    };
    let share = |value: f64| format!("{:.1} %", 100.0 * value);
    [
        block.block.clone(),
        of_trial(&|trial| format!("{:.3}", trial.loss)),
        of_trial(&|trial| share(trial.fixed)),
        of_trial(&|trial| share(trial.kept)),
        of_trial(&|trial| trial.steps.to_string()),
        format!("{:.3}", block.score),
        format!("{:.3}", block.spectrum),
        format!("{:.3}", block.gradient),
        format!("{:.3}", block.mismatch),
        format!("{:.0} %", 100.0 * block.confidence),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::localize::rank::TrialResult;

    #[test]
    fn blocks_stand_in_order_and_doubt_is_said() {
        let trial = TrialResult { loss: 0.5, fixed: 0.75, kept: 0.9, steps: 150 };
        let raced =
            Ranked { block: "layer1.0".into(), trial: Some(trial), confidence: 0.4, ..Ranked::default() };
        let other = Ranked { block: "layer2.0".into(), ..Ranked::default() };
        let text = text(&Ranking { blocks: vec![raced, other], abstains: true });
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2][..7], ["layer1.0", "0.500", "75.0", "%", "90.0", "%", "150"]);
        assert_eq!(rows[3][..5], ["layer2.0", "-", "-", "-", "-"]);
        assert!(text.contains("No block is a clear winner"));
    }
}
