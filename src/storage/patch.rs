//! Patches: a repair as a small file, bound to the digest of its base.
//!
//! A patch is a safetensors file. Its tensors are those of the new blocks; the metadata entry
//! `archrepair-patch` holds a [`PatchHeader`] as JSON, and `archrepair-checksum` the BLAKE3 of
//! the file as it is with 64 zeros in place of that checksum. So any flipped bit is noticed,
//! wherever it is. The checksum is against accidents, not against an attacker.
//!
//! Checked here: the checksum, the form of the header, that every number is finite. Whether the
//! graphs make sense and fit the base is checked by who applies them.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::storage::{Bytes, Digest, Storage, WeightFile, header, serialize};

/// The format that is written and read.
pub const VERSION: u32 = 1;

/// Metadata entry of the header.
const HEADER: &str = "archrepair-patch";

/// Metadata entry of the checksum.
const CHECKSUM: &str = "archrepair-checksum";

/// What stands in place of the checksum while it is computed.
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// New blocks and their weights, for one base.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Which base, which blocks, and how they came about.
    pub header: PatchHeader,
    /// Weights of the new blocks by name, in `f32` on the CPU when read from a file.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Everything of a patch but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchHeader {
    /// Format of this header: [`VERSION`].
    pub version: u32,
    /// Digest of the base file.
    pub base: Digest,
    /// Text of the new graph of each block, by the name of the block.
    pub blocks: BTreeMap<String, Value>,
    /// The choices that the search made.
    pub genotype: Value,
    /// Program version, seed, settings, digests of the data, numbers before and after.
    pub provenance: Value,
}

impl Patch {
    /// Maps and reads the patch at `path`, on the terms of [`Bytes::open`].
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it cannot be mapped, and as for [`Patch::read`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(Bytes::open(path)?, path)
    }

    /// The patch that `bytes` are. Errors call it `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Version`] when a newer program wrote it, [`Error::Malformed`] when it is no patch
    /// or is damaged, [`Error::NotFinite`] when a weight is NaN or infinite.
    pub fn read(bytes: Bytes, path: &Path) -> Result<Self> {
        let malformed = |problem: String| Error::Malformed { path: path.into(), problem };
        let file = WeightFile::from_bytes(bytes.clone(), path)?;
        let json = entry(&file, HEADER).map_err(malformed)?;
        // First, since a newer format may mean anything by the rest.
        check_version(json, path)?;
        verify(&bytes, entry(&file, CHECKSUM).map_err(malformed)?).map_err(malformed)?;
        if let Some(other) = file.metadata().keys().find(|key| *key != HEADER && *key != CHECKSUM) {
            return Err(malformed(format!("it has an unknown metadata entry `{other}`")));
        }
        let header = parse_header(json).map_err(malformed)?;
        let tensor = |name: &str| {
            let shape = file.shape(name).unwrap_or_default();
            Ok((name.to_string(), file.tensor(name, shape, &Device::Cpu)?))
        };
        let tensors = file.names().map(tensor).collect::<Result<_>>()?;
        Ok(Self { header, tensors })
    }

    /// The bytes of this patch as a file, its weights stored as `store`: the same bytes for the
    /// same patch, on every run.
    ///
    /// # Errors
    ///
    /// As for [`serialize`]; [`Error::Config`] when the version is not [`VERSION`].
    pub fn to_bytes(&self, store: Storage) -> Result<Vec<u8>> {
        if self.header.version != VERSION {
            let (got, want) = (self.header.version.to_string(), VERSION.to_string());
            return Err(Error::Config { field: "patch version", got, want });
        }
        let json = serde_json::to_string(&self.header).map_err(|error| Error::Config {
            field: "patch header",
            got: error.to_string(),
            want: "what JSON can hold".into(),
        })?;
        let metadata = BTreeMap::from([(HEADER.into(), json), (CHECKSUM.into(), ZEROS.into())]);
        let mut bytes = serialize(&self.tensors, store, &metadata)?;
        seal(&mut bytes);
        Ok(bytes)
    }

    /// Checks that this patch, read from `path`, is for the base with digest `base`.
    ///
    /// # Errors
    ///
    /// [`Error::BaseMismatch`].
    pub fn check_base(&self, base: Digest, path: &Path) -> Result<()> {
        if self.header.base == base {
            return Ok(());
        }
        let (want, got) = (self.header.base.to_string(), base.to_string());
        Err(Error::BaseMismatch { patch: path.into(), want, got })
    }
}

fn entry<'a>(file: &'a WeightFile, key: &str) -> std::result::Result<&'a str, String> {
    let text = file.metadata().get(key).map(String::as_str);
    text.ok_or_else(|| format!("it is no patch, since it has no metadata entry `{key}`"))
}

