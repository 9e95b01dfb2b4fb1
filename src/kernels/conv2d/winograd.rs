//! Windows of 3 x 3 at stride 1, dilated too, with a quarter of the products: Winograd's F(4 x 4, 3 x 3).
//!
//! A tile of 4 x 4 outputs reads 6 x 6 inputs. Both, and the window, are polynomials; the product of
//! two polynomials is a product of their values at enough points, here 6 x 6 of them:
//!
//! ```text
//! V = inputs of a tile at the points      U = a window at the points
//! M[o] = sum over c of  U[o, c] * V[c]    point by point: 36 products instead of 4 x 4 x 9
//! outputs of a tile = the polynomial with values M
//! ```
//!
//! (Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2016.) The plain version is `correlate`. Sums are rounded more
//! often than there, and come out some times less exact.
//!
//! A *strip* is a row of tiles. Dilated windows are plain ones of the pixels that are as far apart. A task is
//! a panel of output channels, or a half of one, and some strips; it goes through the input channels a part at
//! a time, as in `correlate`: windows and strips of the part are transformed, a register of channels at a time,
//! and 36 small matrix products are added up. How work is cut follows from shapes and instructions, so results do not depend on threads.

mod cut;
#[allow(unsafe_code)] // addresses of tiles
pub(super) mod dw;
#[allow(unsafe_code)] // vector instructions
mod points;
#[allow(unsafe_code)] // addresses of tiles
mod strip;
#[allow(unsafe_code)] // addresses of tiles, and tasks that write to one slice
mod sums;
#[allow(unsafe_code)] // vector instructions
mod transform;
#[allow(unsafe_code)] // vector instructions
mod windows;

pub(super) use self::cut::Winograd;
use self::strip::Strips;

/// Outputs of a tile along one axis.
const TILE: usize = 4;
/// Inputs of a tile along one axis.
const SIDE: usize = 6;
const POINTS: usize = 36;

/// Most input channels of a part: windows of a panel are then 300 KiB of f32 with AVX-512.
const PART: usize = 32;
/// Most tiles of a task, where a strip allows it.
const TILES: usize = 56;
/// Tiles of a task at least, where strips are cut for the sake of more tasks: every task brings all windows to
/// the points.
const FEW: usize = 4;
/// Least channels on both sides: with fewer, transforms take longer than products.
pub(super) const LEAST: usize = 16;
/// Input channels whose taps are copied together.
const COPIED: usize = 8;
/// Elements between points, so that they do not compete for the same places of a cache.
const GAP: usize = 16;

/// What a window at the points costs, in products of a register.
const WINDOW: usize = 128;

/// Whether half of the products are saved at least, with these channels in and out, and for so many
/// images more than what the windows cost.
fn is_worth_it(channels: [usize; 2], strips: &Strips, images: usize) -> bool {
    let [[h, w], tiles] = [strips.outputs(), strips.tiles];
    let (products, without) = (POINTS * tiles[0] * tiles[1], 9 * h * w);
    channels.iter().all(|&n| n >= LEAST)
        && 2 * products <= without
        && WINDOW + images * products <= images * without
}
