//! Resizing and cropping of pictures, to the bit as Pillow does it and so torchvision on its images.
//!
//! Each value of the result is a weighted mean of the values under a filter that is widened by the
//! factor of reduction (antialiasing). Rows first, then columns, each rounded to bytes; weights are
//! whole numbers of 22 bits behind the point.
//!
//! # Source
//!
//! Pillow 12.0, `Image.resize` of 8-bit images; torchvision 0.24, `Resize` and `CenterCrop`. Both for
//! what they do, not for their code. Pillow 13.0 takes columns first for some sizes, which changes some
//! values by 1.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Bits of a weight behind the point.
const BITS: u32 = 22;

/// How values between pixels are mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// A cubic through four pixels a direction, with `a = -1/2`.
    Bicubic,
    /// A line between two pixels a direction.
    #[default]
    Bilinear,
}

impl Filter {
    /// Pixels to either side that count where nothing is reduced.
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    /// The weight at a distance.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic | Self::Bilinear => 0.0,
        }
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bicubic" => Ok(Self::Bicubic),
            "bilinear" => Ok(Self::Bilinear),
            other => {
                let known = "bilinear, bicubic".into();
                Err(Error::UnknownName { kind: "filter", got: other.into(), known })
            }
        }
    }
}

/// Planes of pixels, and their height and width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Plane by plane, `h * w` bytes each.
    pub pixels: Vec<u8>,
    /// Height and width, over 0.
    pub size: [usize; 2],
}

impl Planes {
    /// The picture at another size, over 0.
    #[must_use]
    pub fn resized(self, [h, w]: [usize; 2], filter: Filter) -> Self {
        let narrow = if self.size[1] == w { self } else { self.rows(w, filter) };
        if narrow.size[0] == h { narrow } else { narrow.columns(h, filter) }
    }

    /// The picture with its shorter side at `short` pixels, the longer in proportion, rounded down.
    #[must_use]
    pub fn shorter_side(self, short: usize, filter: Filter) -> Self {
        let [h, w] = self.size;
        let long = (short as u128 * h.max(w) as u128 / h.min(w) as u128) as usize;
        self.resized(if h <= w { [short, long] } else { [long, short] }, filter)
    }

    /// The middle of the picture, at most as large as it is. What cannot be halved is rounded to even.
    #[must_use]
    pub fn center(&self, [h, w]: [usize; 2]) -> Self {
        let [height, width] = self.size;
        let before = |all: usize, part: usize| ((all - part) as f64 / 2.0).round_ties_even() as usize;
        let (top, left) = (before(height, h), before(width, w));
        let rows = self.pixels.chunks_exact(height * width).flat_map(|plane| {
            plane.chunks_exact(width).skip(top).take(h).flat_map(|row| &row[left..left + w])
        });
        Self { pixels: rows.copied().collect(), size: [h, w] }
    }

    fn rows(&self, w: usize, filter: Filter) -> Self {
        let [h, from] = self.size;
        let spans = spans(from, w, filter);
        let rows = self.pixels.chunks_exact(from);
        let pixels = rows.flat_map(|row| spans.iter().map(move |span| span.mix(row))).collect();
        Self { pixels, size: [h, w] }
    }

    fn columns(&self, h: usize, filter: Filter) -> Self {
        let [from, w] = self.size;
        let mut pixels = Vec::with_capacity(self.pixels.len() / from * h);
        let mut sums = vec![0i32; w];
        let spans = spans(from, h, filter);
        for (plane, span) in
            self.pixels.chunks_exact(from * w).flat_map(|plane| spans.iter().map(move |span| (plane, span)))
        {
            sums.fill(1 << (BITS - 1));
            for (row, weight) in plane[span.first * w..].chunks_exact(w).zip(&span.weights) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * i32::from(*value));
            }
            pixels.extend(sums.iter().map(|sum| byte(*sum)));
        }
        Self { pixels, size: [h, w] }
    }
}

/// The pixels from `first` on that one pixel is mixed of.
struct Span {
    first: usize,
    weights: Vec<i32>,
}

/// What each of `size` pixels is mixed of, out of `n`.
fn spans(n: usize, size: usize, filter: Filter) -> Vec<Span> {
    let scale = n as f64 / size as f64;
    let wide = scale.max(1.0);
    let support = filter.support() * wide;
    let span = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(n);
        let weight = |x: usize| filter.weight((x as f64 - center + 0.5) / wide);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let whole = |weight: &f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
        Span { first, weights: weights.iter().map(whole).collect() }
    };
    (0..size).map(span).collect()
}

impl Span {
    fn mix(&self, row: &[u8]) -> u8 {
        let sum: i32 = self
            .weights
            .iter()
            .zip(&row[self.first..])
            .map(|(weight, value)| weight * i32::from(*value))
            .sum();
        byte(sum + (1 << (BITS - 1)))
    }
}

fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_between_two_pixels_and_their_mean() {
        let planes = Planes { pixels: vec![0, 100, 200, 40], size: [2, 2] };
        // Halves: everything under the widened triangle; of both directions the mean.
        assert_eq!(planes.clone().resized([1, 1], Filter::Bilinear).pixels, [85]);
        // Places -1/4, 1/4, 3/4, 5/4: the ends repeat, between them a quarter of the next.
        assert_eq!(planes.resized([2, 4], Filter::Bilinear).pixels, [0, 25, 75, 100, 200, 160, 80, 40]);
    }

    #[test]
    fn the_shorter_side_is_said_and_the_middle_cut_out() {
        let planes = Planes { pixels: (0..15).collect(), size: [3, 5] };
        assert_eq!(planes.clone().shorter_side(2, Filter::Bicubic).size, [2, 3]);
        assert_eq!(planes.clone().shorter_side(3, Filter::Bilinear), planes);
        assert_eq!(planes.center([1, 3]).pixels, [6, 7, 8]);
        // (5 - 2) / 2 = 1.5 is rounded to 2, (3 - 2) / 2 = 0.5 to 0.
        assert_eq!(planes.center([2, 2]).pixels, [2, 3, 7, 8]);
        let high = Planes { pixels: vec![0; 7 * 2], size: [7, 2] };
        assert_eq!(high.shorter_side(1, Filter::Bilinear).size, [3, 1]);
    }

    #[test]
    fn a_flat_picture_stays_flat() {
        for filter in [Filter::Bicubic, Filter::Bilinear] {
            for size in [[1, 1], [5, 9], [31, 2], [64, 64]] {
                let flat = Planes { pixels: vec![77; 13 * 11], size: [13, 11] }.resized(size, filter);
                assert!(
                    flat.pixels.len() == size[0] * size[1] && flat.pixels.iter().all(|value| *value == 77)
                );
            }
        }
        assert_eq!("lanczos".parse::<Filter>().unwrap_err().code(), 23);
    }
}
