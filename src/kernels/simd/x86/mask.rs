//! Some of the lanes of a register.

use std::arch::x86_64::*;

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
pub(super) fn first(n: usize) -> __mmask16 {
    u16::MAX >> (16 - n as u32)
}

/// All ones in the first `n` of 8 lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn first_of_8(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn first_only_8(all: __m256, n: usize) -> __m256 {
    _mm256_and_ps(all, _mm256_castsi256_ps(first_of_8(n)))
}

/// [`Lanes::greater`](super::super::Lanes::greater).
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn greater_16([best, of_best]: [__m512; 2], [x, of_x]: [__m512; 2]) -> [__m512; 2] {
    let is_number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(best, best);
    let wins = _mm512_mask_cmp_ps_mask::<_CMP_NLE_UQ>(is_number, x, best);
    [_mm512_mask_mov_ps(best, wins, x), _mm512_mask_mov_ps(of_best, wins, of_x)]
}

/// [`Lanes::greater`](super::super::Lanes::greater).
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn greater_8([best, of_best]: [__m256; 2], [x, of_x]: [__m256; 2]) -> [__m256; 2] {
    let is_number = _mm256_cmp_ps::<_CMP_ORD_Q>(best, best);
    let wins = _mm256_and_ps(is_number, _mm256_cmp_ps::<_CMP_NLE_UQ>(x, best));
    [_mm256_blendv_ps(best, x, wins), _mm256_blendv_ps(of_best, of_x, wins)]
}
