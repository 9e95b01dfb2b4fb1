//! Features of the frozen part of a network, kept in a file instead of memory.
//!
//! What stands before the repaired block never changes during a repair, so it runs once for
//! each image and its output is read back whenever the image is drawn. The file has no name:
//! it is gone when the cache is dropped, also after a crash.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::kernels::{slice, tensor};

/// How features are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Half the bytes, 11 bits of mantissa.
    #[default]
    F16,
    /// Exactly what was computed.
    F32,
}

impl Precision {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Rows of one shape in an unnamed file.
#[derive(Debug)]
pub struct Cache {
    file: BufWriter<File>,
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
        Ok(Self {
            file: BufWriter::new(file),
            folder: folder.into(),
            precision,
            shape: shape.into(),
            rows: 0,
        })
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
        let values = slice::<f32>(features)?;
        let written = match self.precision {
            Precision::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(&values);
                self.file.write_all(bytemuck::cast_slice(&halves))
            }
            Precision::F32 => self.file.write_all(bytemuck::cast_slice(&values)),
        };
        written.map_err(Error::file("write a feature cache in", &self.folder))?;
        self.rows += features.dims()[0];
        Ok(())
    }

    /// Ends writing; rows that were pushed can be read afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the disk is full.
    pub fn finish(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::file("write a feature cache in", &self.folder))
    }

    /// The rows `indices` as a tensor `[n, shape..]` of `f32`.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when reading fails, also for a row that is not there.
    pub fn batch(&self, indices: &[usize]) -> Result<Tensor> {
        let row = self.row_bytes() / self.precision.bytes();
        let mut values = vec![0f32; indices.len() * row];
        let rows = values.par_chunks_mut(row.max(1)).zip(indices);
        rows.try_for_each_init(
            || vec![0u8; self.row_bytes()],
            |bytes, (values, &index)| self.read(index, bytes, values),
        )
        .map_err(Error::file("read a feature cache in", &self.folder))?;
        let shape: Vec<usize> = std::iter::once(indices.len()).chain(self.shape.iter().copied()).collect();
        tensor(values, &shape)
    }

    fn read(&self, index: usize, bytes: &mut [u8], values: &mut [f32]) -> std::io::Result<()> {
        self.file.get_ref().read_exact_at(bytes, (index * self.row_bytes()) as u64)?;
        match self.precision {
            Precision::F16 => {
                let halves = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]));
                values.iter_mut().zip(halves).for_each(|(v, h)| *v = h.to_f32());
            }
            Precision::F32 => {
                let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                values.iter_mut().zip(floats).for_each(|(v, f)| *v = f);
            }
        }
        Ok(())
    }

    fn row_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.precision.bytes()
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
            assert_eq!((cache.len(), cache.bytes()), (5, 30 * precision.bytes() as u64));
            let got = cache.batch(&[4, 1, 1]).unwrap();
            let want = Tensor::cat(&[rows(4, 1), rows(1, 1), rows(1, 1)], 0).unwrap();
            let off = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(if precision == Precision::F32 { off == 0.0 } else { off < 0.002 });
        }
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
