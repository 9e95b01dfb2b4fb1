//! x
use archrepair::*;
use std::path::Path;
use std::time::Instant;
fn main() {
    let y = Path::new("../shared/yardstick");
    let m = zoo::Model::open(&y.join("resnet18_narrow_fmnist.safetensors"), &Default::default()).unwrap();
    println!("{} {:?}", m.network.architecture, m.network.input);
    let d = eval::Deployed { network: m.network.clone(), params: m.params().unwrap() };
    let test =
        data::open(Path::new("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz"), "test").unwrap();
    let r = d.runner().unwrap();
    let g = storage::WeightFile::open(&y.join("golden_logits.safetensors")).unwrap();
    for n in g.names() {
        println!("{n} {:?}", g.shape(n));
    }
    let sub = test.subset(&(0..256).collect::<Vec<_>>());
    let l = r.logits(&sub).unwrap();
    let name = g.names().next().unwrap().to_string();
    let want = g.tensor("logits", &[256, 10], &candle_core::Device::Cpu).unwrap();
    println!("max diff {}", (l - want).unwrap().abs().unwrap().max_all().unwrap());
    let t = Instant::now();
    let c = r.classes(&test).unwrap();
    let labels: Vec<usize> = (0..test.len()).map(|i| test.label(i) as usize).collect();
    println!("acc {} in {:?}", eval::accuracy(&c, &labels), t.elapsed());
    // step times
    for level in
        [fit::Level::Block("layer1.0".into()), fit::Level::Block("layer3.0".into()), fit::Level::Network]
    {
        let site = fit::Site::new(&d, level).unwrap();
        let s = fit::samples::Store { folder: Path::new("/tmp"), precision: memory::cache::Precision::F16 };
        let a = fit::Samples::new(&site, &sub, &d.normalize().unwrap(), s).unwrap();
        let mut part = fit::Part::new(site.graph.clone(), site.params.clone(), &site.input).unwrap();
        let t = Instant::now();
        let cfg = fit::Config { steps: 20, ..Default::default() };
        fit::fit(
            &site,
            &mut part,
            fit::Sets { failures: &a, replay: &a },
            (&cfg, &mut rng::Rng::new(1)),
            &mut |s, l| {
                if s % 10 == 0 {
                    println!("{s} {l}")
                }
            },
        )
        .unwrap();
        println!("{} step {:?}", site.level, t.elapsed() / 20);
    }
}
