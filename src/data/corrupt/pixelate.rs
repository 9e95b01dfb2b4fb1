//! Large pixels.

use super::{Effect, Level};
use crate::kernels::simd::widened;

/// Reduces both sides to `share` by means of boxes, and enlarges again by repetition.
///
/// Bytes are rounded after each direction, as Pillow does.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `pixelate`; Pillow's resizing by `BOX`.
pub(super) fn pixelate(level: Level) -> Effect {
    let share: f64 =
        level.of([0.95, 0.9, 0.85, 0.75, 0.65], [0.9, 0.8, 0.7, 0.6, 0.5], [0.6, 0.5, 0.4, 0.3, 0.25]);
    Box::new(move |picture, _| {
        let [h, w] = picture.size();
        let [rows, columns] = [h, w].map(|n| boxes(n, ((n as f64 * share) as usize).max(1)));
        let from = |n: usize, small: usize| {
            (0..n).map(move |i| ((i as f64 + 0.5) * small as f64 / n as f64) as usize).collect::<Vec<_>>()
        };
        let sources = from(w, columns.len());
        let mut small = vec![0.0; rows.len() * columns.len()];
        let mut across = vec![0.0; h * columns.len()];
        for plane in picture.planes() {
            widened(|| {
                for (row, to) in plane.chunks_exact(w).zip(across.chunks_exact_mut(columns.len())) {
                    for (to, &(start, end)) in to.iter_mut().zip(&columns) {
                        *to = mean(row[start..end].iter().sum(), end - start);
                    }
                }
                for (to, &(start, end)) in small.chunks_exact_mut(columns.len()).zip(&rows) {
                    to.fill(0.0);
                    for row in across.chunks_exact(to.len()).take(end).skip(start) {
                        to.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                    }
                    to.iter_mut().for_each(|sum| *sum = mean(*sum, end - start));
                }
            });
            for (row, source) in plane.chunks_exact_mut(w).zip(from(h, rows.len())) {
                let small = &small[source * columns.len()..][..columns.len()];
                row.iter_mut().zip(&sources).for_each(|(to, source)| *to = small[*source]);
            }
        }
    })
}

/// For each of `small` places those of `n` whose middles lie in its box.
fn boxes(n: usize, small: usize) -> Vec<(usize, usize)> {
    let scale = n as f64 / small as f64;
    let edge = |i: usize| (i as f64 * scale + 0.5) as usize;
    (0..small).map(|i| (edge(i), edge(i + 1).min(n))).collect()
}

/// The mean of `n` values of this sum, rounded to a byte.
#[inline(always)]
fn mean(sum: f64, n: usize) -> f64 {
    // Halves go up; the small number stands for what sums of bytes over 255 lose.
    (sum / n as f64 * 255.0 + 0.5 + 1e-9).floor() / 255.0
}

#[cfg(test)]
mod tests {
    use super::super::{Constants, Picture};
    use super::*;
    use crate::rng::Rng;

    /// Two thirds: boxes of 1.5 pixels, whose middles 0.5, 1.5, 2.5 fall into 0..1.5 and 1.5..3.
    #[test]
    fn boxes_hold_the_pixels_whose_middles_are_inside() {
        assert_eq!(boxes(4, 2), [(0, 2), (2, 4)]);
        assert_eq!(boxes(3, 2), [(0, 2), (2, 3)]);
        assert_eq!(boxes(5, 5), (0..5).map(|i| (i, i + 1)).collect::<Vec<_>>());
    }

    /// Half of 4 x 4: rows 0 1 | 4 7 have means 1 (0.5 goes up) and 6 (5.5), with 2 3 | 8 9 below
    /// 3 and 9: 2 and 8 (7.5).
    #[test]
    fn four_pixels_become_their_rounded_mean() {
        let bytes = [0, 1, 4, 7, 2, 3, 8, 9, 0, 0, 255, 255, 0, 0, 255, 255];
        let mut picture = Picture::new([1, 4, 4], &bytes);
        pixelate(Level { constants: Constants::ImageNet, severity: 2 })(&mut picture, &mut Rng::new(0));
        let mut after = [0; 16];
        picture.write(&mut after);
        assert_eq!(after, [2, 2, 8, 8, 2, 2, 8, 8, 0, 0, 255, 255, 0, 0, 255, 255]);
    }
}
