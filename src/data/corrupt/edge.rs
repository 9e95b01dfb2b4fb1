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

    /// The place between pixels of a plane at the row `y` and the column `x`.
    #[inline(always)]
    pub(super) fn spot(self, [h, w]: [usize; 2], y: f64, x: f64) -> Spot {
        let (top, left) = (y.floor(), x.floor());
        let shares = [y - top, x - left];
        let (top, left) = (top as isize, left as isize);
        // Nearly all are inside, where nothing has to be found.
        if top >= 0 && left >= 0 && top + 1 < h as isize && left + 1 < w as isize {
            let (top, left) = (top as usize, left as usize);
            return Spot { rows: [top * w, (top + 1) * w], columns: [left, left + 1], shares };
        }
        let rows = [top, top + 1].map(|at| self.place(at, h) * w);
        Spot { rows, columns: [left, left + 1].map(|at| self.place(at, w)), shares }
    }
}

/// The four pixels around a place, and how far it is from the first.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// Where the rows start.
    rows: [usize; 2],
    columns: [usize; 2],
    /// Down and right, 0 to 1.
    shares: [f64; 2],
}

impl Spot {
    /// The value there, from the four around it.
    #[inline(always)]
    pub(super) fn of(&self, plane: &[f64]) -> f64 {
        let ([left, right], [down, along]) = (self.columns, self.shares);
        let across = |row: usize| plane[row + left] * (1.0 - along) + plane[row + right] * along;
        across(self.rows[0]) * (1.0 - down) + across(self.rows[1]) * down
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
        assert_eq!(Edge::Reflect.spot([2, 2], 0.25, 0.5).of(&plane), 1.0);
        assert_eq!(Edge::Reflect.spot([2, 2], -0.3, 1.4).of(&plane), 1.0);
        assert_eq!(Edge::Mirror.spot([2, 2], -0.25, 0.0).of(&plane), 0.5);
    }
}
