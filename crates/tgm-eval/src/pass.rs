//! From videos to feature vectors: the one pass over the data that every protocol shares.
//!
//! Each video is decoded once. All encoders that are to be compared (the trained one, a randomly initialised one) see
//! the same clips of it, and so does the model-free [`baseline`].

use candle_core::{Device, Tensor};
use tgm_data::loader::{EvalLoader, Sample};
use tgm_mae::Encoder;
use tgm_ops::on_worker;

use crate::{Error, Features, Readout, Result, baseline};

/// Clips that go through an encoder together.
const BATCH: usize = 16;

/// One video and the feature vectors of its views.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// The row of the manifest.
    pub row: u32,
    /// The path as the manifest has it.
    pub path: String,
    /// The class index, if the row has a label.
    pub label: Option<u32>,
    /// How many views there are of it.
    pub views: usize,
    /// For each encoder the vectors of all views, `[views, dim]`: the encoder's tokens of *all* tubelets, read out.
    pub features: Vec<Vec<f32>>,
    /// [`baseline::thumbnail_motion`] of the first view.
    pub motion: Vec<f32>,
}

impl Video {
    /// The full path and the row: file stems repeat, and several rows may be parts of one file.
    pub fn id(&self) -> String {
        clip_id(&self.path, self.row)
    }
}

/// The identity of a row's clips, `path#row`.
pub fn clip_id(path: &str, row: u32) -> String {
    format!("{path}#{row}")
}

/// Encodes every video of a loader and hands it on, in order.
///
/// # Errors
/// [`Error::Data`] for a bad video, [`Error::Model`] when the clips do not fit an encoder, and those of `sink`.
pub fn encode(
    encoders: &[&Encoder],
    readout: Readout,
    clips: EvalLoader,
    mut sink: impl FnMut(Result<Video>) -> Result<()>,
) -> Result<()> {
    let encoders: Vec<Encoder> = encoders.iter().map(|encoder| encoder.for_inference()).collect();
    let mut waiting: Vec<Vec<Sample>> = Vec::new();
    for views in clips {
        match views {
            Ok(views) if views.is_empty() => {}
            Ok(views) => waiting.push(views),
            Err(error) => {
                flush(&encoders, readout, &mut waiting, &mut sink)?;
                sink(Err(error.into()))?;
            }
        }
        if waiting.iter().map(Vec::len).sum::<usize>() >= BATCH {
            flush(&encoders, readout, &mut waiting, &mut sink)?;
        }
    }
    flush(&encoders, readout, &mut waiting, &mut sink)
}

/// Encodes the videos that wait, and hands them on.
fn flush(
    encoders: &[Encoder],
    readout: Readout,
    waiting: &mut Vec<Vec<Sample>>,
    sink: &mut impl FnMut(Result<Video>) -> Result<()>,
) -> Result<()> {
    let videos = std::mem::take(waiting);
    let clips: Vec<&Sample> = videos.iter().flatten().collect();
    if clips.is_empty() {
        return Ok(());
    }
    let vectors = if encoders.is_empty() { Vec::new() } else { vectors(encoders, readout, &clips)? };
    let mut first = 0;
    for views in &videos {
        let (sample, clip) = (&views[0], &views[0].clip);
        let motion = baseline::thumbnail_motion(clip.data(), [clip.frames(), clip.height(), clip.width()])?;
        let range = first..first + views.len();
        first = range.end;
        sink(Ok(Video {
            row: sample.row,
            path: sample.path.clone(),
            label: sample.label,
            views: views.len(),
            features: vectors.iter().map(|rows| rows[range.clone()].concat()).collect(),
            motion: baseline::with_direction(motion),
        }))?;
    }
    Ok(())
}

/// For each encoder the feature vector of every clip.
fn vectors(encoders: &[Encoder], readout: Readout, clips: &[&Sample]) -> Result<Vec<Vec<Vec<f32>>>> {
    let tubelets = stack(clips)?;
    let slots = clips[0].grid.slots();
    let encode = |encoder: &Encoder| Ok(readout.apply(&encoder.forward_all(&tubelets)?, slots)?.to_vec2()?);
    on_worker(|| encoders.iter().map(encode).collect())
}

