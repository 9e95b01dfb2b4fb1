//! Registers of NEON, which every 64-bit Arm processor has.

#[path = "neon/pair.rs"]
mod pair;

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

pub(super) use self::pair::{has_pairs, run_pairs};
use super::budget::Budget;
use super::lanes::{Isa, Job, Kernel, Lanes};

/// Names of the set of instructions this module has, and of the one that is of every processor.
pub(crate) const NAMES: [&str; 2] = ["neon", "portable"];

/// Does the job by the set of this number; whether the processor knows it.
///
/// # Safety
///
/// What the job demands beside its processor.
pub(super) unsafe fn run(set: usize, job: impl Job<f32>) -> bool {
    if set == 0 {
        // SAFETY: every 64-bit Arm processor has NEON; the rest is the caller's promise.
        unsafe { job.run::<Neon>() };
    }
    set == 0
}

/// Asks for the line of the cache that an address is in, which need not be readable.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    // SAFETY: the instruction changes no register and never fails.
    unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags)) };
}

impl Lanes for float32x4_t {
    type Element = f32;
    const LANES: usize = 4;
    // One less: nothing is multiplied straight from memory.
    const COUNT: usize = Budget::NEON.registers - 1;
    const IS_MASKED: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: every 64-bit Arm processor has NEON.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vld1q_dup_f32(from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const f16) -> Self {
        // SAFETY: the caller's promise; an array needs no more alignment than its elements.
        let numbers = unsafe { *from.cast::<[f16; 4]>() }.map(f16::to_f32);
        // SAFETY: four numbers are four numbers.
        unsafe { vld1q_f32(numbers.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        let mut numbers = [0.0; 4];
        for (i, number) in numbers.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises `n` numbers.
            *number = unsafe { *from.wrapping_add(i) };
        }
        // SAFETY: four numbers are four numbers.
        unsafe { vld1q_f32(numbers.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, self) };
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        let mut numbers = [0.0; 4];
        // SAFETY: four numbers are four numbers.
        unsafe { vst1q_f32(numbers.as_mut_ptr(), self) };
        for (i, &number) in numbers.iter().enumerate().take(n) {
            // SAFETY: the caller promises `n` numbers.
            unsafe { *to.wrapping_add(i) = number };
        }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: every 64-bit Arm processor has NEON.
        unsafe { vfmaq_f32(self, a, b) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: every 64-bit Arm processor has NEON.
        unsafe { vaddq_f32(self, other) }
    }

    #[inline(always)]
    fn less_product(self, a: Self, b: Self) -> Self {
        // SAFETY: every 64-bit Arm processor has NEON.
        unsafe { vfmsq_f32(self, a, b) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: every 64-bit Arm processor has NEON.
        unsafe { vmulq_f32(self, other) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: every 64-bit Arm processor has NEON.
        unsafe { vsubq_f32(self, other) }
    }

    #[inline(always)]
    fn first_only(self, n: usize) -> Self {
        let mut numbers = [0.0; 4];
        // SAFETY: there is place for four.
        unsafe { self.store(numbers.as_mut_ptr()) };
        numbers[n..].fill(0.0);
        // SAFETY: four numbers are four numbers.
        unsafe { vld1q_f32(numbers.as_ptr()) }
    }

    #[inline(always)]
    fn greater([best, of_best]: [Self; 2], [x, of_x]: [Self; 2]) -> [Self; 2] {
        // SAFETY: every 64-bit Arm processor has NEON.
        let (is_no_more, is_number) = unsafe { (vcleq_f32(x, best), vceqq_f32(best, best)) };
        // SAFETY: as above.
        let wins = unsafe { vbicq_u32(is_number, is_no_more) };
        // SAFETY: as above.
        [(x, best), (of_x, of_best)].map(|(x, best)| unsafe { vbslq_f32(wins, x, best) })
    }

    #[inline(always)]
    fn after(self, n: usize, before: Self) -> Self {
        match n {
            // SAFETY: every 64-bit Arm processor has NEON.
            1 => unsafe { vextq_f32::<3>(before, self) },
            // SAFETY: as above.
            _ => unsafe { vextq_f32::<2>(before, self) },
        }
    }

    #[inline(always)]
    fn before(self, n: usize, after: Self) -> Self {
        match n {
            // SAFETY: every 64-bit Arm processor has NEON.
            1 => unsafe { vextq_f32::<1>(self, after) },
            // SAFETY: as above.
            _ => unsafe { vextq_f32::<2>(self, after) },
        }
    }

    #[inline(always)]
    fn parted(self, next: Self) -> [Self; 2] {
        // SAFETY: every 64-bit Arm processor has NEON.
        let (even, odd) = unsafe { (vuzp1q_f32(self, next), vuzp2q_f32(self, next)) };
        [even, odd]
    }

    #[inline(always)]
    fn joined(self, odd: Self) -> [Self; 2] {
        // SAFETY: every 64-bit Arm processor has NEON.
        let (low, high) = unsafe { (vzip1q_f32(self, odd), vzip2q_f32(self, odd)) };
        [low, high]
    }

    #[inline(always)]
    fn sums(registers: &[Self; 4]) -> [f32; 4] {
        // SAFETY: every 64-bit Arm processor has NEON.
        registers.map(|register| unsafe { vaddvq_f32(register) })
    }

    #[inline(always)]
    fn transpose(rows: &mut [Self]) {
        let [a, b, c, d] = [rows[0], rows[1], rows[2], rows[3]];
        // SAFETY: every 64-bit Arm processor has NEON.
        let zips = |a, b| unsafe { [vzip1q_f32(a, b), vzip2q_f32(a, b)] };
        let ([ac_low, ac_high], [bd_low, bd_high]) = (zips(a, c), zips(b, d));
        [rows[0], rows[1]] = zips(ac_low, bd_low);
        [rows[2], rows[3]] = zips(ac_high, bd_high);
    }
}

/// Thirty-two registers of four numbers.
struct Neon;

impl Isa for Neon {
    type Register = float32x4_t;
    const BUDGET: Budget = Budget::NEON;

    unsafe fn vectorize<K: Kernel<float32x4_t>>(kernel: K) {
        // SAFETY: the caller's promise.
        unsafe { kernel.run() }
    }
}
