//! Weight files: safetensors, in one file or several, and PyTorch's, mapped, read tensor by tensor,
//! each checked before it is used.

use std::collections::BTreeMap;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;

use crate::error::{During, Error, Result};
use crate::storage::elements::Storage;
use crate::storage::header::{self, Entry, Header};
use crate::storage::shards::{self, Shards};
use crate::storage::torch::{self, Torch};
use crate::storage::{Bytes, Digest, View};

/// A file of tensors. Opening reads only where they are; a tensor is read when it is asked for.
#[derive(Debug)]
pub struct WeightFile {
    /// The file, then those it names.
    files: Vec<Bytes>,
    path: PathBuf,
    /// For each tensor the bytes it is in, a file mostly, and its place there.
    entries: BTreeMap<String, (Bytes, Entry)>,
    metadata: BTreeMap<String, String>,
    digest: OnceLock<Digest>,
}

impl WeightFile {
    /// Maps the file at `path`, on the terms of [`Bytes::open`], and reads where its tensors are.
    ///
    /// It may be a safetensors file, an index (`.json`) of several beside it, or a state dict that
    /// `torch.save` wrote; of the last no code is run.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it cannot be mapped, [`Error::Malformed`] when it is no such file: cut
    /// short, ranges that do not fit, a name twice, objects of Python that are no tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = Bytes::open(path)?;
        if !shards::is_index(path) {
            return Self::from_bytes(bytes, path);
        }
        let Shards { files, entries, metadata } = shards::open(&bytes, path)?;
        let files = once(bytes).chain(files).collect();
        Ok(Self { files, path: path.into(), entries, metadata, digest: OnceLock::new() })
    }

    /// The file that `bytes` are, safetensors or a state dict. Errors call it `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] as for [`WeightFile::open`].
    pub fn from_bytes(bytes: Bytes, path: &Path) -> Result<Self> {
        let malformed = |problem| Error::Malformed { path: path.into(), problem };
        let within = |entries: BTreeMap<String, Entry>, bytes: &Bytes| {
            let bytes = bytes.clone();
            entries.into_iter().map(move |(name, entry)| (name, (bytes.clone(), entry)))
        };
        let (entries, metadata) = if torch::is_torch(&bytes) {
            let Torch { entries, moved, reordered } = torch::parse(&bytes).map_err(malformed)?;
            let moved = within(moved, &Bytes::from(reordered));
            (within(entries, &bytes).chain(moved).collect(), BTreeMap::new())
        } else {
            let Header { entries, metadata } = header::parse(&bytes).map_err(malformed)?;
            (within(entries, &bytes).collect(), metadata)
        };
        Ok(Self { files: vec![bytes], path: path.into(), entries, metadata, digest: OnceLock::new() })
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the whole file in bytes, with those it names.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.files.iter().map(|file| file.len()).sum()
    }

    /// BLAKE3 of the whole file, followed by those it names, computed at the first call over the bytes
    /// that tensors come from.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| Digest::of_parts(self.files.iter().map(|file| &**file)))
    }

    /// The texts that the file carries beside its tensors.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Shape of the tensor `name`; `None` when there is no such tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.entries.get(name)?.1.shape)
    }

    /// Type of the numbers of the tensor `name`, as they are stored.
    #[must_use]
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        Some(self.entries.get(name)?.1.dtype)
    }

    /// The stored bytes of the tensor `name`: little-endian numbers of its type, in order of the
    /// last index first, at any alignment. Not checked to be finite.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&[u8]> {
        let (bytes, entry) = self.entries.get(name)?;
        bytes.get(entry.range.clone())
    }

    /// The tensor `name` in `f32` on `device`, which must have the shape `want`. An `f64` beyond
    /// the range of `f32` counts as infinite.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`] and [`Error::Shape`] when it is not there or not of this shape,
    /// [`Error::Malformed`] when its numbers are of another type than F16, BF16, F32 or F64,
    /// [`Error::NotFinite`] when one is NaN or infinite, [`Error::Tensor`] when `device` refuses.
    pub fn tensor(&self, name: &str, want: &[usize], device: &Device) -> Result<Tensor> {
        let values = self.view(name, want)?.widen();
        Tensor::from_vec(values, want, device).during("placing a weight on the device")
    }

    /// The tensor `name`, checked as by [`WeightFile::tensor`] and left in the file.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Malformed`] and
    /// [`Error::NotFinite`] as for [`WeightFile::tensor`].
    pub fn view(&self, name: &str, want: &[usize]) -> Result<View> {
        let Some((bytes, entry)) = self.entries.get(name) else {
            let (path, name, want) = (self.path.clone(), name.into(), want.into());
            return Err(Error::MissingTensor { path, name, want });
        };
        if entry.shape != want {
            let (path, name, want) = (self.path.clone(), name.into(), want.into());
            return Err(Error::Shape { path, name, want, got: entry.shape.clone() });
        }
        let view = View::new(bytes, entry).ok_or_else(|| Error::Malformed {
            path: self.path.clone(),
            problem: format!("tensor `{name}` is of type {}, expected F16, BF16, F32 or F64", entry.dtype),
        })?;
        match view.first_not_finite() {
            None => Ok(view),
            Some((index, value)) => {
                Err(Error::NotFinite { path: self.path.clone(), name: name.into(), index, value })
            }
        }
    }
}

