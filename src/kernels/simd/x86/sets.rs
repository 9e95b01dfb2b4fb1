//! The sets of instructions.

use std::arch::x86_64::*;

use super::super::budget::Budget;
use super::super::lanes::{Isa, Kernel};

/// Thirty-two registers of sixteen numbers.
pub(in super::super) struct Avx512;

impl Isa for Avx512 {
    type Register = __m512;
    const BUDGET: Budget = Budget::AVX512;

    #[target_feature(enable = "avx512f")]
    unsafe fn vectorize<K: Kernel<__m512>>(kernel: K) {
        // SAFETY: the caller's promise.
        unsafe { kernel.run() }
    }
}

/// Sixteen registers of eight numbers, with fused multiply-add and half precision.
pub(in super::super) struct Avx2;

impl Isa for Avx2 {
    type Register = __m256;
    const BUDGET: Budget = Budget::AVX2;

    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn vectorize<K: Kernel<__m256>>(kernel: K) {
        // SAFETY: the caller's promise.
        unsafe { kernel.run() }
    }
}
