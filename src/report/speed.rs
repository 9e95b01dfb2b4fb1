//! How fast a network runs on this device: pass by pass and operation by operation.

use serde::Serialize;

use super::{Table, units};
use crate::graph::op::{Conv2d, Op, Shape};

/// What was measured of one network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Threads that computed.
    pub threads: usize,
    /// The vector instructions of the processor that they used.
    pub instructions: String,
    /// Multiply-adds a second that they do at most, all at once and in registers alone.
    pub peak_macs_per_second: f64,
    /// A row for each size of batch and place of the weights.
    pub rows: Vec<Row>,
    /// The operations for each size of batch, if they were asked for.
    pub layers: Vec<Layer>,
}

/// Passes over batches of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Images of a pass.
    pub batch: usize,
    /// Where the weights were.
    pub weights: Weights,
    /// Time of a pass.
    pub seconds: f64,
    /// Images in a second.
    pub images_per_second: f64,
    /// Multiply-adds a second over [`Speed::peak_macs_per_second`], where the threads do them.
    pub share_of_peak: Option<f64>,
    /// Most bytes that the engine had allocated at once; of a device that tells it, those of its tensors since it
    /// was opened.
    pub peak_bytes: usize,
}

/// Where weights are while a network runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// On the heap, for products of `bf16`.
    Bf16,
    /// On the device that was asked for, in `f32`.
    DeviceF32,
    /// On the device that was asked for, in `f16`.
    DeviceF16,
    /// On the heap, for products of `f32`.
    Heap,
    /// In the mapped file, as they are stored there.
    Mapped,
}

/// One operation in passes over batches of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// Images of a pass.
    pub batch: usize,
    /// Name of the node.
    pub node: String,
    /// What it computes.
    pub operation: Op,
    /// Shape of its first input, for one image.
    pub input: Shape,
    /// Shape of its output, for one image.
    pub output: Shape,
    /// Multiply-adds of a pass.
    pub macs: u64,
    /// Its time with weights on the heap.
    pub heap_seconds: f64,
    /// Its time with weights in the mapped file.
    pub mapped_seconds: f64,
    /// Multiply-adds a second over [`Speed::peak_macs_per_second`], with weights on the heap.
    pub share_of_peak: f64,
}

impl Weights {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::DeviceF32 => "device f32",
            Self::DeviceF16 => "device f16",
            Self::Heap => "heap",
            Self::Mapped => "mapped",
        }
    }
}

impl Speed {
    /// Tables for people.
    #[must_use]
    pub fn text(&self) -> String {
        let billions = self.peak_macs_per_second / 1e9;
        let head = format!(
            "threads {}, {}, peak rate {billions:.1} billion multiply-adds a second\n\n",
            self.threads, self.instructions
        );
        let mut text = head + &self.passes().to_string();
        for layers in self.layers.chunk_by(|a, b| a.batch == b.batch) {
            text.push_str(&format!("\nbatch {}, operation by operation\n\n", layers[0].batch));
            text.push_str(&operations(layers).to_string());
        }
        text
    }

    fn passes(&self) -> Table {
        let mut table =
            Table::new(&["batch", "weights", "ms", "images a second", "of peak rate", "engine peak"])
                .legend(
                    "weights",
                    "mapped: in the file, as they are stored; heap: in the order of the kernels; bf16: the same in bf16; device: on that of --device",
                )
                .legend(
                    "ms",
                    "of a pass over noise, the median of all: in memory that is planned, or from values on a device to logits",
                )
                .legend(
                    "of peak rate",
                    "multiply-adds over what the threads do at most, all in registers alone",
                )
                .legend("engine peak", "most bytes that the engine, or tensors of a device, had allocated at once");
        for row in &self.rows {
            table.row([
                row.batch.to_string(),
                row.weights.name().into(),
                milliseconds(row.seconds),
                format!("{:.1}", row.images_per_second),
                row.share_of_peak.map_or_else(|| "-".into(), units::percent),
                units::bytes(row.peak_bytes),
            ]);
        }
        table
    }
}

