//! Products of pairs by AVX-512's instructions for `bf16`.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::super::budget::Budget;
use super::super::lanes::{Isa, Job, Kernel};
use super::Avx512;

/// Whether the processor knows them.
pub(in super::super) fn has_pairs() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Does the job by them.
///
/// # Safety
///
/// The processor must [know](has_pairs) them, and what the job demands.
pub(in super::super) unsafe fn run_pairs(job: impl Job<f32>) {
    // SAFETY: the caller's promise.
    unsafe { job.run::<Avx512Pairs>() }
}

struct Avx512Pairs;

impl Isa for Avx512Pairs {
    type Register = __m512;
    const BUDGET: Budget = Avx512::BUDGET;
    const DEPTH: usize = 2;

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn vectorize<K: Kernel<__m512>>(kernel: K) {
        // SAFETY: the caller's promise.
        unsafe { kernel.run() }
    }

    #[inline(always)]
    unsafe fn add_products(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the same bits by another name.
        let [a, b]: [__m512bh; 2] = unsafe { transmute([a, b]) };
        // SAFETY: the caller promises the processor.
        unsafe { _mm512_dpbf16_ps(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn operand([first, second]: [__m512; 2]) -> __m512 {
        /// Places of the numbers of each pair: all first ones stand before all second ones.
        const PLACES: [u16; 32] = {
            let mut places = [0; 32];
            let mut i = 0;
            while i < 32 {
                places[i] = i as u16 / 2 + 16 * (i as u16 % 2);
                i += 1;
            }
            places
        };
        // SAFETY: the caller promises the processor.
        let halves = unsafe { _mm512_cvtne2ps_pbh(second, first) };
        // SAFETY: the caller promises the processor; there are as many places.
        let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
        // SAFETY: the same bits by another name.
        let halves: __m512i = unsafe { transmute(halves) };
        // SAFETY: the caller promises the processor.
        let pairs = unsafe { _mm512_permutexvar_epi16(places, halves) };
        // SAFETY: as above.
        unsafe { _mm512_castsi512_ps(pairs) }
    }

    #[inline(always)]
    unsafe fn parts(operand: __m512) -> [__m512; 2] {
        // SAFETY: the caller promises the processor.
        let bits = unsafe { _mm512_castps_si512(operand) };
        // SAFETY: as above.
        let first = unsafe { _mm512_slli_epi32::<16>(bits) };
        // SAFETY: as above.
        let upper = unsafe { _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed()) };
        // SAFETY: as above.
        let second = unsafe { _mm512_and_si512(bits, upper) };
        // SAFETY: as above.
        [first, second].map(|bits| unsafe { _mm512_castsi512_ps(bits) })
    }

    #[inline(always)]
    unsafe fn store_operand(numbers: __m512, to: *mut f32) {
        // SAFETY: the caller promises the processor.
        let halves = unsafe { _mm512_cvtneps_pbh(numbers) };
        // SAFETY: the same bits by another name.
        let halves: __m256i = unsafe { transmute(halves) };
        // SAFETY: the caller promises 16 halves of an element.
        unsafe { _mm256_storeu_si256(to.cast(), halves) };
    }
}
