//! What holds of every corruption.

use super::fog::plasma;
use super::*;

/// Pictures of clouds, which are smooth with edges, as photographs are.
fn clouds(shape: [usize; 3], n: usize) -> Images {
    let [c, h, w] = shape;
    let mut rng = Rng::new(5);
    let mut pixels = Vec::new();
    for _ in 0..n * c {
        let side = h.max(w).next_power_of_two();
        let cloud = plasma(side, 1.6, &mut rng);
        pixels.extend((0..h * w).map(|i| (cloud[i / w * side + i % w] * 255.0) as u8));
    }
    Images::from_parts(shape, pixels, vec![0; n], "t").unwrap()
}

/// Every corruption of these constants.
fn every(constants: Constants) -> impl Iterator<Item = Corruption> {
    let levels =
        move |kind: &Kind| (1..=5).map(|s| Corruption::new(*kind, s, constants).unwrap()).collect::<Vec<_>>();
    Kind::all().iter().flat_map(levels)
}

/// The mean of the distances between bytes.
fn distance(a: &Images, b: &Images) -> f64 {
    let (a, b) = (a.pixels(), b.pixels());
    a.iter().zip(b.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn there_are_fifteen_common_corruptions_and_four_extra_ones() {
    assert_eq!(Kind::all().len(), 19);
    for constants in Constants::ALL {
        assert_eq!(every(constants).count(), 95);
        for corruption in every(constants) {
            assert_eq!(corruption.to_string().parse::<Corruption>().unwrap(), corruption);
        }
    }
    assert_eq!("contrast:2:cifar".parse::<Corruption>().unwrap().to_string(), "contrast:2");
    assert_eq!("fog:2:tinyimagenet".parse::<Corruption>().unwrap().to_string(), "fog:2:tinyimagenet");
}

#[test]
fn every_wrong_word_is_named() {
    let text = |text: &str| text.parse::<Corruption>().unwrap_err().to_string();
    assert!(
        text("gaussian:3")
            .starts_with("unknown corruption `gaussian`, expected one of gaussian_noise, shot_noise, ")
    );
    assert_eq!(text("contrast:6"), "severity is 6, expected 1 to 5, as in gaussian_noise:3");
    assert_eq!(text("contrast"), "severity is missing, expected 1 to 5, as in gaussian_noise:3");
    assert!(text("contrast:0").starts_with("severity is 0"));
    assert!(text("contrast:300").starts_with("severity is 300"));
    assert_eq!(
        text("contrast:3:mnist"),
        "unknown corruption constants `mnist`, expected one of cifar, tinyimagenet, imagenet"
    );
}

/// Each set of constants on images of its size, of one and of three channels.
#[test]
fn shape_and_labels_stay_and_the_number_of_threads_changes_nothing() {
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let pools = [on(1), on(3)];
    for (constants, sides) in
        [(Constants::Cifar, &[28, 32][..]), (Constants::TinyImageNet, &[64]), (Constants::ImageNet, &[224])]
    {
        for (side, channels) in sides.iter().flat_map(|side| [(*side, 1), (*side, 3)]) {
            let images = clouds([channels, side, side], 3);
            for corruption in every(constants) {
                let [one, three] = pools.each_ref().map(|pool| pool.install(|| corruption.apply(&images, 7)));
                assert_eq!(one, three, "{corruption}");
                assert_eq!((one.shape(), one.labels()), (images.shape(), images.labels()), "{corruption}");
            }
        }
    }
}

#[test]
fn images_of_any_size_and_number_of_channels_are_taken() {
    for shape in [[1, 1, 1], [3, 1, 1], [2, 3, 5], [3, 9, 2], [4, 12, 17], [1, 40, 25]] {
        for constants in Constants::ALL {
            for corruption in every(constants) {
                assert_eq!(corruption.apply(&clouds(shape, 2), 1).shape(), shape, "{corruption}");
            }
        }
    }
}

#[test]
fn a_seed_decides_and_each_image_has_chance_of_its_own() {
    use Kind::{
        Brightness, Contrast, DefocusBlur, GaussianBlur, JpegCompression, Pixelate, Saturate, ZoomBlur,
    };
    let without_chance =
        [Brightness, Contrast, DefocusBlur, GaussianBlur, JpegCompression, Pixelate, Saturate, ZoomBlur];
    let one = clouds([3, 32, 32], 1);
    let twice = one.subset(&[0, 0]);
    for corruption in every(Constants::Cifar) {
        let damaged = corruption.apply(&twice, 1);
        let is_fixed = without_chance.contains(&corruption.kind());
        assert_eq!(damaged.image(0) == damaged.image(1), is_fixed, "{corruption}");
        assert_eq!(damaged == corruption.apply(&twice, 2), is_fixed, "{corruption}");
    }
}

/// The published pattern: error grows with severity, so the images must move away.
///
/// The published constants themselves do not grow for all: saturation falls and then rises; water
/// turns to mud; glass and elastic transforms trade a wide motion for a rough one; frost takes more of
/// a grey picture's own light than it adds; snow 3 of large images has larger flakes than 2, not more.
#[test]
fn a_higher_severity_is_further_from_the_image() {
    use Kind::{ElasticTransform, Frost, GlassBlur, Saturate, Snow, Spatter};
    let uneven = [ElasticTransform, Frost, GlassBlur, Saturate, Snow, Spatter];
    for (constants, side, n) in
        [(Constants::Cifar, 32, 40), (Constants::TinyImageNet, 64, 20), (Constants::ImageNet, 224, 6)]
    {
        let images = clouds([3, side, side], n);
        for kind in Kind::all() {
            let at = |severity| {
                distance(&Corruption::new(*kind, severity, constants).unwrap().apply(&images, 3), &images)
            };
            let distances: Vec<f64> = (1..=5).map(at).collect();
            assert!(distances.iter().all(|distance| *distance > 0.0), "{kind:?} {constants:?} {distances:?}");
            assert!(distances.is_sorted() || uneven.contains(kind), "{kind:?} {constants:?} {distances:.2?}");
        }
    }
}
