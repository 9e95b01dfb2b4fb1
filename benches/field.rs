//! The field protocol: repairs of one network under real corruptions, all methods side by side.
//!
//! ```text
//! cargo bench --bench field -- MODEL CLEAN-TRAIN CLEAN-TEST CORRUPTED... [--seeds 0,1,2]
//! ```
//!
//! Test images 0 to 4999 are the field, 5000 to 9999 are held out. A repair sees 100 corrupted
//! field images that the network gets wrong and 2,400 clean training images, 400 of which it
//! holds back with a fifth of the failures. Each CORRUPTED is a folder with the 10,000 test
//! images in order.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

use std::path::{Path, PathBuf};
use std::time::Instant;

use archrepair::data::{self, Images};
use archrepair::eval::{Deployed, accuracy};
use archrepair::fit::Level;
use archrepair::repair::{Config, Inputs, Method, Outcome, Target, repair};
use archrepair::rng::Rng;
use archrepair::search::Genotype;
use archrepair::zoo::{Model, Overrides};
use clap::Parser;

const FIELD: usize = 5000;
const FAILURES: usize = 100;
const REPLAY: usize = 2400;

#[derive(Parser)]
struct Arguments {
    model: PathBuf,
    train: PathBuf,
    test: PathBuf,
    corrupted: Vec<PathBuf>,
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Rows to run: auto, weights, network, last-layer, first, batch-norm, localize
    #[arg(long, value_delimiter = ',', default_value = "auto,weights,network,last-layer,first")]
    rows: Vec<String>,
    /// Block of the rows `auto` and `weights` instead of the localized one
    #[arg(long)]
    block: Option<String>,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Field {
    name: String,
    model: Model,
    /// Corrupted images of the field.
    pool: Images,
    train: Images,
    held_corrupted: Images,
    held_clean: Images,
}

fn main() {
    let arguments = Arguments::parse();
    let train = data::open(&arguments.train, "training").unwrap();
    let test = data::open(&arguments.test, "test").unwrap();
    println!(
        "corruption        seed row            block      ungated corrupted/clean  gated corrupted/clean   fixed broken  seconds  genotype"
    );
    let fields = arguments.corrupted.iter().map(|folder| {
        let corrupted = data::open(folder, "corrupted").unwrap();
        let (first, second): (Vec<usize>, Vec<usize>) = (0..corrupted.len()).partition(|&i| i < FIELD);
        Field {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            model: Model::open(&arguments.model, &Overrides::default()).unwrap(),
            pool: corrupted.subset(&first),
            train: train.clone(),
            held_corrupted: corrupted.subset(&second),
            held_clean: test.subset(&second),
        }
    });
    let fields: Vec<Field> = fields.collect();
    for &seed in &arguments.seeds {
        fields.iter().for_each(|field| field.run(seed, &arguments));
    }
}

impl Field {
    fn run(&self, seed: u64, arguments: &Arguments) {
        let base = Deployed::new(self.model.network.clone(), self.model.params().unwrap());
        let mut rng = Rng::new(1000 + seed);
        let classes = base.runner().unwrap().classes(&self.pool).unwrap();
        let mut wrong: Vec<usize> =
            (0..self.pool.len()).filter(|&i| classes[i] != self.pool.label(i) as usize).collect();
        rng.shuffle(&mut wrong);
        wrong.truncate(FAILURES);
        let failures = self.pool.subset(&wrong);
        let mut order = rng.permutation(self.train.len());
        order.truncate(REPLAY);
        let replay = self.train.subset(&order);
        let mut block = arguments.block.clone();
        let first = base.network.blocks().next().unwrap().name.clone();
        for row in &arguments.rows {
            let at = |name: &str| Target::Fixed(Level::Block(name.into()));
            let localized = block.as_deref().map_or(Target::Auto, at);
            let (target, method) = match row.as_str() {
                "auto" => (localized, Method::Search),
                "weights" => (localized, Method::Weights),
                "network" => (Target::Fixed(Level::Network), Method::Weights),
                "last-layer" => (Target::Fixed(Level::LastLayer), Method::Weights),
                "first" => (at(&first), Method::Search),
                "localize" => (Target::Auto, Method::Weights),
                "batch-norm" => (Target::Auto, Method::BatchNorm),
                other => panic!("unknown row {other}"),
            };
            let inputs =
                Inputs { failures: &failures, replay: &replay, guard: None, folder: Path::new("/tmp") };
            let mut config = Config { target, method, seed, ..Config::default() };
            // What each level needs: a last layer moves far, a network little.
            config.fit.rate = match row.as_str() {
                "network" => 1e-4,
                "last-layer" => 5e-3,
                _ => config.fit.rate,
            };
            if row == "localize" {
                config.fit.steps = 1;
            }
            if row == "first" && block.as_deref() == Some(&first) {
                println!("{:<18}{seed:<5}{row:<15}{first:<11}as auto", self.name);
                continue;
            }
            let start = Instant::now();
            let outcome = repair(&self.model, inputs, &config, &mut |_, _, _| {}).unwrap();
            if let Some(ranking) = outcome.ranking.as_ref().filter(|_| std::env::var("RANKING").is_ok()) {
                println!("{}", serde_json::to_string(ranking).unwrap());
            }
            if row == "auto" && block.is_none() {
                block = outcome.ranking.as_ref().map(|ranking| ranking.blocks[0].block.clone());
            }
            self.print(seed, row, &outcome, start.elapsed().as_secs_f64());
        }
    }

    fn print(&self, seed: u64, row: &str, outcome: &Outcome, seconds: f64) {
        let scores = |deployed: &Deployed| {
            let runner = deployed.runner().unwrap();
            [&self.held_corrupted, &self.held_clean]
                .map(|images| 100.0 * accuracy(&runner.classes(images).unwrap(), &images.targets()))
        };
        let base = Deployed::new(self.model.network.clone(), self.model.params().unwrap());
        let ungated = scores(&outcome.trained);
        let gated = if outcome.verdict.accepted { scores(&outcome.repaired) } else { scores(&base) };
        println!(
            "{:<18}{:<5}{:<15}{:<11}{:>8.2} / {:<13.2}{:>8.2} / {:<6.2}{:<7}{:>5}{:>7}{:>9.1}  {}",
            self.name,
            seed,
            row,
            outcome.level.as_ref().map_or(String::new(), ToString::to_string).replace("block ", ""),
            ungated[0],
            ungated[1],
            gated[0],
            gated[1],
            if outcome.verdict.accepted { format!("x{}", outcome.share) } else { "refused".into() },
            outcome.verdict.failures.fixed,
            outcome.verdict.passes.broken,
            seconds,
            Genotype::new(&outcome.choices),
        );
    }
}
