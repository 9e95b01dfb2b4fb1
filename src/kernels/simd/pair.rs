//! Pairs of `bf16` in the place of one `f32`: twice the products of a register, of numbers with 8 bits of
//! mantissa. Sums stay in `f32`.

use std::marker::PhantomData;

use super::budget::Budget;
use super::lanes::{Isa, Kernel, Lanes, MOST};

/// Two numbers, rounded to the nearest `bf16`, ties to even: the first in the lower half of the bits.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(rounded(first) >> 16 | rounded(second) & 0xFFFF_0000)
}

/// The bits of a number whose upper half is its `bf16`. (NaNs with all bits set do not occur.)
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7FFF + (bits >> 16 & 1))
}

/// The numbers of a pair.
#[inline(always)]
pub(crate) fn numbers(pair: f32) -> [f32; 2] {
    let bits = pair.to_bits();
    [bits << 16, bits & 0xFFFF_0000].map(f32::from_bits)
}

/// The set of instructions `S`, with pairs taken apart for their products: the plain version, and what
/// processors without instructions for pairs do.
pub(super) struct Emulated<S>(PhantomData<S>);

impl<S: Isa<Register: Lanes<Element = f32>>> Isa for Emulated<S> {
    type Register = S::Register;
    /// Panels are those of `S`, since weights were packed for them; small tiles are soon compiled.
    const BUDGET: Budget = Budget { rows: &[2], ..S::BUDGET };
    const DEPTH: usize = 2;

    unsafe fn vectorize<K: Kernel<S::Register>>(kernel: K) {
        // SAFETY: the caller's promise.
        unsafe { S::vectorize(kernel) }
    }

    #[inline(always)]
    unsafe fn add_products(sum: S::Register, a: S::Register, b: S::Register) -> S::Register {
        // SAFETY: the caller promises the processor.
        let [mut sums, a, b] = [sum, a, b].map(|register| unsafe { array(register) });
        for (sum, (a, b)) in sums.iter_mut().zip(a.into_iter().map(numbers).zip(b.into_iter().map(numbers))) {
            *sum += a[0] * b[0] + a[1] * b[1];
        }
        // SAFETY: the caller promises the processor; an array has as many elements.
        unsafe { S::Register::load(sums.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn operand(numbers: [S::Register; 2]) -> S::Register {
        // SAFETY: the caller promises the processor.
        let [first, second] = numbers.map(|register| unsafe { array(register) });
        let pairs = paired(&first, &second);
        // SAFETY: the caller promises the processor; an array has as many elements.
        unsafe { S::Register::load(pairs.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn parts(operand: S::Register) -> [S::Register; 2] {
        // SAFETY: the caller promises the processor.
        let pairs = unsafe { array(operand) };
        // SAFETY: the caller promises the processor; an array has as many elements.
        [0, 1].map(|i| unsafe { S::Register::load(pairs.map(|pair| numbers(pair)[i]).as_ptr()) })
    }

    #[inline(always)]
    unsafe fn store_operand(numbers: S::Register, to: *mut f32) {
        // SAFETY: the caller promises the processor.
        let numbers = unsafe { array(numbers) };
        for (i, two) in numbers[..S::Register::LANES].as_chunks().0.iter().enumerate() {
            let [first, second] = *two;
            // SAFETY: the caller promises half as many elements as lanes.
            unsafe { *to.wrapping_add(i) = pair(first, second) };
        }
    }
}

/// Never inlined: it would crowd the registers of its caller.
#[inline(never)]
fn paired(first: &[f32; MOST], second: &[f32; MOST]) -> [f32; MOST] {
    std::array::from_fn(|i| pair(first[i], second[i]))
}

/// The lanes of a register, then zeros.
///
/// # Safety
///
/// The processor must know the instructions of `V`.
#[inline(always)]
unsafe fn array<V: Lanes<Element = f32>>(register: V) -> [f32; MOST] {
    let mut lanes = [0.0; MOST];
    // SAFETY: no register has more lanes.
    unsafe { register.store(lanes.as_mut_ptr()) };
    lanes
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernels::simd::{Element, Job};

    #[test]
    fn pairs_hold_the_nearest_of_both() {
        for (a, b) in [(1.0, -2.5), (1.003_906_3, 3.2e-5), (0.0, -0.0), (1e38, f32::INFINITY), (0.1, 7.7)] {
            assert_eq!(numbers(pair(a, b)), [a, b].map(|x| bf16::from_f32(x).to_f32()));
        }
        assert!(numbers(pair(f32::NAN, 1.0))[0].is_nan());
    }

    /// What the operations of a set give for some numbers: products, an operand, and one of neighbours.
    struct All<'a>(&'a mut Vec<f32>);

    impl Job<f32> for All<'_> {
        unsafe fn run<S: Isa<Register: Lanes<Element = f32>>>(self) {
            // SAFETY: the caller's promise.
            unsafe { S::vectorize(Values::<S>(self.0, PhantomData)) };
        }
    }

    struct Values<'a, S>(&'a mut Vec<f32>, PhantomData<S>);

    impl<S: Isa<Register: Lanes<Element = f32>>> Kernel<S::Register> for Values<'_, S> {
        #[inline(always)]
        unsafe fn run(self) {
            let numbers: [[f32; MOST]; 5] =
                std::array::from_fn(|i| std::array::from_fn(|j| ((i * 31 + j * 7) % 19) as f32 * 0.37 - 3.0));
            // SAFETY: the caller promises the processor; arrays have enough elements.
            let [a, b, c, d, sum] = numbers.each_ref().map(|x| unsafe { S::Register::load(x.as_ptr()) });
            // SAFETY: the caller promises the processor.
            let [first, second] = [[a, b], [c, d]].map(|of| unsafe { S::operand(of) });
            // SAFETY: as above.
            let sum = unsafe { S::add_products(sum, first, second) };
            // SAFETY: as above.
            let [a_again, _] = unsafe { S::parts(first) };
            let mut neighbours = [0.0; MOST];
            // SAFETY: as above; half of the elements are written.
            unsafe { S::store_operand(a, neighbours.as_mut_ptr()) };
            // SAFETY: as above.
            let [sum, first, a] = [sum, first, a_again].map(|register| unsafe { array(register) });
            let lanes = S::Register::LANES;
            let (first, neighbours) = (first[..lanes].iter(), neighbours[..lanes / 2].iter());
            self.0.extend(first.chain(neighbours).flat_map(|&pair| super::numbers(pair)));
            self.0.extend(sum[..lanes].iter().chain(&a[..lanes]));
        }
    }

    /// Products of two pairs are exact in `f32`, so both differ by the last bits of a sum at most.
    #[test]
    fn instructions_for_pairs_give_what_taking_them_apart_gives() {
        let (mut got, mut want) = (Vec::new(), Vec::new());
        // SAFETY: the jobs demand nothing beside their processor.
        unsafe { f32::dispatch_pairs(All(&mut got)) };
        // SAFETY: as above.
        unsafe { f32::dispatch(Apart(&mut want)) };
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{got} for {want}");
        }
    }

    struct Apart<'a>(&'a mut Vec<f32>);

    impl Job<f32> for Apart<'_> {
        unsafe fn run<S: Isa<Register: Lanes<Element = f32>>>(self) {
            // SAFETY: the caller's promise.
            unsafe { All(self.0).run::<Emulated<S>>() };
        }
    }
}
