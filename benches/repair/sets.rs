//! The images of a repair, and what the trained block sees of them.

use std::path::Path;

use archrepair::data::{self, Images, corrupt::Corruption, idx};
use archrepair::eval::Deployed;
use archrepair::fit::samples::Store;
use archrepair::fit::{Samples, Sets, Site};
use archrepair::memory::cache::Precision;

/// The sets by role, which is the name of their folder too.
const NAMES: [&str; 4] = ["failures", "replay", "held-failures", "held-replay"];
/// How many are trained on, and how many are held back.
const FAILURES: [usize; 2] = [80, 20];
const REPLAY: [usize; 2] = [2000, 400];
/// What the field does to images, of which the network then gets most wrong: severity 4 of 5.
const FIELD: (&str, u64) = ("contrast:4", 0);

/// Makes the sets from the shipped images and writes them into `folder`.
pub(crate) fn write(deployed: &Deployed, folder: &Path) -> archrepair::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fashion-sample");
    let corruption: Corruption = FIELD.0.parse()?;
    let field = corruption.apply(&data::open(&root.join("pool"), "field")?, FIELD.1);
    let classes = deployed.runner()?.classes(&field)?;
    let wrong: Vec<usize> = (0..field.len()).filter(|&i| classes[i] != field.label(i) as usize).collect();
    let (failures, replay) = (field.subset(&wrong), data::open(&root.join("replay"), "replay")?);
    let parts = [
        (&failures, 0..FAILURES[0]),
        (&replay, 0..REPLAY[0]),
        (&failures, FAILURES[0]..FAILURES[0] + FAILURES[1]),
        (&replay, REPLAY[0]..REPLAY[0] + REPLAY[1]),
    ];
    for (name, (of, part)) in NAMES.iter().zip(parts) {
        let (images, labels) = idx::encode(&of.subset(&part.collect::<Vec<_>>()))?;
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("images-idx3-ubyte.gz"), images).unwrap();
        std::fs::write(folder.join("labels-idx1-ubyte.gz"), labels).unwrap();
    }
    Ok(())
}

/// The sets as the block sees them: features in unnamed files, rounded as a repair rounds them.
pub(crate) struct Seen {
    sets: [Samples; 4],
    /// Classes of held-back failures and replay.
    pub(crate) held_targets: [Vec<usize>; 2],
}

impl Seen {
    /// Reads the images in `folder` and runs what stands before the block.
    pub(crate) fn new(site: &Site, deployed: &Deployed, folder: &Path) -> archrepair::Result<Self> {
        let (normalize, store) = (deployed.normalize()?, Store { folder, precision: Precision::F16 });
        let open = |name| data::open(&folder.join(name), name);
        let [trained, replay, held, held_replay] = NAMES.map(open);
        let (held, held_replay) = (held?, held_replay?);
        let held_targets = [&held, &held_replay].map(Images::targets);
        let failures = |images: &Images| Samples::new(site, images, &normalize, store);
        let taught = |images: &Images| Samples::taught(site, images, &normalize, store);
        let sets = [failures(&trained?)?, taught(&replay?)?, failures(&held)?, taught(&held_replay)?];
        Ok(Self { sets, held_targets })
    }

    pub(crate) fn training(&self) -> Sets<'_> {
        let [failures, replay, ..] = &self.sets;
        Sets { failures, surrogates: None, replay }
    }

    pub(crate) fn validation(&self) -> Sets<'_> {
        let [.., failures, replay] = &self.sets;
        Sets { failures, surrogates: None, replay }
    }
}
