//! Lanes of two registers that change their places.

use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn after_16(own: __m512, n: usize, before: __m512) -> __m512 {
    let (own, before) = (_mm512_castps_si512(own), _mm512_castps_si512(before));
    _mm512_castsi512_ps(match n {
        1 => _mm512_alignr_epi32::<15>(own, before),
        _ => _mm512_alignr_epi32::<14>(own, before),
    })
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn before_16(own: __m512, n: usize, after: __m512) -> __m512 {
    let (own, after) = (_mm512_castps_si512(own), _mm512_castps_si512(after));
    _mm512_castsi512_ps(match n {
        1 => _mm512_alignr_epi32::<1>(after, own),
        _ => _mm512_alignr_epi32::<2>(after, own),
    })
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn after_8(own: __m256, n: usize, before: __m256) -> __m256 {
    // The second half of what comes before, then the first one of what is moved.
    let middle = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(before, own));
    let own = _mm256_castps_si256(own);
    _mm256_castsi256_ps(match n {
        1 => _mm256_alignr_epi8::<12>(own, middle),
        _ => _mm256_alignr_epi8::<8>(own, middle),
    })
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn before_8(own: __m256, n: usize, after: __m256) -> __m256 {
    let middle = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(own, after));
    let own = _mm256_castps_si256(own);
    _mm256_castsi256_ps(match n {
        1 => _mm256_alignr_epi8::<4>(middle, own),
        _ => _mm256_alignr_epi8::<8>(middle, own),
    })
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