fn check_version(json: &str, path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let Versioned { version } = serde_json::from_str(json).map_err(|error| Error::Malformed {
        path: path.into(),
        problem: format!("its header has no version: {error}"),
    })?;
    match version {
        0 => Err(Error::Malformed { path: path.into(), problem: "its header has version 0".into() }),
        got if got > VERSION.into() => Err(Error::Version { path: path.into(), got, want: VERSION.into() }),
        _ => Ok(()),
    }
}

fn parse_header(json: &str) -> std::result::Result<PatchHeader, String> {
    // A block that stands twice would replace itself silently.
    header::refuse_duplicates(json)
        .and_then(|()| serde_json::from_str(json))
        .map_err(|error| format!("its header: {error}"))
}

/// Puts the checksum in place of the zeros.
fn seal(bytes: &mut [u8]) {
    let digest = Digest::of(bytes).to_string();
    if let Some(place) = checksum_place(bytes, ZEROS) {
        bytes[place..place + ZEROS.len()].copy_from_slice(digest.as_bytes());
    }
}

fn verify(bytes: &[u8], checksum: &str) -> std::result::Result<(), String> {
    let place = (checksum.len() == ZEROS.len()).then(|| checksum_place(bytes, checksum)).flatten();
    let Some(place) = place else {
        return Err(format!("its checksum `{checksum}` is not one of 64 digits"));
    };
    let rest = &bytes[place + ZEROS.len()..];
    let got = Digest::of_parts([&bytes[..place], ZEROS.as_bytes(), rest]).to_string();
    if got == checksum {
        return Ok(());
    }
    Err(format!("its checksum is {checksum}, its bytes have {got}"))
}

