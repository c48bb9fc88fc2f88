//! Drawing the mask of one clip of 8×14×14 tubelets, every strategy.

use criterion::{Criterion, criterion_group, criterion_main};
use rand::RngExt;
use tgm_masking::{
    Cues, Grid, Masking, MotionBoxConfig, MotionField, MotionWarpConfig, ScoreMap, TextConfig,
};
use tgm_random::Streams;

fn masks(c: &mut Criterion) {
    let grid = Grid::new(8, 14, 14).expect("a valid grid");
    let mut stream = Streams::new(0).stream("cues", 0, 0);
    let scores =
        ScoreMap::new(grid, (0..grid.len()).map(|_| stream.random()).collect()).expect("finite scores");
    let vectors =
        (0..grid.len()).map(|_| [stream.random_range(-1.0..1.0), stream.random_range(-1.0..1.0)]).collect();
    let motion = MotionField::new(grid, vectors).expect("finite vectors");
    let cues = Cues { scores: Some(&scores), motion: Some(&motion) };
    for masking in [
        Masking::Random { ratio: 0.9 },
        Masking::Tube { ratio: 0.9 },
        Masking::MotionBox(MotionBoxConfig::default()),
        Masking::MotionWarp(MotionWarpConfig::default()),
        Masking::Text(TextConfig::default()),
    ] {
        let mut clip = 0;
        c.bench_function(&format!("mask/{}", masking.name()), |b| {
            b.iter(|| {
                clip += 1;
                masking.mask(&grid, &cues, &mut Streams::new(0).stream("mask", 0, clip))
            });
        });
    }
}

criterion_group!(benches, masks);
criterion_main!(benches);
