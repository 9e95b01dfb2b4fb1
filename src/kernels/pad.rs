//! Zeros around the pixels of every channel, `[n, c, h, w]` to `[n, c, top + h + bottom, left + w + right]`.

use candle_core::Tensor;

use super::planes::{build_whole, image_dims, plane, write_whole};
use super::{Real, by_dtype, is_slow_path, slice, tensor};
use crate::error::{During, Result};
use crate::graph::op::Margins;

const PADDING: &str = "padding";
const CROPPING: &str = "differentiating a padding";

/// `x` with `margins` of zeros around it.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when `x` is no `[n, c, h, w]` or the device refuses.
pub fn forward(margins: Margins, x: &Tensor) -> Result<Tensor> {
    let [n, c, h, w] = image_dims(x)?;
    let [oh, ow] = padded(margins, [h, w])?;
    if is_slow_path(x) {
        return slow(margins, x).during(PADDING);
    }
    by_dtype!(x, T => {
        let x = slice::<T>(x)?;
        let rows = |i: usize, y: &mut [T]| copy(plane(&x, i, h * w), w, inside(y, margins, [w, ow]));
        tensor(build_whole(PADDING, [n * c, oh * ow], rows)?, &[n, c, oh, ow])
    })
}

/// Fills `y` with the planes of `x`, of `h` x `w` pixels each.
pub(crate) fn forward_into<T: Real>(margins: Margins, [h, w]: [usize; 2], x: &[T], y: &mut [T]) {
    let Some([oh, ow]) = margins.around([h, w]) else { return };
    write_whole(y, oh * ow, |i, y| {
        y.fill(T::zero());
        copy(plane(x, i, h * w), w, inside(y, margins, [w, ow]));
    });
}

/// The gradient by the input: `dy` without its margins.
///
/// # Errors
///
/// [`crate::Error::Tensor`] when `dy` is no `[n, c, h, w]` with such margins or the device refuses.
pub fn dx(margins: Margins, dy: &Tensor) -> Result<Tensor> {
    let [n, c, oh, ow] = image_dims(dy)?;
    let Margins { top, left, bottom, right } = margins;
    let inner = |side: usize, a: usize, b: usize| side.checked_sub(a)?.checked_sub(b);
    let (Some(h), Some(w)) = (inner(oh, top, bottom), inner(ow, left, right)) else {
        let problem = format!("{oh} x {ow} pixels have no {margins:?}");
        return Err(candle_core::Error::Msg(problem)).during(CROPPING);
    };
    if is_slow_path(dy) {
        return slow_dx(margins, [h, w], dy).during(CROPPING);
    }
    by_dtype!(dy, T => {
        let dy = slice::<T>(dy)?;
        let rows = |i: usize, dx: &mut [T]| {
            let inside = plane(&dy, i, oh * ow).chunks_exact(ow.max(1)).skip(top);
            dx.chunks_exact_mut(w.max(1)).zip(inside).for_each(|(dx, dy)| dx.copy_from_slice(&dy[left..][..w]));
        };
        tensor(build_whole(CROPPING, [n * c, h * w], rows)?, &[n, c, h, w])
    })
}

fn padded(margins: Margins, sides: [usize; 2]) -> Result<[usize; 2]> {
    let problem = || candle_core::Error::Msg(format!("{margins:?} around {sides:?} pixels"));
    margins.around(sides).ok_or_else(problem).during(PADDING)
}

/// The rows of a padded plane between its margins.
fn inside<T>(y: &mut [T], margins: Margins, [w, ow]: [usize; 2]) -> impl Iterator<Item = &mut [T]> {
    let left = margins.left;
    y.chunks_exact_mut(ow.max(1)).skip(margins.top).map(move |y| &mut y[left..][..w])
}

fn copy<'a, T: Real>(x: &[T], w: usize, inside: impl Iterator<Item = &'a mut [T]>) {
    x.chunks_exact(w.max(1)).zip(inside).for_each(|(x, y)| y.copy_from_slice(x));
}

fn slow(margins: Margins, x: &Tensor) -> candle_core::Result<Tensor> {
    let Margins { top, left, bottom, right } = margins;
    x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?.contiguous()
}

fn slow_dx(margins: Margins, [h, w]: [usize; 2], dy: &Tensor) -> candle_core::Result<Tensor> {
    dy.narrow(2, margins.top, h)?.narrow(3, margins.left, w)?.contiguous()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn both_bodies_agree_and_the_gradient_is_that_of_differences(
            [n, c, h, w] in images(),
            [top, left, bottom, right] in [0usize..3, 0usize..3, 0usize..3, 0usize..3],
            seed in any::<u64>(),
        ) {
            let margins = Margins { top, left, bottom, right };
            let x = normal(&[n, c, h, w], &mut Rng::new(seed));
            for dtype in REALS {
                let x = cast(&x, dtype);
                let y = forward(margins, &x).unwrap();
                assert_close(&y, &slow(margins, &x).unwrap(), EXACT);
                assert_close(&dx(margins, &y).unwrap(), &x, EXACT);
                assert_close(&slow_dx(margins, [h, w], &y).unwrap(), &x, EXACT);
            }
            let dy = normal(forward(margins, &x).unwrap().dims(), &mut Rng::new(seed));
            let got = dx(margins, &dy).unwrap();
            assert_close(&got, &numeric_gradient(|x| forward(margins, x), &x, &dy), DIFFERENCE);
        }
    }

    #[test]
    fn a_plane_is_written_over_whatever_was_there() {
        let mut y = [7.0f32; 6];
        forward_into(Margins { left: 1, bottom: 1, ..Margins::default() }, [1, 2], &[1.0, 2.0], &mut y);
        assert_eq!(y, [0.0, 1.0, 2.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn margins_that_cannot_be_are_refused() {
        let x = normal(&[1, 1, 2, 2], &mut Rng::new(1));
        let margins = Margins { top: 3, ..Margins::default() };
        assert_eq!(dx(margins, &x).unwrap_err().to_string(), "differentiating a padding failed");
        let margins = Margins { top: usize::MAX, ..Margins::default() };
        assert_eq!(forward(margins, &x).unwrap_err().to_string(), "padding failed");
    }
}
