//! Protocols through the contrastive head: classes by their names, and retrieval by captions.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use tgm_clip::ClipModel;
use tgm_contrastive::ContrastiveHead;
use tgm_eval::Readout;
use tgm_eval::bootstrap;
use tgm_eval::{Answers, Bench, Evaluation, Features, ProtocolReport, judge, retrieval, zero_shot};
use tgm_mae::{Checkpoint, Encoder};
use tgm_ops::Params;
use tgm_random::Streams;
use tgm_train::checkpoint::{self, CONTRASTIVE, RUN, load_tensors};
use tgm_train::config::{self, Config};
use tgm_train::guidance::load_clip;
use tgm_train::task::Task;

use super::data::EvalData;
use super::frozen::{bad_of, motion_baseline};
use super::outcome::Outcome;

/// A run's contrastive head, a head that has learnt nothing, and the text tower that both go with.
pub struct TextSide {
    clip: ClipModel,
    trained: Head,
    random: Head,
}

struct Head {
    head: ContrastiveHead,
    scale: f64,
}

impl TextSide {
    /// Loads the head of a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint has none, or one that was never trained: scoring that would be scoring a draw.
    pub fn open(model: &Checkpoint, seed: u64) -> Result<Self> {
        let folder = &model.path;
        let weights = folder.join(CONTRASTIVE);
        ensure!(
            weights.is_file(),
            "{}: has no contrastive head, so its clips have no place among texts; give a run that was pretrained with \
             --contrastive on",
            folder.display()
        );
        ensure!(
            checkpoint::read(folder)?.position.updates() > 0,
            "{}: its contrastive head was never trained (step 0); the result would be chance by construction",
            folder.display()
        );
        let file = folder.join(RUN);
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let run = config::from_text(&file.display().to_string(), &text, &[])?;
        let clip = load_clip(&run.text, &Device::Cpu)?;
        let build = |seed| new_head(&run, model.config.encoder.dim, clip.embedding_dim(), seed);
        let (trained, params) = build(seed)?;
        params.load(&weights.display().to_string(), &load_tensors(&weights)?)?;
        let (random, random_params) = build(seed)?;
        Ok(Self {
            trained: Head { head: trained, scale: scale(&params, &run)? },
            random: Head { head: random, scale: scale(&random_params, &run)? },
            clip,
        })
    }

    /// Which text tower this is.
    pub fn model(&self) -> &str {
        self.clip.identity()
    }

    /// Unit embeddings of sentences, `[sentences, dim]`.
    fn sentences(&self, texts: &[String]) -> Result<Vec<f32>> {
        const BATCH: usize = 64;
        let mut rows = Vec::new();
        for part in texts.chunks(BATCH) {
            let part: Vec<&str> = part.iter().map(String::as_str).collect();
            let embeddings = self.clip.embed_text(&part)?.embeddings.to_dtype(DType::F32)?;
            rows.extend(embeddings.to_vec2::<f32>()?.into_iter().flat_map(unit));
        }
        Ok(rows)
    }

    /// Unit embeddings of classes: the mean over the templates.
    fn classes(&self, names: &[String], templates: &[String]) -> Result<Vec<f32>> {
        let mut classes = Vec::new();
        for name in names {
            let words = zero_shot::words(name);
            let prompts: Vec<String> =
                templates.iter().map(|template| template.replace("{}", &words)).collect();
            let rows = self.sentences(&prompts)?;
            let dim = rows.len() / prompts.len();
            let mut mean = vec![0.0; dim];
            rows.chunks_exact(dim).for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
            classes.extend(unit(mean));
        }
        Ok(classes)
    }
}

impl Head {
    /// Unit embeddings of clips from their pooled tokens.
    fn clips(&self, features: &Features) -> Result<Vec<f32>> {
        let pooled = Tensor::from_slice(features.data(), (features.clips(), features.dim()), &Device::Cpu)?;
        Ok(self.head.embed(&pooled)?.flatten_all()?.to_vec1()?)
    }
}

