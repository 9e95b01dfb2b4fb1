//! Images as the trained part sees them: the frozen prefix's output, cached.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;

use super::Site;
use crate::data::{Images, Normalize};
use crate::device::to_host;
use crate::engine::infer::infer;
use crate::error::{Error, Result};
use crate::eval::deployed::greatest;
use crate::graph::lower::Lowered;
use crate::kernels::cross_entropy;
use crate::memory::cache::{Cache, Precision};

/// Features, labels and the deployed network's opinion, image by image.
#[derive(Debug)]
pub struct Samples {
    features: Cache,
    /// Class of each image.
    labels: Arc<[u32]>,
    /// Class probabilities that the deployed network gives each image, where it was asked.
    teacher: Option<Arc<Cache>>,
    /// Number of classes.
    classes: usize,
}

/// Where features are kept.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// Folder of the unnamed files.
    pub folder: &'a Path,
    /// How features are rounded.
    pub precision: Precision,
}

impl Samples {
    /// Features that were made before, with the class of each row; the deployed network was not
    /// asked about them.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when a row has no label or a label no class.
    pub fn of(features: Cache, labels: impl Into<Arc<[u32]>>, classes: usize) -> Result<Self> {
        let labels = labels.into();
        let wrong = |problem| Err(Error::Graph { node: "samples".into(), problem });
        if labels.len() != features.len() {
            return wrong(format!("{} labels for {} rows of features", labels.len(), features.len()));
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            return wrong(format!("label {label} among {classes} classes"));
        }
        Ok(Self { features, labels, teacher: None, classes })
    }

    /// The same samples, with the deployed network's opinion on each image.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] when there is not one row for each image.
    pub fn taught_by(self, teacher: Arc<Cache>) -> Result<Self> {
        if teacher.len() != self.len() {
            let problem = format!("{} opinions on {} images", teacher.len(), self.len());
            return Err(Error::Graph { node: "samples".into(), problem });
        }
        Ok(Self { teacher: Some(teacher), ..self })
    }

    /// Runs the prefix of `site` over `images`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when the cache cannot be written, [`crate::Error::Tensor`] when
    /// the device refuses.
    pub fn new(site: &Site, images: &Images, normalize: &Normalize, store: Store) -> Result<Self> {
        Self::run(site, images, (normalize, store), None)
    }

    /// As [`Samples::new`], and asks the deployed network for its opinion.
    ///
    /// # Errors
    ///
    /// As [`Samples::new`].
    pub fn taught(site: &Site, images: &Images, normalize: &Normalize, store: Store) -> Result<Self> {
        Self::run(site, images, (normalize, store), Some(&site.lowered(&site.graph, &site.params)?))
    }

    fn run(
        site: &Site,
        images: &Images,
        (normalize, store): (&Normalize, Store),
        deployed: Option<&Lowered>,
    ) -> Result<Self> {
        let mut features = Cache::create(store.folder, &site.input, store.precision)?;
        let opinions = || Cache::create(store.folder, &[site.classes], Precision::F32);
        let mut teacher = deployed.map(|_| opinions()).transpose()?;
        let all: Vec<usize> = (0..images.len()).collect();
        for batch in all.chunks(site.levers.infer_batch) {
            let Lowered { graph, params } = &site.prefix;
            let x = infer(graph, params, &site.compute.value(&images.batch(batch, normalize)?)?)?;
            features.push(&to_host(&x)?)?;
            if let (Some(teacher), Some(deployed)) = (&mut teacher, deployed) {
                teacher.push(&cross_entropy::softmax(&site.logits(deployed, &x)?)?)?;
            }
        }
        features.finish()?;
        teacher.iter_mut().try_for_each(Cache::finish)?;
        let teacher = teacher.map(Arc::new);
        Ok(Self { features, labels: images.labels().into(), teacher, classes: site.classes })
    }

    /// How many images there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Features of the images `indices`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`] when the cache cannot be read.
    pub fn batch(&self, indices: &[usize]) -> Result<Tensor> {
        self.features.batch(indices)
    }

