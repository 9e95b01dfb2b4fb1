//! PyTorch's files of tensors: state dicts as `torch.save` writes them, in the zip format and in
//! the one before it.
//!
//! Only where tensors lie is read here, by [`pickle`], which runs nothing; their numbers stay in the
//! mapped file. In the zip format numbers are entries that are not compressed; in the old one
//! they follow the pickles. Numbers that lie in another order than the last index first, as those that
//! came from TensorFlow do, are copied once into that order. A state dict may lie under `state_dict`,
//! `model`, `model_state_dict` or `net`, and a `module.` in front of all names, which training on several
//! devices leaves, is taken off.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::header::Entry;
use super::pickle::{self, Object, Pickle, Storage, Tensor};

/// Where a checkpoint keeps its state dict.
const NESTED: [&str; 4] = ["state_dict", "model", "model_state_dict", "net"];

/// The head of a zip archive, and of a pickle of the number that begins the old format.
const ZIP: &[u8] = b"PK\x03\x04";
const OLD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Tensors of a file, and the numbers of those that lie there in another order.
#[derive(Debug)]
pub(super) struct Torch {
    /// For each tensor its place in the file.
    pub(super) entries: BTreeMap<String, Entry>,
    /// For some tensors their place in `reordered` instead.
    pub(super) moved: BTreeMap<String, Entry>,
    pub(super) reordered: Vec<u8>,
}

/// Where the numbers of each storage lie, by its key.
type Places = BTreeMap<String, Range<usize>>;

/// Whether `bytes` begin as a file of PyTorch does.
pub(super) fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(ZIP) || bytes.starts_with(OLD)
}

/// Where the tensors of the file `bytes` lie; an error says what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Torch, String> {
    if bytes.starts_with(ZIP) { zipped(bytes) } else { old(bytes) }
}

fn zipped(bytes: &[u8]) -> Result<Torch, String> {
    let broken = |error: zip::result::ZipError| format!("its zip archive cannot be read: {error}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let (mut text, mut places) = (None, Places::new());
    for i in 0..archive.len() {
        let file = archive.by_index_raw(i).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        let stored = file.compression() == CompressionMethod::Stored && !file.encrypted();
        let place = || {
            let start = usize::try_from(file.data_start()?).ok()?;
            let end = start.checked_add(usize::try_from(file.size()).ok()?)?;
            (stored && end <= bytes.len()).then_some(start..end)
        };
        let place = || place().ok_or_else(|| format!("its entry `{name}` is compressed or cut short"));
        match name.split_once('/') {
            Some((_, "data.pkl")) => text = Some(place()?),
            Some((_, "byteorder")) if bytes[place()?] != *b"little" => {
                return Err("its numbers are big-endian".into());
            }
            Some((_, inner)) => {
                if let Some(key) = inner.strip_prefix("data/") {
                    places.insert(key.into(), place()?);
                }
            }
            None => {}
        }
    }
    let text = text.ok_or("it is a zip archive without a data.pkl, which torch.save writes")?;
    torch(&pickle::read(&bytes[text])?, (bytes, &places))
}

/// Five pickles (a number, a version, what machine wrote it, the object, the keys of its storages),
/// then for each key the length of the storage and its numbers.
fn old(bytes: &[u8]) -> Result<Torch, String> {
    let mut rest = bytes;
    for _ in 0..3 {
        rest = pickle::read(rest)?.rest;
    }
    let object = pickle::read(rest)?;
    let keys = pickle::read(object.rest)?;
    let Object::List(ids) = &keys.objects[keys.root] else { return Err("it has no list of storages".into()) };
    let dtypes: BTreeMap<&str, Storage> =
        tensors(&object).map(|tensor| (tensor.storage.key, tensor.storage)).collect();
    let (mut places, mut at) = (Places::new(), bytes.len() - keys.rest.len());
    for &id in ids {
        let Object::Str(key) = keys.objects[id] else { return Err("a storage has no name".into()) };
        let storage = dtypes.get(key).ok_or_else(|| format!("no tensor is of storage `{key}`"))?;
        let cut = || format!("storage `{key}` is cut short");
        let len = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?;
        let start = at + len.len();
        let len = usize::try_from(u64::from_le_bytes(*len)).ok();
        let len = len.and_then(|len| len.checked_mul(storage.dtype.bitsize() / 8));
        at = len.and_then(|len| start.checked_add(len)).filter(|&end| end <= bytes.len()).ok_or_else(cut)?;
        places.insert(key.into(), start..at);
    }
    torch(&object, (bytes, &places))
}

fn tensors<'a>(pickle: &'a Pickle) -> impl Iterator<Item = &'a Tensor<'a>> {
    pickle.objects.iter().filter_map(|object| match object {
        Object::Tensor(tensor) => Some(tensor),
        _ => None,
    })
}

