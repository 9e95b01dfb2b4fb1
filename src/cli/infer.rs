//! `archrepair infer`: the classes of single images.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Args;
use serde_json::{Value, json};

use super::base::Base;
use super::{Console, picture};
use crate::device::{Compute, Precision};
use crate::error::{During, Error, Result};
use crate::graph::Network;
use crate::kernels::cross_entropy;
use crate::memory::Levers;

/// Classify image files: PNG, JPEG, BMP or WebP
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  archrepair infer model.safetensors street.png sign.jpg
  archrepair infer model.safetensors *.png --patch fog.patch --top 1 --json
  archrepair infer resnet50.pth --classes imagenet.txt --json --logits dog.png")]
pub(super) struct Infer {
    #[command(flatten)]
    base: Base,
    /// Images of the size the network takes; grey or colour, whichever it takes
    #[arg(required = true)]
    image: Vec<PathBuf>,
    /// Run the model with this patch applied
    #[arg(long)]
    patch: Option<PathBuf>,
    /// Classes to print for each image
    #[arg(long, default_value_t = 3, value_name = "N")]
    top: usize,
    /// With --json, give the logits of all classes too
    #[arg(long)]
    logits: bool,
}

/// A class and its probability.
type Likely = (usize, f32);

/// What is known of an image: its most likely classes, and its logits if they are asked for.
struct Seen {
    likely: Vec<Likely>,
    logits: Option<Vec<f32>>,
}

impl Infer {
    pub(super) fn run(&self, compute: &Compute, console: &Console) -> Result<u8> {
        if self.top == 0 {
            return Err(Error::Config { field: "top", got: "0".into(), want: "at least 1".into() });
        }
        let deployed = self.base.deploy(self.patch.as_deref())?.deployed.on(compute);
        let mut runner = deployed.runner()?;
        if compute.precision == Precision::Bf16 {
            runner = runner.packed()?;
        }
        let shape = [0, 1, 2].map(|i| deployed.network.input.shape[i]);
        let mut seen: Vec<Seen> = Vec::new();
        for files in self.image.chunks(Levers::FASTEST.infer_batch) {
            let logits = runner.logits(&picture::read(files, shape)?)?;
            let rows = |of: &Tensor| of.to_vec2::<f32>().during("reading logits");
            let probabilities = rows(&cross_entropy::softmax(&logits)?)?;
            seen.extend(rows(&logits)?.into_iter().zip(probabilities).map(|(logits, row)| Seen {
                likely: greatest(&row, self.top),
                logits: self.logits.then_some(logits),
            }));
        }
        let images = || self.image.iter().zip(&seen);
        let text: String = images().map(|(path, seen)| line(path, &seen.likely, &deployed.network)).collect();
        let values: Vec<Value> = images().map(|(path, seen)| value(path, seen, &deployed.network)).collect();
        console.result_on(&compute.device, &text, json!({ "images": values }))?;
        Ok(0)
    }
}

/// The `n` most likely classes, the first of equals first.
fn greatest(row: &[f32], n: usize) -> Vec<Likely> {
    let mut classes: Vec<Likely> = row.iter().copied().enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    classes.truncate(n);
    classes
}

fn line(path: &Path, likely: &[Likely], network: &Network) -> String {
    let class = |&(class, p): &Likely| format!("{} {:.1} %", network.class_name(class), 100.0 * p);
    format!("{}: {}\n", path.display(), likely.iter().map(class).collect::<Vec<_>>().join(", "))
}

fn value(path: &Path, seen: &Seen, network: &Network) -> Value {
    let class =
        |&(class, p): &Likely| json!({ "class": class, "name": network.class_name(class), "probability": p });
    let mut value = json!({ "image": path, "classes": seen.likely.iter().map(class).collect::<Vec<_>>() });
    if let Some(logits) = &seen.logits {
        value["logits"] = json!(logits);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_classes_come_first_and_equals_in_order() {
        assert_eq!(greatest(&[0.2, 0.4, 0.0, 0.4], 3), [(1, 0.4), (3, 0.4), (0, 0.2)]);
        assert_eq!(greatest(&[1.0], 3).len(), 1);
    }
}