/// The bytes of a safetensors file of `tensors`, stored as `store`: the same bytes for the same
/// tensors and metadata, on every run.
///
/// Tensors and metadata stand in the order of their names. One tensor at a time is copied to the
/// CPU and widened to `f32`, beside the bytes that are returned.
///
/// # Errors
///
/// [`Error::NotFinite`] when a number is NaN or infinite, [`Error::Config`] when one is too large
/// for `store`, when a tensor has the name `__metadata__`, or when the header would exceed the
/// 100 MB of the format, [`Error::Tensor`] when the tensor cannot be read.
pub fn serialize(
    tensors: &BTreeMap<String, Tensor>,
    store: Storage,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    if tensors.contains_key(header::METADATA) {
        let want = "another name, since the file format uses this one".into();
        return Err(Error::Config { field: "a tensor's name", got: header::METADATA.into(), want });
    }
    let entries = tensors
        .iter()
        .map(|(name, t)| (name.as_str(), store.dtype(), t.dims(), t.elem_count() * store.size_bytes()));
    let Some(mut bytes) = header::write(entries, metadata) else {
        let (got, want) = ("too long".into(), format!("at most {} bytes", header::MAX_HEADER_BYTES));
        return Err(Error::Config { field: "the header of the weights", got, want });
    };
    let elements: usize = tensors.values().map(Tensor::elem_count).sum();
    bytes.reserve_exact(elements * store.size_bytes());
    for (name, tensor) in tensors {
        append(tensor, name, store, &mut bytes)?;
    }
    Ok(bytes)
}

