//! The nearest visible tubelet of each masked one: what a model that only copies would answer with.

use crate::Mask;

impl Mask {
    /// For each masked tubelet, in the order of [`Mask::masked`], the visible tubelet that is nearest to it in slots,
    /// rows and columns (Euclidean, in tubelets); of equally near ones the one in the same slot, then the first.
    pub fn nearest_visible(&self) -> Vec<u32> {
        let grid = self.grid();
        let sides = [grid.slots() as i64, grid.rows() as i64, grid.cols() as i64];
        let is_masked = self.to_bools();
        let offsets = offsets(sides);
        let nearest = |&token: &u32| {
            let (slot, row, col) = grid.position(token);
            let at = [slot as i64, row as i64, col as i64];
            let candidates = offsets.iter().filter_map(|offset| {
                let place: [i64; 3] = std::array::from_fn(|axis| at[axis] + offset[axis]);
                let inside = (0..3).all(|axis| (0..sides[axis]).contains(&place[axis]));
                inside.then(|| grid.index(place[0] as usize, place[1] as usize, place[2] as usize))
            });
            // Every slot has a visible tubelet, and the offsets reach all of the grid.
            candidates.into_iter().find(|&place| !is_masked[place as usize]).unwrap_or(token)
        };
        self.masked().iter().map(nearest).collect()
    }
}

/// Every step from one tubelet of the grid to another, the shortest first.
fn offsets(sides: [i64; 3]) -> Vec<[i64; 3]> {
    let axis = |side: i64| (1 - side)..side;
    let mut all: Vec<[i64; 3]> = axis(sides[0])
        .flat_map(|slot| axis(sides[1]).flat_map(move |row| axis(sides[2]).map(move |col| [slot, row, col])))
        .collect();
    all.sort_by_key(|&[slot, row, col]| (slot * slot + row * row + col * col, slot.abs(), slot, row, col));
    all
}

#[cfg(test)]
mod tests {
    use crate::{Grid, Mask};

    #[test]
    fn the_nearest_is_found_in_the_same_slot_or_in_another() {
        // Two slots of one row: x x x V and V x x x.
        let grid = Grid::new(2, 1, 4).unwrap();
        let mask = Mask::from_visible(grid, vec![3, 4]).unwrap();
        assert_eq!(mask.masked(), [0, 1, 2, 5, 6, 7]);
        // Tubelet 0 lies behind 4; 1 is √2 from 4; 2 is beside 3; 5 beside 4; 6 is √2 from 3; 7 lies behind 3.
        assert_eq!(mask.nearest_visible(), [4, 4, 3, 4, 3, 3]);
    }

    #[test]
    fn it_is_the_minimum_over_all_visible_ones() {
        let grid = Grid::new(3, 4, 5).unwrap();
        let flags: Vec<bool> = (0..60).map(|i| (i * 7 + i / 20) % 5 != 0).collect();
        let mask = Mask::from_bools(grid, &flags).unwrap();
        let distance = |a: u32, b: u32| {
            let ((s, r, c), (t, q, d)) = (grid.position(a), grid.position(b));
            [(s, t), (r, q), (c, d)].iter().map(|(x, y)| x.abs_diff(*y).pow(2)).sum::<usize>()
        };
        for (&token, &found) in mask.masked().iter().zip(&mask.nearest_visible()) {
            let best = mask.visible().iter().map(|&v| distance(token, v)).min().unwrap();
            assert_eq!(distance(token, found), best);
        }
    }
}
