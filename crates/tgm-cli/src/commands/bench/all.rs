//! `tgm bench all`: every speed in one file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::FromArgMatches;
use tgm_data::manifest::Manifest;
use tgm_data::synth::WorldConfig;

use super::options::Options;
use super::record::Record;
use super::scratch::Scratch;
use super::{decode, mask, score, step};
use crate::demo;

/// Every speed, one bench after the other, each as it is by itself without options: mask, decode, score, step.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm bench all --json speed.json
  tgm bench all --peers --rounds 3 --json speed.json clips/*.mp4")]
pub(in crate::commands) struct Args {
    /// Video files to decode. Default: clips of a synthetic world.
    files: Vec<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Clips that are rendered where none are given, large and long enough to be cropped and sampled as real ones are.
const CLIPS: u32 = 6;
const SIZE: u32 = 320;
const FRAMES: u32 = 64;

pub(super) fn run(args: &Args) -> Result<()> {
    let folder = Scratch::new("all")?;
    let files = match args.files.is_empty() {
        true => render(folder.path())?,
        false => args.files.clone(),
    };
    let mut rows = mask::rows(&bench(args, &[])?)?;
    rows.extend(decode::rows(&bench(args, &files)?)?);
    rows.extend(score::rows(&bench(args, &[])?)?);
    rows.extend(step::rows(&bench(args, &[])?)?);
    Record::new(rows).write(args.options.json.as_deref())
}

/// A bench's arguments as if it were called by itself.
fn bench<A: clap::Args + FromArgMatches>(args: &Args, files: &[PathBuf]) -> Result<A> {
    let mut words: Vec<OsString> = vec!["--rounds".into(), args.options.rounds.to_string().into()];
    if args.options.peers {
        words.push("--peers".into());
    }
    if !files.is_empty() {
        // Names may begin with a hyphen.
        words.push("--".into());
    }
    words.extend(files.iter().map(|file| file.clone().into_os_string()));
    let command = A::augment_args(clap::Command::new("bench").no_binary_name(true));
    Ok(A::from_arg_matches(&command.try_get_matches_from(words)?)?)
}

fn render(folder: &Path) -> Result<Vec<PathBuf>> {
    let world = WorldConfig { train: CLIPS, test: 0, size: SIZE, frames: FRAMES, ..WorldConfig::default() };
    let manifest = demo::render(folder, &world)?;
    Ok(Manifest::load(&manifest)?.rows().map(|row| folder.join(row.path())).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Words {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn every_bench_gets_the_rounds_and_is_otherwise_as_by_itself() {
        let Words { args } = Words::try_parse_from(["--rounds", "2"]).unwrap();
        let files = render(Scratch::new("all-test").unwrap().path()).unwrap();
        assert_eq!(files.len(), CLIPS as usize);
        let shown = [
            format!("{:?}", bench::<mask::Args>(&args, &[]).unwrap()),
            format!("{:?}", bench::<decode::Args>(&args, &files).unwrap()),
            format!("{:?}", bench::<score::Args>(&args, &[]).unwrap()),
            format!("{:?}", bench::<step::Args>(&args, &[]).unwrap()),
        ];
        assert!(shown.iter().all(|args| args.contains("rounds: 2, peers: false")), "{shown:?}");
        assert!(shown[1].contains(".mp4") && shown[3].contains("Small, Base"), "{shown:?}");
        let hyphen = format!("{:?}", bench::<decode::Args>(&args, &["-a.mp4".into()]).unwrap());
        assert!(hyphen.contains(r#"files: ["-a.mp4"]"#), "{hyphen}");
    }
}
