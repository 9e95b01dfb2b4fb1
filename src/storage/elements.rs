//! How numbers lie in a file, and the way between that and the `f32` they are computed in.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Numbers converted or looked at together: few enough for the first cache.
pub(super) const CHUNK: usize = 2048;

/// Fills numbers with what as many stored ones are, at any alignment.
pub(super) type Widen = fn(&[u8], &mut [f32]);

/// How weights are stored. They are computed in `f32` either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Two bytes: 8 bits of precision and the range of `f32`.
    Bf16,
    /// Two bytes: 11 bits of precision, numbers below 65,520.
    #[default]
    F16,
    /// Four bytes, without loss.
    F32,
}

impl Storage {
    /// Bytes of one number.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// The name of this type in a safetensors file.
    #[must_use]
    pub fn dtype(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
        }
    }

    /// The numbers that `bytes` hold, little-endian and at any alignment. Bytes behind the last
    /// whole number are ignored.
    #[must_use]
    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.size_bytes()];
        let whole = &bytes[..values.len() * self.size_bytes()];
        match self {
            Self::Bf16 => widen_half::<bf16>(whole, &mut values),
            Self::F16 => widen_half::<f16>(whole, &mut values),
            Self::F32 => widen_single(whole, &mut values),
        }
        values
    }

    /// Writes the numbers that `bytes` hold, little-endian and at any alignment, to `out`, which is
    /// as long; without memory of its own.
    ///
    /// # Panics
    ///
    /// When `bytes` does not hold exactly `out.len()` numbers.
    pub fn widen_into(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len() * self.size_bytes(), "bytes of the numbers");
        match self {
            Self::Bf16 => widen_half_into::<bf16>(bytes, bf16::ZERO, out),
            Self::F16 => widen_half_into::<f16>(bytes, f16::ZERO, out),
            Self::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
        }
    }

    /// Appends `values` to `out`, rounded to the nearest, ties to even.
    pub fn narrow(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::Bf16 => narrow_half(values, bf16::ZERO, out),
            Self::F16 => narrow_half(values, f16::ZERO, out),
            Self::F32 => out.extend_from_slice(bytemuck::cast_slice(values)),
        }
    }

    /// Flat index of the first of `values` that this type would hold as NaN or infinity.
    #[must_use]
    pub fn first_unfit(self, values: &[f32]) -> Option<usize> {
        let limit = match self {
            // Halfway between the greatest number and the one after it, which is infinity.
            Self::Bf16 => f32::from_bits(0x7F7F_8000),
            Self::F16 => 65_520.0,
            Self::F32 => f32::INFINITY,
        };
        let fits = |value: &f32| value.abs() < limit; // false for NaN
        // Whole chunks without a branch inside run many times faster than one `position`.
        let chunk = values.chunks(CHUNK).position(|chunk| !chunk.iter().fold(true, |ok, v| ok & fits(v)))?;
        let start = chunk * CHUNK;
        values[start..].iter().position(|value| !fits(value)).map(|index| start + index)
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

impl FromStr for Storage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            _ => {
                Err(Error::UnknownName { kind: "storage", got: text.into(), known: "bf16, f16, f32".into() })
            }
        }
    }
}

/// How numbers of type `dtype` become `f32`; `None` when it is no type of weights. An `f64` beyond
/// the range of `f32` becomes infinite.
pub(super) fn widening(dtype: Dtype) -> Option<Widen> {
    match dtype {
        Dtype::BF16 => Some(widen_half::<bf16>),
        Dtype::F16 => Some(widen_half::<f16>),
        Dtype::F32 => Some(widen_single),
        Dtype::F64 => Some(narrow_double),
        _ => None,
    }
}

fn widen_half<T: bytemuck::Pod>(bytes: &[u8], out: &mut [f32])
where
    [T]: HalfFloatSliceExt,
{
    if let Ok(halves) = bytemuck::try_cast_slice::<u8, T>(bytes) {
        halves.convert_to_f32_slice(out);
        return;
    }
    // A file may put its tensors at odd addresses.
    let mut aligned = [T::zeroed(); CHUNK];
    for (bytes, out) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
        let halves = &mut aligned[..out.len()];
        bytemuck::cast_slice_mut(halves).copy_from_slice(bytes);
        halves.convert_to_f32_slice(out);
    }
}

pub(super) fn widen_single(bytes: &[u8], out: &mut [f32]) {
    bytemuck::cast_slice_mut(out).copy_from_slice(bytes);
}

fn narrow_double(bytes: &[u8], out: &mut [f32]) {
    let (doubles, _) = bytes.as_chunks::<8>();
    for (out, double) in out.iter_mut().zip(doubles) {
        *out = f64::from_le_bytes(*double) as f32;
    }
}