fn operations(layers: &[Layer]) -> Table {
    let headings =
        ["node", "operation", "input", "output", "multiply-adds", "heap ms", "of peak rate", "mapped ms"];
    let mut table = Table::new(&headings)
        .legend("operation", "side of the kernel / stride, groups, what is added and applied in one")
        .legend("input, output", "channels x height x width, for one image")
        .legend("heap, mapped ms", "of the batch, the median of all passes; weights as above")
        .legend("of peak rate", "as above, with weights on the heap");
    for layer in layers {
        table.row([
            layer.node.clone(),
            operation(&layer.operation),
            units::shape(&layer.input),
            units::shape(&layer.output),
            units::count(layer.macs),
            milliseconds(layer.heap_seconds),
            if layer.macs == 0 { "-".into() } else { units::percent(layer.share_of_peak) },
            milliseconds(layer.mapped_seconds),
        ]);
    }
    table
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3}", 1e3 * seconds)
}

/// An operation in a few words: `conv2d 3x3 / 2 + add, relu`.
fn operation(op: &Op) -> String {
    match op {
        Op::Activation { kind } => word(kind),
        Op::AvgPool(pool) | Op::MaxPool(pool) => format!("{} {}", name(op), side(pool.k, pool.stride)),
        Op::Conv2d(conv) => format!("{} {}", name(op), convolution(conv)),
        _ => name(op),
    }
}

fn convolution(conv: &Conv2d) -> String {
    let mut text = side(conv.k, conv.stride);
    if conv.groups > 1 {
        text.push_str(&format!(", {} groups", conv.groups));
    }
    if conv.residual {
        text.push_str(" + add");
    }
    if let Some(kind) = conv.activation {
        text.push_str(&format!(", {}", word(&kind)));
    }
    text
}

fn side(k: usize, stride: usize) -> String {
    if stride == 1 { format!("{k}x{k}") } else { format!("{k}x{k} / {stride}") }
}

/// The name of an operation as model files have it.
fn name(op: &Op) -> String {
    serde_json::to_value(op).ok().and_then(|op| Some(op["op"].as_str()?.to_owned())).unwrap_or_default()
}

fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::{Activation, Pool};

    #[test]
    fn operations_are_said_in_a_few_words() {
        let kind = Activation::HardSwish;
        let conv = Conv2d { residual: true, activation: Some(kind), groups: 4, ..Conv2d::same(8, 3, 2) };
        let ops = [
            Op::Conv2d(conv),
            Op::Conv2d(Conv2d::same(8, 1, 1)),
            Op::MaxPool(Pool { k: 3, stride: 2, padding: 1 }),
            Op::Activation { kind },
            Op::GlobalAvgPool,
        ];
        assert_eq!(
            ops.map(|op| operation(&op)),
            [
                "conv2d 3x3 / 2, 4 groups + add, hard_swish",
                "conv2d 1x1",
                "max_pool 3x3 / 2",
                "hard_swish",
                "global_avg_pool"
            ]
        );
    }

    #[test]
    fn every_size_of_batch_has_its_rows_and_its_operations() {
        let row = |batch, weights| Row {
            batch,
            weights,
            seconds: 0.25,
            images_per_second: 4.0 * batch as f64,
            share_of_peak: Some(0.5),
            peak_bytes: 1 << 20,
        };
        let layer = |batch, macs| Layer {
            batch,
            node: "fc".into(),
            operation: Op::Linear { outputs: 2, bias: true },
            input: vec![1000],
            output: vec![2],
            macs,
            heap_seconds: 0.001,
            mapped_seconds: 0.002,
            share_of_peak: 0.125,
        };
        let rows = vec![row(1, Weights::Mapped), row(8, Weights::Heap)];
        let layers = vec![layer(1, 2000), layer(8, 0)];
        let text =
            Speed { threads: 2, instructions: "avx2".into(), peak_macs_per_second: 2.5e9, rows, layers }
                .text();
        assert!(
            text.starts_with("threads 2, avx2, peak rate 2.5 billion multiply-adds a second\n\n"),
            "{text}"
        );
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        for want in [
            "1 mapped 250.000 4.0 50.00 % 1.0 MiB",
            "8 heap 250.000 32.0 50.00 % 1.0 MiB",
            "batch 1, operation by operation",
            "fc linear 1000 2 2,000 1.000 12.50 % 2.000",
            "batch 8, operation by operation",
            "fc linear 1000 2 0 1.000 - 2.000",
        ] {
            assert!(lines.contains(&want.split(' ').collect()), "{want} in {text}");
        }
    }
}
