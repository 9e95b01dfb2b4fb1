//! x
use archrepair::*;
use archrepair::search::candidate::*;
use archrepair::search::space::*;
use archrepair::graph::lower::lower;
use std::path::Path;
use std::time::Instant;
// args: corruption, steps, rate, inputs(0/1), blocks...
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let y = Path::new("/work/shared/yardstick");
    let steps: usize = a[2].parse().unwrap(); let rate: f64 = a[3].parse().unwrap(); let ops: Vec<&str> = a[4].split('+').collect();
    let seed: u64 = std::env::var("SEED").map(|s| s.parse().unwrap()).unwrap_or(0);
    let m = zoo::Model::open(&y.join("resnet18_narrow_fmnist.safetensors"), &Default::default()).unwrap();
    let d = eval::Deployed { network: m.network.clone(), params: m.params().unwrap() };
    let f = Path::new("/usr/share/datasets/fashion-mnist");
    let test = data::open(&f.join("t10k-images-idx3-ubyte.gz"), "test").unwrap();
    let train = data::open(&f.join("train-images-idx3-ubyte.gz"), "train").unwrap();
    let cor = data::open(&y.join(&a[1]), "c").unwrap();
    let mut rng = rng::Rng::new(1000 + seed);
    let pool = cor.subset(&(0..5000).collect::<Vec<_>>());
    let c = d.runner().unwrap().classes(&pool).unwrap();
    let mut wrong: Vec<usize> = (0..5000).filter(|&i| c[i] != pool.label(i) as usize).collect();
    rng.shuffle(&mut wrong); wrong.truncate(100);
    let mut order = rng.permutation(train.len()); order.truncate(2400);
    let fail = pool.subset(&wrong[..80]); let vfail = pool.subset(&wrong[80..]);
    let replay = train.subset(&order[..2000]); let vrep = train.subset(&order[2000..]);
    let held: Vec<usize> = (5000..10000).step_by(3).collect();
    let (hc, hk) = (cor.subset(&held), test.subset(&held));
    for b in &a[5..] {
        let t = Instant::now();
        let site = fit::Site::new(&d, fit::Level::Block(b.clone())).unwrap();
        let n = d.normalize().unwrap();
        let s = fit::samples::Store { folder: Path::new("/tmp"), precision: memory::cache::Precision::F16 };
        let sam = |i: &data::Images| fit::Samples::new(&site, i, &n, s).unwrap();
        let (sf, sr, vf, vr, xc, xk) = (sam(&fail), sam(&replay), sam(&vfail), sam(&vrep), sam(&hc), sam(&hk));
        let mut part = fit::Part::new(site.graph.clone(), site.params.clone(), &site.input).unwrap();
        if ops[0] != "none" {
            let clean = CleanStatistics::measure(&sr).unwrap();
            let sp = relax_with(&site, &clean, &mut rng::Rng::new(seed), &ops).unwrap();
            part = fit::Part::new(sp.graph, sp.params, &site.input).unwrap();
        }
        let cfg = fit::Config { steps, rate, ..Default::default() };
        let tp = Instant::now();
        fit::fit(&site, &mut part, fit::Sets { failures: &sf, replay: &sr }, (&cfg, &mut rng::Rng::new(seed)), &mut |_, _| {}).unwrap();
        let el = tp.elapsed();
        let l = lower(&part.graph, &part.params).unwrap();
        let ev = |s: &fit::Samples| { let a = s.evaluate(&site, &l).unwrap(); (a.loss(), 100.0 * eval::accuracy(&a.classes, &s.labels)) };
        let (vf, vr, xc, xk) = (ev(&vf), ev(&vr), ev(&xc), ev(&xk));
        println!("{} {b} steps {steps} rate {rate} {}: val fail {:.3} {:.0} pass {:.3} {:.1} | mean {:.3} | held {:.2} / {:.2}   {:.1}s of {:.1}", a[1], a[4], vf.0, vf.1, vr.0, vr.1, (vf.0+vr.0)/2., xc.1, xk.1, el.as_secs_f64(), t.elapsed().as_secs_f64());
    }
}
