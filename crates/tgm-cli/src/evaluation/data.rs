//! What is evaluated on: train and test clips, their classes, and how clips are made.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use tgm_data::dataset::{Check, Dataset, Flip, Layout};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Subset, TestViews};
use tgm_data::manifest::Row;
use tgm_eval::Readout;
use tgm_eval::pass::{Encoded, clip_id, encode_labelled};
use tgm_eval::store::Digest;
use tgm_mae::Encoder;
use tgm_ops::Pooling;
use tgm_train::progress::Progress;
use tgm_train::run_data::{load_manifest, subset};
use tgm_train::task::{LABEL, Task};

/// Train and test clips, ready to be loaded.
#[derive(Clone, Debug)]
pub struct EvalData {
    /// What it is called in results.
    pub title: String,
    /// What is added to file names: `-split2`, or nothing.
    pub suffix: String,
    /// To fit on.
    pub train: Subset,
    /// To score.
    pub test: Subset,
    /// How clips are made.
    pub clip: ClipConfig,
    /// Test views.
    pub views: TestViews,
    /// How they are loaded.
    pub loader: LoaderConfig,
    /// What is to be recognised.
    pub tasks: Vec<Task>,
    /// What mirroring does to labels.
    pub flip: Flip,
    /// Go on past test videos that cannot be read; they count as wrong.
    pub allow_bad: bool,
}

/// What the command line says about clips.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// Clips in time per video.
    pub views: Option<usize>,
    /// Crops of each.
    pub crops: Option<usize>,
    /// Go on past bad test videos.
    pub allow_bad: bool,
    /// Leave out train videos of an official list that are not there.
    pub allow_partial: bool,
    /// Accept paths that leave the manifest's folder.
    pub allow_outside: bool,
    /// Threads that decode.
    pub workers: usize,
}

impl EvalData {
    /// Two splits of a manifest with classes in these columns. Mirroring is left off: nobody has said that it changes no label.
    ///
    /// # Errors
    /// When the manifest lacks a column or a split.
    pub fn of_manifest(
        file: &Path,
        splits: [&str; 2],
        labels: &[impl AsRef<str>],
        clip: ClipConfig,
        choices: Choices,
    ) -> Result<Self> {
        let manifest = load_manifest(file, choices.allow_outside)?;
        let [train, test] = [subset(&manifest, splits[0])?, subset(&manifest, splits[1])?];
        let tasks = labels.iter().map(|label| Task::of_column(label.as_ref(), [&train, &test]));
        let tasks = tasks.collect::<Result<_>>()?;
        let views = TestViews { views: choices.views.unwrap_or(1), crops: choices.crops.unwrap_or(1) };
        Ok(Self {
            title: file.display().to_string(),
            suffix: String::new(),
            train,
            test,
            clip: ClipConfig { motion: MotionSource::None, ..clip },
            views,
            loader: LoaderConfig { workers: choices.workers, ..LoaderConfig::default() },
            tasks,
            flip: Flip::Never,
            allow_bad: choices.allow_bad,
        })
    }

