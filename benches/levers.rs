//! What each lever of memory costs by itself: time, bytes, and what the repaired network gets right.
//!
//! ```text
//! cargo bench --bench levers -- [--block layer1.0] [--corruption contrast:5,...] [--seeds 0,1] [--steps 180]
//! ```
//!
//! The shipped network is repaired with each lever alone, and with none, for each corruption and
//! seed: 100 failures, 180 steps, of which a third is a search. Judged on held-out images, without the
//! gate. Times mean something on a quiet machine alone.

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

use std::path::Path;
use std::time::Instant;

use archrepair::data::corrupt::Corruption;
use archrepair::data::{self, Images};
use archrepair::engine::checkpoint::Depth;
use archrepair::eval::{Deployed, accuracy};
use archrepair::fit::Level;
use archrepair::memory::cache::Precision;
use archrepair::memory::{Levers, Meter, meter};
use archrepair::repair::patching::deploy;
use archrepair::repair::{Config, Counts, Inputs, Target, plan, repair_as_planned};
use archrepair::report::{Table, units};
use archrepair::zoo::{Model, Overrides};
use clap::Parser;

#[global_allocator]
static METER: Meter = Meter;

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value = "layer1.0")]
    block: String,
    #[arg(long, value_delimiter = ',', default_value = "contrast:5,gaussian_noise:5")]
    corruption: Vec<Corruption>,
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    seeds: Vec<u64>,
    /// Levers to pull, by name in the table
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Weight updates of a repair; a third of them search
    #[arg(long, default_value_t = 180)]
    steps: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

const FASTEST: Levers = Levers::FASTEST;

/// Levers by name, from what keeps arithmetic to what changes the search or the training.
const LEVERS: [(&str, Precision, Levers); 16] = [
    ("none", Precision::F16, FASTEST),
    ("features in f32", Precision::F32, FASTEST),
    ("mapped", Precision::F16, Levers { mapped: true, ..FASTEST }),
    ("mixtures", Precision::F16, Levers { depth: Depth::Mixtures, ..FASTEST }),
    ("segments", Precision::F16, Levers { depth: Depth::Segments, ..FASTEST }),
    ("infer 8", Precision::F16, Levers { infer_batch: 8, ..FASTEST }),
    ("infer 1", Precision::F16, Levers { infer_batch: 1, ..FASTEST }),
    ("images 32", Precision::F16, Levers { micro_batch: 32, ..FASTEST }),
    ("images 8", Precision::F16, Levers { micro_batch: 8, ..FASTEST }),
    ("images 1", Precision::F16, Levers { micro_batch: 1, ..FASTEST }),
    ("by path", Precision::F16, Levers { by_path: true, ..FASTEST }),
    ("grouped", Precision::F16, Levers { grouped: true, ..FASTEST }),
    ("stateless", Precision::F16, Levers { stateless: true, ..FASTEST }),
    ("streamed 8", Precision::F16, Levers { micro_batch: 8, streamed: true, ..FASTEST }),
    ("streamed 1", Precision::F16, Levers { micro_batch: 1, streamed: true, ..FASTEST }),
    ("all", Precision::F16, Levers { infer_batch: 8, ..Levers::LEANEST }),
];

/// A network, what it fails on, and what nothing in the repair sees.
struct Case {
    model: Model,
    failures: Images,
    replay: Images,
    held_out: [Images; 2],
    config: Config,
}

/// What repairs with one lever came to, one entry a case.
#[derive(Default)]
struct Row {
    patches: Vec<Vec<u8>>,
    seconds: Vec<f64>,
    peaks: Vec<usize>,
    right: Vec<[f64; 2]>,
}

fn main() {
    let arguments = Arguments::parse();
    meter::set_up_heap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build().unwrap();
    pool.install(|| run(&arguments));
}