/// The tensors of the state dict of `pickle`, by name.
fn torch(pickle: &Pickle, (bytes, places): (&[u8], &Places)) -> Result<Torch, String> {
    let named = |id| {
        let of = |(name, id): (&str, usize)| match &pickle.objects[id] {
            Object::Tensor(tensor) => Some((name.to_owned(), tensor.clone())),
            _ => None,
        };
        Some(pickle.entries(id)?.filter_map(of).collect::<Vec<_>>()).filter(|named| !named.is_empty())
    };
    let nested = || {
        let at = |key| pickle.entries(pickle.root)?.find(|(name, _)| *name == key).map(|(_, id)| id);
        NESTED.into_iter().find_map(|key| named(at(key)?))
    };
    // Beside a state dict a checkpoint may hold other tensors, such as an accuracy.
    let of = nested().or_else(|| named(pickle.root)).ok_or_else(|| {
        format!("it holds no dictionary of tensors, not under {} either", NESTED.join(", "))
    })?;
    let parallel = of.iter().all(|(name, _)| name.starts_with("module."));
    let mut torch = Torch { entries: BTreeMap::new(), moved: BTreeMap::new(), reordered: Vec::new() };
    for (name, tensor) in of {
        let name = if parallel { name["module.".len()..].to_owned() } else { name };
        let named = |problem: String| format!("tensor `{name}` {problem}");
        if torch.entries.contains_key(&name) || torch.moved.contains_key(&name) {
            return Err(named("stands twice".into()));
        }
        let entry = entry(&tensor, places).map_err(named)?;
        if is_in_order(&tensor) {
            torch.entries.insert(name, entry);
            continue;
        }
        let start = torch.reordered.len();
        // Tensors may share numbers: all copies together must not be larger than the file.
        if start + entry.range.len() > bytes.len() {
            return Err("its tensors have the same numbers in many orders".into());
        }
        reorder(&bytes[entry.range.clone()], &tensor, &mut torch.reordered);
        torch.moved.insert(name, Entry { range: start..torch.reordered.len(), ..entry });
    }
    Ok(torch)
}

/// The bytes of a tensor, whose numbers must follow each other in its storage, whatever their order.
fn entry(tensor: &Tensor, places: &Places) -> Result<Entry, String> {
    let Tensor { storage, offset, shape, strides } = tensor;
    let place = places.get(storage.key).ok_or_else(|| format!("has no storage `{}`", storage.key))?;
    let impossible = || format!("has the impossible shape {shape:?}");
    let sides = shape.iter().filter(|side| **side != 0);
    sides.copied().try_fold(1, usize::checked_mul).ok_or_else(impossible)?;
    let mut axes: Vec<(usize, usize)> = strides.iter().copied().zip(shape.iter().copied()).collect();
    axes.retain(|(_, side)| *side != 1);
    axes.sort_unstable();
    let mut len = usize::from(!shape.contains(&0));
    let mut gapless = shape.len() == strides.len();
    for (stride, side) in axes {
        gapless &= stride == len || len == 0;
        len *= side;
    }
    if !gapless {
        return Err(format!("lies in strides {strides:?} for shape {shape:?}; save it contiguous"));
    }
    let size = storage.dtype.bitsize() / 8;
    let bytes = |n: usize| n.checked_mul(size).ok_or_else(impossible);
    let start = place.start.checked_add(bytes(*offset)?).ok_or_else(impossible)?;
    let end = start.checked_add(bytes(len)?).ok_or_else(impossible)?;
    if end > place.end || storage.len != place.len() / size {
        let got = place.len();
        return Err(format!("of shape {shape:?} from {offset} on does not fit its storage of {got} bytes"));
    }
    Ok(Entry { dtype: storage.dtype, shape: shape.clone(), range: start..end })
}

/// Whether numbers lie in the order of the last index first.
fn is_in_order(tensor: &Tensor) -> bool {
    let axes = tensor.shape.iter().zip(&tensor.strides).filter(|(side, _)| **side != 1);
    axes.map(|(_, stride)| stride).is_sorted_by(|a, b| a >= b) || tensor.shape.contains(&0)
}

