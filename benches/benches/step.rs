//! One whole pretraining step (forward, backward, AdamW) of ViT-S, 2 clips of 16×224², tube masking at 0.9, f32.

use candle_core::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tgm_mae::{MaeConfig, TokenSplit, VideoMae};
use tgm_masking::{Cues, Grid, Masking};
use tgm_ops::gradcheck::randn;
use tgm_ops::{AdamW, AdamWConfig, Gradients, Params};
use tgm_random::Streams;

const CLIPS: usize = 2;

fn step(c: &mut Criterion) {
    let config = MaeConfig::small();
    let mut params = Params::new(Streams::new(0), &Device::Cpu);
    let model = VideoMae::new(&config, &mut params).expect("a valid preset");
    let mut adamw = AdamW::new(&params, AdamWConfig::default());
    let [slots, rows, cols] = config.grid();
    let grid = Grid::new(slots, rows, cols).expect("a valid grid");
    let masks: Vec<_> = (0..CLIPS as u64)
        .map(|clip| {
            let mut stream = Streams::new(0).stream("mask", 0, clip);
            Masking::Tube { ratio: 0.9 }.mask(&grid, &Cues::default(), &mut stream).expect("a valid ratio")
        })
        .collect();
    let split = TokenSplit::from_masks(&masks, &Device::Cpu).expect("equal masks");
    let tubelets =
        randn("clips", &[CLIPS, config.tokens(), config.tubelet_len()], DType::F32).expect("a small tensor");
    let mut group = c.benchmark_group("step");
    group.sample_size(10).throughput(Throughput::Elements(CLIPS as u64));
    group.bench_function("vit-s/f32/tube-0.9/b2", |b| {
        b.iter(|| {
            let loss = model.forward(&tubelets, &split).expect("fitting shapes").loss;
            let mut grads = Gradients::zeros(&params);
            grads.add(params.iter(), &loss.backward().expect("a graph"), 1.0).expect("all gradients");
            adamw.step(&params, &grads, 1e-4, 1.0).expect("all gradients");
        });
    });
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
