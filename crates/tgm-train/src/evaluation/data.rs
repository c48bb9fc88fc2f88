//! What is evaluated on: train and test clips, their classes, and how clips are made.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use tgm_data::dataset::{Check, Dataset, Flip, Layout};
use tgm_data::loader::{ClipConfig, EvalLoader, LoaderConfig, MotionSource, Subset, TestViews};
use tgm_data::manifest::Row;
use tgm_eval::Features;
use tgm_eval::Readout;
use tgm_eval::pass::{Encoded, clip_id, encode_labelled};
use tgm_eval::store::Digest;
use tgm_mae::Encoder;
use tgm_ops::Pooling;

use crate::config::ConfigError;
use crate::progress::Progress;
use crate::run_data::{load_manifest, subset};

/// The column of a manifest that has its own place there.
pub const LABEL: &str = "label";

/// One thing to recognise: a class per clip.
#[derive(Clone, Debug)]
pub struct Task {
    /// The manifest's column, or EPIC-KITCHENS' `verb` and `noun`.
    pub name: String,
    /// Class names in the order of their indices.
    pub classes: Vec<String>,
    labels: HashMap<String, u32>,
}

impl Task {
    /// The classes in a column of a manifest: the values of the clips of these parts, sorted.
    ///
    /// # Errors
    /// When the manifest lacks the column, or a clip has no value in it.
    pub fn of_column(column: &str, parts: [&Subset; 2]) -> Result<Self> {
        let manifest = parts[0].manifest();
        manifest.require(column)?;
        if column == LABEL {
            return task(LABEL, manifest.classes().names().to_vec(), parts, |row| row.label());
        }
        fn value<'a>(row: Row<'a>, column: &str) -> Option<&'a str> {
            row.other(column).filter(|value| !value.is_empty())
        }
        let rows =
            parts.iter().flat_map(|part| part.rows().iter().map(|&row| part.manifest().row(row as usize)));
        let classes: BTreeSet<&str> = rows.filter_map(|row| value(row, column)).collect();
        let indices: HashMap<&str, u32> = classes.iter().copied().zip(0..).collect();
        let names = classes.iter().map(|&name| name.to_owned()).collect();
        task(column, names, parts, |row| indices.get(value(row, column)?).copied())
    }

    /// The class of a clip, by its identity.
    pub fn label(&self, id: &str) -> Option<u32> {
        self.labels.get(id).copied()
    }

    /// What is added to names of results to tell tasks apart: for the column `label` nothing.
    pub fn distinction(&self) -> Option<&str> {
        (self.name != LABEL).then_some(self.name.as_str())
    }

    /// The same features with the labels of this task.
    ///
    /// # Errors
    /// When a clip has none.
    pub fn relabel(&self, features: &Features) -> Result<Features> {
        Ok(features.relabelled(self.classes.len(), |id| self.label(id))?)
    }
}

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
        let [train, test] = [Subset::split(&manifest, spec.train)?, Subset::split(&manifest, spec.test)?];
        let both = [&train, &test];
        let nouns: HashMap<&str, u32> =
            (0..).zip(&layout.nouns).map(|(index, name)| (name.as_str(), index)).collect();
        let tasks = if layout.nouns.is_empty() {
            vec![task(LABEL, layout.classes.clone(), both, |row| row.label())?]
        } else {
            let noun = |row: Row<'_>| nouns.get(row.other("noun")?).copied();
            vec![
                task("verb", layout.classes.clone(), both, |row| row.label())?,
                task("noun", layout.nouns.clone(), both, noun)?,
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

/// Adds which clips these are: files, labels and cuts.
pub fn rows_digest(data: &Subset, digest: &mut Digest) {
    for &row in data.rows() {
        let row = data.manifest().row(row as usize);
        digest.bytes(row.video().name().as_os_str().as_encoded_bytes());
        digest.bytes(format!("{:?} {:?} {:?}", row.label_name(), row.start(), row.end()).as_bytes());
    }
}

/// Refuses parts of a manifest that share a clip: what is learnt by heart of it would be found again. Official lists are compared
/// when they are read.
///
/// # Errors
/// Naming both lines of the first clip that is in both, or that the manifest has no splits.
pub fn check_disjoint(train: &Subset, test: &Subset, splits: [&str; 2]) -> Result<()> {
    let manifest = train.manifest();
    let file = manifest.file().display();
    if manifest.split_names().is_empty() {
        return Err(ConfigError(format!(
            "{file}: has no column `split`, so that nothing tells clips to fit on from clips to score: add one, with `{}` and `{}`",
            splits[0], splits[1]
        ))
        .into());
    }
    let key =
        |row: Row<'_>| (row.path().to_owned(), row.start().map(f64::to_bits), row.end().map(f64::to_bits));
    let rows = |part: &Subset| part.rows().iter().map(|&row| manifest.row(row as usize)).collect::<Vec<_>>();
    let train: HashMap<_, u64> = rows(train).into_iter().map(|row| (key(row), row.line())).collect();
    for row in rows(test) {
        if let Some(line) = train.get(&key(row)) {
            bail!(
                "{file}:{}: `{}` is in `{}` and, on line {line}, in `{}`: a result on clips that were trained on tells nothing; \
                 leave it out of one of them",
                row.line(),
                row.path(),
                splits[1],
                splits[0]
            );
        }
    }
    Ok(())
}

fn task(
    name: &str,
    classes: Vec<String>,
    parts: [&Subset; 2],
    label: impl Fn(Row<'_>) -> Option<u32>,
) -> Result<Task> {
    let mut labels = HashMap::new();
    for part in parts {
        for &index in part.rows() {
            let row = part.manifest().row(index as usize);
            let Some(label) = label(row) else {
                let (file, line) = (part.manifest().file().display(), row.line());
                bail!("{file}:{line}: `{}` has no {name}; evaluation needs one for every clip", row.path());
            };
            labels.insert(clip_id(row.path(), index), label);
        }
    }
    Ok(Task { name: name.to_owned(), classes, labels })
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

#[cfg(test)]
mod tests {
    use super::*;
    use tgm_data::manifest::Manifest;

    fn manifest(text: &str) -> (tempfile::TempDir, Arc<Manifest>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.csv");
        std::fs::write(&file, text).unwrap();
        let manifest = Arc::new(Manifest::load(&file).unwrap());
        (dir, manifest)
    }

    fn both(manifest: &Arc<Manifest>) -> [Subset; 2] {
        ["train", "test"].map(|split| Subset::split(manifest, split).unwrap())
    }

    fn parts(rows: &str) -> (tempfile::TempDir, [Subset; 2]) {
        let (dir, manifest) = manifest(&format!("path,split,label,colour\n{rows}"));
        (dir, both(&manifest))
    }

    #[test]
    fn the_classes_of_a_column_are_its_values_sorted() {
        let (_dir, parts) = parts("a.mp4,train,up,red\nb.mp4,train,down,blue\nc.mp4,test,up,green\n");
        let task = Task::of_column("colour", [&parts[0], &parts[1]]).unwrap();
        assert_eq!(
            (task.name.as_str(), task.classes.as_slice()),
            ("colour", &["blue", "green", "red"].map(String::from)[..])
        );
        assert_eq!(task.label("a.mp4#0"), Some(2));
        assert_eq!(task.label("c.mp4#2"), Some(1));
        assert_eq!(Task::of_column(LABEL, [&parts[0], &parts[1]]).unwrap().label("a.mp4#0"), Some(1));
    }

    #[test]
    fn a_clip_in_both_parts_is_refused_with_both_lines() {
        let splits = ["train", "test"];
        let (_dir, parts) = parts("a.mp4,train,up,red\nb.mp4,train,down,red\na.mp4,test,up,red\n");
        let error = check_disjoint(&parts[0], &parts[1], splits).unwrap_err().to_string();
        assert!(error.contains("m.csv:4: `a.mp4` is in `test` and, on line 2, in `train`"), "{error}");
    }

    #[test]
    fn other_cuts_of_one_file_may_be_in_both_parts() {
        let rows = "path,split,label,start,end\na.mp4,train,up,0,2\na.mp4,test,up,2,4\n";
        let (_dir, manifest) = manifest(rows);
        let parts = both(&manifest);
        check_disjoint(&parts[0], &parts[1], ["train", "test"]).unwrap();
    }

    #[test]
    fn a_manifest_without_splits_has_nothing_to_fit_on_apart_from_what_is_scored() {
        let (_dir, manifest) = manifest("path,label\na.mp4,up\nb.mp4,down\n");
        let all = subset(&manifest, "train").unwrap();
        let error = check_disjoint(&all, &all, ["train", "test"]).unwrap_err().to_string();
        assert!(error.contains("no column `split`"), "{error}");
    }

    #[test]
    fn a_clip_without_a_value_is_named_with_its_line() {
        let (_dir, parts) = parts("a.mp4,train,up,red\nb.mp4,test,up,\n");
        let error = Task::of_column("colour", [&parts[0], &parts[1]]).unwrap_err().to_string();
        assert!(error.contains("m.csv:3: `b.mp4` has no colour"), "{error}");
        let error = Task::of_column("size", [&parts[0], &parts[1]]).unwrap_err().to_string();
        assert!(error.contains("`size`"), "{error}");
    }
}
