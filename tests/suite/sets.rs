//! Readers of data sets: the files of `tests/data/sets`, whole, cut and changed, and what is said of those.

use std::fs;
use std::path::{Path, PathBuf};

use archrepair::data::{Fit, Images, Set, open, open_set};
use archrepair::error::Result;

use crate::support::data;

/// A path below `sets`; it need not be a file.
fn set(name: &str) -> PathBuf {
    data("sets").join(name)
}

fn read(name: &str) -> Images {
    open(&set(name), "test").unwrap()
}

/// The pixels of `[c, h, w]` that `make_sets.py` gives image `i`.
fn pixels(i: usize, [c, h, w]: [usize; 3], steps: [usize; 4]) -> Vec<u8> {
    let value =
        |at: usize| steps[0] * i + steps[1] * (at / (h * w)) + steps[2] * (at / w % h) + steps[3] * (at % w);
    (0..c * h * w).map(|at| (value(at) % 256) as u8).collect()
}

const STEPS: [usize; 4] = [40, 70, 3, 5];

/// The images have these labels and are those that the script numbers so.
fn assert_images(images: &Images, labels: &[u32], numbers: &[usize]) {
    assert_eq!(images.labels(), labels);
    for (at, number) in numbers.iter().enumerate() {
        assert_eq!(
            images.image(at),
            pixels(*number, images.shape(), STEPS),
            "{} {at}",
            images.path().display()
        );
    }
}

#[test]
fn cifar_10_is_read_file_by_file_and_as_its_parts() {
    assert_images(&read("cifar-10/data_batch_1.bin"), &[3, 9], &[0, 1]);
    assert_images(&read("cifar-10/train"), &[3, 9, 0], &[0, 1, 2]);
    let test = read("cifar-10/test");
    assert_images(&test, &[6], &[3]);
    assert_eq!((test.shape(), &*test.class_names().unwrap()[6]), ([3, 32, 32], "frog"));
    let error = open(&set("cifar-10"), "test").unwrap_err().to_string();
    assert!(error.contains("both sets of CIFAR") && error.contains("cifar-10/train or "), "{error}");
    assert_eq!(open(&set("cifar-10/valid"), "test").unwrap_err().code(), 11);
}

#[test]
fn cifar_100_has_the_fine_class_of_two() {
    assert_images(&read("cifar-100/train"), &[99], &[0]);
    let test = read("cifar-100/test.bin");
    assert_images(&test, &[7], &[1]);
    assert_eq!(test.class_names().unwrap()[7], "class 7");
}

#[test]
fn cifar_10_c_has_severities_one_after_another() {
    assert_images(&read("cifar-10-c/fog.npy"), &[1, 8].repeat(5), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_images(&read("cifar-10-c/fog.npy:1"), &[1, 8], &[0, 1]);
    assert_images(&read("cifar-10-c/fog.npy:3"), &[1, 8], &[4, 5]);
    for wrong in ["0", "6", "x"] {
        let text = open(&set(&format!("cifar-10-c/fog.npy:{wrong}")), "test").unwrap_err().to_string();
        assert_eq!(text, format!("severity is {wrong}, expected 1 to 5, as in fog.npy:3"));
    }
    let text = open(&set("cifar-10-c"), "test").unwrap_err().to_string();
    assert!(text.ends_with("fog.npy:3"), "{text}");
}

#[test]
fn tiny_imagenet_has_the_classes_of_its_list_in_order() {
    let open = |name| open_set(&set(name), "test", &Fit::default()).unwrap();
    let smooth = |set: Set, numbers: &[usize]| {
        let images = set.keep().unwrap();
        for (i, number) in numbers.iter().enumerate() {
            let want = pixels(*number, [3, 64, 64], [40, 30, 1, 1]);
            // JPEG bends the jumps from 255 to 0.
            let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 3;
            let share = images.image(i).iter().zip(&want).filter(|pair| near(*pair)).count() as f64 / 12288.0;
            assert!(share > 0.75, "{i}: {share}");
        }
    };
    let train = open("tiny-imagenet/train");
    assert_eq!((train.labels(), train.shape()), (&[0, 1, 2][..], [3, 64, 64]));
    assert_eq!(train.class_names().unwrap(), ["n01", "n02", "n03"]);
    assert_eq!(train.other_names().unwrap(), ["goldfish, Carassius auratus", "Egyptian cat", "teapot"]);
    smooth(train, &[0, 1, 2]);
    let val = open("tiny-imagenet/val");
    assert_eq!((val.labels(), val.class_names().unwrap().len()), (&[2, 0][..], 3));
    smooth(val, &[3, 4]);
    let corrupted = open("tiny-imagenet-c/fog/3");
    assert_eq!(corrupted.class_names().unwrap(), ["n02"]);
    smooth(corrupted, &[5]);
    let text = open_set(&set("tiny-imagenet"), "test", &Fit::default()).unwrap_err().to_string();
    assert!(text.contains("tiny-imagenet/train or ") && text.ends_with("tiny-imagenet/val"), "{text}");
}

#[test]
fn tensors_are_bytes_or_shares_with_channels_first_or_last() {
    for name in ["bytes", "floats"] {
        let images = read(&format!("tensors/{name}.safetensors"));
        assert_eq!(images.shape(), [3, 5, 5]);
        assert_images(&images, &[2, 0, 1, 2], &[0, 1, 2, 3]);
    }
}

#[test]
fn a_table_names_classes_or_numbers_them() {
    let named = read("table");
    assert_images(&named, &[1, 0, 0], &[2, 0, 1]);
    assert_eq!(named.class_names().unwrap(), ["bus", "car, red"]);
    let numbered = read("table/numbers.csv");
    assert_images(&numbered, &[7, 0], &[1, 2]);
    assert_eq!(numbered.class_names(), None);
}

/// A copy of some files of one folder of `sets`.
fn copy(folder: &str, names: &[&str]) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for name in names {
        fs::create_dir_all(to.path().join(name).parent().unwrap()).unwrap();
        fs::copy(set(folder).join(name), to.path().join(name)).unwrap();
    }
    to
}

