//! How many registers a set of instructions has, and the tiles of sums that fit into them.
//!
//! A tile holds `rows x width` registers of sums, and in each step meets `width` registers of one operand and a
//! number of the other, repeated in all lanes: `rows width + width + 1` registers. One that does not fit is
//! written to the stack and read again for every product.
//!
//! | set | registers | lanes | convolution: most rows, 1, 2, 3, 4 registers wide | matrix product: rows, 1, 2, 3 wide | panel |
//! |---|---|---|---|---|---|
//! | AVX-512 | 32 | 16 | 12, 12, 6, 6 | 16, 8, 8 | 64 |
//! | AVX2 | 16 | 8 | 12, 6 | 8, 6 | 64 |
//! | NEON | 32 | 4 | 12, 12, 6, 6 | 16, 8, 8 | 16 |
//! | portable | 16 | 4 | 4, 4 | 8, 4 | 8 |
//!
//! A *panel* is the output channels for which a part of the input is copied or transformed once; wider ones are
//! summed a tile's width at a time.

/// What fits into the registers of a set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Registers that instructions can name.
    pub(crate) registers: usize,
    /// Most rows of a tile of a convolution that is one register wide, two, and so on; none are wider.
    pub(crate) rows: &'static [usize],
    /// The same of a matrix product.
    pub(crate) product: &'static [usize],
    /// Registers that a panel is wide.
    pub(crate) panel: usize,
}

impl Budget {
    #[cfg(any(test, target_arch = "x86_64"))]
    pub(crate) const AVX512: Self =
        Self { registers: 32, rows: &[12, 12, 6, 6], product: &[16, 8, 8], panel: 4 };
    #[cfg(any(test, target_arch = "x86_64"))]
    pub(crate) const AVX2: Self = Self { registers: 16, rows: &[12, 6], product: &[8, 6], panel: 8 };
    #[cfg(any(test, target_arch = "aarch64"))]
    pub(crate) const NEON: Self =
        Self { registers: 32, rows: &[12, 12, 6, 6], product: &[16, 8, 8], panel: 4 };
    pub(crate) const PORTABLE: Self = Self { registers: 16, rows: &[4, 4], product: &[8, 4], panel: 2 };

    /// Rows that a tile of a convolution may have: all up to eight, and the most.
    pub(crate) const fn has(&self, rows: usize, width: usize) -> bool {
        let most = self.most(width);
        rows == most || rows < most && rows <= 8
    }

    /// Rows that a tile of a product may have.
    pub(crate) const fn has_product(&self, rows: usize, width: usize) -> bool {
        width <= self.product.len() && rows <= self.product[width - 1]
    }

    /// Most rows of a tile of a convolution so many registers wide.
    pub(crate) const fn most(&self, width: usize) -> usize {
        if width == 0 || width > self.rows.len() { 0 } else { self.rows[width - 1] }
    }
}

/// Registers that a tile needs.
#[cfg(test)]
const fn needs(rows: usize, width: usize) -> usize {
    rows * width + width + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tile_needs_more_registers_than_there_are() {
        for budget in [Budget::AVX512, Budget::AVX2, Budget::NEON, Budget::PORTABLE] {
            for tiles in [budget.rows, budget.product] {
                for (i, &rows) in tiles.iter().enumerate() {
                    assert!(needs(rows, i + 1) <= budget.registers, "{rows} rows, {budget:?}");
                }
            }
        }
    }
}
