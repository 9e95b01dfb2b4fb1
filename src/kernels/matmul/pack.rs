//! Copies of parts of a matrix, in the order in which the innermost loops read them.

use std::marker::PhantomData;

use half::f16;

use super::Matrix;
use crate::kernels::simd::{Isa, Kernel, Lanes, MOST, Num, prefetch};

/// Copies `matrix` to `to` row by row, `width` elements a row: missing columns become 0. `width` is a
/// multiple of a register.
///
/// # Panics
///
/// When `to` has fewer than `rows * width` elements, or `width` is less than `cols`.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
pub(crate) unsafe fn rows<S: Isa>(to: &mut [Num<S>], matrix: Matrix<Num<S>>, width: usize) {
    let Matrix { data, rows, cols, row_stride, col_stride } = matrix;
    let to = &mut to[..rows * width];
    assert!(cols <= width && width.is_multiple_of(S::Register::LANES), "a row does not fit");
    if row_stride == 1 {
        let from = Run { from: data, stride: col_stride, n: cols };
        // SAFETY: the caller promises the processor; `to` has whole registers for each row.
        return unsafe {
            transposed::<S>(from, rows, Columns { to: to.as_mut_ptr(), stride: width, whole: true })
        };
    }
    if cols < width {
        to.fill(Num::<S>::default());
    }
    for (l, to) in to.chunks_exact_mut(width).enumerate() {
        let from = &data[l * row_stride..];
        if col_stride == 1 {
            to[..cols].copy_from_slice(&from[..cols]);
        } else {
            to.iter_mut().zip(from.iter().step_by(col_stride)).take(cols).for_each(|(to, &x)| *to = x);
        }
    }
}

/// `n` runs of elements that begin `stride` apart.
pub(crate) struct Run<'a, T> {
    pub(crate) from: &'a [T],
    pub(crate) stride: usize,
    pub(crate) n: usize,
}

impl<'a, T> Run<'a, T> {
    /// All of them, each with what follows it up to the next.
    pub(crate) fn each(&self) -> impl Iterator<Item = &'a [T]> {
        self.from.chunks(self.stride).take(self.n)
    }

    /// All elements of runs that follow one another.
    pub(crate) fn all(&self) -> &'a [T] {
        &self.from[..self.n * self.stride]
    }
}

/// Where the first elements of all runs go, then `stride` further on the second ones, and so on.
pub(crate) struct Columns<T> {
    pub(crate) to: *mut T,
    pub(crate) stride: usize,
    /// Whether whole registers are written, zeros after the last run.
    pub(crate) whole: bool,
}

/// Copies the first `length` elements of each run, a block of registers at a time.
///
/// # Panics
///
/// When the slice of the runs is too short.
///
/// # Safety
///
/// The processor must know the instructions of `S`. For each element of a run there must be room for an
/// element of every run, up to whole registers if `whole`, and nothing else may have it.
pub(crate) unsafe fn transposed<S: Isa>(from: Run<Num<S>>, length: usize, to: Columns<Num<S>>) {
    // SAFETY: the caller's promise.
    unsafe { transposed_as::<S, AsTheyAre>(from, length, (to, None)) };
}

/// As [`transposed`], of runs in half precision, which are widened and multiplied by a factor each, if
/// there are some.
///
/// # Panics
///
/// As there, and when there are fewer factors than runs.
///
/// # Safety
///
/// As there.
pub(crate) unsafe fn transposed_halves<S: Isa>(
    from: Run<f16>,
    length: usize,
    to: (Columns<Num<S>>, Option<&[Num<S>]>),
) {
    // SAFETY: the caller's promise.
    unsafe { transposed_as::<S, Halves>(from, length, to) };
}