/// What is said of a set after a file of it was changed.
fn said(path: &Path, file: &Path, change: impl Fn(&mut Vec<u8>)) -> String {
    let whole = fs::read(file).unwrap();
    let mut bytes = whole.clone();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
    let result: Result<Images> = open(path, "test");
    fs::write(file, whole).unwrap();
    result.unwrap_err().to_string()
}

#[test]
fn cut_and_wrong_files_of_cifar_are_told() {
    let folder = copy("cifar-10", &["test_batch.bin", "batches.meta.txt"]);
    let (file, names) = (folder.path().join("test_batch.bin"), folder.path().join("batches.meta.txt"));
    let cut = said(&file, &file, |bytes| bytes.truncate(3000));
    assert!(cut.ends_with("3000 bytes are no whole number of records of 3073"), "{cut}");
    let label = said(&file, &file, |bytes| bytes[0] = 10);
    assert!(label.ends_with("record 0 has the label 10, expected 0 to 9"), "{label}");
    let few = said(&file, &names, |bytes| bytes.truncate(9));
    assert!(few.ends_with("holds 1 names, expected 10, one a line"), "{few}");
    assert!(said(&file, &file, Vec::clear).ends_with("it is empty"));
}

#[test]
fn cut_and_wrong_npy_files_are_told() {
    let folder = copy("cifar-10-c", &["fog.npy", "labels.npy"]);
    let (file, labels) = (folder.path().join("fog.npy"), folder.path().join("labels.npy"));
    let ends = |text: String, end: &str| assert!(text.ends_with(end), "{text}");
    for len in [5, 9, 60, 127, 128, 30_847] {
        let text = said(&file, &file, |bytes| bytes.truncate(len));
        assert!(text.contains("is damaged or not of this format"), "{len}: {text}");
    }
    ends(
        said(&file, &file, |bytes| bytes.truncate(30_000)),
        "29872 bytes follow the header, which says [10, 32, 32, 3] of `|u1`",
    );
    let none = said(&file, &labels, |bytes| {
        let at = bytes.windows(2).position(|two| two == b"10").unwrap();
        bytes[at] = b'0';
        bytes.truncate(128);
    });
    assert!(
        none.contains("labels.npy is damaged") && none.contains("has shape [0], expected [10]"),
        "{none}"
    );
    let severity = folder.path().join("fog.npy:2");
    let uneven = said(&severity, &labels, |bytes| bytes[128] ^= 1);
    ends(
        uneven,
        "labels.npy is damaged or not of this format: its labels do not repeat 5 times, as for 5 severities",
    );
    let wide = said(&file, &file, |bytes| bytes[21..24].copy_from_slice(b"<f4"));
    ends(wide, "holds elements of `<f4`, expected integers");
}

