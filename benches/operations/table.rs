//! What was measured, as tables.

use archrepair::report::Table;

use crate::Results;
use crate::measured::{Measured, Timing};
use crate::rates::Rates;
use crate::ratio::{Ratio, median};

/// Kernels beside what the machine can do.
pub(crate) fn shares(results: &[Results], rates: &Rates) -> Table {
    let mut table =
        Table::new(&["kernel", "ms", "GMAC/s", "of peak", "GB/s", "of peak", "bound", "of bound"])
            .legend("ms", "the median of a round, of these the median")
            .legend("GMAC/s", "billion multiply-adds a second; of peak: over the most that the machine does")
            .legend("GB/s", "the least bytes that must be read and written, a second")
            .legend("of peak", "the time that memory takes for them over the time of the kernel")
            .legend("bound", "what takes the machine longer, and the share of that time in the kernel's");
    for Results { name, own, .. } in results {
        let Some(first) = own.first() else { continue };
        for kernel in &first.kernels {
            let seconds: Vec<f64> = own.iter().map(|of| of.seconds(&[&kernel.name])).collect();
            table.row(share(name, &Timing { seconds: median(&seconds), ..kernel.clone() }, rates));
        }
    }
    table
}

fn share(group: &str, kernel: &Timing, rates: &Rates) -> Vec<String> {
    let Timing { name, macs, bytes, seconds } = kernel;
    let [computing, moving] = [rates.computing(*macs), rates.moving(*bytes)].map(|least| least / seconds);
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let rate = |amount: u64| format!("{:.1}", amount as f64 / seconds / 1e9);
    let (bound, share) = if computing > moving { ("computing", computing) } else { ("memory", moving) };
    let if_any = |text: String| if *macs > 0 { text } else { "-".into() };
    vec![
        format!("{group}: {name}"),
        format!("{:.3}", 1e3 * seconds),
        if_any(rate(*macs)),
        if_any(percent(computing)),
        rate(bytes.iter().sum()),
        percent(moving),
        bound.into(),
        percent(share),
    ]
}

/// Convolutions beside PyTorch's.
pub(crate) fn ratios(compared: &[&Results]) -> Table {
    let mut table = Table::new(&["convolution", "pass", "ms", "PyTorch", "x", "layout"])
        .legend("pass", "backward: the gradients by input and by weight")
        .legend("ms", "the median of a round, of these the median; PyTorch: the same in its faster layout")
        .legend(
            "x",
            "ms over PyTorch's: below 1 is faster; the median of the rounds' ratios, and in brackets",
        )
        .legend("", "the least and the most of them");
    for Results { name, own, peer } in compared {
        let Ok(peer) = peer else { continue };
        let forward: Vec<f64> = peer.iter().map(|of| of.forward.seconds).collect();
        let backward: Vec<f64> = peer.iter().map(|of| of.backward.seconds).collect();
        let own = |names: &[&str]| own.iter().map(|of| Measured::seconds(of, names)).collect::<Vec<f64>>();
        let passes = [
            ("forward", own(&["forward"]), forward, &peer[0].forward.layout),
            ("backward", own(&["dx", "dw"]), backward, &peer[0].backward.layout),
        ];
        for (pass, own, peer, layout) in passes {
            let ratio = Ratio::new(&own, &peer).map_or("-".into(), |ratio| ratio.to_string());
            let ms = |seconds: &[f64]| format!("{:.3}", 1e3 * median(seconds));
            table.row([(*name).into(), pass.into(), ms(&own), ms(&peer), ratio, layout.clone()]);
        }
    }
    table
}