fn widen_half_into<T: bytemuck::Pod>(bytes: &[u8], zero: T, out: &mut [f32])
where
    [T]: HalfFloatSliceExt,
{
    if let Ok(halves) = bytemuck::try_cast_slice::<u8, T>(bytes) {
        return halves.convert_to_f32_slice(out);
    }
    let mut halves = [zero; CHUNK];
    for (bytes, out) in bytes.chunks(CHUNK * size_of::<T>()).zip(out.chunks_mut(CHUNK)) {
        let halves = &mut halves[..out.len()];
        bytemuck::cast_slice_mut(halves).copy_from_slice(bytes);
        halves.convert_to_f32_slice(out);
    }
}

fn narrow_half<T: bytemuck::Pod>(values: &[f32], zero: T, out: &mut Vec<u8>)
where
    [T]: HalfFloatSliceExt,
{
    let mut halves = [zero; CHUNK];
    for chunk in values.chunks(CHUNK) {
        let halves = &mut halves[..chunk.len()];
        halves.convert_from_f32_slice(chunk);
        out.extend_from_slice(bytemuck::cast_slice(halves));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(storage: Storage, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        storage.narrow(values, &mut bytes);
        bytes
    }

    /// 1.5 is 0x3E00 in f16, 0x3FC0 in bf16 and 0x3FC00000 in f32.
    #[test]
    fn numbers_lie_in_bytes_as_the_formats_say() {
        assert_eq!(narrowed(Storage::F16, &[1.5]), [0x00, 0x3E]);
        assert_eq!(narrowed(Storage::Bf16, &[1.5]), [0xC0, 0x3F]);
        assert_eq!(narrowed(Storage::F32, &[1.5]), [0x00, 0x00, 0xC0, 0x3F]);
    }

    #[test]
    fn every_half_number_survives_the_way_to_f32_and_back() {
        for storage in [Storage::Bf16, Storage::F16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let wide = storage.widen(&bytes);
            assert_eq!(wide.len(), 1 << 16);
            let back = storage.widen(&narrowed(storage, &wide));
            assert!(wide.iter().zip(&back).all(|(a, b)| a == b || a.is_nan() && b.is_nan()));
        }
    }

    #[test]
    fn bytes_at_odd_addresses_and_half_numbers_at_the_end_are_read() {
        for storage in [Storage::Bf16, Storage::F16, Storage::F32] {
            let mut bytes = vec![0xFF; 1];
            storage.narrow(&[0.5, -2.0, 3.0], &mut bytes);
            bytes.push(0xFF);
            let storage_bytes = &bytes[1..];
            assert_eq!(storage.widen(storage_bytes), [0.5, -2.0, 3.0]);
            let mut out = [0.0; 3];
            storage.widen_into(&storage_bytes[..3 * storage.size_bytes()], &mut out);
            assert_eq!(out, [0.5, -2.0, 3.0]);
        }
        assert_eq!(Storage::F32.widen(&[1, 2, 3]), [0.0; 0]);
    }

    /// f16 ends at 65504 and the next would be 65536; bf16 at 0x7F7F and the next is infinite.
    #[test]
    fn what_does_not_fit_is_found_exactly_where_rounding_gives_infinity() {
        let below = |limit: f32| f32::from_bits(limit.to_bits() - 1);
        let (half, brain) = (65_520.0, f32::from_bits(0x7F7F_8000));
        for (storage, limit) in [(Storage::F16, half), (Storage::Bf16, brain)] {
            assert_eq!(storage.first_unfit(&[below(limit), -below(limit)]), None);
            assert!(storage.widen(&narrowed(storage, &[below(limit)]))[0].is_finite());
            assert_eq!(storage.first_unfit(&[0.0, -limit]), Some(1));
            assert!(storage.widen(&narrowed(storage, &[limit]))[0].is_infinite());
        }
        let mut many = vec![1.0; 3 * CHUNK];
        many[2 * CHUNK + 5] = f32::NAN;
        assert_eq!(Storage::F32.first_unfit(&many), Some(2 * CHUNK + 5));
        assert_eq!(Storage::F32.first_unfit(&[f32::MAX, f32::NEG_INFINITY]), Some(1));
    }

    #[test]
    fn storages_print_as_they_are_read() {
        for text in ["bf16", "f16", "f32"] {
            assert_eq!(text.parse::<Storage>().unwrap().to_string(), text);
        }
        let error = "int8".parse::<Storage>().unwrap_err().to_string();
        assert_eq!(error, "unknown storage `int8`, expected one of bf16, f16, f32");
    }
}
