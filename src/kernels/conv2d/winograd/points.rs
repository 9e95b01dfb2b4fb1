//! The transforms along one axis.
//!
//! Points are 0, +-a, +-b and infinity with a = sqrt(1/2) and b = sqrt(2): their squares add up to 5/2
//! and multiply to 1, which keeps numbers of all points of one size. (Points whose pairs are inverse
//! to each other: Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution
//! for Deep Neural Networks", 2020.)

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use super::{SIDE, TILE};
use crate::kernels::Real;
use crate::kernels::simd::Lanes;

/// Factors of the transforms, as numbers or as registers of the same number.
#[derive(Clone, Copy)]
pub(super) struct Points<T> {
    /// a, b
    at: [T; 2],
    /// a^2, b^2
    squares: [T; 2],
    /// a^2 + b^2
    both: T,
    /// a^3, b^3
    cubes: [T; 2],
    /// 1 over the product of a's and of b's distances to the other points, times 1, the point, its square
    window: [[T; 3]; 2],
}

impl<T: Real> Points<T> {
    pub(super) fn new() -> Self {
        let (a, b) = (FRAC_1_SQRT_2, SQRT_2);
        let of = T::from_f64;
        let window = |point: f64, square: f64, other: f64| {
            let share = 1.0 / (2.0 * square * (square - other));
            [share, point * share, square * share].map(of)
        };
        Self {
            at: [a, b].map(of),
            squares: [0.5, 2.0].map(of),
            both: of(2.5),
            cubes: [0.5 * a, 2.0 * b].map(of),
            window: [window(a, 0.5, 2.0), window(b, 2.0, 0.5)],
        }
    }
}

impl<T> Points<T> {
    /// The same in registers.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `V`.
    #[inline(always)]
    pub(super) unsafe fn registers<V: Lanes<Element = T>>(&self) -> Points<V> {
        // SAFETY: the caller promises the processor.
        let both = unsafe { V::splat(&self.both) };
        Points {
            // SAFETY: as above.
            at: unsafe { splat(&self.at) },
            // SAFETY: as above.
            squares: unsafe { splat(&self.squares) },
            both,
            // SAFETY: as above.
            cubes: unsafe { splat(&self.cubes) },
            // SAFETY: as above.
            window: [unsafe { splat(&self.window[0]) }, unsafe { splat(&self.window[1]) }],
        }
    }
}

/// A register of each number.
///
/// # Safety
///
/// The processor must know the instructions of `V`.
#[inline(always)]
unsafe fn splat<V: Lanes, const N: usize>(numbers: &[V::Element; N]) -> [V; N] {
    // SAFETY: the caller promises the processor.
    let mut registers = [unsafe { V::zero() }; N];
    for (register, number) in registers.iter_mut().zip(numbers) {
        // SAFETY: the caller promises the processor, and a number can be read.
        *register = unsafe { V::splat(number) };
    }
    registers
}

impl<V: Lanes> Points<V> {
    /// Six inputs at the six points.
    #[inline(always)]
    pub(super) fn inputs(&self, d: [V; SIDE]) -> [V; SIDE] {
        let ([a, b], [a2, b2]) = (self.at, self.squares);
        let (even_a, odd_a) = (d[4].less_product(d[2], b2), d[3].less_product(d[1], b2));
        let (even_b, odd_b) = (d[4].less_product(d[2], a2), d[3].less_product(d[1], a2));
        [
            d[0].add(d[4]).less_product(d[2], self.both),
            even_a.add_product(odd_a, a),
            even_a.less_product(odd_a, a),
            even_b.add_product(odd_b, b),
            even_b.less_product(odd_b, b),
            d[1].add(d[5]).less_product(d[3], self.both),
        ]
    }

    /// Three taps at a point and at its negative: a for `at` 0, b for 1.
    #[inline(always)]
    pub(super) fn window(&self, at: usize, [first, second, third]: [V; 3]) -> [V; 2] {
        let [share, point, square] = self.window[at];
        let even = first.mul(share).add_product(third, square);
        [even.add_product(second, point), even.less_product(second, point)]
    }

    /// Four outputs from products at the six points.
    #[inline(always)]
    pub(super) fn outputs(&self, m: [V; SIDE]) -> [V; TILE] {
        let ([a, b], [a2, b2], [a3, b3]) = (self.at, self.squares, self.cubes);
        let [[even_a, odd_a], [even_b, odd_b]] = pairs(m);
        [
            m[0].add(even_a).add(even_b),
            odd_a.mul(a).add_product(odd_b, b),
            even_a.mul(a2).add_product(even_b, b2),
            m[5].add_product(odd_a, a3).add_product(odd_b, b3),
        ]
    }

    /// Four gradients at the six points: [`outputs`](Self::outputs) transposed.
    #[inline(always)]
    pub(super) fn gradients(&self, y: [V; TILE]) -> [V; SIDE] {
        let ([a, b], [a2, b2]) = (self.at, self.squares);
        let (even_a, odd_a) = (y[0].add_product(y[2], a2), y[1].add_product(y[3], a2));
        let (even_b, odd_b) = (y[0].add_product(y[2], b2), y[1].add_product(y[3], b2));
        [
            y[0],
            even_a.add_product(odd_a, a),
            even_a.less_product(odd_a, a),
            even_b.add_product(odd_b, b),
            even_b.less_product(odd_b, b),
            y[3],
        ]
    }

    /// Three taps from sums at the six points: the transposed form of a window at all of them.
    #[inline(always)]
    pub(super) fn taps(&self, u: [V; SIDE]) -> [V; 3] {
        let [[a, a_1, a_2], [b, b_1, b_2]] = self.window;
        let [[even_a, odd_a], [even_b, odd_b]] = pairs(u);
        [
            u[0].add_product(even_a, a).add_product(even_b, b),
            odd_a.mul(a_1).add_product(odd_b, b_1),
            u[5].add_product(even_a, a_2).add_product(even_b, b_2),
        ]
    }
}

/// Sum and difference of what stands at a and -a, and at b and -b.
#[inline(always)]
fn pairs<V: Lanes>(m: [V; SIDE]) -> [[V; 2]; 2] {
    [[m[1].add(m[2]), m[1].sub(m[2])], [m[3].add(m[4]), m[3].sub(m[4])]]
}
