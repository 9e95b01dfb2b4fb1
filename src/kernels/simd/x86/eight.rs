//! Registers of eight numbers.

use std::arch::x86_64::*;

use half::f16;

use super::super::budget::Budget;
use super::super::lanes::Lanes;
use super::mask::{first_of_8, first_only_8, greater_8};
use super::shift::{after_8, before_8, by_turns_8, parted_8};
use super::sums::sums_of_8;
use super::transpose::transpose_8;

impl Lanes for __m256 {
    type Element = f32;
    const LANES: usize = 8;
    const COUNT: usize = Budget::AVX2.registers;
    // A mask takes one of the sixteen registers, which the sums need.
    const IS_MASKED: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises AVX.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller promises the number.
        let x = unsafe { *from };
        // SAFETY: the caller promises AVX.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const f16) -> Self {
        // SAFETY: the caller's promise; AVX2 includes SSE2.
        let halves = unsafe { _mm_loadu_si128(from.cast()) };
        // SAFETY: the caller promises F16C.
        unsafe { _mm256_cvtph_ps(halves) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller promises AVX2.
        let mask = unsafe { first_of_8(n) };
        // SAFETY: the caller's promise; lanes beyond `n` are not accessed.
        unsafe { _mm256_maskload_ps(from, mask) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise, and a register exists only where there is AVX.
        unsafe { _mm256_storeu_ps(to, self) };
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        // SAFETY: a register exists only where there is AVX2.
        let mask = unsafe { first_of_8(n) };
        // SAFETY: as in `store`; lanes beyond `n` are not accessed.
        unsafe { _mm256_maskstore_ps(to, mask, self) };
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: a register exists only where there are AVX2 and FMA.
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    fn less_product(self, a: Self, b: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm256_fnmadd_ps(a, b, self) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm256_mul_ps(self, other) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { _mm256_sub_ps(self, other) }
    }

    #[inline(always)]
    fn first_only(self, n: usize) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { first_only_8(self, n) }
    }

    #[inline(always)]
    fn greater(first: [Self; 2], second: [Self; 2]) -> [Self; 2] {
        // SAFETY: as in `add_product`.
        unsafe { greater_8(first, second) }
    }

    #[inline(always)]
    fn after(self, n: usize, before: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { after_8(self, n, before) }
    }

    #[inline(always)]
    fn before(self, n: usize, after: Self) -> Self {
        // SAFETY: as in `add_product`.
        unsafe { before_8(self, n, after) }
    }

    #[inline(always)]
    fn parted(self, next: Self) -> [Self; 2] {
        // SAFETY: as in `add_product`.
        unsafe { parted_8(self, next) }
    }

    #[inline(always)]
    fn joined(self, odd: Self) -> [Self; 2] {
        // SAFETY: as in `add_product`.
        unsafe { by_turns_8(self, odd) }
    }

    #[inline(always)]
    fn sums(registers: &[Self; 4]) -> [f32; 4] {
        // SAFETY: as in `add_product`.
        unsafe { sums_of_8(*registers) }
    }

    #[inline(always)]
    fn transpose(rows: &mut [Self]) {
        // SAFETY: as in `add_product`.
        unsafe { transpose_8(rows) }
    }
}
