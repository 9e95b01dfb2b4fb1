//! How pictures of any size become images of the size a network takes.

use std::path::Path;

use super::resize::{Filter, Planes};
use super::shape_text;
use crate::error::{Error, Result};
use crate::graph::network::MOST_PIXELS;

/// What pictures become.
///
/// | field | default | range | unit |
/// |---|---|---|---|
/// | `channels` | those of the first picture | 1 or 3 | |
/// | `size` | that of the first picture | over 0 | pixels, height and width |
/// | `resize` | 8/7 of the greater side of `size`, as 256 for 224 | at least that side | pixels |
/// | `filter` | bilinear | | |
///
/// A picture of exactly `size` stays as it is. One that is at least as large gets its shorter side
/// resized to `resize`, and its middle is cut out. A smaller one is refused unless `resize` is
/// given. Sets whose images are all of one size by their format are resized only if it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// Channels: grey or colour.
    pub channels: Option<usize>,
    /// Height and width.
    pub size: Option<[usize; 2]>,
    /// The shorter side before the middle is cut out.
    pub resize: Option<usize>,
    /// How values between pixels are mixed.
    pub filter: Filter,
}

impl Fit {
    /// For a network of this input shape, `[c, h, w]`.
    #[must_use]
    pub fn network(shape: &[usize]) -> Self {
        match *shape {
            [c, h, w] => {
                let channels = Some(c).filter(|c| [1, 3].contains(c));
                Self { channels, size: Some([h, w]), ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// [`Error::Config`].
    pub fn check(&self) -> Result<()> {
        if let Some(wrong) = self.channels.filter(|c| ![1, 3].contains(c)) {
            let want = "1 (grey) or 3 (colour)".into();
            return Err(Error::Config { field: "channels", got: wrong.to_string(), want });
        }
        let Some(resize) = self.resize else { return Ok(()) };
        let want = match self.size.map(|[h, w]| h.max(w)) {
            None => "a size beside it, which is cut out of the middle".into(),
            Some(least) if !(least..=MOST_PIXELS).contains(&resize) => {
                format!("{least}, the greater side of images, to {MOST_PIXELS}")
            }
            Some(_) => return Ok(()),
        };
        Err(Error::Config { field: "resize", got: resize.to_string(), want })
    }

    /// The picture as the settings want it; `path` stands in errors.
    ///
    /// # Errors
    ///
    /// [`Error::ImageSize`] for a smaller picture where nothing says that it be enlarged.
    pub fn apply(&self, picture: Planes, path: &Path) -> Result<Planes> {
        let Some([h, w]) = self.size.filter(|size| *size != picture.size) else { return Ok(picture) };
        let [height, width] = picture.size;
        let c = picture.pixels.len() / (height * width);
        let refuse = |want| {
            let got = shape_text([c, height, width]);
            Err(Error::ImageSize { path: path.into(), want, got })
        };
        if self.resize.is_none() && (height < h || width < w) {
            return refuse(format!("{} or larger; --resize enlarges smaller ones", shape_text([c, h, w])));
        }
        let short = self.resize.unwrap_or(h.max(w) * 8 / 7);
        // A strip of one row, enlarged, would be longer than memory.
        if height.max(width) / height.min(width) > MOST_PIXELS / short {
            return refuse(format!("sides below {MOST_PIXELS} when the shorter is resized to {short}"));
        }
        Ok(picture.shorter_side(short, self.filter).center([h, w]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(size: [usize; 2]) -> Planes {
        Planes { pixels: (0..size[0] * size[1]).map(|i| i as u8).collect(), size }
    }

    #[test]
    fn larger_pictures_are_reduced_and_cut_and_others_stay() {
        let fit = Fit::network(&[1, 7, 7]);
        let path = Path::new("p.png");
        assert_eq!(fit.apply(picture([7, 7]), path).unwrap(), picture([7, 7]));
        assert_eq!(fit.apply(picture([8, 8]), path).unwrap(), picture([8, 8]).center([7, 7]));
        let wide = picture([16, 24]);
        let want = wide.clone().resized([8, 12], Filter::Bilinear).center([7, 7]);
        assert_eq!(fit.apply(wide, path).unwrap(), want);
        assert_eq!(Fit::default().apply(picture([3, 9]), path).unwrap(), picture([3, 9]));
    }

    #[test]
    fn smaller_pictures_are_enlarged_only_when_asked() {
        let fit = Fit::network(&[3, 7, 7]);
        let picture = || Planes { pixels: vec![0; 3 * 6 * 9], size: [6, 9] };
        assert_eq!(
            fit.apply(picture(), Path::new("p.png")).unwrap_err().to_string(),
            "p.png holds images of 3x6x9 (channels x height x width), the network takes 3x7x7 or larger; \
             --resize enlarges smaller ones"
        );
        let fit = Fit { resize: Some(7), ..fit };
        assert_eq!(fit.apply(picture(), Path::new("p.png")).unwrap().pixels, vec![0; 147]);
        let strip = Planes { pixels: vec![0; 9000], size: [3, 3000] };
        let refused = Fit { resize: Some(17), ..fit }.apply(strip, Path::new("p.png")).unwrap_err();
        assert!(refused.to_string().ends_with("sides below 16384 when the shorter is resized to 17"));
        let text = |fit: Fit| fit.check().unwrap_err().to_string();
        assert_eq!(
            text(Fit { resize: Some(6), ..fit }),
            "resize is 6, expected 7, the greater side of images, to 16384"
        );
        assert_eq!(text(Fit { channels: Some(2), ..fit }), "channels is 2, expected 1 (grey) or 3 (colour)");
    }
}
