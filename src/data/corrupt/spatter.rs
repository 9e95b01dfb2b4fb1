//! Spatter: drops of water or mud on the lens.

use super::bell::Bell;
use super::outline::outline;
use super::picture::{Picture, byte_of, color_in};
use super::{Effect, Level};
use crate::rng::Rng;

/// What is on the lens.
#[derive(Clone, Copy)]
enum Liquid {
    /// Pale turquoise, added.
    Water,
    /// Brown, in place of the picture.
    Mud,
}

/// How drops are drawn.
struct Drops {
    mean: f64,
    deviation: f64,
    smooth: Bell,
    least: f64,
}

/// Drops are smoothed normal noise where it is over `least`. Water is bright along their outlines, see
/// [`outline`]: `y = x + m color` with `m` as far as `strength`. Mud covers: `y = x (1 - m) + m color`
/// with `m` the drops smoothed by a deviation of `strength`, where it is 0.8 and more.
///
/// # Source
///
/// Hendrycks and Dietterich 2019, `spatter`.
pub(super) fn spatter(level: Level) -> Effect {
    use Liquid::{Mud, Water};
    let (mean, deviation, sigma, least, strength, liquid) = level.of(
        [
            (0.62, 0.1, 0.7, 0.7, 0.5, Water),
            (0.65, 0.1, 0.8, 0.7, 0.5, Water),
            (0.65, 0.3, 1.0, 0.69, 0.5, Water),
            (0.65, 0.1, 0.7, 0.69, 0.6, Mud),
            (0.65, 0.1, 0.5, 0.68, 0.6, Mud),
        ],
        [
            (0.62, 0.1, 0.7, 0.7, 0.6, Water),
            (0.65, 0.1, 0.8, 0.7, 0.6, Water),
            (0.65, 0.3, 1.0, 0.69, 0.6, Water),
            (0.65, 0.1, 0.7, 0.68, 0.6, Mud),
            (0.65, 0.1, 0.5, 0.67, 0.6, Mud),
        ],
        [
            (0.65, 0.3, 4.0, 0.69, 0.6, Water),
            (0.65, 0.3, 3.0, 0.68, 0.6, Water),
            (0.65, 0.3, 2.0, 0.68, 0.5, Water),
            (0.65, 0.3, 1.0, 0.65, 1.5, Mud),
            (0.67, 0.4, 1.0, 0.65, 1.5, Mud),
        ],
    );
    let drops = Drops { mean, deviation, smooth: Bell::skimage(sigma), least };
    let soft = Bell::skimage(strength);
    Box::new(move |picture, rng| {
        let (size, layer) = (picture.size(), drops.layer(picture.size(), rng));
        match liquid {
            Mud => mud(picture, &layer, least, &soft),
            Water => water(
                picture,
                &outline(&layer.iter().map(|x| byte_of(*x)).collect::<Vec<_>>(), size),
                strength,
            ),
        }
    })
}

impl Drops {
    fn layer(&self, size: [usize; 2], rng: &mut Rng) -> Vec<f64> {
        let noise = |_| self.mean + self.deviation * f64::from(rng.normal());
        let mut layer: Vec<f64> = (0..size[0] * size[1]).map(noise).collect();
        self.smooth.smooth(&mut layer, size);
        layer.iter_mut().filter(|value| **value < self.least).for_each(|value| *value = 0.0);
        layer
    }
}

/// Adds water as bright as its outline, `strength` at most. Where there is none nothing is added;
/// the published scripts divide 0 by 0 there.
fn water(picture: &mut Picture, outline: &[f64], strength: f64) {
    let most = outline.iter().copied().fold(0.0, f64::max);
    if most == 0.0 {
        return;
    }
    let color = color_in(picture.shape[0], [175.0, 238.0, 238.0].map(|value| value / 255.0));
    for (plane, color) in picture.planes().zip(color) {
        plane.iter_mut().zip(outline).for_each(|(value, water)| *value += water / most * strength * color);
    }
}

fn mud(picture: &mut Picture, layer: &[f64], least: f64, soft: &Bell) {
    let mut cover: Vec<f64> = layer.iter().map(|value| f64::from(u8::from(*value > least))).collect();
    soft.smooth(&mut cover, picture.size());
    cover.iter_mut().filter(|cover| **cover < 0.8).for_each(|cover| *cover = 0.0);
    let color = color_in(picture.shape[0], [63.0, 42.0, 20.0].map(|value| value / 255.0));
    for (plane, color) in picture.planes().zip(color) {
        plane
            .iter_mut()
            .zip(&cover)
            .for_each(|(value, cover)| *value = *value * (1.0 - cover) + cover * color);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twice the outline is twice the light; at the most it is 0.5 of the colour, 175 and 238 of 255.
    #[test]
    fn water_is_added_as_bright_as_its_outline() {
        let mut picture = Picture { shape: [3, 1, 2], values: vec![0.0; 6] };
        water(&mut picture, &[4.0, 2.0], 0.5);
        let want = [87.5, 43.75, 119.0, 59.5, 119.0, 59.5].map(|value| value / 255.0);
        assert!(picture.values.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12));
        let before = picture.values.clone();
        water(&mut picture, &[0.0, 0.0], 0.5);
        assert_eq!(picture.values, before);
    }

    #[test]
    fn mud_takes_the_place_of_what_it_covers() {
        let mut picture = Picture { shape: [3, 1, 2], values: vec![1.0; 6] };
        mud(&mut picture, &[0.0, 0.9], 0.7, &Bell::skimage(0.05));
        let want = [255.0, 63.0, 255.0, 42.0, 255.0, 20.0].map(|value| value / 255.0);
        assert!(picture.values.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12));
    }
}
