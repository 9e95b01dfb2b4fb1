//! The bright outlines of drops of water, by a chain of filters on bytes as OpenCV has them.

use super::edge::Edge;
use crate::kernels::simd::widened;

/// A plane of whole numbers, and its size.
type Plane = Vec<i32>;

/// Thresholds of an edge that counts beside another, and by itself.
const WEAK: i32 = 50;
const STRONG: i32 = 150;

/// How bright drops shine: their height (a byte) times an emboss of the distance from their edges.
///
/// ```text
/// edges          Canny at 50 and 150
/// distance       from the nearest edge, 20 at most, smoothed by 3 x 3, with an even histogram
/// emboss         [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], smoothed by 3 x 3
/// ```
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `spatter`; OpenCV's `Canny`, `distanceTransform` and `equalizeHist`.
pub(super) fn outline(drops: &[u8], size: [usize; 2]) -> Vec<f64> {
    let heights: Plane = drops.iter().map(|byte| i32::from(*byte)).collect();
    let distance: Vec<f64> = distances(&edges(&heights, size), size).iter().map(|x| x.min(20.0)).collect();
    let smooth = window(&distance, size, [[1.0 / 9.0; 3]; 3]).iter().map(|x| (x + 1e-6) as i32).collect();
    let even: Vec<f64> = equalized(smooth).into_iter().map(f64::from).collect();
    let byte = |x: &f64| x.round_ties_even().clamp(0.0, 255.0);
    let embossed = window(&even, size, [[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]);
    let embossed: Vec<f64> = embossed.iter().map(byte).collect();
    let light = window(&embossed, size, [[1.0 / 9.0; 3]; 3]);
    light.iter().zip(heights).map(|(light, height)| byte(light) * f64::from(height)).collect()
}

/// Every value's 3 x 3 neighbours times these weights, added.
fn window(plane: &[f64], [h, w]: [usize; 2], weights: [[f64; 3]; 3]) -> Vec<f64> {
    let places = |n: usize| (-1..=n as isize).map(move |at| Edge::Mirror.place(at, n));
    // With a frame around it, every weight reads whole rows.
    let columns: Vec<usize> = places(w).collect();
    let framed: Vec<f64> = places(h).flat_map(|y| columns.iter().map(move |x| plane[y * w + x])).collect();
    let mut to = vec![0.0; h * w];
    widened(|| {
        for (y, to) in to.chunks_exact_mut(w).enumerate() {
            for (down, weights) in weights.iter().enumerate() {
                let row = &framed[(y + down) * (w + 2)..][..w + 2];
                for (to, near) in to.iter_mut().zip(row.windows(3)) {
                    *to += weights[0] * near[0] + weights[1] * near[1] + weights[2] * near[2];
                }
            }
        }
    });
    to
}

/// Canny's edges: where the slope is greatest across its own direction and over `STRONG`, and all over
/// `WEAK` that hang on those.
fn edges(heights: &[i32], size: [usize; 2]) -> Vec<bool> {
    let [h, w] = size;
    let slopes = slopes(heights, size);
    // With a frame of none around it.
    let wide = w + 2;
    let mut sums = vec![0; (h + 2) * wide];
    for (to, from) in sums.chunks_exact_mut(wide).skip(1).zip(slopes.chunks_exact(w)) {
        to[1..].iter_mut().zip(from).for_each(|(to, [dx, dy])| *to = dx.abs() + dy.abs());
    }
    let steep = |y: isize, x: isize| sums[(y + 1) as usize * wide + (x + 1) as usize];
    let is_ridge = |y: isize, x: isize| {
        let ([dx, dy], own) = (slopes[y as usize * w + x as usize], steep(y, x));
        let (across, along) = (f64::from(dx.abs()), f64::from(dy.abs()));
        // Three directions, parted at 22.5 and 67.5 degrees.
        let tangent = std::f64::consts::FRAC_PI_8.tan();
        if along < across * tangent {
            own > steep(y, x - 1) && own >= steep(y, x + 1)
        } else if along > across * (tangent + 2.0) {
            own > steep(y - 1, x) && own >= steep(y + 1, x)
        } else {
            let side = if (dx ^ dy) < 0 { -1 } else { 1 };
            own > steep(y - 1, x - side) && own > steep(y + 1, x + side)
        }
    };
    let cells = (0..h as isize).flat_map(|y| (0..w as isize).map(move |x| (y, x)));
    let ridge: Plane =
        cells.map(|(y, x)| if steep(y, x) > WEAK && is_ridge(y, x) { steep(y, x) } else { 0 }).collect();
    connected(&ridge, size)
}

/// Slopes to the right and down by Sobel's 3 x 3 filters, edges repeated.
fn slopes(heights: &[i32], [h, w]: [usize; 2]) -> Vec<[i32; 2]> {
    let row = |y: isize| &heights[Edge::Nearest.place(y, h) * w..][..w];
    let slopes = |y: isize| {
        let rows = [-1, 0, 1].map(|down| row(y + down));
        (0..w).map(move |x| {
            let [left, right] = [x.saturating_sub(1), (x + 1).min(w - 1)];
            let column = |x: usize| rows[0][x] + 2 * rows[1][x] + rows[2][x];
            let across = |row: &[i32]| row[left] + 2 * row[x] + row[right];
            [column(right) - column(left), across(rows[2]) - across(rows[0])]
        })
    };
    (0..h as isize).flat_map(slopes).collect()
}

/// All places over 0 that are over `STRONG` or touch, also by corners, one that is in.
fn connected(ridge: &[i32], [h, w]: [usize; 2]) -> Vec<bool> {
    let mut edge: Vec<bool> = ridge.iter().map(|steep| *steep > STRONG).collect();
    let mut open: Vec<usize> = (0..h * w).filter(|at| edge[*at]).collect();
    while let Some(at) = open.pop() {
        let (y, x) = (at / w, at % w);
        for y in y.saturating_sub(1)..(y + 2).min(h) {
            for x in x.saturating_sub(1)..(x + 2).min(w) {
                let next = y * w + x;
                if ridge[next] > 0 && !edge[next] {
                    edge[next] = true;
                    open.push(next);
                }
            }
        }
    }
    edge
}

/// Distance of every place from the nearest edge along steps of a 5 x 5 neighbourhood: 1 straight,
/// 1.4 across, 2.1969 as a knight moves.
fn distances(edge: &[bool], [h, w]: [usize; 2]) -> Vec<f64> {
    const STEPS: [(isize, isize, f64); 8] = [
        (0, -1, 1.0),
        (-1, 0, 1.0),
        (-1, -1, 1.4),
        (-1, 1, 1.4),
        (-1, -2, 2.1969),
        (-1, 2, 2.1969),
        (-2, -1, 2.1969),
        (-2, 1, 2.1969),
    ];
    // With a frame of two around it, every step has an end.
    let wide = w + 4;
    let mut framed = vec![f64::MAX; (h + 4) * wide];
    let place = |i: usize| (i / w + 2) * wide + i % w + 2;
    for (i, _) in edge.iter().enumerate().filter(|(_, edge)| **edge) {
        framed[place(i)] = 0.0;
    }
    let steps = STEPS.map(|(down, right, length)| (down * wide as isize + right, length));
    // From the first place to the last with steps back, then the other way.
    for direction in [1, -1] {
        for i in 0..h * w {
            let at = place(if direction == 1 { i } else { h * w - 1 - i });
            let ways = steps.map(|(step, length)| framed[at.wrapping_add_signed(direction * step)] + length);
            framed[at] = ways.into_iter().fold(framed[at], f64::min);
        }
    }
    framed.chunks_exact(wide).skip(2).take(h).flat_map(|row| &row[2..w + 2]).copied().collect()
}

/// Bytes spread over 0 to 255 by how many are below them; a plane of one value stays.
fn equalized(mut plane: Plane) -> Plane {
    let mut counts = [0usize; 256];
    plane.iter().for_each(|value| counts[*value as usize & 255] += 1);
    let first = counts.iter().position(|count| *count > 0).unwrap_or(0);
    let others = plane.len() - counts[first];
    if others == 0 {
        return plane;
    }
    let mut below = 0;
    let table: Vec<i32> = (0..256)
        .map(|value| {
            below += if value > first { counts[value] } else { 0 };
            (below as f64 * 255.0 / others as f64).round_ties_even() as i32
        })
        .collect();
    plane.iter_mut().for_each(|value| *value = table[*value as usize & 255]);
    plane
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step from 0 to 200 between columns 2 and 3 slopes by 800 in both; the first of them counts.
    #[test]
    fn a_step_has_one_line_of_edges() {
        let heights: Plane = (0..36).map(|i| if i % 6 < 3 { 0 } else { 200 }).collect();
        let found: Vec<usize> = edges(&heights, [6, 6])
            .iter()
            .enumerate()
            .filter(|(_, edge)| **edge)
            .map(|(i, _)| i % 6)
            .collect();
        assert_eq!(found, [2; 6]);
        assert!(edges(&[90; 36], [6, 6]).iter().all(|edge| !edge));
    }

    /// Slopes of 4 * 30 = 120 are weak: an edge beside a strong one only.
    #[test]
    fn weak_edges_count_where_they_hang_on_strong_ones() {
        assert_eq!(
            connected(&[120, 0, 0, 200, 120, 0, 120], [1, 7]),
            [false, false, false, true, true, false, false]
        );
        assert_eq!(connected(&[200, 0, 0, 60], [2, 2]), [true, false, false, true]);
    }

    #[test]
    fn distances_are_counted_in_steps_of_three_lengths() {
        let mut edge = vec![false; 25];
        edge[0] = true;
        let distance = distances(&edge, [5, 5]);
        let near = |at: usize, want: f64| (distance[at] - want).abs() < 1e-12;
        assert!(
            near(0, 0.0)
                && near(4, 4.0)
                && near(6, 1.4)
                && near(7, 2.1969)
                && near(12, 2.8)
                && near(11, 2.1969)
        );
        assert!(distances(&[false; 4], [2, 2]).iter().all(|distance| *distance > 20.0));
    }

    /// Of 4 values 1 is the least, 2 has two below or at it beside that, 2/3 * 255 = 170; 9 all three.
    #[test]
    fn an_even_histogram_spreads_values_by_their_rank() {
        assert_eq!(equalized(vec![9, 2, 1, 2]), [255, 170, 0, 170]);
        assert_eq!(equalized(vec![7; 4]), [7; 4]);
    }

    #[test]
    fn a_window_goes_on_as_a_mirror_image() {
        let right = [[0.0; 3], [0.0, 0.0, 1.0], [0.0; 3]];
        assert_eq!(window(&[1.0, 2.0, 3.0], [1, 3], right), [2.0, 3.0, 2.0]);
        let below = [[0.0; 3], [0.0; 3], [0.0, 1.0, 0.0]];
        assert_eq!(window(&[1.0, 2.0, 3.0], [3, 1], below), [2.0, 3.0, 2.0]);
    }
}