#[test]
fn wrong_lists_and_tables_are_told_by_line() {
    let folder = copy("tiny-imagenet", &["wnids.txt", "val/val_annotations.txt", "val/images/val_0.JPEG"]);
    let (val, list) = (folder.path().join("val"), folder.path().join("val/val_annotations.txt"));
    let unknown = said(&val, &list, |bytes| bytes[11..14].copy_from_slice(b"n09"));
    assert!(unknown.ends_with("line 1: `n09` is no class of wnids.txt"), "{unknown}");
    let short = said(&val, &list, |bytes| bytes.truncate(10));
    assert!(short.ends_with("line 1: expected a file, a tabulator and a class"), "{short}");
    let elsewhere = said(&val, &list, |bytes| bytes[..3].copy_from_slice(b"../"));
    let want = "line 1: names the file `../_0.JPEG`, expected one in `images` or below";
    assert!(elsewhere.ends_with(want), "{elsewhere}");
    let missing = said(&val, &list, |_| ());
    assert!(missing.starts_with("cannot open ") && missing.ends_with("val_1.JPEG"), "{missing}");

    let folder = copy("table", &["labels.csv"]);
    let table = folder.path().join("labels.csv");
    let columns = said(folder.path(), &table, |bytes| bytes.extend(b"a,b,c\n"));
    assert!(columns.ends_with("line 5 has 3 columns, expected file and label"), "{columns}");
    let elsewhere = said(folder.path(), &table, |bytes| bytes.extend(b"../a,b\n"));
    let want = "line 5 names the file `../a`, expected one beside it or below";
    assert!(elsewhere.ends_with(want), "{elsewhere}");
    let empty = said(folder.path(), &table, |bytes| bytes.truncate(11));
    assert!(empty.ends_with("holds no images, expected at least 1"), "{empty}");
}

#[test]
fn wrong_tensors_are_told() {
    let folder = copy("tensors", &["floats.safetensors"]);
    let file = folder.path().join("floats.safetensors");
    let large = said(&file, &file, |bytes| {
        // The last elements are the images' or the labels'; both are found by the header's offsets.
        let start = bytes.windows(7).position(|text| text == b"\"images").unwrap();
        let text = String::from_utf8(bytes[start..start + 90].to_vec()).unwrap();
        let begin: usize = text.split('[').nth(2).unwrap().split(',').next().unwrap().parse().unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header + begin..][..4].copy_from_slice(&1.5f32.to_le_bytes());
    });
    assert!(large.ends_with("`images` holds 1.5 at element 0 of image 0, expected 0 to 1"), "{large}");
    let renamed = said(&file, &file, |bytes| {
        let at = bytes.windows(8).position(|text| text == b"\"labels\"").unwrap();
        bytes[at + 1] = b'x';
    });
    let integers = said(&file, &file, |bytes| {
        let at = bytes.windows(5).position(|text| text == b"\"F32\"").unwrap();
        bytes[at + 1] = b'I';
    });
    assert!(integers.ends_with("`images` holds I32, expected U8 or F32"), "{integers}");
    let want = "has no tensor `labels`; a set has `images` and `labels`";
    assert!(renamed.ends_with(want), "{renamed}");
    let renamed = said(&file, &file, |bytes| {
        let at = bytes.windows(8).position(|text| text == b"\"images\"").unwrap();
        bytes[at + 1] = b'x';
    });
    assert!(renamed.ends_with("has no tensor `images`; a set has `images` and `labels`"), "{renamed}");
}

/// Every prefix of every file of a single file's formats: an error, never a panic.
#[test]
fn a_file_cut_anywhere_is_an_error() {
    for name in [
        "tensors/bytes.safetensors",
        "tensors/floats.safetensors",
        "cifar-100/test.bin",
        "cifar-10-c/labels.npy",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Path::new(name).file_name().unwrap());
        let whole = fs::read(set(name)).unwrap();
        fs::copy(set("cifar-10-c/fog.npy"), folder.path().join("fog.npy")).unwrap();
        let opened = if name.ends_with("npy") { folder.path().join("fog.npy") } else { path.clone() };
        for len in (0..whole.len()).step_by(whole.len() / 150 + 1) {
            fs::write(&path, &whole[..len]).unwrap();
            assert!([11, 13].contains(&open(&opened, "test").unwrap_err().code()), "{name} {len}");
        }
    }
}

#[test]
fn images_of_arrays_are_resized_only_when_asked() {
    let fit = Fit { size: Some([28, 28]), ..Fit::default() };
    let open = |fit: &Fit| open_set(&set("cifar-10/test"), "test", fit).unwrap();
    assert_eq!(open(&fit).check([3, 28, 28], 10).unwrap_err().code(), 22);
    assert!(open(&Fit { resize: Some(30), ..fit }).check([3, 28, 28], 10).is_ok());
}
