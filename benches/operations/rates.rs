//! What the machine can do at most, on all threads together.

use std::fmt;
use std::time::Instant;

use archrepair::kernels::{bandwidth::Buffers, peak};

/// The most of many short tries each, since other programs may disturb some. All a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Multiply-adds in registers alone.
    macs: f64,
    /// Bytes of values that no cache holds.
    read: f64,
    write: f64,
    triad: f64,
}

/// A few milliseconds of multiply-adds.
const ROUNDS: usize = 400_000;
const TRIES: usize = 50;
/// Bytes of each of three buffers: many times the last cache of most machines.
const BUFFER: usize = 256 << 20;

impl Rates {
    pub(crate) fn measure() -> archrepair::Result<Self> {
        let macs = most(|| peak::multiply_adds(ROUNDS));
        let mut buffers = Buffers::new(BUFFER)?;
        let [write, triad] = [Buffers::write, Buffers::triad]
            .map(|of: fn(&mut Buffers, f32) -> u64| most(|| of(&mut buffers, 0.5)));
        Ok(Self { macs, read: most(|| buffers.read()), write, triad })
    }

    /// Seconds below which so many multiply-adds cannot be done.
    pub(crate) fn computing(&self, macs: u64) -> f64 {
        macs as f64 / self.macs
    }

    /// Seconds in which memory gives and takes so many bytes.
    pub(crate) fn moving(&self, [read, written]: [u64; 2]) -> f64 {
        read as f64 / self.read + written as f64 / self.write
    }
}

/// The most that `run` does in a second.
fn most(mut run: impl FnMut() -> u64) -> f64 {
    let rates = (0..TRIES).map(|_| {
        let begun = Instant::now();
        run() as f64 / begun.elapsed().as_secs_f64()
    });
    rates.fold(0.0, f64::max)
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [macs, read, write, triad] =
            [self.macs, self.read, self.write, self.triad].map(|rate| rate / 1e9);
        write!(
            f,
            "at most {macs:.0} billion multiply-adds a second; memory: read {read:.1}, write {write:.1}, triad \
             {triad:.1} GB/s"
        )
    }
}
