//! Renders a synthetic world: `cargo run --release -p tgm-data --example synth -- DIR [CONFIG.toml]`.
//!
//! Without a configuration it repeats the one in `DIR/world.toml`, or else takes the defaults.

use std::path::PathBuf;
use std::time::Instant;

use tgm_data::synth::{WorldConfig, read_config, write_world};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let dir = arguments.next().ok_or("usage: synth DIR [CONFIG.toml]")?;
    let config: WorldConfig = match arguments.next() {
        Some(file) => toml::from_str(&std::fs::read_to_string(file)?)?,
        None if dir.join("world.toml").is_file() => read_config(&dir)?,
        None => WorldConfig::default(),
    };
    let begun = Instant::now();
    let written = write_world(&config, &dir, &|done, all| {
        if done % 100 == 0 || done == all {
            eprintln!("{done} of {all} clips");
        }
    })?;
    let rate = written.made as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{}: {} clips made ({rate:.0} per second), {} kept", dir.display(), written.made, written.kept);
    Ok(())
}
