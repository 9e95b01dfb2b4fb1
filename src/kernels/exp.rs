//! `e^x` in `f32`, from additions, products and bits alone.
//!
//! The system's function is called element by element and rounds as each system likes. This
//! one runs in vector registers when a loop calls it, and gives the same bits everywhere.

/// `e^x`, within 2 units in the last place; 0 and infinity beyond the range, NaN for NaN.
///
/// ```text
/// n = round(x / ln 2)      r = x - n ln 2, in two parts: |r| < 0.35
/// e^x = 2^n e^r            e^r by a polynomial
/// ```
///
/// # Source
///
/// The polynomial and the parts of `ln 2` are those of Moshier's Cephes library, `expf`.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding this to a small number leaves the number, rounded, in the lowest bits.
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let x = x.clamp(-104.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let bend = POLYNOMIAL.iter().fold(0.0, |sum, factor| sum * r + factor);
    let power = bend * r * r + r + 1.0;
    // 2^n in two factors, each of which is a normal number.
    let exponent = shifted.to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
    let half = exponent >> 1;
    power * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// `2^n` for `n` from -126 to 127.
#[inline]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_within_two_units_in_the_last_place() {
        for i in -870_000..=887_000 {
            let x = i as f32 / 10_000.0;
            let want = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * want;
            assert!((f64::from(exp(x)) - want).abs() <= 2.0 * unit, "{x}");
        }
    }

    #[test]
    fn beyond_the_range_lie_zero_and_infinity() {
        assert_eq!([exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY), exp(-200.0)], [1.0, 1.0, 0.0, 0.0]);
        assert_eq!([exp(89.0), exp(1e30), exp(f32::INFINITY)], [f32::INFINITY; 3]);
        assert!(exp(f32::NAN).is_nan());
        // Below the smallest normal number: 2^-140 = e^(-140 ln 2).
        let subnormal = exp(-140.0 * std::f32::consts::LN_2);
        assert!((f64::from(subnormal) / 2.0f64.powi(-140) - 1.0).abs() < 1e-2);
    }
}