/// Appends the numbers of a tensor, `source`, in the order of the last index first.
fn reorder(source: &[u8], tensor: &Tensor, out: &mut Vec<u8>) {
    let Tensor { storage, shape, strides, .. } = tensor;
    let size = storage.dtype.bitsize() / 8;
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..source.len() / size {
        out.extend_from_slice(&source[at * size..][..size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use candle_core::Device;
    use proptest::prelude::*;

    use super::{Object, Pickle, Places, Storage, Tensor, torch};
    use crate::storage::{Bytes, Digest, Dtype, WeightFile};

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
    }

    const FILES: [&str; 3] = ["state_dict.pth", "state_dict_old.pth", "checkpoint.pth"];

    fn read(bytes: Vec<u8>) -> crate::Result<WeightFile> {
        WeightFile::from_bytes(Bytes::from(bytes), Path::new("w"))
    }

    fn bytes(name: &str) -> Vec<u8> {
        std::fs::read(golden(name)).unwrap()
    }

    /// `a` is 0 to 5 as [2, 3], `b` is 1.5 in f16, `c` the half of a storage, `n` the integer 7.
    #[test]
    fn tensors_of_both_formats_are_read_where_they_lie() {
        for name in FILES {
            let file = WeightFile::open(&golden(name)).unwrap();
            let values = |name, shape: &[usize]| {
                let tensor = file.tensor(name, shape, &Device::Cpu).unwrap();
                tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b", "c", "d", "n"], "{name}");
            assert_eq!(values("a", &[2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            assert_eq!(values("b", &[]), [1.5]);
            assert_eq!(values("c", &[2]), [12.0, 13.0]);
            assert_eq!(values("d", &[1, 2]), [-2.0, 0.25]);
            let dtypes = ["a", "b", "c", "d", "n"].map(|name| file.dtype(name).unwrap());
            assert_eq!(dtypes, [Dtype::F32, Dtype::F16, Dtype::F64, Dtype::BF16, Dtype::I64]);
            assert_eq!(file.raw("n").unwrap(), 7i64.to_le_bytes());
        }
    }

    #[test]
    fn numbers_of_the_zip_format_can_be_read_in_place() {
        let file = WeightFile::open(&golden("state_dict.pth")).unwrap();
        let at = |name| file.raw(name).unwrap().as_ptr() as usize % 64;
        assert_eq!([at("a"), at("b"), at("d")], [0, 0, 0]);
    }

    /// 0 to 23 as [2, 3, 4], where the axes were exchanged: [3, 4, 2].
    #[test]
    fn numbers_in_another_order_are_brought_into_theirs() {
        let file = WeightFile::open(&golden("transposed.pth")).unwrap();
        let got = file.tensor("a", &[3, 4, 2], &Device::Cpu).unwrap().to_vec3::<f32>().unwrap();
        for (i, plane) in got.iter().enumerate() {
            for (j, row) in plane.iter().enumerate() {
                assert_eq!(*row, [4 * i + j, 12 + 4 * i + j].map(|number| number as f32));
            }
        }
        let bytes = bytes("transposed.pth");
        assert_eq!((file.len_bytes(), file.digest()), (bytes.len(), Digest::of(&bytes)));
    }

    #[test]
    fn a_tensor_beside_a_state_dict_does_not_hide_it() {
        let storage = Storage { dtype: Dtype::F32, key: "0", len: 1 };
        let tensor = || Object::Tensor(Tensor { storage, offset: 0, shape: vec![1], strides: vec![1] });
        let objects = vec![
            Object::Dict(vec![(1, 2), (3, 4)]),
            Object::Str("best_acc1"),
            tensor(),
            Object::Str("state_dict"),
            Object::Dict(vec![(5, 6)]),
            Object::Str("a"),
            tensor(),
        ];
        let places = Places::from([("0".into(), 0..4)]);
        let torch = torch(&Pickle { objects, root: 0, rest: &[] }, (&[0u8; 4][..], &places)).unwrap();
        assert_eq!(torch.entries.into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn files_that_hold_more_than_tensors_are_refused() {
        for (name, want) in [
            (
                "whole_model.pth",
                "it holds torch.nn.modules.linear.Linear, and this program runs no code of a file",
            ),
            ("repeated.pth", "tensor `a` lies in strides [0] for shape [3]; save it contiguous"),
            ("no_tensors.pth", "it holds no dictionary of tensors, not under state_dict, model"),
        ] {
            let error = WeightFile::open(&golden(name)).unwrap_err();
            assert_eq!(error.code(), 13);
            assert!(error.to_string().contains(want), "{error}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        for name in FILES {
            let whole = bytes(name);
            for end in 0..whole.len() {
                assert!(read(whole[..end].to_vec()).is_err(), "{name} cut at {end}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// What is opened can be read: nothing panics, and no tensor reaches beyond the file.
        #[test]
        fn changed_bytes_give_a_value_or_an_error(
            which in 0usize..3,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = bytes(FILES[which]);
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(file) = read(bytes) {
                for name in file.names() {
                    prop_assert!(file.raw(name).is_some());
                    drop(file.tensor(name, file.shape(name).unwrap_or(&[]), &Device::Cpu));
                }
            }
        }
    }
}
