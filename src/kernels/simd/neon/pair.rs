//! Products of pairs by Arm's instructions for `bf16`.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::super::budget::Budget;
use super::super::lanes::{Isa, Job, Kernel};
use super::Neon;

/// Whether the processor knows them.
pub(in super::super) fn has_pairs() -> bool {
    is_aarch64_feature_detected!("bf16")
}

/// Does the job by them.
///
/// # Safety
///
/// The processor must [know](has_pairs) them, and what the job demands.
pub(in super::super) unsafe fn run_pairs(job: impl Job<f32>) {
    // SAFETY: the caller's promise.
    unsafe { job.run::<NeonPairs>() }
}

struct NeonPairs;

impl Isa for NeonPairs {
    type Register = float32x4_t;
    const BUDGET: Budget = Neon::BUDGET;
    const DEPTH: usize = 2;

    unsafe fn vectorize<K: Kernel<float32x4_t>>(kernel: K) {
        // SAFETY: the caller's promise.
        unsafe { kernel.run() }
    }

    /// (Rust has no stable function for this instruction.)
    #[inline(always)]
    unsafe fn add_products(mut sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the caller promises the processor; registers are all that is read and written.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfdot {sum:v}.4s, {a:v}.8h, {b:v}.8h",
                sum = inout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    #[inline(always)]
    unsafe fn operand(numbers: [float32x4_t; 2]) -> float32x4_t {
        // SAFETY: the caller promises the processor.
        let [first, second] = numbers.map(|numbers| unsafe { rounded(numbers) });
        // SAFETY: as above: the upper half of the first moves down, that of the second stays.
        let pairs = unsafe { vsriq_n_u32::<16>(second, first) };
        // SAFETY: as above.
        unsafe { vreinterpretq_f32_u32(pairs) }
    }

    #[inline(always)]
    unsafe fn parts(operand: float32x4_t) -> [float32x4_t; 2] {
        // SAFETY: the caller promises the processor.
        let bits = unsafe { vreinterpretq_u32_f32(operand) };
        // SAFETY: as above.
        let first = unsafe { vshlq_n_u32::<16>(bits) };
        // SAFETY: as above.
        let upper = unsafe { vdupq_n_u32(0xFFFF_0000) };
        // SAFETY: as above.
        let second = unsafe { vandq_u32(bits, upper) };
        // SAFETY: as above.
        [first, second].map(|bits| unsafe { vreinterpretq_f32_u32(bits) })
    }

    #[inline(always)]
    unsafe fn store_operand(numbers: float32x4_t, to: *mut f32) {
        // SAFETY: the caller promises the processor.
        let rounded = unsafe { rounded(numbers) };
        // SAFETY: as above.
        let halves = unsafe { vshrn_n_u32::<16>(rounded) };
        // SAFETY: the caller promises 4 halves of an element.
        unsafe { vst1_u16(to.cast(), halves) };
    }
}

/// Bits of numbers whose upper halves are their `bf16`, as [`pair`](super::super::pair::pair) rounds.
///
/// # Safety
///
/// The processor must know NEON.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn rounded(numbers: float32x4_t) -> uint32x4_t {
    let bits = vreinterpretq_u32_f32(numbers);
    let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)))
}
