//! One image as numbers, the form in which corruptions work on it.

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
        Self { shape, values: bytes.iter().map(|byte| f64::from(*byte) / 255.0).collect() }
    }

    /// The planes of the channels, each of `h * w` values.
    pub(super) fn planes(&mut self) -> impl Iterator<Item = &mut [f64]> {
        let [_, h, w] = self.shape;
        self.values.chunks_exact_mut(h * w)
    }

    /// Writes the bytes: cut to 0..1, scaled by 255, rounded down.
    pub(super) fn write(&self, bytes: &mut [u8]) {
        for (byte, value) in bytes.iter_mut().zip(&self.values) {
            *byte = (value.clamp(0.0, 1.0) * 255.0) as u8;
        }
    }
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
}