    /// A public data set: its own sampling and test views, at the size that the model takes.
    ///
    /// # Errors
    /// When the lists do not make a manifest, or a part is empty.
    pub fn of_layout(layout: &Layout, clip: ClipConfig, choices: Choices) -> Result<Self> {
        let spec = layout.dataset.spec();
        let manifest = Arc::new(layout.manifest()?);
        let [mut train, test] = [Subset::split(&manifest, spec.train)?, Subset::split(&manifest, spec.test)?];
        if choices.allow_partial {
            train = those_there(&train)?;
        }
        let both = [&train, &test];
        let nouns: HashMap<&str, u32> =
            (0..).zip(&layout.nouns).map(|(index, name)| (name.as_str(), index)).collect();
        let tasks = if layout.nouns.is_empty() {
            vec![Task::new(LABEL, layout.classes.clone(), both, |row| row.label())?]
        } else {
            let noun = |row: Row<'_>| nouns.get(row.other("noun")?).copied();
            vec![
                Task::new("verb", layout.classes.clone(), both, |row| row.label())?,
                Task::new("noun", layout.nouns.clone(), both, noun)?,
            ]
        };
        let (title, suffix) = match spec.splits {
            1 => (spec.title.to_owned(), String::new()),
            _ => (format!("{} split {}", spec.title, layout.split), format!("-split{}", layout.split)),
        };
        let sampling = spec.sampling(clip.sampling.frames());
        Ok(Self {
            title,
            suffix,
            train,
            test,
            clip: ClipConfig { motion: MotionSource::None, sampling, ..clip },
            views: TestViews {
                views: choices.views.unwrap_or(spec.views.views),
                crops: choices.crops.unwrap_or(spec.views.crops),
            },
            loader: LoaderConfig { workers: choices.workers, ..LoaderConfig::default() },
            tasks,
            flip: spec.flip,
            allow_bad: choices.allow_bad,
        })
    }

    /// What is read out of the tokens of the train clips, one view each, and of the test clips, all views; every video is decoded
    /// once.
    ///
    /// # Errors
    /// When a train video is bad, or a test video unless bad ones are allowed.
    pub fn encode_as(&self, title: &str, encoders: &[&Encoder], readout: Readout) -> Result<[Encoded; 2]> {
        self.encode_parts(title, false, (encoders, readout))
    }

    /// As [`Self::encode_as`], of the test clips alone: for what learns nothing from the train clips.
    ///
    /// # Errors
    /// When a test video is bad, unless bad ones are allowed.
    pub fn encode_test(&self, title: &str, encoders: &[&Encoder], readout: Readout) -> Result<Encoded> {
        let progress = Progress::new(title, self.test.rows().len() as u64);
        let done = |done| progress.set(done as u64);
        let test = self.encode_part(&self.test, self.views, self.allow_bad, (encoders, readout), &done)?;
        progress.finish();
        Ok(test)
    }

    /// What the pixel-difference baseline needs of the train clips, without those that cannot be read.
    ///
    /// # Errors
    /// When none can be read.
    pub fn encode_train_for_baseline(&self, title: &str) -> Result<Encoded> {
        let progress = Progress::new(title, self.train.rows().len() as u64);
        let (one, nothing) = (TestViews { views: 1, crops: 1 }, (&[][..], Readout::Pooled(Pooling::Mean)));
        let train = self.encode_part(&self.train, one, true, nothing, &|done| progress.set(done as u64))?;
        progress.finish();
        Ok(train)
    }

    /// What the pixel-difference baseline needs of both parts. Train videos that cannot be read are listed in
    /// [`Encoded::bad`]: for protocols whose own training passes over them, too.
    ///
    /// # Errors
    /// When a test video is bad, unless bad ones are allowed.
    pub fn encode_readable(&self, title: &str) -> Result<[Encoded; 2]> {
        self.encode_parts(title, true, (&[], Readout::Pooled(Pooling::Mean)))
    }

    fn encode_parts(
        &self,
        title: &str,
        allow_bad_train: bool,
        how: (&[&Encoder], Readout),
    ) -> Result<[Encoded; 2]> {
        let one = TestViews { views: 1, crops: 1 };
        let before = self.train.rows().len();
        let progress = Progress::new(title, (before + self.test.rows().len()) as u64);
        let done = |done| progress.set(done as u64);
        let train = self.encode_part(&self.train, one, allow_bad_train, how, &done)?;
        let done = |done| progress.set((before + done) as u64);
        let test = self.encode_part(&self.test, self.views, self.allow_bad, how, &done)?;
        progress.finish();
        Ok([train, test])
    }

