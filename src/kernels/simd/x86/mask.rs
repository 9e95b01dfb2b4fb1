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