/// Widens the first `width` numbers of rows of half precision, whole registers, and multiplies the columns by
/// a factor each, if there are some.
///
/// # Panics
///
/// When `to` has another length, or rows have fewer columns than there are factors.
///
/// # Safety
///
/// The processor must know the instructions of `S`.
pub(crate) unsafe fn widened<S: Isa>(
    from: Run<f16>,
    width: usize,
    (to, factors): (&mut [Num<S>], Option<&[Num<S>]>),
) {
    let last = from.n.saturating_sub(1) * from.stride;
    assert!(from.n == 0 || last + width <= from.from.len(), "rows reach past their slice");
    assert!(to.len() == from.n * width && width.is_multiple_of(S::Register::LANES), "no whole registers");
    assert!(factors.is_none_or(|of| of.len() <= width), "no whole rows");
    // SAFETY: the caller promises the processor.
    unsafe { S::vectorize(Widened { from, width, to, factors }) };
}

struct Widened<'a, T> {
    from: Run<'a, f16>,
    width: usize,
    to: &'a mut [T],
    factors: Option<&'a [T]>,
}

impl<V: Lanes> Kernel<V> for Widened<'_, V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { from, width, to, factors } = self;
        for first in (0..width).step_by(V::LANES) {
            // SAFETY: the caller promises the processor.
            let factor = unsafe { factors_from::<V>(factors, first) };
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                let from = from.from.as_ptr().wrapping_add(row * from.stride + first);
                // SAFETY: the caller promises the processor and whole rows.
                let register = unsafe { V::load_halves(from) };
                let register = factor.map_or(register, |factor| register.mul(factor));
                // SAFETY: as above.
                unsafe { register.store(to[first..].as_mut_ptr()) };
            }
        }
    }
}

/// A register of factors from `first` on, then zeros.
///
/// # Safety
///
/// The processor must know the instructions of `V`.
#[inline(always)]
unsafe fn factors_from<V: Lanes>(factors: Option<&[V::Element]>, first: usize) -> Option<V> {
    let from = factors?.get(first..).filter(|from| !from.is_empty())?;
    // SAFETY: the caller promises the processor; there are as many factors.
    Some(unsafe { V::load_first(from.as_ptr(), from.len().min(V::LANES)) })
}

/// # Safety
///
/// As [`transposed`].
unsafe fn transposed_as<S: Isa, L: Load<S::Register>>(
    from: Run<L::From>,
    length: usize,
    (to, factors): (Columns<Num<S>>, Option<&[Num<S>]>),
) {
    if from.n == 0 || length == 0 {
        return;
    }
    assert!((from.n - 1) * from.stride + length <= from.from.len(), "runs reach past their slice");
    assert!(factors.is_none_or(|factors| from.n <= factors.len()), "factors are missing");
    // SAFETY: the caller promises the processor and what is written; what is read lies within the slice.
    unsafe { S::vectorize(Transposed::<_, _, L> { from, length, to, factors, by: PhantomData }) };
}

/// How numbers come into a register.
trait Load<V: Lanes> {
    type From;

    /// The `n` numbers from `from` on.
    ///
    /// # Safety
    ///
    /// As [`Lanes::load_first`].
    unsafe fn load(from: *const Self::From, n: usize) -> V;

    /// Told where the same runs go on that are loaded now.
    #[inline(always)]
    fn ask_for(_: *const Self::From) {}
}

struct AsTheyAre;

impl<V: Lanes> Load<V> for AsTheyAre {
    type From = V::Element;

    #[inline(always)]
    unsafe fn load(from: *const V::Element, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_first(from, n) }
    }
}

struct Halves;

impl<V: Lanes> Load<V> for Halves {
    type From = f16;

    #[inline(always)]
    unsafe fn load(from: *const f16, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_first_halves(from, n) }
    }

    /// They come from a file, a few at a time of many runs: more than the processor foresees.
    #[inline(always)]
    fn ask_for(at: *const f16) {
        prefetch(at);
    }
}

struct Transposed<'a, F, T, L> {
    from: Run<'a, F>,
    length: usize,
    to: Columns<T>,
    factors: Option<&'a [T]>,
    by: PhantomData<L>,
}

