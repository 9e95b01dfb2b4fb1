//! Small random changes that keep an image's class: shifts and mirror images.

use std::path::Path;

use super::Images;
use crate::error::Result;
use crate::rng::Rng;

/// Which images are mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flip {
    /// None: digits and letters would change their meaning.
    #[default]
    Never,
    /// Each with probability one half, left to right.
    Half,
}

/// How far images are changed. The default changes nothing.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `shift` | 0 | any | pixels at most, up, down, left and right |
/// | `flip` | never | | |
/// | `fill` | 0 | any | byte that comes in from outside |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Pixels an image moves at most, on each axis on its own.
    pub shift: usize,
    /// Which images are mirrored.
    pub flip: Flip,
    /// What comes in from outside.
    pub fill: u8,
}

/// Bytes of a buffered writer.
const BUFFER: usize = 8 << 10;

impl Augment {
    /// The images, each shifted and mirrored by its own draws from `seed` and its index.
    #[must_use]
    pub fn apply(&self, images: &Images, seed: u64) -> Images {
        let [_, h, w] = images.shape();
        images.map(|i, from, to| self.change(Rng::stream(seed, i as u64), [h, w], from, to))
    }

    /// `n` views of each image, in an unnamed file in `folder`: first all images as they are, then
    /// all of them changed by draws from `seed`, and so on. With one view the images stay where they
    /// are.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when the folder cannot be written.
    pub fn views(&self, images: &Images, n: usize, (folder, seed): (&Path, u64)) -> Result<Images> {
        if n <= 1 {
            return Ok(images.clone());
        }
        let [_, h, w] = images.shape();
        let all: Vec<usize> = (0..n).flat_map(|_| 0..images.len()).collect();
        images.subset(&all).map_spooled(folder, |i, from, to| {
            if i < images.len() {
                to.copy_from_slice(from);
            } else {
                self.change(Rng::stream(seed, i as u64), [h, w], from, to);
            }
        })
    }

    /// Bytes of pixels that [`Augment::views`] of images of this shape has on the heap.
    #[must_use]
    pub fn bytes(shape: [usize; 3]) -> usize {
        let size = shape.iter().product();
        super::map::together(size) * size + BUFFER
    }

    fn change(&self, mut rng: Rng, [h, w]: [usize; 2], from: &[u8], to: &mut [u8]) {
        // A shift by a whole side and one by more are the same picture.
        let down = draw_shift(self.shift.min(h), &mut rng);
        let right = draw_shift(self.shift.min(w), &mut rng);
        let mirrored = self.flip == Flip::Half && rng.below(2) == 1;
        for (to, from) in to.chunks_exact_mut(h * w).zip(from.chunks_exact(h * w)) {
            shift(from, to, [down, right], [h, w], self.fill);
            if mirrored {
                to.chunks_exact_mut(w).for_each(<[u8]>::reverse);
            }
        }
    }
}

/// A whole number from `-most` to `most`.
fn draw_shift(most: usize, rng: &mut Rng) -> isize {
    rng.below(2 * most + 1) as isize - most as isize
}

/// Copies a plane moved by `by` (down, right), with `fill` where nothing comes from.
fn shift(from: &[u8], to: &mut [u8], by: [isize; 2], [h, w]: [usize; 2], fill: u8) {
    for (y, row) in to.chunks_exact_mut(w).enumerate() {
        let source = y.checked_add_signed(-by[0]).filter(|source| *source < h);
        for (x, pixel) in row.iter_mut().enumerate() {
            let column = x.checked_add_signed(-by[1]).filter(|column| *column < w);
            *pixel = source.zip(column).map_or(fill, |(source, column)| from[source * w + column]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` copies of a 2 x 3 image counting from 1.
    fn counting(n: usize) -> Images {
        let pixels = (1..=6).cycle().take(6 * n).collect();
        Images::from_parts([1, 2, 3], pixels, vec![0; n], "t").unwrap()
    }

    #[test]
    fn a_shift_moves_every_pixel_and_fills_the_rest() {
        let mut to = [0; 6];
        shift(&[1, 2, 3, 4, 5, 6], &mut to, [1, -1], [2, 3], 9);
        assert_eq!(to, [9, 9, 9, 2, 3, 9]);
        shift(&[1, 2, 3, 4, 5, 6], &mut to, [0, 3], [2, 3], 9);
        assert_eq!(to, [9; 6]);
    }

    #[test]
    fn views_are_the_images_and_then_changes_of_them() {
        let augment = Augment { shift: 1, ..Augment::default() };
        let images = counting(50);
        let views = |n| augment.views(&images, n, (&std::env::temp_dir(), 4)).unwrap();
        assert_eq!(views(1), images);
        let three = views(3);
        assert_eq!((three.len(), three.labels().len()), (150, 150));
        assert!((0..50).all(|i| three.image(i) == images.image(i)));
        assert!((50..150).any(|i| three.image(i) != images.image(0)));
        let [second, third] = [1, 2].map(|v| three.subset(&(50 * v..50 * v + 50).collect::<Vec<_>>()));
        assert_ne!(second.pixels(), third.pixels());
    }

    #[test]
    fn the_default_changes_nothing() {
        assert_eq!(Augment::default().apply(&counting(5), 3), counting(5));
    }

    /// 9 shifts, each mirrored or not: every one of the 18 results comes up, and no other.
    #[test]
    fn all_shifts_and_mirror_images_come_up() {
        let augment = Augment { shift: 1, flip: Flip::Half, fill: 0 };
        let changed = augment.apply(&counting(1000), 4);
        let mut seen: Vec<_> = (0..1000).map(|i| changed.image(i).to_vec()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 18);
        assert!(seen.contains(&vec![3, 2, 1, 6, 5, 4]));
    }

    #[test]
    fn a_huge_shift_is_no_overflow() {
        let augment = Augment { shift: usize::MAX, ..Augment::default() };
        assert_eq!(augment.apply(&counting(3), 1).len(), 3);
    }
}
