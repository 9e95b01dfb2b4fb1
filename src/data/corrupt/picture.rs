//! One image as numbers, the form in which corruptions work on it.

use crate::kernels::simd::widened;

/// Weights of red, green and blue in the brightness that the eye sees.
pub(super) const LUMA: [f64; 3] = [0.299, 0.587, 0.114];

/// One image with values from 0 to 1, plane by plane.
///
/// The published scripts compute in `f64`, and rounding down at the end makes the last bit
/// visible, so `f64` it is here.
pub(super) struct Picture {
    /// `[c, h, w]`
    pub(super) shape: [usize; 3],
    /// `c * h * w` values.
    pub(super) values: Vec<f64>,
}

impl Picture {
    /// The picture of these bytes.
    pub(super) fn new(shape: [usize; 3], bytes: &[u8]) -> Self {
        let mut values = vec![0.0; bytes.len()];
        widened(|| values.iter_mut().zip(bytes).for_each(|(to, byte)| *to = f64::from(*byte) / 255.0));
        Self { shape, values }
    }

    /// The planes of the channels, each of `h * w` values.
    pub(super) fn planes(&mut self) -> impl Iterator<Item = &mut [f64]> {
        let [_, h, w] = self.shape;
        self.values.chunks_exact_mut(h * w)
    }

    /// Height and width.
    pub(super) fn size(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }

    /// Changes the channels of every pixel together.
    pub(super) fn pixels(&mut self, mut change: impl FnMut(&mut [f64])) {
        let [c, h, w] = self.shape;
        let mut pixel = vec![0.0; c];
        for at in 0..h * w {
            (0..c).for_each(|channel| pixel[channel] = self.values[channel * h * w + at]);
            change(&mut pixel);
            (0..c).for_each(|channel| self.values[channel * h * w + at] = pixel[channel]);
        }
    }

    /// The luma of ITU-R 601 of every pixel, `0.299 r + 0.587 g + 0.114 b`; of other numbers of
    /// channels the mean.
    pub(super) fn luma(&self) -> Vec<f64> {
        let [c, h, w] = self.shape;
        let weights = if c == 3 { LUMA.to_vec() } else { vec![1.0 / c as f64; c] };
        let mut luma = vec![0.0; h * w];
        for (plane, weight) in self.values.chunks_exact(h * w).zip(weights) {
            luma.iter_mut().zip(plane).for_each(|(luma, value)| *luma += weight * value);
        }
        luma
    }

    /// Writes the bytes: cut to 0..1, scaled by 255, rounded down.
    pub(super) fn write(&self, bytes: &mut [u8]) {
        widened(|| bytes.iter_mut().zip(&self.values).for_each(|(byte, value)| *byte = byte_of(*value)));
    }
}

/// The byte of a value: cut to 0..1, scaled by 255, rounded down.
#[inline(always)]
pub(super) fn byte_of(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0) as u8
}

/// A colour in as many channels as a picture has: of three its own, of others its luma.
pub(super) fn color_in(channels: usize, color: [f64; 3]) -> Vec<f64> {
    if channels == 3 {
        return color.to_vec();
    }
    vec![color.iter().zip(LUMA).map(|(value, weight)| value * weight).sum(); channels]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_and_the_rest_is_cut_and_rounded_down() {
        let all: Vec<u8> = (0..=255).collect();
        let mut back = vec![0; 256];
        Picture::new([1, 16, 16], &all).write(&mut back);
        assert_eq!(back, all);

        let mut bytes = [9; 4];
        Picture { shape: [1, 1, 4], values: vec![-0.5, 1.5, 0.999, f64::NAN] }.write(&mut bytes);
        assert_eq!(bytes, [0, 255, 254, 0]);
    }

    /// 0.299 * 1 + 0.587 * 0.5 = 0.5925.
    #[test]
    fn luma_weighs_three_channels_and_is_the_mean_of_others() {
        let luma = |shape, values: &[f64]| Picture { shape, values: values.to_vec() }.luma()[0];
        assert!((luma([3, 1, 1], &[1.0, 0.5, 0.0]) - 0.5925).abs() < 1e-12);
        assert_eq!(luma([1, 1, 1], &[0.25]), 0.25);
        assert_eq!(luma([2, 1, 1], &[0.25, 0.75]), 0.5);
        assert_eq!(color_in(3, [0.1, 0.2, 0.3]), [0.1, 0.2, 0.3]);
        assert!((color_in(1, [1.0, 0.5, 0.0])[0] - 0.5925).abs() < 1e-12);
    }
}