/// Zero-shot classification of the test clips.
///
/// # Errors
/// When a video is bad, or the text tower fails.
pub fn zero_shot(
    data: &EvalData,
    [trained, random]: [&Encoder; 2],
    side: &TextSide,
    templates: &[String],
    seed: u64,
) -> Result<Vec<Outcome>> {
    let readout = Readout::Pooled(side.trained.head.pooling());
    let test = data.encode_test("features", &[trained, random], readout)?;
    let streams = Streams::new(seed);
    // Without splits there is nothing to fit the baseline on.
    let has_train = data.train.rows() != data.test.rows();
    let train = has_train.then(|| data.encode_train_for_baseline("baseline")).transpose()?;
    let outcome = |task: &Task| -> Result<Outcome> {
        let classes = side.classes(&task.classes, templates)?;
        let dim = classes.len() / task.classes.len();
        let train_labels = data.train_labels(task);
        let skipped = bad_of(&test, task);
        let one = |head: &Head, features: &Features| -> Result<Evaluation> {
            let features = features.relabelled(task.classes.len(), |id| task.label(id))?;
            let scores = zero_shot::classify(&head.clips(&features)?, &classes, dim, head.scale)?;
            let answers = Answers::new(scores, features.ids().to_vec(), features.labels().to_vec())?;
            let report = zero_shot::Report {
                templates: templates.to_vec(),
                scale: head.scale,
                text_model: side.model().to_owned(),
            };
            let interval = bootstrap::Settings::default();
            let bench = Bench { train_labels: &train_labels, skipped: &skipped, interval, streams: &streams };
            Ok(judge(&answers, ProtocolReport::ZeroShot(report), &bench)?)
        };
        Ok(Outcome {
            task: task.clone(),
            ours: one(&side.trained, &test.features[0])?,
            random: Some(one(&side.random, &test.features[1])?),
            motion: train
                .as_ref()
                .map(|train| motion_baseline([train, &test], task, &streams))
                .transpose()?,
        })
    };
    data.tasks.iter().map(outcome).collect()
}

/// Retrieval of the test clips by their captions, and of captions by clips; ours and of a random encoder and head.
///
/// # Errors
/// When no test clip has a caption, a video is bad, or the text tower fails.
pub fn retrieve(
    data: &EvalData,
    [trained, random]: [&Encoder; 2],
    side: &TextSide,
) -> Result<[retrieval::Report; 2]> {
    let manifest = data.test.manifest();
    let (mut texts, mut clip_of) = (Vec::new(), Vec::new());
    for (clip, &row) in data.test.rows().iter().enumerate() {
        for caption in manifest.row(row as usize).captions() {
            texts.push(caption.to_owned());
            clip_of.push(clip);
        }
    }
    if texts.is_empty() {
        bail!(
            "{}: no test clip has a caption; retrieval needs the column `caption`",
            manifest.file().display()
        );
    }
    let sentences = side.sentences(&texts)?;
    let dim = sentences.len() / texts.len();
    let readout = Readout::Pooled(side.trained.head.pooling());
    let test = data.encode_test("features", &[trained, random], readout)?;
    ensure!(test.bad.is_empty(), "retrieval ranks every test clip: {} could not be read", test.bad.len());
    let one = |head: &Head, features: &Features| -> Result<retrieval::Report> {
        let clips = mean_of_views(features.ids(), &head.clips(features)?, dim);
        let pairs =
            retrieval::Pairs { dim, clips: &clips, sentences: &sentences, clip_of: &clip_of, texts: &texts };
        Ok(retrieval::evaluate(&pairs)?)
    };
    Ok([one(&side.trained, &test.features[0])?, one(&side.random, &test.features[1])?])
}

/// Prints both directions, ours beside a random encoder's.
pub fn print_retrieval([ours, random]: &[retrieval::Report; 2]) {
    println!(
        "{:<32} {:>6}  {:>6}  {:>6}  {:>11}  {:>10}",
        "", "R@1", "R@5", "R@10", "median rank", "chance R@1"
    );
    for (name, ours, random) in [
        ("text to video", ours.text_to_video, random.text_to_video),
        ("video to text", ours.video_to_text, random.video_to_text),
    ] {
        for (who, recall) in [("", ours), (", random encoder", random)] {
            let retrieval::Recall { r1, r5, r10, median_rank, chance_r1, .. } = recall;
            println!(
                "{:<32} {r1:>6.3}  {r5:>6.3}  {r10:>6.3}  {median_rank:>11.1}  {chance_r1:>10.3}",
                format!("{name}{who}")
            );
        }
        println!("  {} queries, {} candidates", ours.queries, ours.candidates);
    }
}

fn new_head(run: &Config, dim: usize, text_dim: usize, seed: u64) -> Result<(ContrastiveHead, Params)> {
    let mut params = Params::new(Streams::new(seed), &Device::Cpu);
    let head = ContrastiveHead::new(dim, text_dim, &run.contrastive.head, &mut params)?;
    Ok((head, params))
}

/// 1/τ of a head, learnt or fixed.
fn scale(params: &Params, run: &Config) -> Result<f64> {
    match params.get("contrastive.log_scale") {
        Some(var) => Ok(f64::from(var.to_scalar::<f32>()?).exp()),
        None => Ok(run.contrastive.head.temperature.recip()),
    }
}

fn unit(mut row: Vec<f32>) -> Vec<f32> {
    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    row.iter_mut().for_each(|x| *x /= length);
    row
}

/// The mean direction of each clip's views, which lie one behind the other.
fn mean_of_views(ids: &[String], rows: &[f32], dim: usize) -> Vec<f32> {
    let mut clips = Vec::new();
    let mut start = 0;
    for views in ids.chunk_by(|a, b| a == b) {
        let mut mean = vec![0.0; dim];
        let own = &rows[start * dim..(start + views.len()) * dim];
        own.chunks_exact(dim).for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
        clips.extend(unit(mean));
        start += views.len();
    }
    clips
}
