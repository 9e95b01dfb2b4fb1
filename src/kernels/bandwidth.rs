//! How many bytes a second memory gives and takes: what the times of kernels are held against that
//! compute little for what they read and write.

use std::hint::black_box;

use rayon::prelude::*;

use super::share::zeros;
use crate::error::Result;

/// Three buffers of one size and plain loops over them, shared by the threads of the pool. Each returns
/// the bytes that it moved; whoever asks takes the time. Buffers that are larger than all caches tell what
/// memory can do.
///
/// Plain version:
///
/// ```text
/// read:   for i in 0..n { sum += a[i] }
/// write:  for i in 0..n { a[i] = value }
/// triad:  for i in 0..n { a[i] = b[i] + value * c[i] }
/// ```
///
/// A byte is counted once for each time the loop names it; that a cache may fetch what is then written is
/// not counted.
///
/// # Source
///
/// The triad is that of McCalpin, "Memory Bandwidth and Machine Balance in Current High Performance
/// Computers", 1995 (STREAM).
///
/// # Examples
///
/// ```
/// use std::time::Instant;
///
/// use archrepair::kernels::bandwidth::Buffers;
///
/// let mut buffers = Buffers::new(1 << 20)?;
/// let begun = Instant::now();
/// let rate = buffers.triad(0.5) as f64 / begun.elapsed().as_secs_f64();
/// assert!(rate > 0.0);
/// # archrepair::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Buffers([Vec<f32>; 3]);

impl Buffers {
    /// Buffers of `bytes` each.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Memory`] when the limit does not allow them.
    pub fn new(bytes: usize) -> Result<Self> {
        let buffer = |value: f32| {
            let mut buffer = zeros::<f32>("a buffer", bytes / size_of::<f32>())?;
            buffer.fill(value);
            Result::Ok(buffer)
        };
        Ok(Self([buffer(1.0)?, buffer(2.0)?, buffer(3.0)?]))
    }

    /// Reads one buffer.
    #[must_use]
    pub fn read(&self) -> u64 {
        let Self([a, ..]) = self;
        // Bits are added, since sums of floats have an order and would wait for each other.
        let sum = |piece: &[f32]| piece.iter().fold(0u32, |sum, a| sum.wrapping_add(a.to_bits()));
        black_box(a.par_chunks(piece(a)).map(sum).reduce(|| 0, u32::wrapping_add));
        bytes(a)
    }

    /// Writes one buffer.
    pub fn write(&mut self, value: f32) -> u64 {
        let Self([a, ..]) = self;
        let size = piece(a);
        a.par_chunks_mut(size).for_each(|piece| piece.fill(black_box(value)));
        bytes(a)
    }

    /// Reads two buffers and writes the third.
    pub fn triad(&mut self, value: f32) -> u64 {
        let Self([a, b, c]) = self;
        let size = piece(a);
        let pieces = a.par_chunks_mut(size).zip(b.par_chunks(size)).zip(c.par_chunks(size));
        pieces.for_each(|((a, b), c)| {
            for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                *a = b + value * c;
            }
        });
        3 * bytes(a)
    }
}

/// Elements for each thread.
fn piece(buffer: &[f32]) -> usize {
    buffer.len().div_ceil(rayon::current_num_threads()).max(1)
}

fn bytes(buffer: &[f32]) -> u64 {
    size_of_val(buffer) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_reaches_the_whole_of_its_buffers() {
        let mut buffers = Buffers::new(40).unwrap();
        assert_eq!([buffers.read(), buffers.write(5.0)], [40, 40]);
        assert_eq!(buffers.0[0], [5.0; 10]);
        assert_eq!(buffers.triad(0.5), 120);
        // 2 + 0.5 * 3
        assert_eq!(buffers.0[0], [3.5; 10]);
    }

    #[test]
    fn buffers_may_be_empty() {
        let mut buffers = Buffers::new(0).unwrap();
        assert_eq!([buffers.read(), buffers.write(1.0), buffers.triad(1.0)], [0; 3]);
    }
}
