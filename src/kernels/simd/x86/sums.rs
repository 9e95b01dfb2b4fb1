//! Sums over the lanes of registers.

use std::arch::x86_64::*;

/// Never inlined: its instructions know only half of the registers, and the compiler would keep
/// all sums in that half.
#[inline(never)]
#[target_feature(enable = "avx512f")]
pub(super) fn sums_of_16(registers: &[__m512; 4]) -> [f32; 4] {
    let [a, b, c, d] = *registers;
    sums_of_8([halves_added(a), halves_added(b), halves_added(c), halves_added(d)])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves_added(all: __m512) -> __m256 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(all)));
    _mm256_add_ps(_mm512_castps512_ps256(all), high)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sums_of_8([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    let quarters = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let sums = _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps::<1>(quarters));
    let mut to = [0.0; 4];
    // SAFETY: four numbers fit.
    unsafe { _mm_storeu_ps(to.as_mut_ptr(), sums) };
    to
}