fn run(arguments: &Arguments) {
    let seeds = |corruption| arguments.seeds.iter().map(move |seed| (corruption, *seed));
    let of = |(corruption, seed)| Case::new((corruption, seed), (&arguments.block, arguments.steps));
    let cases: Vec<Case> = arguments.corruption.iter().copied().flat_map(seeds).map(of).collect();
    let mut table = Table::new(&["lever", "patch", "time", "peak", "corrupted", "clean"])
        .legend("patch", "how many patches have the bytes of those without a lever")
        .legend("time", "of the repair over that without a lever, median of all cases")
        .legend("peak", "most bytes the engine had allocated at once")
        .legend(
            "corrupted",
            "share of held-out images that the repaired network gets right, mean of all cases",
        )
        .legend("clean", "the same for clean images");
    let mut first: Option<Row> = None;
    for (name, features, levers) in LEVERS {
        if first.is_some() && !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let mut row = Row::default();
        cases.iter().for_each(|case| case.repair((features, levers), &mut row));
        let none = first.as_ref().unwrap_or(&row);
        table.row(row.cells(name, none));
        eprintln!("{name}: {:.1?} s", row.seconds);
        first.get_or_insert(row);
    }
    println!("{}, {} repairs a row\n\n{table}", arguments.block, cases.len());
}

impl Case {
    fn new((corruption, seed): (Corruption, u64), (block, steps): (&str, usize)) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let path = root.join("fashion-resnet18/model.safetensors");
        let model = Model::open(&path, &Overrides::default()).unwrap();
        let set = |name: &str| data::open(&root.join("fashion-sample").join(name), "sample").unwrap();
        let field = corruption.apply(&set("pool"), seed);
        let classes = deploy(&model, None).unwrap().runner().unwrap().classes(&field).unwrap();
        let wrong = (0..field.len()).filter(|&i| classes[i] != field.label(i) as usize);
        let failures = field.subset(&wrong.take(100).collect::<Vec<_>>());
        let clean = set("heldout");
        let held_out = [corruption.apply(&clean, seed + 1000), clean];
        let mut config =
            Config { target: Target::Fixed(Level::Block(block.into())), seed, ..Config::default() };
        config.search.steps = steps / 3;
        config.fit.steps = steps;
        Self { model, failures, replay: set("replay"), held_out, config }
    }

    fn repair(&self, (features, levers): (Precision, Levers), row: &mut Row) {
        let folder = std::env::temp_dir();
        let inputs = Inputs { failures: &self.failures, replay: &self.replay, guard: None, folder: &folder };
        let config = Config { features, ..self.config.clone() };
        let mut plan = plan(&self.model, &config, Counts::of(&inputs)).unwrap();
        plan.levers = levers;
        meter::reset_peak();
        let start = Instant::now();
        let outcome = repair_as_planned(&self.model, inputs, (&config, &plan), &mut |_, _, _| {}).unwrap();
        row.seconds.push(start.elapsed().as_secs_f64());
        row.peaks.push(meter::peak());
        row.right.push(self.right(&outcome.trained));
        row.patches.push(outcome.patch.to_vec());
    }

    fn right(&self, network: &Deployed) -> [f64; 2] {
        let runner = network.runner().unwrap();
        let right = |images: &Images| accuracy(&runner.classes(images).unwrap(), &images.targets());
        [&self.held_out[0], &self.held_out[1]].map(right)
    }
}

impl Row {
    fn cells(&self, name: &str, none: &Self) -> [String; 6] {
        let same = self.patches.iter().zip(&none.patches).filter(|(a, b)| a == b).count();
        let factors: Vec<f64> = self.seconds.iter().zip(&none.seconds).map(|(a, b)| a / b).collect();
        let right = |i: usize| self.right.iter().map(|right| right[i]).sum::<f64>() / self.right.len() as f64;
        [
            name.into(),
            format!("{same} of {}", self.patches.len()),
            format!("{:.2}", median(factors)),
            units::bytes(self.peaks.iter().copied().max().unwrap_or(0)),
            format!("{:.2} %", 100.0 * right(0)),
            format!("{:.2} %", 100.0 * right(1)),
        ]
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