fn append(tensor: &Tensor, name: &str, store: Storage, out: &mut Vec<u8>) -> Result<()> {
    let values = tensor
        .to_device(&Device::Cpu)
        .and_then(|t| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>())
        .during("reading a tensor to store it")?;
    if let Some(index) = Storage::F32.first_unfit(&values) {
        let value = values[index];
        return Err(Error::NotFinite { path: "memory".into(), name: name.into(), index, value });
    }
    if let Some(index) = store.first_unfit(&values) {
        let value = values[index];
        return Err(Error::Config {
            field: "storage",
            got: store.to_string(),
            want: format!("f32, since tensor `{name}` holds {value} at element {index}"),
        });
    }
    store.narrow(&values, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a` is [1.0, -2.0] in F16 (0x3C00, 0xC000), `b` the integer 7.
    const SMALL: &[u8] = b"\x88\0\0\0\0\0\0\0\
        {\"__metadata__\":{\"k\":\"v\"},\
        \"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},\
        \"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[4,12]}}    \
        \x00\x3c\x00\xc0\x07\0\0\0\0\0\0\0";

    fn read(bytes: &[u8]) -> Result<WeightFile> {
        WeightFile::from_bytes(Bytes::from(bytes.to_vec()), Path::new("w"))
    }

    fn file(json: &str, data: &[u8]) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
    }

    fn message<T>(result: Result<T>) -> (u8, String) {
        result.map(|_| ()).map_err(|error| (error.code(), error.to_string())).unwrap_err()
    }

    fn tensors(entries: &[(&str, &[f32], &[usize])]) -> BTreeMap<String, Tensor> {
        let tensor = |v: &[f32], s: &[usize]| Tensor::from_slice(v, s, &Device::Cpu).unwrap();
        entries.iter().map(|(name, values, shape)| (name.to_string(), tensor(values, shape))).collect()
    }

    #[test]
    fn a_file_tells_what_it_holds() {
        let file = read(SMALL).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            (file.shape("a"), file.shape("b"), file.shape("c")),
            (Some(&[2][..]), Some(&[][..]), None)
        );
        assert_eq!((file.dtype("a"), file.dtype("b")), (Some(Dtype::F16), Some(Dtype::I64)));
        assert_eq!(file.raw("a").unwrap(), [0x00, 0x3C, 0x00, 0xC0]);
        assert_eq!(file.metadata()["k"], "v");
        assert_eq!((file.len_bytes(), file.path()), (SMALL.len(), Path::new("w")));
        assert_eq!(file.digest(), Digest::of(SMALL));
        let a = file.tensor("a", &[2], &Device::Cpu).unwrap();
        assert_eq!(a.to_vec1::<f32>().unwrap(), [1.0, -2.0]);
    }

    #[test]
    fn a_tensor_that_is_not_what_is_asked_for_is_refused() {
        let file = read(SMALL).unwrap();
        let got = message(file.tensor("c", &[2, 3], &Device::Cpu));
        assert_eq!(got, (14, "w has no tensor `c`, expected one of shape [2, 3]".into()));
        let got = message(file.tensor("a", &[1, 2], &Device::Cpu));
        assert_eq!(got, (15, "tensor `a` in w has shape [2], expected [1, 2]".into()));
        let got = message(file.tensor("b", &[], &Device::Cpu));
        let want = "w is damaged or not of this format: \
                    tensor `b` is of type I64, expected F16, BF16, F32 or F64";
        assert_eq!(got, (13, want.into()));
    }

    #[test]
    fn a_number_that_is_not_finite_is_named_with_its_place() {
        let json =
            |dtype, end| format!(r#"{{"a":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{end}]}}}}"#);
        let large = [1f64.to_le_bytes(), 1e300f64.to_le_bytes()].concat();
        let cases: [(&str, &[u8], &str); 4] = [
            ("F16", &[0, 0, 0, 0xFC], "-inf"),
            ("BF16", &[0, 0, 0x80, 0x7F], "inf"),
            ("F32", &[0, 0, 0, 0, 0, 0, 0xC0, 0x7F], "NaN"),
            ("F64", &large, "inf"),
        ];
        for (dtype, data, value) in cases {
            let bad = read(&file(&json(dtype, data.len()), data)).unwrap();
            let want = format!("tensor `a` in w holds {value} at element 1; every weight must be finite");
            assert_eq!(message(bad.tensor("a", &[2], &Device::Cpu)), (16, want));
        }
    }

    #[test]
    fn each_way_to_be_malformed_says_what_it_is() {
        let f32_at = |start: usize, end: usize| {
            format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{end}]}}}}"#)
        };
        let cases = [
            (b"\x02\0\0\0".to_vec(), "it has 4 bytes, a header takes at least 8"),
            (vec![0xFF; 9], "its header would be 18446744073709551615 bytes long"),
            (b"\x09\0\0\0\0\0\0\0{}".to_vec(), "its header would be 9 bytes long, the file has 2 more"),
            (file("\u{7f}", b""), "the header is no JSON with unique names"),
            (b"\x01\0\0\0\0\0\0\0\xff".to_vec(), "the header is no UTF-8"),
            (file("[]", b""), "the header describes no tensors"),
            (file(&f32_at(0, 8), &[0; 8]), "the header describes no tensors"),
            (file(&f32_at(4, 8), &[0; 8]), "the header describes no tensors"),
            (file(&f32_at(0, 4), &[0; 5]), "the header describes 4 bytes of tensors, the file holds 5"),
            (file(&f32_at(0, 4).replace("F32", "F99"), &[0; 4]), "the header describes no tensors"),
        ];
        for (bytes, problem) in cases {
            let (code, got) = message(read(&bytes));
            assert_eq!(code, 13);
            assert!(got.starts_with(&format!("w is damaged or not of this format: {problem}")), "{got}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        for length in 0..SMALL.len() {
            assert_eq!(message(read(&SMALL[..length])).0, 13);
        }
    }

    #[test]
    fn what_is_written_is_read_by_us_and_by_the_crate_of_the_format() {
        let tensors = tensors(&[("w", &[1.5, -2.0, 0.0, 3.0, 4.0, 65504.0], &[2, 3]), ("b", &[0.25], &[1])]);
        let metadata = BTreeMap::from([("z".into(), "1".into()), ("a\"".into(), "{}".into())]);
        for store in [Storage::Bf16, Storage::F16, Storage::F32] {
            let bytes = serialize(&tensors, store, &metadata).unwrap();
            let file = read(&bytes).unwrap();
            assert_eq!(file.metadata(), &metadata);
            let w = file.tensor("w", &[2, 3], &Device::Cpu).unwrap().flatten_all().unwrap();
            let last = if store == Storage::Bf16 { 65536.0 } else { 65504.0 };
            assert_eq!(w.to_vec1::<f32>().unwrap(), [1.5, -2.0, 0.0, 3.0, 4.0, last]);
            let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(theirs.tensor("w").unwrap().data(), file.raw("w").unwrap());
            assert_eq!(theirs.tensor("b").unwrap().shape(), [1]);
        }
    }

    /// The order of entries must not depend on a hash map's chance.
    #[test]
    fn the_bytes_are_sorted_by_name_and_aligned() {
        let metadata = BTreeMap::from([("y".into(), "2".into()), ("x".into(), "1".into())]);
        let bytes = serialize(&tensors(&[("b", &[2.0], &[1]), ("a", &[1.0], &[1])]), Storage::F16, &metadata);
        let json = "{\"__metadata__\":{\"x\":\"1\",\"y\":\"2\"},\
            \"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},\
            \"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,4]}}    ";
        assert_eq!(json.len() % 8, 0);
        assert_eq!(bytes.unwrap(), file(json, &[0x00, 0x3C, 0x00, 0x40]));
    }

    #[test]
    fn what_cannot_be_stored_is_refused_by_name() {
        let none = BTreeMap::new();
        let got = message(serialize(&tensors(&[("w", &[1.0, 7e4], &[2])]), Storage::F16, &none));
        let want = "storage is f16, expected f32, since tensor `w` holds 70000 at element 1";
        assert_eq!(got, (10, want.into()));
        let got = message(serialize(&tensors(&[("w", &[f32::NAN], &[1])]), Storage::F32, &none));
        let want = "tensor `w` in memory holds NaN at element 0; every weight must be finite";
        assert_eq!(got, (16, want.into()));
        let got = message(serialize(&tensors(&[("__metadata__", &[1.0], &[1])]), Storage::F32, &none));
        let want =
            "a tensor's name is __metadata__, expected another name, since the file format uses this one";
        assert_eq!(got, (10, want.into()));
    }

    #[test]
    fn a_tensor_of_any_float_type_and_layout_is_stored() {
        let plain = Tensor::arange(0f64, 6.0, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
        let turned = BTreeMap::from([("t".to_string(), plain.t().unwrap())]);
        let file = read(&serialize(&turned, Storage::F16, &BTreeMap::new()).unwrap()).unwrap();
        let t = file.tensor("t", &[3, 2], &Device::Cpu).unwrap();
        assert_eq!(t.to_vec2::<f32>().unwrap(), [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]);
    }

    /// Reads everything that a file offers.
    fn read_all(bytes: &[u8]) {
        let Ok(file) = read(bytes) else { return };
        for name in file.names() {
            if let Ok(tensor) = file.tensor(name, file.shape(name).unwrap(), &Device::Cpu) {
                assert_eq!(tensor.dims(), file.shape(name).unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_a_file(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
            let json = String::from_utf8_lossy(&bytes);
            read_all(&file(&json, &[0; 8]));
        }

        #[test]
        fn a_damaged_file_is_an_error_or_a_file(at in 0..SMALL.len(), byte in any::<u8>()) {
            let mut bytes = SMALL.to_vec();
            bytes[at] = byte;
            read_all(&bytes);
        }

        #[test]
        fn any_numbers_in_a_header_are_an_error_or_a_file(
            shape in prop::collection::vec(prop_oneof![0..9usize, any::<usize>()], 0..4),
            start in prop_oneof![Just(0), any::<usize>()],
            end in prop_oneof![0..64usize, any::<usize>()],
        ) {
            let json = format!(r#"{{"a":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{start},{end}]}}}}"#);
            read_all(&file(&json, &vec![0; end.min(64)]));
        }

        #[test]
        fn stored_numbers_come_back_rounded(values in prop::collection::vec(-6e4f32..6e4, 1..50)) {
            let n = values.len();
            let tensors = tensors(&[("w", &values, &[n])]);
            let bytes = serialize(&tensors, Storage::F16, &BTreeMap::new()).unwrap();
            let got = read(&bytes).unwrap().tensor("w", &[n], &Device::Cpu).unwrap();
            let want: Vec<f32> = values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect();
            prop_assert_eq!(got.to_vec1::<f32>().unwrap(), want);
        }
    }
}
