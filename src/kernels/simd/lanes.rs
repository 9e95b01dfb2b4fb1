//! Registers of numbers, and what is compiled for them.

use std::ops::AddAssign;

use half::f16;

use super::budget::Budget;

/// Most lanes of a register.
pub(crate) const MOST: usize = 16;

/// A register of [`LANES`](Self::LANES) numbers.
///
/// Only the `unsafe` functions make a register, and each of them demands a processor that knows
/// the instructions. Whoever holds a register has kept that promise, so the rest is safe.
pub(crate) trait Lanes: Copy {
    type Element: Element;

    /// Numbers in a register.
    const LANES: usize;

    /// Registers of this kind that a loop can fill.
    const COUNT: usize;

    /// Whether [`load_part`](Self::load_part) is as fast as [`load`](Self::load).
    const IS_MASKED: bool;

    /// All lanes 0.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of this type.
    unsafe fn zero() -> Self;

    /// All lanes `*from`.
    ///
    /// # Safety
    ///
    /// As [`zero`](Self::zero), and `from` must be readable.
    unsafe fn splat(from: *const Self::Element) -> Self;

    /// The numbers from `from` on.
    ///
    /// # Safety
    ///
    /// As [`zero`](Self::zero), and `LANES` numbers from `from` on must be readable.
    unsafe fn load(from: *const Self::Element) -> Self;

    /// The numbers of half precision from `from` on.
    ///
    /// # Safety
    ///
    /// As [`zero`](Self::zero), and `LANES` numbers from `from` on must be readable.
    unsafe fn load_halves(from: *const f16) -> Self;

    /// The `n` numbers from `from` on, then zeros. `n` is at least 1 and at most `LANES`.
    ///
    /// # Safety
    ///
    /// As [`zero`](Self::zero), and `n` numbers from `from` on must be readable.
    unsafe fn load_part(from: *const Self::Element, n: usize) -> Self;

    /// Writes all lanes.
    ///
    /// # Safety
    ///
    /// `LANES` numbers from `to` on must be writable.
    unsafe fn store(self, to: *mut Self::Element);

    /// Writes the first `n` lanes. `n` is at least 1 and at most `LANES`.
    ///
    /// # Safety
    ///
    /// `n` numbers from `to` on must be writable.
    unsafe fn store_part(self, to: *mut Self::Element, n: usize);

    /// [`load_part`](Self::load_part), by [`load`](Self::load) where that reads no more.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(always)]
    unsafe fn load_first(from: *const Self::Element, n: usize) -> Self {
        if n == Self::LANES {
            // SAFETY: the caller promises `n` numbers.
            return unsafe { Self::load(from) };
        }
        // SAFETY: the caller's promise.
        unsafe { Self::load_part(from, n) }
    }

    /// As [`load_first`](Self::load_first), of numbers of half precision.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(always)]
    unsafe fn load_first_halves(from: *const f16, n: usize) -> Self {
        if n == Self::LANES {
            // SAFETY: the caller promises `n` numbers.
            return unsafe { Self::load_halves(from) };
        }
        let mut halves = [f16::ZERO; MOST];
        for (i, half) in halves.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises `n` numbers.
            *half = unsafe { *from.wrapping_add(i) };
        }
        // SAFETY: the caller promises the processor, and no register has more lanes.
        unsafe { Self::load_halves(halves.as_ptr()) }
    }

    /// [`store_part`](Self::store_part), by [`store`](Self::store) where that writes no more.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut Self::Element, n: usize) {
        if n == Self::LANES {
            // SAFETY: the caller promises `n` numbers.
            return unsafe { self.store(to) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.store_part(to, n) }
    }

    /// `self + a * b`
    fn add_product(self, a: Self, b: Self) -> Self;

    /// `self - a * b`
    fn less_product(self, a: Self, b: Self) -> Self;

    /// `self * other`
    fn mul(self, other: Self) -> Self;

    /// `self - other`
    fn sub(self, other: Self) -> Self;

    /// `self + other`
    fn add(self, other: Self) -> Self;

    /// The first `n` lanes, then zeros. `n` is at least 1 and at most `LANES`.
    fn first_only(self, n: usize) -> Self;

    /// Lane by lane the greater number of two registers, and what stands beside it in a second one of each. The
    /// first of equals; what is not a number is greater than every number.
    fn greater(first: [Self; 2], second: [Self; 2]) -> [Self; 2];

    /// The lanes of this register, each `n` further on, behind the last `n` of `before`. `n` is 1 or 2.
    fn after(self, n: usize, before: Self) -> Self;

    /// The lanes of this register from lane `n` on, before the first `n` of `after`. `n` is 1 or 2.
    fn before(self, n: usize, after: Self) -> Self;

    /// The lanes of two registers by turns: those at even places, and those at odd ones.
    fn parted(self, next: Self) -> [Self; 2];

    /// [`parted`](Self::parted) the other way.
    fn joined(self, odd: Self) -> [Self; 2];

    /// The sum over the lanes of each.
    fn sums(registers: &[Self; 4]) -> [Self::Element; 4];

    /// [`LANES`](Self::LANES) registers as rows of a matrix become its columns.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    fn transpose(rows: &mut [Self]);
}

