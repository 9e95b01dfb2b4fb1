//! Images as records of equal length in mapped files: those of CIFAR, of NPY and of safetensors.

use super::set::Source;
use crate::error::Result;
use crate::storage::Bytes;

/// In which order the values of an image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The channels of a pixel together: `[h, w, c]`.
    Pixels,
    /// A plane for each channel: `[c, h, w]`.
    Planes,
}

/// Records in one file.
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Where the values of the first image begin.
    pub(super) start: usize,
    /// Bytes from one image to the next.
    pub(super) stride: usize,
    /// Number of images. `start + (images - 1) * stride` and an image more are inside the file.
    pub(super) images: usize,
}

/// Records of several files, one file after another.
pub(super) struct Records {
    pub(super) pieces: Vec<Piece>,
    pub(super) order: Order,
    /// Channels of an image.
    pub(super) channels: usize,
}

impl Source for Records {
    fn read(&self, mut i: usize, to: &mut [u8]) -> Result<()> {
        for piece in &self.pieces {
            if i < piece.images {
                let start = piece.start + i * piece.stride;
                self.order.write(&piece.bytes[start..][..to.len()], self.channels, to);
                break;
            }
            i -= piece.images;
        }
        Ok(())
    }
}

impl Order {
    /// Writes the values plane by plane.
    pub(super) fn write<T: Copy>(self, from: &[T], channels: usize, to: &mut [T]) {
        match self {
            Self::Planes => to.copy_from_slice(from),
            Self::Pixels => {
                let pixels = to.len() / channels;
                for (c, plane) in to.chunks_exact_mut(pixels).enumerate() {
                    plane
                        .iter_mut()
                        .zip(from[c..].iter().step_by(channels))
                        .for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}
