//! The head of a safetensors file: eight bytes of length, then JSON that says where each tensor
//! lies.
//!
//! The crate `safetensors` checks that the ranges fit the shapes, follow one another and leave
//! no gap. Two things it lets pass are checked here.
//!
//! 1. A name that stands twice (huggingface/safetensors#401): the last one would win silently.
//! 2. Ranges whose end is near 2^64: its `read_metadata` adds the length of the header to that
//!    end without a check, so the framing is read here and the crate sees only the JSON.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer as _};

/// Bytes in front of the JSON: its length, little-endian.
const LENGTH_BYTES: usize = 8;

/// The longest header of the format.
pub(super) const MAX_HEADER_BYTES: usize = 100_000_000;

/// The entry of the JSON that is no tensor.
pub(super) const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Where its bytes lie in the file; checked to be inside.
    pub(super) range: Range<usize>,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads the header of the file `bytes`; an error says what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, String> {
    let (json, data) = split(bytes)?;
    let text = std::str::from_utf8(json).map_err(|error| format!("the header is no UTF-8: {error}"))?;
    refuse_duplicates(text).map_err(|error| format!("the header is no JSON with unique names: {error}"))?;
    let header: Metadata =
        serde_json::from_str(text).map_err(|error| format!("the header describes no tensors: {error}"))?;
    if header.data_len() != data.len() {
        let (want, got) = (header.data_len(), data.len());
        return Err(format!("the header describes {want} bytes of tensors, the file holds {got}"));
    }
    let start = LENGTH_BYTES + json.len();
    let entry = |(name, info): (String, &TensorInfo)| {
        check_overflow(&name, &info.shape)?;
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        Ok((name, Entry { dtype: info.dtype, shape: info.shape.clone(), range }))
    };
    let entries = header.tensors().into_iter().map(entry).collect::<Result<_, String>>()?;
    let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
    Ok(Header { entries, metadata: metadata.collect() })
}

/// The JSON and the bytes behind it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("it has {} bytes, a header takes at least {LENGTH_BYTES}", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let json = usize::try_from(length).ok().filter(|length| *length <= MAX_HEADER_BYTES);
    let Some(json) = json else {
        return Err(format!("its header would be {length} bytes long, {MAX_HEADER_BYTES} are the most"));
    };
    rest.split_at_checked(json)
        .ok_or_else(|| format!("its header would be {json} bytes long, the file has {} more", rest.len()))
}

/// Refuses the shape of a tensor without elements whose other sides would overflow when they are
/// multiplied, as they are for strides.
fn check_overflow(name: &str, shape: &[usize]) -> Result<(), String> {
    let sides = shape.iter().filter(|side| **side != 0);
    match sides.copied().try_fold(1, usize::checked_mul) {
        Some(_) => Ok(()),
        None => Err(format!("tensor `{name}` has the impossible shape {shape:?}")),
    }
}

/// The head of a file of `tensors`, given by name, type, shape and length in bytes, one after
/// another in this order. `None` when it would be longer than the format allows.
pub(super) fn write<'a>(
    tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], usize)>,
    metadata: &BTreeMap<String, String>,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; LENGTH_BYTES];
    write_json(tensors, metadata, &mut bytes).ok()?;
    // Spaces up to a multiple of 8, so that tensors start aligned.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    let length = bytes.len() - LENGTH_BYTES;
    bytes[..LENGTH_BYTES].copy_from_slice(&(length as u64).to_le_bytes());
    (length <= MAX_HEADER_BYTES).then_some(bytes)
}

fn write_json<'a>(
    tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], usize)>,
    metadata: &BTreeMap<String, String>,
    out: &mut Vec<u8>,
) -> serde_json::Result<()> {
    let mut json = serde_json::Serializer::new(out);
    let mut map = json.serialize_map(None)?;
    if !metadata.is_empty() {
        map.serialize_entry(METADATA, metadata)?;
    }
    let mut start = 0;
    for (name, dtype, shape, bytes) in tensors {
        let data_offsets = (start, start + bytes);
        map.serialize_entry(name, &TensorInfo { dtype, shape: shape.to_vec(), data_offsets })?;
        start += bytes;
    }
    map.end()
}

/// Fails when any object anywhere in the JSON `text` has a name twice, or `text` is no JSON.
pub(super) fn refuse_duplicates(text: &str) -> serde_json::Result<()> {
    serde_json::from_str::<Unique>(text).map(|Unique| ())
}

/// Any JSON without duplicates; keeps nothing.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON without a name twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("`{name}` stands twice")));
            }
            names.insert(name);
            map.next_value::<Unique>()?;
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: &[u8]) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
    }

    fn problem(json: &str, data: &[u8]) -> String {
        parse(&file(json, data)).unwrap_err()
    }

    #[test]
    fn ranges_that_end_near_the_greatest_number_are_refused() {
        // Each tensor has 2^58 - 1 elements of 8 bytes; 8 of them end 64 below 2^64, and the
        // header's length added to that passes it.
        let side = (1u64 << 58) - 1;
        let tensor = |i: u64| {
            let (start, end) = (i * side * 8, (i + 1) * side * 8);
            format!(r#""t{i}":{{"dtype":"F64","shape":[{side}],"data_offsets":[{start},{end}]}}"#)
        };
        let json = format!("{{{}}}", (0..8).map(tensor).collect::<Vec<_>>().join(","));
        assert_eq!(
            problem(&json, &[]),
            "the header describes 18446744073709551552 bytes of tensors, the file holds 0"
        );
    }

    #[test]
    fn a_name_twice_is_refused_wherever_it_stands() {
        let one = r#""a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}"#;
        let twice = format!("{{{one},{}}}", one.replace("\"a\"", "\"\\u0061\""));
        assert!(problem(&twice, &[0; 4]).contains("`a` stands twice"));
        let metadata = format!(r#"{{"__metadata__":{{"k":"1","k":"2"}},{one}}}"#);
        assert!(problem(&metadata, &[0; 4]).contains("`k` stands twice"));
        assert!(refuse_duplicates(r#"[{"a":[null,true,-1,1.5,"x",{"a":1}]}]"#).is_ok());
    }

    #[test]
    fn an_empty_shape_that_overflows_is_refused() {
        let json = r#"{"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}"#;
        assert_eq!(problem(json, &[]), "tensor `a` has the impossible shape [0, 4294967296, 4294967296]");
    }

    #[test]
    fn nesting_without_end_is_an_error() {
        assert!(problem(&"[".repeat(1_000_000), &[]).contains("recursion limit"));
    }
}
