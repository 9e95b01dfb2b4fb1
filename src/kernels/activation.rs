//! Activation functions, element by element.
//!
//! What the backward pass needs is kept as small as it can be. The slopes of ReLU and ReLU6
//! are 0 or 1 and can be read off `y`: one bit an element (one byte where candle computes).
//! Sigmoid and its hard form need `y`; SiLU and hard swish need `x`.

use candle_core::{DType, Tensor};

use super::planes::{same_shape, zip};
use super::share::{pieces, zeros};
use super::simd::widened;
use super::{Real, by_dtype, is_slow_path, planes, slice, tensor};
use crate::error::{During, Result};
use crate::graph::op::Activation;

/// Elements of a task, a multiple of 8.
const TASK: usize = 1 << 14;

const ACTIVATING: &str = "an activation";

/// `y = f(x)`, of the shape of `x`.
pub fn forward(kind: Activation, x: &Tensor) -> Result<Tensor> {
    if is_slow_path(x) {
        return slow(kind, x).during("applying an activation");
    }
    by_dtype!(x, T => {
        let pixels = x.elem_count();
        tensor(planes::changed::<T>(ACTIVATING, &slice(x)?, pixels, |_, _, y| apply(kind, y))?, x.dims())
    })
}

/// The least that [`dx`] needs besides `dy`.
///
/// For ReLU and ReLU6 made from `y` alone: a `U8` mask of shape `[ceil(elements / 8)]`, in
/// which bit `i % 8` of byte `i / 8` belongs to element `i`; off the CPU a `U8` mask of the
/// shape of `y`. For the others `x` or `y` itself, not a copy.
pub fn keep(kind: Activation, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match kind {
        Activation::HardSwish | Activation::Silu => Ok(x.clone()),
        Activation::HardSigmoid | Activation::Sigmoid => Ok(y.clone()),
        Activation::Relu | Activation::Relu6 if is_slow_path(y) => {
            slow_mask(kind, y).during("keeping the mask of an activation")
        }
        Activation::Relu | Activation::Relu6 => by_dtype!(y, T => {
            let bits = mask::<T>(kind, &slice(y)?)?;
            let bytes = bits.len();
            tensor(bits, &[bytes])
        }),
    }
}

/// `dx` for what [`keep`] kept.
pub fn dx(kind: Activation, dy: &Tensor, kept: &Tensor) -> Result<Tensor> {
    if is_slow_path(dy) {
        return slow_dx(kind, dy, kept).during("differentiating an activation");
    }
    by_dtype!(dy, T => {
        let slopes = slice::<T>(dy)?;
        let dx = match kind {
            Activation::Relu | Activation::Relu6 => masked(&slopes, &slice::<u8>(kept)?)?,
            _ => {
                same_shape(dy, kept, "differentiating an activation")?;
                zip(ACTIVATING, [&slopes, &slice::<T>(kept)?], |dy, kept| dy * slope(kind, kept))?
            }
        };
        tensor(dx, dy.dims())
    })
}

/// Fills `y` with `f(x)`, without an `x` with `f(y)`.
pub(crate) fn forward_into<T: Real>(kind: Activation, x: Option<&[T]>, y: &mut [T]) {
    let pixels = y.len();
    planes::change(y, x, pixels, |_, _, y| apply(kind, y));
}

/// Applies the activation in place, on the calling thread: the end of a fused convolution.
#[inline(always)]
pub(crate) fn apply<T: Real>(kind: Activation, x: &mut [T]) {
    // One loop a kind, so that each can run in vector registers.
    match kind {
        Activation::HardSigmoid => x.iter_mut().for_each(|x| *x = hard_sigmoid(*x)),
        Activation::HardSwish => x.iter_mut().for_each(|x| *x = hard_swish(*x)),
        Activation::Relu => x.iter_mut().for_each(|x| *x = relu(*x)),
        Activation::Relu6 => x.iter_mut().for_each(|x| *x = relu6(*x)),
        Activation::Sigmoid => x.iter_mut().for_each(|x| *x = sigmoid(*x)),
        Activation::Silu => x.iter_mut().for_each(|x| *x *= sigmoid(*x)),
    }
}