impl<V: Lanes, L: Load<V>> Kernel<V> for Transposed<'_, L::From, V::Element, L> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { from: runs, length, to, factors, .. } = self;
        for first in (0..runs.n).step_by(V::LANES) {
            let n_runs = V::LANES.min(runs.n - first);
            // SAFETY: the caller promises the processor.
            let factor = unsafe { factors_from::<V>(factors, first) };
            let scaled = |register: V| factor.map_or(register, |factor| register.mul(factor));
            for start in (0..length).step_by(V::LANES) {
                let n = V::LANES.min(length - start);
                let from = runs.from.as_ptr().wrapping_add(first * runs.stride + start);
                let to_start = to.to.wrapping_add(start * to.stride + first);
                // SAFETY: the caller promises the processor.
                let zero = unsafe { V::zero() };
                if (n_runs, n) == (V::LANES, V::LANES) {
                    // Counts that the compiler knows, and no other use, so that the block stays in registers.
                    let mut block = [zero; MOST];
                    for (i, register) in block[..V::LANES].iter_mut().enumerate() {
                        // SAFETY: the caller promises the elements of each run.
                        *register = unsafe { L::load(from.wrapping_add(i * runs.stride), V::LANES) };
                        L::ask_for(from.wrapping_add(i * runs.stride + length));
                    }
                    V::transpose(&mut block[..V::LANES]);
                    for (j, register) in block[..V::LANES].iter().enumerate() {
                        // SAFETY: the caller promises place for each run.
                        unsafe { scaled(*register).store(to_start.wrapping_add(j * to.stride)) };
                    }
                    continue;
                }
                let mut block = [zero; MOST];
                for (i, register) in block.iter_mut().enumerate().take(n_runs) {
                    // SAFETY: the caller promises `length` elements of each run.
                    *register = unsafe { L::load(from.wrapping_add(i * runs.stride), n) };
                }
                V::transpose(&mut block[..V::LANES]);
                let written = if to.whole { V::LANES } else { n_runs };
                for (j, register) in block.iter().enumerate().take(n) {
                    // SAFETY: the caller promises place for whole registers or for each run.
                    unsafe { scaled(*register).store_first(to_start.wrapping_add(j * to.stride), written) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{self, Job};

    struct Copy<'a>(&'a [f32], [usize; 2], &'a mut [f32], bool);

    impl Job<f32> for Copy<'_> {
        unsafe fn run<S: Isa<Register: Lanes<Element = f32>>>(self) {
            let Self(from, [n, length], to, whole) = self;
            let width = if whole { n.next_multiple_of(S::Register::LANES) } else { n };
            let run = Run { from, stride: length, n };
            // SAFETY: the caller promises the processor, and the columns fit.
            unsafe {
                transposed::<S>(
                    run,
                    length,
                    Columns { to: to[..width * length].as_mut_ptr(), stride: width, whole },
                )
            };
            // The columns without what fills the last register.
            let columns: Vec<f32> =
                to.chunks(width).take(length).flat_map(|column| column[..n].to_vec()).collect();
            to[..n * length].copy_from_slice(&columns);
        }
    }

    #[test]
    fn runs_of_every_length_become_columns() {
        for (n, length) in [(1, 1), (3, 20), (16, 16), (17, 5), (40, 33), (8, 64)] {
            let from: Vec<f32> = (0..n * length).map(|i| i as f32).collect();
            let want: Vec<f32> = (0..n * length).map(|i| from[i % n * length + i / n]).collect();
            for (set, whole) in (0..simd::SETS).flat_map(|set| [(set, false), (set, true)]) {
                let mut to = vec![f32::NAN; (n + 16) * length];
                // SAFETY: the job demands nothing beside its processor.
                if unsafe { simd::run(set, Copy(&from, [n, length], &mut to, whole)) } {
                    assert_eq!(to[..n * length], want, "{n} runs of {length} by set {set}");
                }
            }
        }
    }
}
