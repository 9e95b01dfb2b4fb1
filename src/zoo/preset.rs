//! What images a network usually takes, where nobody says.

/// What is assumed of a detected network when nobody says: the usual values of its training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// Data the values come from.
    pub name: &'static str,
    /// Side of the images.
    pub size: usize,
    /// Mean of each channel.
    pub mean: &'static [f32],
    /// Deviation of each channel.
    pub std: &'static [f32],
}

impl Preset {
    /// torchvision's ImageNet classification preset.
    pub const IMAGENET: Self =
        Self { name: "imagenet", size: 224, mean: &[0.485, 0.456, 0.406], std: &[0.229, 0.224, 0.225] };
    /// Statistics of the CIFAR-10 training set.
    pub const CIFAR: Self =
        Self { name: "cifar10", size: 32, mean: &[0.4914, 0.4822, 0.4465], std: &[0.2470, 0.2435, 0.2616] };
    /// Statistics of the Fashion-MNIST training set.
    pub const FASHION: Self = Self { name: "fashion-mnist", size: 28, mean: &[0.2860], std: &[0.3530] };

    /// EfficientNet-Lite as Google trained it: pixels of 0 to 255 less 127, by 128.
    pub const LITE: Self = Self {
        name: "efficientnet-lite",
        size: 224,
        mean: &[127.0 / 255.0, 127.0 / 255.0, 127.0 / 255.0],
        std: &[128.0 / 255.0, 128.0 / 255.0, 128.0 / 255.0],
    };

    /// The preset for images of `channels` channels and a stem of kernel side `stem_k`.
    #[must_use]
    pub fn of(channels: usize, stem_k: usize) -> Self {
        match (channels, stem_k) {
            (1, _) => Self::FASHION,
            (_, 7) => Self::IMAGENET,
            _ => Self::CIFAR,
        }
    }
}