/// A set of instructions.
pub(crate) trait Isa {
    type Register: Lanes;

    /// What fits into its registers.
    const BUDGET: Budget;

    /// Neighbouring terms of a sum of products whose numbers lie in one element of an *operand*: 1, which is
    /// the number itself, or 2, a [pair](super::pair).
    const DEPTH: usize = 1;

    /// Runs `kernel`, compiled for these instructions.
    ///
    /// # Safety
    ///
    /// The processor must know them, and as [`Kernel::run`].
    unsafe fn vectorize<K: Kernel<Self::Register>>(kernel: K);

    /// `sum` and the products of what each element of two operands holds.
    ///
    /// # Safety
    ///
    /// The processor must know these instructions.
    #[inline(always)]
    unsafe fn add_products(sum: Self::Register, a: Self::Register, b: Self::Register) -> Self::Register {
        sum.add_product(a, b)
    }

    /// The operand of the numbers of two neighbouring terms, of the first where one element holds one.
    ///
    /// # Safety
    ///
    /// The processor must know these instructions.
    #[inline(always)]
    unsafe fn operand([first, _]: [Self::Register; 2]) -> Self::Register {
        first
    }

    /// The numbers that an operand was made of.
    ///
    /// # Safety
    ///
    /// The processor must know these instructions.
    #[inline(always)]
    unsafe fn parts(operand: Self::Register) -> [Self::Register; 2] {
        [operand; 2]
    }

    /// Writes the operand of numbers that are neighbouring terms: `LANES / DEPTH` elements.
    ///
    /// # Safety
    ///
    /// The processor must know these instructions, and the elements be writable.
    #[inline(always)]
    unsafe fn store_operand(numbers: Self::Register, to: *mut Num<Self>) {
        // SAFETY: the caller's promise.
        unsafe { numbers.store(to) };
    }
}

/// An innermost loop, written once for every kind of register.
pub(crate) trait Kernel<V: Lanes> {
    /// Runs it; always inlined, so that it is compiled for the instructions of its caller.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `V`. What else must hold, the kernel says.
    unsafe fn run(self);
}

/// Work that is written once for every set of instructions.
pub(crate) trait Job<T> {
    /// Does it.
    ///
    /// # Safety
    ///
    /// The processor must know the instructions of `S`. What else must hold, the job says.
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self);
}

/// A number that vector code computes with.
pub(crate) trait Element: Copy + Default + AddAssign + 'static {
    /// Does the job by the fastest instructions that this processor knows: always the same ones in
    /// a process.
    ///
    /// # Safety
    ///
    /// What the job demands beside its processor.
    unsafe fn dispatch(job: impl Job<Self>);

    /// As [`dispatch`](Self::dispatch), by instructions that multiply [pairs](super::pair), of registers as
    /// wide as there; `f64` has none and takes single numbers.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn dispatch_pairs(job: impl Job<Self>);

    /// Numbers in a register of those instructions, and in a [panel](Budget::panel) of them.
    fn widths() -> [usize; 2] {
        let mut widths = [0; 2];
        // SAFETY: the job demands nothing.
        unsafe { Self::dispatch(Widths(&mut widths)) };
        widths
    }
}

/// Asks for [`Element::widths`].
pub(super) struct Widths<'a>(pub(super) &'a mut [usize; 2]);

impl<T> Job<T> for Widths<'_> {
    unsafe fn run<S: Isa<Register: Lanes<Element = T>>>(self) {
        *self.0 = [1, S::BUDGET.panel].map(|registers| registers * S::Register::LANES);
    }
}

/// The numbers a set of instructions works on.
pub(crate) type Num<S> = <<S as Isa>::Register as Lanes>::Element;
