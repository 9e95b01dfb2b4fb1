//! How many multiply-adds a processor can do: what the times of other kernels are held against.

use std::hint::black_box;

use super::simd::{Element, Isa, Job, Kernel, Lanes};

/// Does `rounds` rounds of multiply-adds on each thread of the pool at the same time and returns how
/// many there were in all. They read and write registers alone, by the instructions that convolutions
/// use, in `f32`: nothing that reads memory does more in this time.
///
/// Plain version, for one number of each register:
///
/// ```text
/// for _ in 0..rounds { for sum in sums { sum += sum * -2 } }
/// ```
///
/// # Examples
///
/// ```
/// use std::time::Instant;
///
/// use archrepair::kernels::peak::multiply_adds;
///
/// let begun = Instant::now();
/// let rate = multiply_adds(10_000) as f64 / begun.elapsed().as_secs_f64();
/// assert!(rate > 0.0);
/// ```
pub fn multiply_adds(rounds: usize) -> u64 {
    let on_one_thread = |_: rayon::BroadcastContext| {
        let mut done = 0;
        // SAFETY: the job demands nothing.
        unsafe { f32::dispatch(Peak { rounds, done: &mut done }) };
        done as u64
    };
    rayon::broadcast(on_one_thread).into_iter().sum()
}

struct Peak<'a> {
    rounds: usize,
    /// Set to the number of multiply-adds.
    done: &'a mut usize,
}

impl Job<f32> for Peak<'_> {
    unsafe fn run<S: Isa<Register: Lanes<Element = f32>>>(self) {
        // As many sums as the registers hold beside the factor: a sum waits for itself some cycles.
        if S::BUDGET.registers > 24 {
            // SAFETY: the caller promises the processor.
            unsafe { S::vectorize(Rounds::<24>(self)) };
        } else {
            // SAFETY: as above.
            unsafe { S::vectorize(Rounds::<12>(self)) };
        }
    }
}

/// The loop with this number of sums, a multiple of 4.
struct Rounds<'a, const SUMS: usize>(Peak<'a>);

impl<V: Lanes<Element = f32>, const SUMS: usize> Kernel<V> for Rounds<'_, SUMS> {
    #[inline(always)]
    unsafe fn run(self) {
        // The compiler may know neither the factor nor that two sums are equal. The sums only change
        // their sign, so that none becomes too large or too small to be fast.
        let (factor, starts): (f32, [f32; SUMS]) = black_box((-2.0, [1.5; SUMS]));
        // SAFETY: the caller promises the processor, and the number is there.
        let factor = unsafe { V::splat(&factor) };
        // SAFETY: as above.
        let mut sums = starts.each_ref().map(|start| unsafe { V::splat(start) });
        for _ in 0..self.0.rounds {
            for sum in &mut sums {
                *sum = sum.add_product(*sum, factor);
            }
        }
        // What nobody reads is not computed.
        for four in sums.as_chunks().0 {
            black_box(V::sums(four));
        }
        *self.0.done = self.0.rounds * SUMS * V::LANES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_does_all_rounds() {
        let done = |threads, rounds| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| multiply_adds(rounds))
        };
        assert!(done(1, 1) >= 12 * 4);
        assert_eq!([done(1, 1000), done(3, 1), done(2, 0)], [1000 * done(1, 1), 3 * done(1, 1), 0]);
    }
}
