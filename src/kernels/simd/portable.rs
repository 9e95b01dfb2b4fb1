//! Registers for every processor: arrays that the compiler turns into what there is.

use std::array;
use std::marker::PhantomData;
use std::ops::{Mul, Sub};

use half::f16;

use super::budget::Budget;
use super::lanes::{Element, Isa, Kernel, Lanes};

/// Four numbers.
#[derive(Clone, Copy)]
pub(crate) struct Four<T>([T; 4]);

impl<T: Element + From<f32> + Mul<Output = T> + PartialOrd + Sub<Output = T>> Lanes for Four<T> {
    type Element = T;
    const LANES: usize = 4;
    const COUNT: usize = Budget::PORTABLE.registers;
    const IS_MASKED: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([T::default(); 4])
    }

    #[inline(always)]
    unsafe fn splat(from: *const T) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { *from }; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller's promise; an array needs no more alignment than its elements.
        Self(unsafe { *from.cast::<[T; 4]>() })
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const f16) -> Self {
        // SAFETY: the caller's promise; an array needs no more alignment than its elements.
        let halves = unsafe { *from.cast::<[f16; 4]>() };
        Self(halves.map(|half| T::from(half.to_f32())))
    }

    #[inline(always)]
    unsafe fn load_part(from: *const T, n: usize) -> Self {
        // SAFETY: the caller promises `n` numbers.
        let numbers = unsafe { std::slice::from_raw_parts(from, n) };
        Self(array::from_fn(|i| numbers.get(i).copied().unwrap_or_default()))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller's promise; an array needs no more alignment than its elements.
        unsafe { *to.cast::<[T; 4]>() = self.0 };
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut T, n: usize) {
        for (i, &x) in self.0.iter().enumerate().take(n) {
            // SAFETY: the caller promises `n` numbers.
            unsafe { *to.wrapping_add(i) = x };
        }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self.add(a.mul(b))
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(sum, x)| *sum += x);
        self
    }

    #[inline(always)]
    fn less_product(self, a: Self, b: Self) -> Self {
        self.sub(a.mul(b))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    fn first_only(self, n: usize) -> Self {
        Self(array::from_fn(|i| if i < n { self.0[i] } else { T::default() }))
    }

    #[inline(always)]
    fn greater([best, of_best]: [Self; 2], [x, of_x]: [Self; 2]) -> [Self; 2] {
        let is_number = |x: &T| x.partial_cmp(x).is_some();
        let wins: [bool; 4] =
            array::from_fn(|i| x.0[i] > best.0[i] || (!is_number(&x.0[i]) && is_number(&best.0[i])));
        [(x, best), (of_x, of_best)]
            .map(|(x, best)| Self(array::from_fn(|i| if wins[i] { x.0[i] } else { best.0[i] })))
    }

    #[inline(always)]
    fn after(self, n: usize, before: Self) -> Self {
        Self(array::from_fn(|i| if i < n { before.0[4 + i - n] } else { self.0[i - n] }))
    }

    #[inline(always)]
    fn before(self, n: usize, after: Self) -> Self {
        Self(array::from_fn(|i| if i + n < 4 { self.0[i + n] } else { after.0[i + n - 4] }))
    }

    #[inline(always)]
    fn parted(self, next: Self) -> [Self; 2] {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, next.0);
        [Self([a, c, e, g]), Self([b, d, f, h])]
    }

    #[inline(always)]
    fn joined(self, odd: Self) -> [Self; 2] {
        let ([a, c, e, g], [b, d, f, h]) = (self.0, odd.0);
        [Self([a, b, c, d]), Self([e, f, g, h])]
    }

    #[inline(always)]
    fn sums(registers: &[Self; 4]) -> [T; 4] {
        registers.map(|register| {
            let mut sum = T::default();
            register.0.into_iter().for_each(|x| sum += x);
            sum
        })
    }

    #[inline(always)]
    fn transpose(rows: &mut [Self]) {
        let old: [Self; 4] = array::from_fn(|i| rows[i]);
        rows.iter_mut().enumerate().for_each(|(j, row)| row.0 = old.map(|old| old.0[j]));
    }
}

/// Whatever the compiler may assume of every processor.
pub(crate) struct Portable<T>(PhantomData<T>);

impl<T: Element + From<f32> + Mul<Output = T> + PartialOrd + Sub<Output = T>> Isa for Portable<T> {
    type Register = Four<T>;
    const BUDGET: Budget = Budget::PORTABLE;

    unsafe fn vectorize<K: Kernel<Four<T>>>(kernel: K) {
        // SAFETY: the caller's promise.
        unsafe { kernel.run() }
    }
}

/// Sets of instructions beside [`Portable`].
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(crate) const NAMES: [&str; 1] = ["portable"];

/// There is none to do the job by.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(super) unsafe fn run(_: usize, _: impl super::lanes::Job<f32>) -> bool {
    false
}

/// Nothing: there is no such instruction.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(crate) fn prefetch<T>(_: *const T) {}

/// No set has instructions for pairs.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(super) fn has_pairs() -> bool {
    false
}

/// There is none to do the job by.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(super) unsafe fn run_pairs(_: impl super::lanes::Job<f32>) {}
