//! Lanes of two registers that change their places.

use std::arch::x86_64::*;

/// The lanes of both from lane `N` of the first on.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn joined_16<const N: i32>(low: __m512, high: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_alignr_epi32::<N>(_mm512_castps_si512(high), _mm512_castps_si512(low)))
}

/// The last lanes of the first from byte `N` of its half on, then those of the second.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn after_8<const N: i32>(low: __m256, high: __m256) -> __m256 {
    let middle = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(low, high));
    _mm256_castsi256_ps(_mm256_alignr_epi8::<N>(_mm256_castps_si256(high), middle))
}

/// The lanes of the first from byte `N` on, then those of the second.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn before_8<const N: i32>(low: __m256, high: __m256) -> __m256 {
    let middle = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(low, high));
    _mm256_castsi256_ps(_mm256_alignr_epi8::<N>(middle, _mm256_castps_si256(low)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn parted_16(a: __m512, b: __m512) -> [__m512; 2] {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    [_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)]
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn by_turns_16(even: __m512, odd: __m512) -> [__m512; 2] {
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    [_mm512_permutex2var_ps(even, low, odd), _mm512_permutex2var_ps(even, high, odd)]
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn parted_8(a: __m256, b: __m256) -> [__m256; 2] {
    // Of each half two lanes of `a`, then two of `b`.
    let even = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(a, b));
    let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0xdd>(a, b));
    let (even, odd) = (_mm256_permute4x64_pd::<0xd8>(even), _mm256_permute4x64_pd::<0xd8>(odd));
    [_mm256_castpd_ps(even), _mm256_castpd_ps(odd)]
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn by_turns_8(even: __m256, odd: __m256) -> [__m256; 2] {
    let (low, high) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
    [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
}