/// Where the value `checksum` stands in the file. Its entry is found as it is written, which no
/// other place can hold: quotes inside a JSON text are escaped.
fn checksum_place(bytes: &[u8], checksum: &str) -> Option<usize> {
    let entry = format!("\"{CHECKSUM}\":\"{checksum}\"");
    let start = bytes.windows(entry.len()).position(|window| window == entry.as_bytes())?;
    Some(start + entry.len() - 1 - checksum.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const PATH: &str = "p";

    fn patch() -> Patch {
        let header = PatchHeader {
            version: VERSION,
            base: Digest::of(b"base"),
            blocks: BTreeMap::from([("layer1.0".into(), json!({"nodes": [1, 2.5]}))]),
            genotype: json!(["conv3", null]),
            provenance: json!({"seed": 7, "text": "a \"archrepair-checksum\":\" b"}),
        };
        let weight = Tensor::new(&[[1f32, -2.0], [0.5, 65504.0]], &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0f32], &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("layer1.0.w".into(), weight), ("layer1.0.b".into(), bias)]);
        Patch { header, tensors }
    }

    fn read(bytes: &[u8]) -> Result<Patch> {
        Patch::read(Bytes::from(bytes.to_vec()), Path::new(PATH))
    }

    fn message<T>(result: Result<T>) -> (u8, String) {
        result.map(|_| ()).map_err(|error| (error.code(), error.to_string())).unwrap_err()
    }

    /// A file with this header text and a checksum that is right.
    fn with_header(json: &str) -> Vec<u8> {
        with_metadata(&[(HEADER, json), (CHECKSUM, ZEROS)])
    }

    fn with_metadata(metadata: &[(&str, &str)]) -> Vec<u8> {
        let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let mut bytes = serialize(&patch().tensors, Storage::F16, &metadata).unwrap();
        seal(&mut bytes);
        bytes
    }

    #[test]
    fn a_patch_reads_as_it_was_written() {
        for store in [Storage::Bf16, Storage::F16, Storage::F32] {
            let bytes = patch().to_bytes(store).unwrap();
            assert_eq!(bytes, patch().to_bytes(store).unwrap());
            let back = read(&bytes).unwrap();
            assert_eq!(back.header, patch().header);
            assert_eq!(back.to_bytes(store).unwrap(), bytes);
        }
        let exact = read(&patch().to_bytes(Storage::F16).unwrap()).unwrap();
        let weight = exact.tensors["layer1.0.w"].to_vec2::<f32>().unwrap();
        assert_eq!(weight, [[1.0, -2.0], [0.5, 65504.0]]);
    }

    #[test]
    fn a_patch_published_is_a_patch_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fog.patch");
        crate::storage::publish(&path, &patch().to_bytes(Storage::F16).unwrap()).unwrap();
        assert_eq!(Patch::open(&path).unwrap().header, patch().header);
    }

    #[test]
    fn any_flipped_bit_is_an_error() {
        let good = patch().to_bytes(Storage::F16).unwrap();
        let mut bytes = good.clone();
        for at in 0..good.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
                bytes[at] = good[at];
            }
        }
    }

    #[test]
    fn a_patch_cut_anywhere_is_an_error() {
        let good = patch().to_bytes(Storage::F16).unwrap();
        for length in 0..good.len() {
            assert_eq!(message(read(&good[..length])).0, 13, "{length} bytes");
        }
        assert_eq!(message(read(&[&good[..], b"0"].concat())).0, 13);
    }

    #[test]
    fn a_flipped_weight_is_named_as_damage() {
        let mut bytes = patch().to_bytes(Storage::F16).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let (code, text) = message(read(&bytes));
        assert_eq!(code, 13);
        assert!(text.starts_with("p is damaged or not of this format: its checksum is "), "{text}");
    }

    #[test]
    fn a_newer_patch_asks_for_a_newer_program() {
        let json = serde_json::to_string(&patch().header).unwrap();
        let newer = json.replace("\"version\":1", "\"version\":2,\"new\":0");
        let want = "p has format version 2, this program reads version 1; update archrepair";
        assert_eq!(message(read(&with_header(&newer))), (28, want.into()));
        let mut patch = patch();
        patch.header.version = 2;
        let got = message(patch.to_bytes(Storage::F16));
        assert_eq!(got, (10, "patch version is 2, expected 1".into()));
    }

    #[test]
    fn a_header_that_is_not_one_says_why() {
        let json = serde_json::to_string(&patch().header).unwrap();
        let cases = [
            (json.replace("\"version\":1", "\"version\":0"), "its header has version 0"),
            (json.replace("\"version\"", "\"Version\""), "its header has no version: missing field"),
            (json.replace("\"version\":1", "\"version\":1,\"new\":0"), "its header: unknown field `new`"),
            (json.replace("\"genotype\"", "\"layer1.0\""), "its header: unknown field `layer1.0`"),
            (json.replace("{\"nodes\"", "{\"nodes\":0,\"nodes\""), "its header: `nodes` stands twice"),
            (json.replace(&Digest::of(b"base").to_string(), "xyz"), "its header: digest is `xyz`"),
        ];
        for (json, problem) in cases {
            let (code, text) = message(read(&with_header(&json)));
            assert_eq!(code, 13);
            assert!(text.starts_with(&format!("p is damaged or not of this format: {problem}")), "{text}");
        }
        assert!(read(&with_header(&json)).is_ok());
    }

    #[test]
    fn a_file_without_the_entries_of_a_patch_is_none() {
        let json = serde_json::to_string(&patch().header).unwrap();
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("k", "v")], "it is no patch, since it has no metadata entry `archrepair-patch`"),
            (&[(HEADER, &json)], "it is no patch, since it has no metadata entry `archrepair-checksum`"),
            (&[(HEADER, &json), (CHECKSUM, "é")], "its checksum `é` is not one of 64 digits"),
            (&[(HEADER, &json), (CHECKSUM, ZEROS), ("k", "v")], "it has an unknown metadata entry `k`"),
        ];
        for (metadata, problem) in cases {
            let want = format!("p is damaged or not of this format: {problem}");
            assert_eq!(message(read(&with_metadata(metadata))), (13, want));
        }
    }

    /// 0xFC00 is minus infinity; the checksum is made right again.
    #[test]
    fn a_weight_that_is_not_finite_is_refused() {
        let json = serde_json::to_string(&patch().header).unwrap();
        let metadata = BTreeMap::from([(HEADER.into(), json), (CHECKSUM.into(), ZEROS.into())]);
        let mut bytes = serialize(&patch().tensors, Storage::F16, &metadata).unwrap();
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&[0x00, 0xFC]);
        seal(&mut bytes);
        let want = "tensor `layer1.0.w` in p holds -inf at element 3; every weight must be finite";
        assert_eq!(message(read(&bytes)), (16, want.into()));
    }

    #[test]
    fn a_patch_for_another_base_is_refused() {
        let patch = patch();
        patch.check_base(Digest::of(b"base"), Path::new(PATH)).unwrap();
        let got = message(patch.check_base(Digest::of(b"other"), Path::new(PATH)));
        let (want, other) = (Digest::of(b"base"), Digest::of(b"other"));
        let text = format!(
            "patch p is for a base with digest {want}, this base has {other}; \
             use the model the patch was made from"
        );
        assert_eq!(got, (18, text));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn any_header_text_is_an_error_or_a_patch(text in ".{0,200}", value in any::<u64>()) {
            let _ = read(&with_header(&text));
            let only_version = format!("{{\"version\":{value}}}");
            prop_assert!(read(&with_header(&only_version)).is_err());
        }
    }
}
