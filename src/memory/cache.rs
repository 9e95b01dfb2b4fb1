//! Features of the frozen part of a network, kept in a file instead of memory.
//!
//! What stands before the repaired block never changes during a repair, so it runs once for
//! each image and its output is read back whenever the image is drawn. The file has no name:
//! it is gone when the cache is dropped, also after a crash.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use rayon::prelude::*;

pub use crate::device::Precision;
use crate::error::{Error, Result};
use crate::kernels::{slice, tensor};
use crate::meter::reserve;
use crate::storage::{Bytes, Storage};

/// How features of this precision are stored.
fn storage(precision: Precision) -> Storage {
    match precision {
        Precision::Bf16 => Storage::Bf16,
        Precision::F16 => Storage::F16,
        Precision::F32 => Storage::F32,
    }
}

const READING: &str = "read a feature cache in";
const WRITING: &str = "write a feature cache in";

/// Numbers that are rounded together on their way to the file.
const CHUNK: usize = 2048;

/// Rows of one shape in an unnamed file.
#[derive(Debug)]
pub struct Cache {
    file: File,
    /// The file when it was last finished.
    mapped: Option<Bytes>,
    folder: PathBuf,
    precision: Precision,
    /// Shape of a row.
    shape: Vec<usize>,
    rows: usize,
}

