//! From frames to tubelets, 16×224².

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tgm_video::{Clip, Normalization, TubeletShape, patchify};

fn tubelets(c: &mut Criterion) {
    let data: Vec<u8> = (0..16 * 224 * 224 * 3).map(|i| (i % 251) as u8).collect();
    let clip = Clip::new(data, 224, 224, vec![0.0; 16]).expect("a clip of the right size");
    let mut group = c.benchmark_group("clip");
    group.throughput(Throughput::Elements(1));
    group.bench_function("patchify/16x224", |b| {
        b.iter(|| patchify(&clip, TubeletShape::default(), &Normalization::IMAGENET));
    });
    group.finish();
}

criterion_group!(benches, tubelets);
criterion_main!(benches);
