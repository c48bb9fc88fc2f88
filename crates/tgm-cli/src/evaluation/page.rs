//! Where a model is wrong: one self-contained page with the confusion matrix and the most confident mistakes.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use tgm_data::loader::{EvalLoader, Subset, TestViews};
use tgm_video::{Clip, write_png};

use super::data::EvalData;
use super::outcome::Outcome;
use crate::html::{escape, png_address};

/// Mistakes that are shown.
const MISTAKES: usize = 12;
/// Frames of a film strip.
const FRAMES: usize = 8;
/// Classes up to which the page has the matrix and the classes in full.
const MANY: usize = 60;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse}td,th{padding:.15rem .5rem;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}img{max-width:100%;image-rendering:pixelated}\
.m td{border:1px solid #fff;min-width:1.4rem;text-align:center;padding:0}figure{margin:1.2rem 0}";

/// Writes the page of a task.
///
/// # Errors
/// When a mistaken clip can no longer be read, or the page cannot be written.
pub fn write(file: &Path, outcome: &Outcome, data: &EvalData, protocol: &str) -> Result<()> {
    let title = escape(&format!("{protocol} on {}, {}", data.title, outcome.task.name));
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    page += &summary(outcome);
    page += &confusion(outcome, file)?;
    page += &classes(outcome);
    page += &mistakes(outcome, data, file)?;
    tgm_train::run_dir::write_atomically(file, page.as_bytes())
}

fn summary(outcome: &Outcome) -> String {
    let report = &outcome.ours.report;
    let mut table = String::from("<table><tr><th><th>top-1<th>95 % interval<th>top-5<th>mean class</tr>");
    let others = [("random encoder", &outcome.random), ("pixel-difference kNN", &outcome.motion)];
    let others = others.iter().filter_map(|(name, other)| Some((*name, &other.as_ref()?.report)));
    for (name, report) in [("this checkpoint", report)].into_iter().chain(others) {
        let top5 = report.top5.map_or(String::new(), |top5| format!("{top5:.3}"));
        let (top1, mean) = (report.top1, report.mean_class);
        let _ = write!(
            table,
            "<tr><td>{name}<td>{:.3}<td>{:.3} – {:.3}<td>{top5}<td>{mean:.3}</tr>",
            top1.mean, top1.low, top1.high
        );
    }
    let _ = write!(
        table,
        "<tr><td>majority class<td>{:.3}<tr><td>chance<td>{:.3}</table><p>{} train and {} test clips of {} classes; {} \
         videos could not be read.",
        report.majority,
        report.chance,
        report.train_clips,
        report.test_clips,
        report.classes,
        report.skipped.len()
    );
    table
}

/// The matrix as a table, or as a picture where there are many classes.
fn confusion(outcome: &Outcome, file: &Path) -> Result<String> {
    let counts = outcome.ours.report.confusion.counts();
    let mut html = String::from("<h2>Confusion</h2><p>Rows are true classes, columns answers.</p>");
    let share = |row: &[u64], at: usize| row[at] as f64 / row.iter().sum::<u64>().max(1) as f64;
    if counts.len() > MANY {
        let mut rgb = Vec::with_capacity(counts.len() * counts.len() * 3);
        for row in counts {
            rgb.extend((0..row.len()).flat_map(|at| [255 - (share(row, at) * 255.0) as u8; 3]));
        }
        let side = counts.len() as u32;
        html += &picture(file, &rgb, side, side, "confusion matrix, dark is frequent")?;
        return Ok(html);
    }
    html += "<table class=m>";
    for (class, row) in counts.iter().enumerate() {
        let _ = write!(html, "<tr><td>{}", escape(&outcome.task.classes[class]));
        for (at, count) in row.iter().enumerate() {
            let (light, name) = (100.0 - 60.0 * share(row, at), escape(&outcome.task.classes[at]));
            let hue = if at == class { 140 } else { 10 };
            let shown = if *count > 0 { count.to_string() } else { String::new() };
            let _ =
                write!(html, "<td style=\"background:hsl({hue} 70% {light:.0}%)\" title=\"{name}\">{shown}");
        }
    }
    Ok(html + "</table>")
}

/// The classes by accuracy, worst first.
fn classes(outcome: &Outcome) -> String {
    let per_class = &outcome.ours.report.per_class;
    let mut order: Vec<(f64, &str)> = per_class
        .iter()
        .zip(&outcome.task.classes)
        .filter_map(|(accuracy, name)| Some(((*accuracy)?, name.as_str())))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let mut html = String::from("<h2>Classes, worst first</h2><table>");
    for (accuracy, name) in order {
        let _ = write!(html, "<tr><td>{}<td>{accuracy:.3}</tr>", escape(name));
    }
    html + "</table>"
}

/// Film strips of the wrong answers with the largest probability.
fn mistakes(outcome: &Outcome, data: &EvalData, file: &Path) -> Result<String> {
    let answers = &outcome.ours.answers;
    let predictions = answers.scores.predictions();
    let mut wrong: Vec<(f64, usize)> = (0..answers.ids.len())
        .filter(|&clip| predictions[clip] != answers.labels[clip])
        .map(|clip| (answers.scores.row(clip)[predictions[clip] as usize], clip))
        .collect();
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    wrong.truncate(MISTAKES);
    let mut html = String::from("<h2>Most confident mistakes</h2>");
    if wrong.is_empty() {
        return Ok(html + "<p>There are none.");
    }
    let row_of =
        |clip: usize| answers.ids[clip].rsplit_once('#').and_then(|(_, row)| row.parse::<u32>().ok());
    let rows: Vec<u32> = wrong.iter().filter_map(|&(_, clip)| row_of(clip)).collect();
    let subset = Subset::new(data.test.manifest().clone(), rows)?;
    let clips = EvalLoader::new(&subset, &data.clip, &data.loader, TestViews { views: 1, crops: 1 })?;
    for (&(confidence, clip), views) in wrong.iter().zip(clips) {
        let views = views?;
        let Some(sample) = views.first() else { continue };
        let (rgb, width, height) = strip(&sample.clip);
        let name = |class: u32| escape(&outcome.task.classes[class as usize]);
        let caption = format!(
            "{}: <b>{}</b>, answered <b>{}</b> with {:.0} %",
            escape(&sample.path),
            name(answers.labels[clip]),
            name(predictions[clip]),
            100.0 * confidence
        );
        let image = picture(file, &rgb, width, height, "film strip")?;
        let _ = write!(html, "<figure>{image}<figcaption>{caption}</figcaption></figure>");
    }
    Ok(html)
}

/// Frames of a clip side by side, evenly from first to last.
fn strip(clip: &Clip) -> (Vec<u8>, u32, u32) {
    let frames = FRAMES.min(clip.frames());
    let (width, height) = (clip.width(), clip.height());
    let mut rgb = vec![0; frames * width * height * 3];
    for index in 0..frames {
        let frame = clip.frame(index * (clip.frames() - 1) / (frames - 1).max(1));
        for (y, line) in frame.chunks_exact(width * 3).enumerate() {
            let start = (y * frames + index) * width * 3;
            rgb[start..start + width * 3].copy_from_slice(line);
        }
    }
    (rgb, (frames * width) as u32, height as u32)
}

/// A picture inside the page.
fn picture(page: &Path, rgb: &[u8], width: u32, height: u32, text: &str) -> Result<String> {
    let file = page.with_extension("picture.png");
    write_png(&file, rgb, width, height).with_context(|| file.display().to_string())?;
    let bytes = std::fs::read(&file)?;
    std::fs::remove_file(&file)?;
    Ok(format!("<img alt=\"{text}\" src=\"{}\">", png_address(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_shows_first_and_last_frame_side_by_side() {
        let data: Vec<u8> = (0..16u8).flat_map(|frame| vec![frame; 2 * 3 * 3]).collect();
        let clip = Clip::new(data, 2, 3, (0..16).map(f64::from).collect()).unwrap();
        let (rgb, width, height) = strip(&clip);
        assert_eq!((width, height, rgb.len()), (24, 2, 24 * 2 * 3));
        assert_eq!((rgb[0], rgb[24 * 3 - 1], rgb[24 * 3]), (0, 15, 0));
    }
}