/// The tubelets of several clips, `[B, N, P]`.
///
/// # Errors
/// [`Error::Empty`] without clips, [`Error::Model`] when they differ in size.
pub fn stack(clips: &[&Sample]) -> Result<Tensor> {
    let first = clips.first().ok_or(Error::Empty { what: "clips", missing: "rows" })?;
    let (tokens, values) = (first.grid.len(), first.values());
    let mut all = Vec::with_capacity(clips.len() * values);
    clips.iter().try_for_each(|clip| clip.tubelets_into(&mut all))?;
    Ok(Tensor::from_vec(all, (clips.len(), tokens, values / tokens), &Device::Cpu)?)
}

/// A video that could not be read.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BadVideo {
    /// [`clip_id`] of the row.
    pub id: String,
    /// Its class index.
    pub label: u32,
    /// Why.
    pub reason: String,
}

/// Features of a labelled set, for each encoder, and of the baseline.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// For each encoder: a row per view, the views of a video one behind the other under one identity.
    pub features: Vec<Features>,
    /// [`baseline::thumbnail_motion`], a row per video.
    pub motion: Features,
    /// The row of the manifest of every video.
    pub rows: Vec<u32>,
    /// Videos that could not be read; empty unless the loader keeps going.
    pub bad: Vec<BadVideo>,
}

/// Encodes a labelled set. `label` gives the class of a clip by its identity, below `classes`; `done` hears the number of
/// videos so far.
///
/// # Errors
/// [`Error::Unlabelled`] for a clip without label; [`Error::Data`] for a bad video, unless the loader
/// [keeps going](EvalLoader::keep_going): then it is listed in [`Encoded::bad`]; else as [`encode`].
pub fn encode_labelled(
    encoders: &[&Encoder],
    readout: Readout,
    clips: EvalLoader,
    classes: usize,
    label: &dyn Fn(&str) -> Option<u32>,
    done: &dyn Fn(usize),
) -> Result<Encoded> {
    let label_of = |id: &str| label(id).ok_or_else(|| Error::Unlabelled { path: id.to_owned() });
    let mut parts = vec![Rows::default(); encoders.len()];
    let (mut motion, mut rows, mut bad) = (Rows::default(), Vec::new(), Vec::new());
    let lenient = clips.keeps_going();
    let data = clips.data().clone();
    let mut position = 0;
    encode(encoders, readout, clips, |video| {
        position += 1;
        let video = match video {
            Err(Error::Data(error)) if lenient && error.is_bad_video() => {
                let row = data.manifest().row(data.rows()[position - 1] as usize);
                let id = clip_id(row.path(), row.index() as u32);
                let label = label_of(&id)?;
                bad.push(BadVideo { id, label, reason: error.to_string() });
                return Ok(());
            }
            other => other?,
        };
        let id = video.id();
        let label = label_of(&id)?;
        for (part, features) in parts.iter_mut().zip(&video.features) {
            part.push(&id, label, video.views, features);
        }
        motion.push(&id, label, 1, &video.motion);
        rows.push(video.row);
        done(position);
        Ok(())
    })?;
    let features = parts.into_iter().map(|part| part.finish(classes)).collect::<Result<_>>()?;
    Ok(Encoded { features, motion: motion.finish(classes)?, rows, bad })
}

/// Features as they come in.
#[derive(Clone, Default)]
struct Rows {
    data: Vec<f32>,
    labels: Vec<u32>,
    ids: Vec<String>,
}

impl Rows {
    /// Adds the views of a video, `[views, dim]`.
    fn push(&mut self, id: &str, label: u32, views: usize, data: &[f32]) {
        self.data.extend_from_slice(data);
        self.labels.extend(std::iter::repeat_n(label, views));
        self.ids.extend(std::iter::repeat_n(id.to_owned(), views));
    }

    fn finish(self, classes: usize) -> Result<Features> {
        let dim = self.data.len() / self.ids.len().max(1);
        Features::new(dim, classes, self.data, self.labels, self.ids)
    }
}
