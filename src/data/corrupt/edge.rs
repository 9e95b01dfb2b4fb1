//! What a picture shows beyond its edges.

/// How a row of values goes on at both ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge {
    /// As its mirror image, the edge not repeated: `c b | a b c | b a`.
    Mirror,
    /// As its last value: `a a | a b c | c c`.
    Nearest,
    /// As its mirror image, the edge repeated: `b a | a b c | c b`.
    Reflect,
}

impl Edge {
    /// The place inside 0..n that is shown at `at`.
    pub(super) fn place(self, at: isize, n: usize) -> usize {
        let last = n - 1;
        match self {
            Self::Mirror if n == 1 => 0,
            Self::Mirror => {
                let place = at.rem_euclid(2 * last as isize) as usize;
                place.min(2 * last - place)
            }
            Self::Nearest => at.clamp(0, last as isize) as usize,
            Self::Reflect => {
                let place = at.rem_euclid(2 * n as isize) as usize;
                place.min(2 * n - 1 - place)
            }
        }
    }

    /// The value between pixels of a plane at the row `y` and the column `x`, from the four around it.
    pub(super) fn between(self, plane: &[f64], [h, w]: [usize; 2], y: f64, x: f64) -> f64 {
        let (top, left) = (y.floor(), x.floor());
        let (down, right) = (y - top, x - left);
        let row = |at| &plane[self.place(at, h) * w..][..w];
        let columns = [self.place(left as isize, w), self.place(left as isize + 1, w)];
        let across = |row: &[f64]| row[columns[0]] * (1.0 - right) + row[columns[1]] * right;
        across(row(top as isize)) * (1.0 - down) + across(row(top as isize + 1)) * down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(edge: Edge, n: usize) -> Vec<usize> {
        (-4..8).map(|at| edge.place(at, n)).collect()
    }

    #[test]
    fn a_row_goes_on_as_its_mirror_image_or_its_last_value() {
        assert_eq!(shown(Edge::Mirror, 4), [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!(shown(Edge::Nearest, 4), [0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]);
        assert_eq!(shown(Edge::Reflect, 4), [3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]);
        for edge in [Edge::Mirror, Edge::Nearest, Edge::Reflect] {
            assert_eq!(shown(edge, 1), [0; 12]);
        }
    }

    /// A quarter down and half right of 0 in `0 1 / 2 3`: 0.25 * 2 + 0.5 * 1.
    #[test]
    fn a_value_between_pixels_is_mixed_from_four() {
        let plane = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(Edge::Reflect.between(&plane, [2, 2], 0.25, 0.5), 1.0);
        assert_eq!(Edge::Reflect.between(&plane, [2, 2], -0.3, 1.4), 1.0);
        assert_eq!(Edge::Mirror.between(&plane, [2, 2], -0.25, 0.0), 0.5);
    }
}
