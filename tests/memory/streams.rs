//! Sets that are read while they are evaluated: ten times as many images take no byte more.

use std::fs;
use std::path::Path;

use archrepair::data::{Fit, Set, open_set};
use archrepair::memory::meter;
use image::{GrayImage, Luma};

use super::inference;

/// Bytes held beside the label of each image before, and most bytes held while all of them are evaluated,
/// batches of 8 and a last one that is smaller.
fn evaluated(set: &Set) -> usize {
    let runner = inference::runner(false, 8);
    let mut seen = 0;
    meter::reset_peak();
    let before = meter::current();
    runner
        .stream(set, |n, _| {
            seen += n;
            Ok(())
        })
        .unwrap();
    assert_eq!((seen, meter::current()), (set.len(), before));
    meter::peak() - before
}

fn open(path: &Path) -> Set {
    open_set(path, "test", &Fit::network(&[1, 28, 28])).unwrap()
}

/// The peak for these numbers of images is the same.
fn assert_flat(name: &str, [few, many]: [usize; 2], make: impl Fn(usize) -> Set) {
    let peak = |n| {
        let set = make(n);
        assert_eq!(set.len(), n);
        // What is made once is made by the first. Work from outside of the pool would fill its queue.
        rayon::scope(|_| [evaluated(&set), evaluated(&set)][1])
    };
    let peaks = [few, many].map(peak);
    assert_eq!(peaks[0], peaks[1], "{name}: {few} and {many} images");
}

pub(crate) fn ten_times_as_many_images_take_no_byte_more() {
    let folder = tempfile::tempdir().unwrap();
    let npy = |n: usize| {
        // Paths of one length take as many bytes.
        let place = folder.path().join(format!("{n:04}"));
        fs::create_dir(&place).unwrap();
        let file = |name: &str, sizes: &[usize]| {
            let elements: Vec<u8> = (0..sizes.iter().product::<usize>()).map(|i| (i % 10) as u8).collect();
            fs::write(place.join(name), [archrepair::data::npy::header(sizes), elements].concat()).unwrap();
        };
        file("labels.npy", &[n]);
        file("fog.npy", &[n, 28, 28, 1]);
        open(&place.join("fog.npy"))
    };
    assert_flat("NPY", [103, 1030], npy);
    let kept = |n| Set::from(inference::noise(n));
    assert_flat("in a file", [101, 1010], kept);
    let fog = "fog:3".parse::<archrepair::data::corrupt::Corruption>().unwrap();
    assert_flat("corrupted", [102, 1020], |n| fog.over(&kept(n), 0));
    let pictures = |n: usize| {
        let place = folder.path().join(format!("pictures-{n:04}"));
        fs::create_dir_all(place.join("a")).unwrap();
        for i in 0..n {
            let picture = GrayImage::from_fn(40, 36, |x, y| Luma([(x * 3 + y * 5 + i as u32) as u8]));
            picture.save(place.join(format!("a/{i:04}.png"))).unwrap();
        }
        open(&place)
    };
    assert_flat("pictures", [41, 410], pictures);
}
