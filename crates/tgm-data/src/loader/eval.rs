//! The test clips of every row, in order.

use std::fmt;

use super::config::{ClipConfig, LoaderConfig, TestViews};
use super::maker::{Maker, patiently};
use super::pool::OrderedPool;
use super::sample::Sample;
use super::{LoaderError, RowError, Subset};

/// Yields, row by row, the test clips of a video: `views × crops` of them, time before space.
///
/// Every row comes, in the order of the subset, or there is an error: a result over the videos that happen to
/// decode is not the result over the dataset. A frame is decoded once however many views show it.
pub struct EvalLoader {
    pool: OrderedPool<Result<Vec<Sample>, RowError>>,
    data: Subset,
    next: usize,
    keep_going: bool,
    failed: bool,
}

impl EvalLoader {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`LoaderError`] for an impossible configuration.
    pub fn new(
        data: &Subset,
        clips: &ClipConfig,
        loader: &LoaderConfig,
        views: TestViews,
    ) -> Result<Self, LoaderError> {
        let crops = views.crops()?;
        let maker = Maker::new(data, clips, loader)?;
        let workers = loader.threads();
        let end = data.rows().len() as u64;
        let per_row = (views.views * crops.len()) as u64;
        let make = move |position: u64| {
            let row = maker.data.manifest().row(maker.data.rows()[position as usize] as usize);
            patiently(|| maker.test(row, views, &crops, position * per_row))
        };
        let pool = OrderedPool::new(workers, workers.saturating_mul(loader.prefetch.max(1)), 0, end, make)
            .map_err(LoaderError::Threads)?;
        Ok(Self { pool, data: data.clone(), next: 0, keep_going: false, failed: false })
    }

    /// A bad video does not end the iteration: its error comes in its place, and the next video after it. Whoever asks for
    /// this must count the video as a failure of the model.
    #[must_use]
    pub fn keep_going(mut self) -> Self {
        self.keep_going = true;
        self
    }

    /// Whether bad videos do not end the iteration.
    pub fn keeps_going(&self) -> bool {
        self.keep_going
    }

    /// The rows that are loaded.
    pub fn data(&self) -> &Subset {
        &self.data
    }
}

impl fmt::Debug for EvalLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvalLoader")
            .field("rows", &self.data.rows().len())
            .field("next", &self.next)
            .field("keep_going", &self.keep_going)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Iterator for EvalLoader {
    type Item = Result<Vec<Sample>, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = match self.pool.next()? {
            Ok(Ok(samples)) => Ok(samples),
            Ok(Err(source)) => {
                let row = self.data.manifest().row(self.data.rows()[self.next] as usize);
                let manifest = self.data.manifest().file().to_owned();
                Err(LoaderError::BadVideo { manifest, line: row.line(), source })
            }
            Err(error) => Err(error.into()),
        };
        self.next += 1;
        let survives = |error: &LoaderError| self.keep_going && error.is_bad_video();
        self.failed = result.as_ref().is_err_and(|error| !survives(error));
        Some(result)
    }
}
