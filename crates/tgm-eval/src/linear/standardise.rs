//! Features to zero mean and unit spread, column by column.

use crate::Features;
use serde::{Deserialize, Serialize};

/// `(x − mean) · scale`, column by column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Affine {
    pub(crate) mean: Vec<f64>,
    pub(crate) scale: Vec<f64>,
}

/// Mean and biased variance of every column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
}

impl Moments {
    /// Over the given rows, of which there is at least one.
    ///
    /// Differences to the first row are summed, so a constant column has a variance of exactly 0.
    pub(crate) fn of(features: &Features, rows: &[usize]) -> Self {
        let count = rows.len() as f64;
        let origin = features.row(rows[0]);
        let mut offset = vec![0.0; features.dim()];
        for &row in rows {
            for ((offset, &x), &first) in offset.iter_mut().zip(features.row(row)).zip(origin) {
                *offset += (f64::from(x) - f64::from(first)) / count;
            }
        }
        let mean: Vec<f64> = origin.iter().zip(&offset).map(|(&x, offset)| f64::from(x) + offset).collect();
        let mut variance = vec![0.0; features.dim()];
        for &row in rows {
            for ((variance, &x), &mean) in variance.iter_mut().zip(features.row(row)).zip(&mean) {
                *variance += (f64::from(x) - mean).powi(2) / count;
            }
        }
        Self { mean, variance }
    }

    /// What batch normalisation assumes before the first batch.
    pub(crate) fn standard_normal(columns: usize) -> Self {
        Self { mean: vec![0.0; columns], variance: vec![1.0; columns] }
    }

    /// Moves a little towards the moments of a batch of `clips`, as PyTorch does: with the unbiased variance.
    pub(crate) fn follow(&mut self, batch: &Self, clips: usize, momentum: f64) {
        let unbiased = clips as f64 / (clips as f64 - 1.0).max(1.0);
        let move_to = |from: &mut f64, to: f64| *from += momentum * (to - *from);
        self.mean.iter_mut().zip(&batch.mean).for_each(|(from, &to)| move_to(from, to));
        self.variance.iter_mut().zip(&batch.variance).for_each(|(from, &to)| move_to(from, to * unbiased));
    }

    /// To mean 0 and variance 1; a constant column becomes 0 (scikit-learn's `StandardScaler`).
    pub(crate) fn to_unit_variance(&self) -> Affine {
        let scale = |&variance: &f64| if variance > 0.0 { variance.sqrt().recip() } else { 1.0 };
        Affine { mean: self.mean.clone(), scale: self.variance.iter().map(scale).collect() }
    }

    /// Batch normalisation without its affine part: the variance gets `eps` (PyTorch's `BatchNorm1d`).
    pub(crate) fn to_batch_norm(&self, eps: f64) -> Affine {
        let scale = |variance: &f64| (variance + eps).sqrt().recip();
        Affine { mean: self.mean.clone(), scale: self.variance.iter().map(scale).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(columns: usize, data: Vec<f32>) -> Features {
        let clips = data.len() / columns;
        let ids = (0..clips).map(|i| i.to_string()).collect();
        Features::new(columns, 1, data, vec![0; clips], ids).unwrap()
    }

    #[test]
    fn moments_are_those_of_the_given_rows_only() {
        let set = features(2, vec![1.0, 5.0, 1e9, -1e9, 3.0, 9.0]);
        let moments = Moments::of(&set, &[0, 2]);
        assert_eq!(moments, Moments { mean: vec![2.0, 7.0], variance: vec![1.0, 4.0] });
        assert_eq!(moments.to_unit_variance().scale, [1.0, 0.5]);
        assert_eq!(moments.to_batch_norm(5.0).scale[1], 1.0 / 3.0);
    }

    #[test]
    fn a_constant_column_becomes_zero_even_where_its_value_is_no_round_number() {
        let moments = Moments::of(&features(1, vec![0.1; 7]), &[0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(moments.variance, [0.0]);
        assert_eq!(moments.to_unit_variance().scale, [1.0]);
        assert_eq!(moments.mean[0], f64::from(0.1f32));
    }
}