/// The mask of [`keep`] for ReLU or ReLU6, from the results `y` of a whole tensor.
pub(crate) fn mask<T: Real>(kind: Activation, y: &[T]) -> Result<Vec<u8>> {
    // Above every number where the function has no upper kink.
    let top = if kind == Activation::Relu6 { T::from_f64(6.0) } else { T::from_f64(f64::INFINITY) };
    let bit = |i: usize, y: T| u8::from((y > T::zero()) & (y < top)) << i;
    let pack = |y: &[T]| y.iter().enumerate().fold(0, |byte, (i, &y)| byte | bit(i, y));
    let mut mask = zeros::<u8>(ACTIVATING, y.len().div_ceil(8))?;
    pieces(&mut mask, TASK / 8, &|i, mask| {
        let y = &y[i * TASK..y.len().min((i + 1) * TASK)];
        widened(|| {
            // A length known to the compiler lets it test eight at once.
            let (whole, rest) = y.as_chunks::<8>();
            mask.iter_mut().zip(whole).for_each(|(mask, y)| *mask = pack(y));
            mask[whole.len()..].iter_mut().for_each(|mask| *mask = pack(rest));
        });
    });
    Ok(mask)
}

// Written so that NaN stays NaN: a comparison with it is false.
fn relu<T: Real>(x: T) -> T {
    if x < T::zero() { T::zero() } else { x }
}

fn relu6<T: Real>(x: T) -> T {
    let six = T::from_f64(6.0);
    let y = relu(x);
    if y > six { six } else { y }
}

fn hard_sigmoid<T: Real>(x: T) -> T {
    relu6(x + T::from_f64(3.0)) * T::from_f64(1.0 / 6.0)
}

fn hard_swish<T: Real>(x: T) -> T {
    x * relu6(x + T::from_f64(3.0)) * T::from_f64(1.0 / 6.0)
}

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (T::zero() - x).exp())
}

/// The derivative, by what is kept.
fn slope<T: Real>(kind: Activation, kept: T) -> T {
    let one = T::one();
    match kind {
        Activation::HardSigmoid if kept > T::zero() && kept < one => T::from_f64(1.0 / 6.0),
        Activation::HardSigmoid => T::zero(),
        Activation::Sigmoid => kept * (one - kept),
        Activation::Silu => {
            let s = sigmoid(kept);
            s * (one + kept * (one - s))
        }
        _ => {
            let three = T::from_f64(3.0);
            let inner = kept * T::from_f64(1.0 / 3.0) + T::from_f64(0.5);
            let above = if kept > three { one } else { inner };
            if kept < T::zero() - three { T::zero() } else { above }
        }
    }
}

fn masked<T: Real>(dy: &[T], mask: &[u8]) -> Result<Vec<T>> {
    if mask.len() != dy.len().div_ceil(8) {
        let problem = format!("{} bytes of mask for {} elements", mask.len(), dy.len());
        return Err(candle_core::Error::Msg(problem)).during("differentiating an activation");
    }
    // Ranges of a single plane start at multiples of 8: no byte is shared by two of them.
    let pass = |byte: u8, dy: &[T], out: &mut [T]| {
        for (i, (out, &dy)) in out.iter_mut().zip(dy).enumerate() {
            *out = if byte & (1 << i) != 0 { dy } else { T::zero() };
        }
    };
    planes::build(ACTIVATING, [1, dy.len()], |_, at, out| {
        let bytes = &mask[at.start / 8..];
        let ((dy, dy_rest), (out, out_rest)) = (dy[at].as_chunks::<8>(), out.as_chunks_mut::<8>());
        for ((out, dy), &byte) in out.iter_mut().zip(dy).zip(bytes) {
            pass(byte, dy, out);
        }
        if let Some(&byte) = bytes.get(dy.len()) {
            pass(byte, dy_rest, out_rest);
        }
    })
}

fn slow(kind: Activation, x: &Tensor) -> candle_core::Result<Tensor> {
    match kind {
        Activation::HardSigmoid => slow_hard_sigmoid(x),
        Activation::HardSwish => ((x * (x + 3.0)?.clamp(0.0, 6.0)?)? / 6.0)?.contiguous(),
        Activation::Relu => x.relu(),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Sigmoid => slow_sigmoid(x),
        Activation::Silu => x * slow_sigmoid(x)?,
    }
}

fn slow_hard_sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    ((x + 3.0)?.clamp(0.0, 6.0)? / 6.0)?.contiguous()
}

fn slow_sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

fn slow_mask(kind: Activation, y: &Tensor) -> candle_core::Result<Tensor> {
    let above = y.gt(0.0)?;
    if kind == Activation::Relu6 { above * y.lt(6.0)? } else { Ok(above) }
}

