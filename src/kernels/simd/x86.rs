//! Registers of AVX2 and AVX-512.

#[path = "x86/eight.rs"]
mod eight;
#[path = "x86/mask.rs"]
mod mask;
#[path = "x86/pair.rs"]
mod pair;
#[path = "x86/sets.rs"]
mod sets;
#[path = "x86/shift.rs"]
mod shift;
#[path = "x86/sums.rs"]
mod sums;
#[path = "x86/transpose.rs"]
mod transpose;

use std::arch::x86_64::*;

use half::f16;

use self::mask::{first, greater_16};
pub(super) use self::pair::{has_pairs, run_pairs};
use self::sets::{Avx2, Avx512};
use self::shift::{after_16, before_16, by_turns_16, parted_16};
use self::sums::sums_of_16;
use self::transpose::transpose_16;
use super::budget::Budget;
use super::lanes::{Job, Lanes};

/// Names of the sets of instructions this module has, the fastest first, and of the one that is of every processor.
pub(crate) const NAMES: [&str; 3] = ["avx512", "avx2", "portable"];

/// Does the job by the set of this number; whether the processor knows it.
///
/// # Safety
///
/// What the job demands beside its processor.
pub(super) unsafe fn run(set: usize, job: impl Job<f32>) -> bool {
    let has_avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    match set {
        0 if has_avx2 && is_x86_feature_detected!("avx512f") => {
            // SAFETY: the processor knows the instructions; the rest is the caller's promise.
            unsafe { job.run::<Avx512>() };
            true
        }
        1 if has_avx2 => {
            // SAFETY: as above.
            unsafe { job.run::<Avx2>() };
            true
        }
        _ => false,
    }
}

/// Asks for the line of the cache that an address is in, which need not be readable.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    // SAFETY: every processor of 64 bits knows the instruction, which never fails.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

impl Lanes for __m512 {
    type Element = f32;
    const LANES: usize = 16;
    const COUNT: usize = Budget::AVX512.registers;
    const IS_MASKED: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises AVX-512.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller promises the number.
        let x = unsafe { *from };
        // SAFETY: the caller promises AVX-512.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const f16) -> Self {
        // SAFETY: the caller's promise; AVX-512 includes AVX.
        let halves = unsafe { _mm256_loadu_si256(from.cast()) };
        // SAFETY: the caller promises AVX-512.
        unsafe { _mm512_cvtph_ps(halves) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller's promise; lanes beyond `n` are not accessed.
        unsafe { _mm512_maskz_loadu_ps(first(n), from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise, and a register exists only where there is AVX-512.
        unsafe { _mm512_storeu_ps(to, self) };
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        // SAFETY: as in `store`; lanes beyond `n` are not accessed.
        unsafe { _mm512_mask_storeu_ps(to, first(n), self) };
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: a register exists only where there is AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    fn less_product(self, a: Self, b: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm512_fnmadd_ps(a, b, self) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm512_mul_ps(self, other) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    fn first_only(self, n: usize) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm512_maskz_mov_ps(first(n), self) }
    }

    #[inline(always)]
    fn greater(first: [Self; 2], second: [Self; 2]) -> [Self; 2] {
        // SAFETY: as in `add_product`.
        unsafe { greater_16(first, second) }
    }

    #[inline(always)]
    fn after(self, n: usize, before: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { after_16(self, n, before) }
    }

    #[inline(always)]
    fn before(self, n: usize, after: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { before_16(self, n, after) }
    }

    #[inline(always)]
    fn parted(self, next: Self) -> [Self; 2] {
        // SAFETY: as in `add_product`.
        unsafe { parted_16(self, next) }
    }

    #[inline(always)]
    fn joined(self, odd: Self) -> [Self; 2] {
        // SAFETY: as in `add_product`.
        unsafe { by_turns_16(self, odd) }
    }

    #[inline(always)]
    fn sums(registers: &[Self; 4]) -> [f32; 4] {
        // SAFETY: as in `add_product`; AVX-512 includes AVX.
        unsafe { sums_of_16(registers) }
    }

    #[inline(always)]
    fn transpose(rows: &mut [Self]) {
        // SAFETY: as in `add_product`.
        unsafe { transpose_16(rows) }
    }
}
