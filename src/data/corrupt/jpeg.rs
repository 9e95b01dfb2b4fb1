//! JPEG: what is lost when a picture is stored by it.
//!
//! Only rounding loses anything: the order and the coding of the numbers in a file do not. So the
//! picture goes through the rounding and no file is made, which is several times as fast, and
//! colour is halved as libjpeg (and so Pillow) does, which the encoder of the crate `image` does not.
//!
//! # Source
//!
//! ITU-T T.81: annex A.3.3 (cosine transform) and annex K.1 (tables). Independent JPEG Group's
//! libjpeg: scaling of the tables by quality, halving and doubling of colour.

use super::picture::Picture;
use super::{Effect, Level};
use crate::kernels::simd::widened;

/// Side of a block.
const SIDE: usize = 8;

/// Divisors of brightness at quality 50, row by row.
const LUMA: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17,
    22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78,
    87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

/// Divisors of colour at quality 50.
const CHROMA: [u16; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

/// Stores the picture as JPEG of this quality and reads it again: three channels as brightness and
/// colour of half the size (4:2:0), any other number each as brightness.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `jpeg_compression`.
pub(super) fn jpeg(level: Level) -> Effect {
    let quality: u16 = level.of([80, 65, 58, 50, 40], [65, 58, 50, 40, 25], [25, 18, 15, 10, 7]);
    let (luma, chroma, cosines) = (divisors(&LUMA, quality), divisors(&CHROMA, quality), cosines());
    Box::new(move |picture, _| {
        let size = picture.size();
        let is_color = picture.shape[0] == 3;
        widened(|| {
            picture.values.iter_mut().for_each(|value| *value = rounded(*value * 255.0));
            if is_color {
                exchange(picture, luma_and_colors);
            }
            for (i, plane) in picture.planes().enumerate() {
                if is_color && i > 0 {
                    halved(plane, size, |small, size| store(small, size, (&chroma, &cosines)));
                } else {
                    store(plane, size, (&luma, &cosines));
                }
            }
            if is_color {
                exchange(picture, red_green_blue);
            }
            picture.values.iter_mut().for_each(|value| *value /= 255.0);
        });
    })
}

/// The table at a quality of 1 to 100.
fn divisors(table: &[u16; 64], quality: u16) -> [f64; 64] {
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    table.map(|divisor| f64::from(((u32::from(divisor) * u32::from(percent) + 50) / 100).clamp(1, 255)))
}

/// `c(u) / 2 cos((2 x + 1) u pi / 16)` in row `u`, with `c(0) = 1 / sqrt(2)`, otherwise 1.
fn cosines() -> Block {
    std::array::from_fn(|u| {
        let scale = if u == 0 { 0.5 / f64::sqrt(2.0) } else { 0.5 };
        std::array::from_fn(|x| scale * (((2 * x + 1) * u) as f64 * std::f64::consts::PI / 16.0).cos())
    })
}

/// The nearest whole number, halves upwards: in one instruction of a vector.
#[inline(always)]
fn rounded(value: f64) -> f64 {
    (value + 0.5).floor()
}

#[inline(always)]
fn byte(value: f64) -> f64 {
    rounded(value).clamp(0.0, 255.0)
}

/// Changes the three channels of every pixel, and rounds to bytes.
#[inline(always)]
fn exchange(picture: &mut Picture, change: impl Fn([f64; 3]) -> [f64; 3]) {
    let [_, h, w] = picture.shape;
    let (first, rest) = picture.values.split_at_mut(h * w);
    let (second, third) = rest.split_at_mut(h * w);
    for ((a, b), c) in first.iter_mut().zip(second).zip(third) {
        [*a, *b, *c] = change([*a, *b, *c]).map(byte);
    }
}

#[inline(always)]
fn luma_and_colors([r, g, b]: [f64; 3]) -> [f64; 3] {
    [
        0.299 * r + 0.587 * g + 0.114 * b,
        -0.168736 * r - 0.331264 * g + 0.5 * b + 128.0,
        0.5 * r - 0.418688 * g - 0.081312 * b + 128.0,
    ]
}

#[inline(always)]
fn red_green_blue([y, blue, red]: [f64; 3]) -> [f64; 3] {
    let (blue, red) = (blue - 128.0, red - 128.0);
    [y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue]
}

/// Rounds the plane's blocks of 8 x 8 to multiples of the divisors among their cosines. Blocks over
/// the edge are filled with the last row and column.
#[inline(always)]
fn store(plane: &mut [f64], [h, w]: [usize; 2], (divisors, cosines): (&[f64; 64], &Block)) {
    let turned = transposed(cosines);
    for top in (0..h).step_by(SIDE) {
        for left in (0..w).step_by(SIDE) {
            let mut block = [[0.0; SIDE]; SIDE];
            for (y, values) in block.iter_mut().enumerate() {
                let row = &plane[(top + y).min(h - 1) * w..][..w];
                match row.get(left..left + SIDE) {
                    Some(whole) => values.copy_from_slice(whole),
                    None => {
                        values.iter_mut().enumerate().for_each(|(x, to)| *to = row[(left + x).min(w - 1)])
                    }
                }
                values.iter_mut().for_each(|value| *value -= 128.0);
            }
            // Both directions: C B C^T there, C^T B C back.
            let mut waves = product(&product(cosines, &block), &turned);
            for (wave, divisor) in waves.as_flattened_mut().iter_mut().zip(divisors) {
                *wave = rounded(*wave / divisor) * divisor;
            }
            let block = product(&product(&turned, &waves), cosines);
            for (y, values) in block.iter().enumerate().take(h - top) {
                let end = w.min(left + SIDE);
                for (to, value) in plane[(top + y) * w..][left..end].iter_mut().zip(values) {
                    *to = byte(value + 128.0);
                }
            }
        }
    }
}

type Block = [[f64; SIDE]; SIDE];

#[inline(always)]
fn product(a: &Block, b: &Block) -> Block {
    let mut product = [[0.0; SIDE]; SIDE];
    for (sums, row) in product.iter_mut().zip(a) {
        for (weight, values) in row.iter().zip(b) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    product
}

#[inline(always)]
fn transposed(block: &Block) -> Block {
    std::array::from_fn(|y| std::array::from_fn(|x| block[x][y]))
}

/// Changes a plane at half its size: means of 2 x 2 pixels there, and back with 3/4 of the nearest
/// and 1/4 of the next in both directions.
#[inline(always)]
fn halved(plane: &mut [f64], [h, w]: [usize; 2], change: impl Fn(&mut [f64], [usize; 2])) {
    let [rows, columns] = [h.div_ceil(2), w.div_ceil(2)];
    let mut small = vec![0.0; rows * columns];
    for (y, to) in small.chunks_exact_mut(columns).enumerate() {
        let row = |y: usize| &plane[y.min(h - 1) * w..][..w];
        let (a, b) = (row(2 * y), row(2 * y + 1));
        for (x, to) in to.iter_mut().enumerate() {
            // Halves are rounded down in even columns and up in odd ones, that they even out.
            let (next, bias) = ((2 * x + 1).min(w - 1), if x.is_multiple_of(2) { 1.0 } else { 2.0 });
            *to = ((a[2 * x] + a[next] + b[2 * x] + b[next] + bias) / 4.0).floor();
        }
    }
    change(&mut small, [rows, columns]);
    let mut between = vec![0.0; columns];
    for (y, row) in plane.chunks_exact_mut(w).enumerate() {
        let [near, far] = near_and_next(y, rows).map(|at| &small[at * columns..][..columns]);
        let mix = |near: f64, far: f64| 0.75 * near + 0.25 * far;
        between.iter_mut().zip(near).zip(far).for_each(|((to, near), far)| *to = mix(*near, *far));
        for (x, value) in row.iter_mut().enumerate() {
            let [near, far] = near_and_next(x, columns);
            *value = rounded(mix(between[near], between[far]));
        }
    }
}

/// Pixel `at` lies at (at + 1/2) / 2 - 1/2 among `n` of half the number: which is nearest, and which on the
/// other side of it.
#[inline(always)]
fn near_and_next(at: usize, n: usize) -> [usize; 2] {
    let near = at / 2;
    [near, if at.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(n - 1) }]
}

#[cfg(test)]
mod tests {
    use super::super::Constants;
    use super::*;
    use crate::rng::Rng;

    fn stored(shape: [usize; 3], bytes: &[u8], severity: u8) -> Vec<u8> {
        let mut picture = Picture::new(shape, bytes);
        jpeg(Level { constants: Constants::ImageNet, severity })(&mut picture, &mut Rng::new(0));
        let mut after = vec![0; bytes.len()];
        picture.write(&mut after);
        after
    }

    /// Quality 25 doubles the table of 50, quality 80 takes (16 * 40 + 50) / 100 = 6 of 16.
    #[test]
    fn tables_follow_the_quality() {
        assert_eq!(divisors(&LUMA, 50)[0], 16.0);
        assert_eq!(divisors(&LUMA, 25)[63], 198.0);
        assert_eq!(divisors(&LUMA, 80)[0], 6.0);
        assert_eq!(divisors(&CHROMA, 7)[63], 255.0);
        assert_eq!(divisors(&CHROMA, 100)[63], 1.0);
    }

    /// A flat block of 200 is one wave, 8 * (200 - 128) = 576. At quality 25 its divisor is 32: 18 of
    /// them, exactly. At 7 it is (16 * 714 + 50) / 100 = 114: 5 of them are 570, 71.25, and 128 more 199.
    #[test]
    fn a_flat_picture_is_rounded_to_steps_of_an_eighth_of_the_divisor() {
        assert_eq!(stored([1, 9, 13], &[200; 117], 1), [200; 117]);
        assert_eq!(stored([1, 9, 13], &[200; 117], 5), [199; 117]);
        assert_eq!(stored([3, 9, 13], &[200; 351], 5), [199; 351]);
    }

    /// What Pillow 13.0.0 reads of `(3 x x + 17 y + x y) % 256`, stored at quality 25. Its transform is in
    /// whole numbers, so that 1 more or less is rounding.
    #[test]
    fn grey_is_as_a_file_brings_it_back() {
        const PILLOW: [u8; 64] = [
            0, 9, 9, 5, 41, 105, 136, 127, 15, 15, 27, 48, 65, 89, 134, 178, 41, 31, 53, 92, 95, 91, 147,
            228, 50, 55, 75, 100, 116, 135, 180, 225, 50, 82, 91, 87, 131, 197, 206, 166, 65, 104, 107, 94,
            153, 229, 195, 93, 100, 117, 123, 135, 185, 214, 146, 43, 131, 122, 135, 177, 211, 186, 101, 24,
        ];
        let bytes: Vec<u8> =
            (0..64).map(|i| (i / 8, i % 8)).map(|(y, x)| (3 * x * x + 17 * y + x * y) as u8).collect();
        let after = stored([1, 8, 8], &bytes, 1);
        assert!(after.iter().zip(PILLOW).all(|(got, want)| got.abs_diff(want) <= 1), "{after:?}");
    }

    /// In the same way in three channels of 24 x 24, `9 x + y`, `10 y` and `5 x + 5 y`: the first pixels
    /// of row 3, where colour is mixed of halved places.
    #[test]
    fn colour_is_as_a_file_brings_it_back() {
        const PILLOW: [[u8; 3]; 6] =
            [[12, 25, 18], [15, 26, 20], [21, 27, 23], [30, 30, 30], [40, 31, 36], [48, 32, 42]];
        let channel = |of: fn(usize, usize) -> usize| (0..576).map(move |i| of(i / 24, i % 24) as u8);
        let bytes: Vec<u8> = channel(|y, x| 9 * x + y)
            .chain(channel(|y, _| 10 * y))
            .chain(channel(|y, x| 5 * x + 5 * y))
            .collect();
        let after = stored([3, 24, 24], &bytes, 1);
        for (x, want) in PILLOW.iter().enumerate() {
            let got = [0, 1, 2].map(|c| after[c * 576 + 3 * 24 + x]);
            assert!(
                got.iter().zip(want).all(|(got, want)| got.abs_diff(*want) <= 2),
                "{x}: {got:?} {want:?}"
            );
        }
    }
}