fn slow_dx(kind: Activation, dy: &Tensor, kept: &Tensor) -> candle_core::Result<Tensor> {
    let slope = match kind {
        Activation::Relu | Activation::Relu6 => return kept.where_cond(dy, &dy.zeros_like()?),
        Activation::HardSigmoid => {
            let inside = (kept.gt(0.0)? * kept.lt(1.0)?)?;
            inside.to_dtype(kept.dtype())?.affine(1.0 / 6.0, 0.0)?
        }
        Activation::HardSwish => {
            let inner = kept.affine(1.0 / 3.0, 0.5)?;
            let zero = kept.zeros_like()?;
            let above = kept.gt(3.0)?.where_cond(&zero.affine(1.0, 1.0)?, &inner)?;
            kept.lt(-3.0)?.where_cond(&zero, &above)?
        }
        Activation::Sigmoid => (kept * kept.affine(-1.0, 1.0)?)?,
        Activation::Silu => {
            let s = slow_sigmoid(kept)?;
            let rest = s.affine(-1.0, 1.0)?;
            (s * ((kept * rest)? + 1.0)?)?
        }
    };
    dy * slope
}

/// Bytes of [`keep`] for the CPU: what the planner counts.
#[must_use]
pub fn kept_bytes(kind: Activation, elements: usize, dtype: DType) -> usize {
    match kind {
        Activation::Relu | Activation::Relu6 => elements.div_ceil(8),
        _ => elements * dtype.size_in_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::check::*;
    use crate::rng::Rng;

    const KINDS: [Activation; 6] = [
        Activation::HardSigmoid,
        Activation::HardSwish,
        Activation::Relu,
        Activation::Relu6,
        Activation::Sigmoid,
        Activation::Silu,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn both_bodies_agree(n in 1usize..700, seed in any::<u64>()) {
            let rng = &mut Rng::new(seed);
            let (x, dy) = (normal(&[n], rng), normal(&[n], rng));
            for (kind, dtype) in KINDS.into_iter().flat_map(|kind| REALS.map(|dtype| (kind, dtype))) {
                let (x, dy) = (cast(&(&x * 4.0).unwrap(), dtype), cast(&dy, dtype));
                let y = forward(kind, &x).unwrap();
                assert_close(&y, &slow(kind, &x).unwrap(), CLOSE);
                let kept = keep(kind, &x, &y).unwrap();
                prop_assert_eq!(kept.elem_count() * kept.dtype().size_in_bytes(), kept_bytes(kind, n, dtype));
                let slow_kept = match kind {
                    Activation::Relu | Activation::Relu6 => slow_mask(kind, &y).unwrap(),
                    _ => kept.clone(),
                };
                let dx = dx(kind, &dy, &kept).unwrap();
                assert_close(&dx, &slow_dx(kind, &dy, &slow_kept).unwrap(), CLOSE);
            }
        }

        #[test]
        fn gradients_are_those_of_differences(n in 1usize..60, seed in any::<u64>()) {
            let rng = &mut Rng::new(seed);
            // Odd multiples of 1/120 times 15 are odd multiples of 1/8: no kink at 0, 3 or 6 is met.
            let (x, dy) = ((distinct(&[n], rng) * 15.0).unwrap(), normal(&[n], rng));
            for kind in KINDS {
                let y = forward(kind, &x).unwrap();
                let dx = dx(kind, &dy, &keep(kind, &x, &y).unwrap()).unwrap();
                assert_close(&dx, &numeric_gradient(|x| forward(kind, x), &x, &dy), DIFFERENCE);
            }
        }
    }

    #[test]
    fn applying_in_place_gives_the_same_bits_and_nan_stays() {
        let x = [-7.0f32, -2.0, -0.0, 0.5, 2.0, 7.0, f32::NAN];
        for kind in KINDS {
            let mut y = x;
            apply(kind, &mut y);
            let mut want = [0.0; 7];
            forward_into(kind, Some(&x), &mut want);
            assert!(y.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{kind:?}");
            assert!(y[6].is_nan());
        }
    }

    #[test]
    fn masks_hold_where_several_threads_share_a_tensor() {
        let rng = &mut Rng::new(1);
        let (x, dy) = (normal(&[50_003], rng), normal(&[50_003], rng));
        let y = forward(Activation::Relu, &x).unwrap();
        let got = dx(Activation::Relu, &dy, &keep(Activation::Relu, &x, &y).unwrap()).unwrap();
        let bytes = slow_mask(Activation::Relu, &y).unwrap();
        assert_close(&got, &slow_dx(Activation::Relu, &dy, &bytes).unwrap(), EXACT);
    }

    #[test]
    fn bit_i_of_a_mask_belongs_to_element_i() {
        let y = [1.0f32, 0.0, 6.0, 5.9, 0.0, 0.0, 0.0, 0.1, 0.0, 2.0];
        assert_eq!(mask(Activation::Relu, &y).unwrap(), [0b1000_1101, 0b10]);
        assert_eq!(mask(Activation::Relu6, &y).unwrap(), [0b1000_1001, 0b10]);
        let dy = tensor(vec![1.0f32; 10], &[10]).unwrap();
        assert!(dx(Activation::Relu, &dy, &tensor(vec![0u8], &[1]).unwrap()).is_err());
    }
}