impl Cache {
    /// An empty cache in `folder` for rows of `shape`.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the folder cannot be written.
    pub fn create(folder: &Path, shape: &[usize], precision: Precision) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(Error::file("create a feature cache in", folder))?;
        Ok(Self { file, mapped: None, folder: folder.into(), precision, shape: shape.into(), rows: 0 })
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.rows * self.row_bytes()) as u64
    }

    /// Appends the rows of `features` `[n, shape..]`, which are `f32` on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the disk is full, [`Error::Graph`] for rows of another shape.
    pub fn push(&mut self, features: &Tensor) -> Result<()> {
        if features.dims().get(1..) != Some(&self.shape[..]) {
            let problem = format!("rows of {:?}, expected {:?}", features.dims(), self.shape);
            return Err(Error::Graph { node: "feature cache".into(), problem });
        }
        // What is mapped is never written to, and rows are only added; but readers must see them.
        self.mapped = None;
        let mut bytes = Vec::with_capacity(CHUNK * size_of::<f32>());
        for chunk in slice::<f32>(features)?.chunks(CHUNK) {
            bytes.clear();
            storage(self.precision).narrow(chunk, &mut bytes);
            self.file.write_all(&bytes).map_err(Error::file(WRITING, &self.folder))?;
        }
        self.rows += features.dims()[0];
        Ok(())
    }

    /// Ends writing; rows that were pushed can be read afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the disk is full or the file cannot be mapped.
    pub fn finish(&mut self) -> Result<()> {
        let mapped = if self.bytes() == 0 { None } else { Some(Bytes::map(&self.file)) };
        self.mapped = mapped.transpose().map_err(Error::file("map a feature cache in", &self.folder))?;
        Ok(())
    }

    /// The rows `indices` as a tensor `[n, shape..]` of `f32`. Nothing else is allocated.
    ///
    /// # Errors
    ///
    /// Those of [`Cache::read_into`], and [`Error::Memory`] when the limit does not allow it.
    pub fn batch(&self, indices: &[usize]) -> Result<Tensor> {
        let n = indices.len() * self.row_len();
        reserve("a batch of features", n * size_of::<f32>())?;
        let mut values = vec![0f32; n];
        self.read_into(indices, &mut values)?;
        let shape: Vec<usize> = std::iter::once(indices.len()).chain(self.shape.iter().copied()).collect();
        tensor(values, &shape)
    }

    /// Writes the rows `indices` to `values`, which is as long: a batch of several caches needs no
    /// copy when each writes its part.
    ///
    /// # Errors
    ///
    /// [`Error::File`] for a row that is not there or was not finished, [`Error::Graph`] when
    /// `values` has another length.
    pub fn read_into(&self, indices: &[usize], values: &mut [f32]) -> Result<()> {
        let row = self.row_len();
        if values.len() != indices.len() * row {
            let problem =
                format!("room for {} numbers, expected {} rows of {row}", values.len(), indices.len());
            return Err(Error::Graph { node: "feature cache".into(), problem });
        }
        let rows = values.par_chunks_exact_mut(row.max(1)).zip(indices);
        let read = rows.try_for_each(|(values, &index)| {
            storage(self.precision).widen_into(self.row(index)?, values);
            Ok(())
        });
        // What was read is in `values` now; its pages would pile up over a training.
        self.mapped.iter().for_each(Bytes::release);
        read.map_err(Error::file(READING, &self.folder))
    }

    fn row(&self, index: usize) -> io::Result<&[u8]> {
        let start = index.checked_mul(self.row_bytes());
        let row = start.and_then(|start| self.mapped.as_deref()?.get(start..)?.get(..self.row_bytes()));
        row.ok_or_else(|| {
            let problem = format!("there is no row {index} among the finished ones");
            io::Error::new(ErrorKind::UnexpectedEof, problem)
        })
    }

    /// Numbers of a row.
    fn row_len(&self) -> usize {
        self.shape.iter().product()
    }

    fn row_bytes(&self) -> usize {
        self.row_len() * storage(self.precision).size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn rows(from: usize, n: usize) -> Tensor {
        let values = (from * 6..(from + n) * 6).map(|i| i as f32 / 7.0).collect();
        Tensor::from_vec::<_, f32>(values, (n, 2, 3), &Device::Cpu).unwrap()
    }

    #[test]
    fn rows_come_back_in_the_order_asked_for() {
        for precision in [Precision::F16, Precision::F32] {
            let mut cache = Cache::create(&std::env::temp_dir(), &[2, 3], precision).unwrap();
            cache.push(&rows(0, 4)).unwrap();
            cache.push(&rows(4, 1)).unwrap();
            cache.finish().unwrap();
            assert_eq!((cache.len(), cache.bytes()), (5, 30 * storage(precision).size_bytes() as u64));
            let got = cache.batch(&[4, 1, 1]).unwrap();
            let want = Tensor::cat(&[rows(4, 1), rows(1, 1), rows(1, 1)], 0).unwrap();
            let off = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(if precision == Precision::F32 { off == 0.0 } else { off < 0.002 });
        }
    }

    #[test]
    fn several_caches_fill_one_batch_and_rows_can_be_added_later() {
        let mut cache = Cache::create(&std::env::temp_dir(), &[2, 3], Precision::F32).unwrap();
        cache.push(&rows(0, 2)).unwrap();
        assert!(cache.batch(&[0]).is_err(), "not finished");
        cache.finish().unwrap();
        cache.push(&rows(2, 1)).unwrap();
        cache.finish().unwrap();
        let mut values = [0.0; 18];
        let (first, second) = values.split_at_mut(6);
        cache.read_into(&[2], first).unwrap();
        cache.read_into(&[0, 1], second).unwrap();
        let want = Tensor::cat(&[rows(2, 1), rows(0, 2)], 0).unwrap().flatten_all().unwrap();
        assert_eq!(values.to_vec(), want.to_vec1::<f32>().unwrap());
        let error = cache.read_into(&[0], &mut values).unwrap_err().to_string();
        assert_eq!(error, "node `feature cache`: room for 18 numbers, expected 1 rows of 6");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut cache = Cache::create(&std::env::temp_dir(), &[2, 2], Precision::F32).unwrap();
        let error = cache.push(&rows(0, 1)).unwrap_err();
        assert_eq!(error.to_string(), "node `feature cache`: rows of [1, 2, 3], expected [2, 2]");
        assert_eq!(cache.batch(&[0]).unwrap_err().code(), 11);
        let nowhere = Cache::create(Path::new("/nonexistent"), &[1], Precision::F32).unwrap_err();
        assert_eq!(nowhere.to_string(), "cannot create a feature cache in /nonexistent");
    }
}
