//! Registers as rows of a matrix become its columns.

use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose_8(rows: &mut [__m256]) {
    let pd = |x| _mm256_castps_pd(x);
    let ps = |x| _mm256_castpd_ps(x);
    // Within halves: half `q` of register `4 i + k` is column `4 q + k` of rows `4 i` to `4 i + 3`.
    for four in rows[..8].chunks_exact_mut(4) {
        let (a, b) = (_mm256_unpacklo_ps(four[0], four[1]), _mm256_unpacklo_ps(four[2], four[3]));
        let (c, d) = (_mm256_unpackhi_ps(four[0], four[1]), _mm256_unpackhi_ps(four[2], four[3]));
        four[0] = ps(_mm256_unpacklo_pd(pd(a), pd(b)));
        four[1] = ps(_mm256_unpackhi_pd(pd(a), pd(b)));
        four[2] = ps(_mm256_unpacklo_pd(pd(c), pd(d)));
        four[3] = ps(_mm256_unpackhi_pd(pd(c), pd(d)));
    }
    for k in 0..4 {
        let (a, b) = (rows[k], rows[4 + k]);
        rows[k] = _mm256_permute2f128_ps::<0x20>(a, b);
        rows[4 + k] = _mm256_permute2f128_ps::<0x31>(a, b);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_16(rows: &mut [__m512]) {
    let pd = |x| _mm512_castps_pd(x);
    let ps = |x| _mm512_castpd_ps(x);
    // Within quarters: quarter `q` of register `4 i + k` is column `4 q + k` of rows `4 i` to `4 i + 3`.
    for four in rows[..16].chunks_exact_mut(4) {
        let (a, b) = (_mm512_unpacklo_ps(four[0], four[1]), _mm512_unpacklo_ps(four[2], four[3]));
        let (c, d) = (_mm512_unpackhi_ps(four[0], four[1]), _mm512_unpackhi_ps(four[2], four[3]));
        four[0] = ps(_mm512_unpacklo_pd(pd(a), pd(b)));
        four[1] = ps(_mm512_unpackhi_pd(pd(a), pd(b)));
        four[2] = ps(_mm512_unpacklo_pd(pd(c), pd(d)));
        four[3] = ps(_mm512_unpackhi_pd(pd(c), pd(d)));
    }
    for k in 0..4 {
        let [a, b, c, d] = [rows[k], rows[4 + k], rows[8 + k], rows[12 + k]];
        let (even, even_too) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
        let (odd, odd_too) = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
        rows[k] = _mm512_shuffle_f32x4::<0x88>(even, even_too);
        rows[4 + k] = _mm512_shuffle_f32x4::<0x88>(odd, odd_too);
        rows[8 + k] = _mm512_shuffle_f32x4::<0xdd>(even, even_too);
        rows[12 + k] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_too);
    }
}
