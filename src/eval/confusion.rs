//! Which classes a network takes for which.

/// How often each class was answered for images of each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    n_classes: usize,
    /// Rows by label, columns by answer.
    counts: Vec<u32>,
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
        Self { n_classes, counts: vec![0; n_classes * n_classes] }
    }

    /// Counts an image; classes that the network does not have are not counted.
    pub fn count(&mut self, label: usize, answer: usize) {
        if label < self.n_classes && answer < self.n_classes {
            self.counts[label * self.n_classes + answer] += 1;
        }
    }

    /// Adds the images of `other`, which is of as many classes.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, others)| *own += others);
    }

    /// Images of each class by answer: a row a class.
    pub fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.counts.chunks(self.n_classes.max(1))
    }

    /// What is not 0, row by row.
    pub fn cells(&self) -> impl Iterator<Item = Cell> {
        let cell = |(i, &images): (usize, &u32)| {
            let (label, answer) = (i / self.n_classes, i % self.n_classes);
            Cell { label, answer, images }
        };
        self.counts.iter().enumerate().map(cell).filter(|cell| cell.images > 0)
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
        let rows: Vec<&[u32]> = confusion.rows().collect();
        assert_eq!(rows, [[1, 0, 1], [0, 1, 0], [0, 2, 0]]);
        let most = confusion.most_confused(1);
        assert_eq!(most, [Cell { label: 2, answer: 1, images: 2 }]);
        assert_eq!(confusion.cells().count(), 4);
        confusion.add(&confusion.clone());
        assert_eq!(confusion.rows().nth(2).unwrap(), [0, 4, 0]);
    }
}
