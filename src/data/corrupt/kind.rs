//! The corruptions by name.

use super::{
    Effect, Level, blur, color, elastic, fog, frost, glass, jpeg, motion, noise, pixelate, snow, spatter,
    zoom,
};

/// What is done to an image, in the order of the published tables: fifteen common ones, and four extra.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Independent normal noise on every value: a bright or small sensor's electronics.
    GaussianNoise,
    /// Light counted in few packets: a dark place.
    ShotNoise,
    /// Values that are white or black: faulty pixels.
    ImpulseNoise,
    /// A lens out of focus: every point becomes a disk.
    DefocusBlur,
    /// Frosted glass: pixels change places with near ones.
    GlassBlur,
    /// A camera that moves.
    MotionBlur,
    /// A camera that moves towards what it sees.
    ZoomBlur,
    /// Falling snow and its pale light.
    Snow,
    /// Ice on the lens, generated.
    Frost,
    /// A bright cloud over everything.
    Fog,
    /// Light added.
    Brightness,
    /// Values drawn towards the channel's mean: fog on the lens, flat light.
    Contrast,
    /// Regions stretched and shrunk.
    ElasticTransform,
    /// Large pixels: a small picture, enlarged.
    Pixelate,
    /// What JPEG of low quality loses.
    JpegCompression,
    /// Normal noise in proportion to every value.
    SpeckleNoise,
    /// A smooth blur.
    GaussianBlur,
    /// Drops of water or mud on the lens.
    Spatter,
    /// Colours paler or stronger.
    Saturate,
}

impl Kind {
    /// Every kind, in the order of the published tables.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &[
            Self::GaussianNoise,
            Self::ShotNoise,
            Self::ImpulseNoise,
            Self::DefocusBlur,
            Self::GlassBlur,
            Self::MotionBlur,
            Self::ZoomBlur,
            Self::Snow,
            Self::Frost,
            Self::Fog,
            Self::Brightness,
            Self::Contrast,
            Self::ElasticTransform,
            Self::Pixelate,
            Self::JpegCompression,
            Self::SpeckleNoise,
            Self::GaussianBlur,
            Self::Spatter,
            Self::Saturate,
        ]
    }

    /// The 15 common corruptions, over which the benchmarks take their means.
    #[must_use]
    pub fn common() -> &'static [Self] {
        &Self::all()[..15]
    }

    /// The name in the published files, such as `gaussian_noise`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::DefocusBlur => "defocus_blur",
            Self::ElasticTransform => "elastic_transform",
            Self::Fog => "fog",
            Self::Frost => "frost",
            Self::GaussianBlur => "gaussian_blur",
            Self::GaussianNoise => "gaussian_noise",
            Self::GlassBlur => "glass_blur",
            Self::ImpulseNoise => "impulse_noise",
            Self::JpegCompression => "jpeg_compression",
            Self::MotionBlur => "motion_blur",
            Self::Pixelate => "pixelate",
            Self::Saturate => "saturate",
            Self::ShotNoise => "shot_noise",
            Self::Snow => "snow",
            Self::Spatter => "spatter",
            Self::SpeckleNoise => "speckle_noise",
            Self::ZoomBlur => "zoom_blur",
        }
    }

    pub(super) fn effect(self, level: Level) -> Effect {
        match self {
            Self::Brightness => color::brightness(level),
            Self::Contrast => color::contrast(level),
            Self::DefocusBlur => blur::defocus(level),
            Self::ElasticTransform => elastic::elastic(level),
            Self::Fog => fog::fog(level),
            Self::Frost => frost::frost(level),
            Self::GaussianBlur => blur::gauss(level),
            Self::GaussianNoise => noise::gaussian(level),
            Self::GlassBlur => glass::glass(level),
            Self::ImpulseNoise => noise::impulse(level),
            Self::JpegCompression => jpeg::jpeg(level),
            Self::MotionBlur => motion::motion(level),
            Self::Pixelate => pixelate::pixelate(level),
            Self::Saturate => color::saturate(level),
            Self::ShotNoise => noise::shot(level),
            Self::Snow => snow::snow(level),
            Self::Spatter => spatter::spatter(level),
            Self::SpeckleNoise => noise::speckle(level),
            Self::ZoomBlur => zoom::zoom(level),
        }
    }
}
