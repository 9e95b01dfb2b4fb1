//! Which classes a network takes for which.

use std::collections::BTreeMap;

/// How often each class was answered for images of each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    n_classes: usize,
    /// By label and answer, those that are not 0: a file may say that there are millions of classes.
    counts: BTreeMap<[usize; 2], u32>,
}

/// A number of images of one class that got one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The class that is right.
    pub label: usize,
    /// The answer.
    pub answer: usize,
    /// Images.
    pub images: u32,
}

impl Confusion {
    /// No images yet.
    #[must_use]
    pub fn new(n_classes: usize) -> Self {
        Self { n_classes, counts: BTreeMap::new() }
    }

    /// Counts an image; classes that the network does not have are not counted.
    pub fn count(&mut self, label: usize, answer: usize) {
        if label < self.n_classes && answer < self.n_classes {
            *self.counts.entry([label, answer]).or_default() += 1;
        }
    }

    /// Adds the images of `other`, which is of as many classes.
    pub fn add(&mut self, other: &Self) {
        for (&pair, &images) in &other.counts {
            *self.counts.entry(pair).or_default() += images;
        }
    }

    /// Images of each class by answer: a row a class.
    pub fn rows(&self) -> impl Iterator<Item = Vec<u32>> {
        let (n, counts) = (self.n_classes, &self.counts);
        let images = move |pair: [usize; 2]| counts.get(&pair).copied().unwrap_or(0);
        (0..n).map(move |label| (0..n).map(|answer| images([label, answer])).collect::<Vec<u32>>())
    }

    /// What is not 0, row by row.
    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        self.counts.iter().map(|(&[label, answer], &images)| Cell { label, answer, images })
    }

    /// The wrong answers that were given most often, at most `n` of them.
    #[must_use]
    pub fn most_confused(&self, n: usize) -> Vec<Cell> {
        let mut wrong: Vec<Cell> = self.cells().filter(|cell| cell.label != cell.answer).collect();
        wrong.sort_by_key(|cell| std::cmp::Reverse(cell.images));
        wrong.truncate(n);
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_label_and_answer() {
        let mut confusion = Confusion::new(3);
        for (label, answer) in [(0, 0), (0, 2), (2, 1), (2, 1), (1, 1), (3, 0), (0, 3)] {
            confusion.count(label, answer);
        }
        let rows: Vec<Vec<u32>> = confusion.rows().collect();
        assert_eq!(rows, [[1, 0, 1], [0, 1, 0], [0, 2, 0]]);
        let most = confusion.most_confused(1);
        assert_eq!(most, [Cell { label: 2, answer: 1, images: 2 }]);
        assert_eq!(confusion.cells().count(), 4);
        confusion.add(&confusion.clone());
        assert_eq!(confusion.rows().nth(2).unwrap(), [0, 4, 0]);
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_classes() {
        let mut confusion = Confusion::new(usize::MAX);
        confusion.count(7, 1 << 40);
        assert_eq!(confusion.most_confused(1), [Cell { label: 7, answer: 1 << 40, images: 1 }]);
    }
}