    fn encode_part(
        &self,
        part: &Subset,
        views: TestViews,
        allow_bad: bool,
        (encoders, readout): (&[&Encoder], Readout),
        done: &dyn Fn(usize),
    ) -> Result<Encoded> {
        let clips = EvalLoader::new(part, &self.clip, &self.loader, views)?;
        let clips = if allow_bad { clips.keep_going() } else { clips };
        let first = &self.tasks[0];
        Ok(encode_labelled(encoders, readout, clips, first.classes.len(), &|id| first.label(id), done)?)
    }

    /// Of everything that training on a task sees: clips, their cuts and classes, how they are made, and how often mirrored.
    ///
    /// # Errors
    /// When a setting has no JSON form.
    pub fn digest(&self, task: &Task, flip: f64) -> Result<String> {
        let mut digest = Digest::default();
        rows_digest(&self.train, &mut digest);
        task.classes.iter().for_each(|class| digest.bytes(class.as_bytes()));
        for label in self.train_labels(task) {
            digest.bytes(&label.to_le_bytes());
        }
        digest.bytes(format!("{} {flip} {:?}", serde_json::to_string(&self.clip)?, self.flip).as_bytes());
        Ok(digest.text())
    }

    /// The labels of the train clips.
    pub fn train_labels(&self, task: &Task) -> Vec<u32> {
        let id = |&row: &u32| clip_id(self.train.manifest().row(row as usize).path(), row);
        self.train.rows().iter().filter_map(|row| task.label(&id(row))).collect()
    }
}

/// The clips whose files are there.
fn those_there(part: &Subset) -> Result<Subset> {
    let missing: BTreeSet<u32> = part.manifest().missing_files(part.rows()).into_iter().collect();
    if missing.is_empty() {
        return Ok(part.clone());
    }
    tracing::warn!("{} of {} train videos are not there and left out", missing.len(), part.rows().len());
    let rows = part.rows().iter().copied().filter(|row| !missing.contains(row)).collect();
    Ok(Subset::new(part.manifest().clone(), rows)?)
}

/// Adds which clips these are: files, labels and cuts.
pub fn rows_digest(data: &Subset, digest: &mut Digest) {
    for &row in data.rows() {
        let row = data.manifest().row(row as usize);
        digest.bytes(row.video().name().as_os_str().as_encoded_bytes());
        digest.bytes(format!("{:?} {:?} {:?}", row.label_name(), row.start(), row.end()).as_bytes());
    }
}

/// The splits that are evaluated: one, or all that the data set is reported over.
///
/// # Errors
/// When a list is missing or wrong, there is no such split, or the folder holds only a part and that is not allowed.
pub fn layouts(
    dataset: Dataset,
    folder: &Path,
    split: Option<usize>,
    allow_partial: bool,
) -> Result<Vec<Layout>> {
    if !folder.is_dir() {
        bail!(
            "{}: no such folder; --data names the one that {} lies in",
            folder.display(),
            dataset.spec().title
        );
    }
    let splits = split.map_or(1..=dataset.spec().splits, |split| split..=split);
    let layouts = splits.map(|split| Ok(dataset.read(folder, split)?)).collect::<Result<Vec<_>>>()?;
    for layout in &layouts {
        let check = layout.check();
        if !(allow_partial || check.complete()) {
            let wrong = check.findings.iter().find(|finding| !finding.ok);
            let wrong =
                wrong.map_or(String::new(), |f| format!("{} {} instead of {}", f.found, f.what, f.expected));
            bail!(
                "{}: {wrong}: a result on this is not one on {}; see --check, or allow it with --allow-partial",
                folder.display(),
                dataset.spec().title
            );
        }
    }
    Ok(layouts)
}

/// Prints what was counted.
pub fn print_check(check: &Check) {
    println!("{} split {}", check.dataset, check.split);
    for finding in &check.findings {
        let mark = if finding.ok { "ok     " } else { "MISSING" };
        let more = if finding.examples.is_empty() {
            String::new()
        } else {
            format!(", as {}", finding.examples.join(", "))
        };
        println!("  {mark} {:<18} {:>8} of {:>8}{more}", finding.what, finding.found, finding.expected);
    }
}
