//! The numbers of one tensor, where they lie in a file.

use std::ops::Range;

use half::f16;
use safetensors::Dtype;

use super::elements::{CHUNK, Storage, Widen, widen_single, widening};
use super::header::Entry;
use crate::storage::Bytes;

/// Numbers that stay where they lie, in a mapped file mostly, and become `f32` when they are
/// read. A clone shares the bytes.
#[derive(Clone, Debug)]
pub struct View {
    bytes: Bytes,
    range: Range<usize>,
    shape: Vec<usize>,
    dtype: Dtype,
    widen: Widen,
}

impl View {
    /// The tensor `entry` of the file `bytes`; `None` when its numbers are no floats.
    pub(super) fn new(bytes: &Bytes, entry: &Entry) -> Option<Self> {
        let (range, shape) = (entry.range.clone(), entry.shape.clone());
        Some(Self { bytes: bytes.clone(), range, shape, dtype: entry.dtype, widen: widening(entry.dtype)? })
    }

    /// The `f32` tensor of `shape` from byte `start` of `bytes` on; no numbers where there are
    /// fewer bytes.
    #[must_use]
    pub fn f32(bytes: &Bytes, start: usize, shape: &[usize]) -> Self {
        let range = start..start + 4 * shape.iter().product::<usize>();
        let range = if range.end <= bytes.len() { range } else { 0..0 };
        Self { bytes: bytes.clone(), range, shape: shape.to_vec(), dtype: Dtype::F32, widen: widen_single }
    }

    /// Shape of the tensor.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of the numbers as they are stored.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Bytes of the file that the numbers take.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.range.len()
    }

    /// How many numbers there are.
    #[must_use]
    pub fn n_elements(&self) -> usize {
        self.range.len() / self.size_bytes()
    }

    /// Fills `out` with the numbers from flat index `start` on, last index of the shape first.
    /// What would lie behind the end of the tensor keeps its value.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        let start = start.min(self.n_elements());
        let n = out.len().min(self.n_elements() - start);
        let from = self.range.start + start * self.size_bytes();
        if let Some(bytes) = self.bytes.get(from..from + n * self.size_bytes()) {
            (self.widen)(bytes, &mut out[..n]);
        }
    }

    /// The numbers where they lie, if they are of half precision and at an even address.
    #[must_use]
    pub fn halves(&self) -> Option<&[f16]> {
        let bytes = self.bytes.get(self.range.clone()).filter(|_| self.dtype == Dtype::F16)?;
        bytemuck::try_cast_slice(bytes).ok()
    }

    /// Lets go of the pages of the whole file, as [`Bytes::release`].
    pub(crate) fn release(&self) {
        self.bytes.release();
    }

    /// All numbers, in one allocation of exactly their size.
    #[must_use]
    pub fn widen(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.n_elements()];
        self.read(0, &mut values);
        values
    }

    /// Flat index and value of the first number that is NaN or infinite as `f32`. Allocates nothing.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<(usize, f32)> {
        let mut chunk = [0.0; CHUNK];
        let n = self.n_elements();
        (0..n).step_by(CHUNK).find_map(|start| {
            let chunk = &mut chunk[..CHUNK.min(n - start)];
            self.read(start, chunk);
            Storage::F32.first_unfit(chunk).map(|index| (start + index, chunk[index]))
        })
    }

    /// Whether both are the same bytes of the same file.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let place = |view: &Self| (view.bytes.as_ptr(), view.range.clone());
        place(self) == place(other)
    }

    fn size_bytes(&self) -> usize {
        (self.dtype.bitsize() / 8).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers behind `odd` bytes, at an odd address for an odd count.
    fn view(dtype: Dtype, data: &[u8], odd: usize) -> View {
        let bytes = Bytes::from([&vec![0xFF; odd], data].concat());
        let shape = vec![data.len() * 8 / dtype.bitsize()];
        View::new(&bytes, &Entry { dtype, shape, range: odd..odd + data.len() }).unwrap()
    }

    /// 1.5 and -2.0 in each type.
    fn samples() -> [(Dtype, Vec<u8>); 4] {
        [
            (Dtype::BF16, vec![0xC0, 0x3F, 0x00, 0xC0]),
            (Dtype::F16, vec![0x00, 0x3E, 0x00, 0xC0]),
            (Dtype::F32, [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat()),
            (Dtype::F64, [1.5f64.to_le_bytes(), (-2f64).to_le_bytes()].concat()),
        ]
    }

    #[test]
    fn numbers_of_every_type_are_read_at_any_address() {
        for (dtype, data) in samples() {
            for odd in 0..9 {
                let view = view(dtype, &data, odd);
                assert_eq!((view.n_elements(), view.len_bytes()), (2, data.len()));
                assert_eq!(view.widen(), [1.5, -2.0]);
            }
        }
    }

    #[test]
    fn halves_are_read_in_place_where_they_can_be() {
        for (dtype, data) in samples() {
            let halves = view(dtype, &data, 2).halves().map(<[f16]>::to_vec);
            let want = (dtype == Dtype::F16).then(|| [1.5, -2.0].map(f16::from_f32).to_vec());
            // Where a file puts its bytes, only the system knows.
            assert!(halves == want || halves.is_none(), "{dtype:?}");
        }
    }

    #[test]
    fn a_read_ends_where_the_tensor_ends() {
        for (dtype, data) in samples() {
            let view = view(dtype, &data, 1);
            for (start, want) in [(1, [-2.0, 7.0]), (2, [7.0, 7.0]), (usize::MAX, [7.0, 7.0])] {
                let mut out = [7.0; 2];
                view.read(start, &mut out);
                assert_eq!(out, want);
            }
        }
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_found_behind_many() {
        let mut data = vec![0; 2 * (CHUNK + 10)];
        assert_eq!(view(Dtype::F16, &data, 0).first_not_finite(), None);
        data[2 * CHUNK + 7] = 0x7C; // the upper byte of an infinity
        for odd in 0..2 {
            let found = view(Dtype::F16, &data, odd).first_not_finite();
            assert_eq!(found, Some((CHUNK + 3, f32::INFINITY)));
        }
    }

    #[test]
    fn only_the_same_bytes_of_a_file_are_the_same() {
        let view = view(Dtype::F16, &[0; 8], 0);
        assert!(view.is_same(&view.clone()));
        assert!(!view.is_same(&View { range: 2..8, ..view.clone() }));
    }

    #[test]
    fn whole_numbers_are_no_weights() {
        let entry = Entry { dtype: Dtype::I64, shape: vec![1], range: 0..8 };
        assert!(View::new(&Bytes::from(vec![0; 8]), &entry).is_none());
    }
}
