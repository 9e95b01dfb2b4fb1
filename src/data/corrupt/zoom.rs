//! Zoom: the middle of a picture, larger.

use super::{Effect, Level};
use crate::kernels::simd::widened;

/// The mean of the picture and of its middle, enlarged by all of `1, 1 + step, ...` up to `most`.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `zoom_blur`.
pub(super) fn zoom(level: Level) -> Effect {
    let small = [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)];
    let large = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)];
    let (most, step) = level.of(small, small, large);
    let factors = arange(most, step);
    Box::new(move |picture, _| {
        let size = picture.size();
        let zooms: Vec<Zoom> = factors.iter().map(|factor| Zoom::new(size, *factor)).collect();
        for plane in picture.planes() {
            let from = plane.to_vec();
            zooms.iter().for_each(|zoom| zoom.add(&from, plane));
            plane.iter_mut().for_each(|value| *value /= (factors.len() + 1) as f64);
        }
    })
}

/// `numpy.arange(1, most, step)`, whose length and values hang on rounding: 1.06 is among those of
/// 1 to 1.06 by 0.01.
fn arange(most: f64, step: f64) -> Vec<f64> {
    let (length, step) = (((most - 1.0) / step).ceil(), (1.0 + step) - 1.0);
    (0..length as usize).map(|i| 1.0 + i as f64 * step).collect()
}

/// The middle of a plane, enlarged by `factor` to the plane's own size, between pixels by lines.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `clipped_zoom`; `scipy.ndimage.zoom` of order 1.
pub(super) fn zoomed(plane: &[f64], size: [usize; 2], factor: f64) -> Vec<f64> {
    let mut large = vec![0.0; plane.len()];
    Zoom::new(size, factor).add(plane, &mut large);
    large
}

/// Where the pixels of both directions come from.
struct Zoom {
    rows: Samples,
    columns: Samples,
}

impl Zoom {
    fn new([h, w]: [usize; 2], factor: f64) -> Self {
        Self { rows: Samples::new(h, factor), columns: Samples::new(w, factor) }
    }

    /// Adds the enlarged middle of one plane to another.
    fn add(&self, from: &[f64], to: &mut [f64]) {
        let (w, first) = (self.columns.places.len(), self.rows.start);
        let rows = from.chunks_exact(w).skip(first).take(self.rows.crop);
        let mix = |row: &[f64], (a, b, share): &Place| row[*a] * (1.0 - share) + row[*b] * share;
        let across: Vec<f64> =
            rows.flat_map(|row| self.columns.places.iter().map(move |place| mix(row, place))).collect();
        let row = |y: usize| &across[(y - first) * w..][..w];
        widened(|| {
            for (to, (a, b, share)) in to.chunks_exact_mut(w).zip(&self.rows.places) {
                for ((to, a), b) in to.iter_mut().zip(row(*a)).zip(row(*b)) {
                    *to += a * (1.0 - share) + b * share;
                }
            }
        });
    }
}

/// A place between two pixels, and the share of the second.
type Place = (usize, usize, f64);

/// Where the pixels of one direction come from.
struct Samples {
    /// The first pixel of the middle that is enlarged.
    start: usize,
    /// How many there are.
    crop: usize,
    /// For each pixel of the result.
    places: Vec<Place>,
}

impl Samples {
    fn new(n: usize, factor: f64) -> Self {
        let crop = (n as f64 / factor).ceil() as usize;
        let start = (n - crop) / 2;
        let enlarged = (crop as f64 * factor).round_ties_even() as usize;
        let trim = (enlarged - n) / 2;
        let step = (crop - 1) as f64 / enlarged.saturating_sub(1).max(1) as f64;
        let place = |i: usize| {
            let at = (i + trim) as f64 * step;
            let first = (at as usize).min(crop - 1);
            (start + first, start + (first + 1).min(crop - 1), at - first as f64)
        };
        Self { start, crop, places: (0..n).map(place).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_numpy() {
        assert_eq!([1.06, 1.11, 1.16, 1.21, 1.26].map(|most| arange(most, 0.01).len()), [7, 12, 16, 21, 26]);
        assert!((arange(1.06, 0.01)[6] - 1.06).abs() < 1e-12);
    }

    /// Twice as large: of 4 pixels the middle 2, `1 2`, become 4 places from 0 to 1 by thirds.
    #[test]
    fn the_middle_is_spread_over_the_whole() {
        let near =
            |got: &[f64], want: [f64; 4]| got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12);
        let row = zoomed(&[0.0, 1.0, 2.0, 3.0], [1, 4], 2.0);
        assert!(near(&row, [1.0, 4.0 / 3.0, 5.0 / 3.0, 2.0]), "{row:?}");
        let column = zoomed(&[0.0, 1.0, 2.0, 3.0], [4, 1], 2.0);
        assert!(near(&column, [1.0, 4.0 / 3.0, 5.0 / 3.0, 2.0]), "{column:?}");
    }

    #[test]
    fn a_factor_of_1_changes_nothing_and_any_size_can_grow() {
        let plane: Vec<f64> = (0..15).map(f64::from).collect();
        assert_eq!(zoomed(&plane, [3, 5], 1.0), plane);
        for n in 1..40 {
            assert_eq!(zoomed(&vec![0.5; n * n], [n, n], 1.13), vec![0.5; n * n]);
        }
    }
}