    /// Writes the features of the images `indices` to `values`.
    ///
    /// # Errors
    ///
    /// As [`Cache::read_into`].
    pub fn read_into(&self, indices: &[usize], values: &mut [f32]) -> Result<()> {
        self.features.read_into(indices, values)
    }

    /// The most likely class of each image and its cross entropy, with `part` in place.
    ///
    /// # Errors
    ///
    /// As [`Samples::batch`].
    pub fn evaluate(&self, site: &Site, part: &Lowered) -> Result<Answers> {
        let mut answers = Answers::default();
        for batch in self.batches(site) {
            let logits = site.logits(part, &self.batch(&batch)?)?;
            answers.losses.extend(self.losses(&batch, &logits)?);
            answers.classes.extend(greatest(&logits)?);
        }
        Ok(answers)
    }

    /// The indices of all images, those together that run together where nothing is trained.
    pub fn batches(&self, site: &Site) -> impl Iterator<Item = Vec<usize>> {
        let (n, together) = (self.len(), site.levers.infer_batch);
        (0..n).step_by(together).map(move |first| (first..n.min(first + together)).collect())
    }

    /// The cross entropy of each of the images `indices`, about which a network said `logits`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] when there are not as many logits.
    pub fn losses(&self, indices: &[usize], logits: &Tensor) -> Result<Vec<f64>> {
        let mut targets = vec![0.0; indices.len() * self.classes];
        self.targets_into(indices, 0.0, &mut targets)?;
        let targets = crate::kernels::tensor(targets, &[indices.len(), self.classes])?;
        Ok(cross_entropy::forward_backward(logits, &targets, &vec![1.0; indices.len()])?.0)
    }

    /// Writes rows of target probabilities, `(label + distill * teacher) / (1 + distill)`, to `rows`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Graph`] when the deployed network was not asked and `distill` is over 0.
    pub fn targets_into(&self, indices: &[usize], distill: f64, rows: &mut [f32]) -> Result<()> {
        rows.fill(0.0);
        let (share, distilled) = ((1.0 / (1.0 + distill)) as f32, (distill / (1.0 + distill)) as f32);
        if distill > 0.0 {
            let asked = self.teacher.as_ref().ok_or_else(|| Error::Graph {
                node: "samples".into(),
                problem: "the deployed network was not asked for its opinion".into(),
            })?;
            asked.read_into(indices, rows)?;
            rows.iter_mut().for_each(|p| *p *= distilled);
        }
        for (row, &i) in rows.chunks_exact_mut(self.classes).zip(indices) {
            row[self.labels[i] as usize] += share;
        }
        Ok(())
    }
}

/// What a network says about a set.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The most likely class of each image.
    pub classes: Vec<usize>,
    /// The cross entropy of each image in nats.
    pub losses: Vec<f64>,
}

impl Answers {
    /// The mean cross entropy.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn features_that_were_made_before_need_a_class_each() {
        let rows = |n: usize| {
            let mut cache = Cache::create(&std::env::temp_dir(), &[2], Precision::F32).unwrap();
            cache.push(&Tensor::zeros((n, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
            cache.finish().unwrap();
            cache
        };
        let samples = Samples::of(rows(2), [0, 2], 3).unwrap();
        let mut targets = [9.0; 3];
        samples.targets_into(&[1], 0.0, &mut targets).unwrap();
        assert_eq!((samples.len(), targets), (2, [0.0, 0.0, 1.0]));
        let message = |n, label| Samples::of(rows(n), [label], 3).unwrap_err().to_string();
        assert_eq!(message(2, 0), "node `samples`: 1 labels for 2 rows of features");
        assert_eq!(message(1, 3), "node `samples`: label 3 among 3 classes");
        let error = samples.taught_by(Arc::new(rows(1))).unwrap_err().to_string();
        assert_eq!(error, "node `samples`: 1 opinions on 2 images");
    }
}
