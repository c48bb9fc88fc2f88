//! What copying a visible tubelet costs: the baseline beside the loss.

use candle_core::{DType, Device, Tensor};
use tgm_mae::{MaeConfig, TokenSplit, TransformerConfig, VideoMae};
use tgm_ops::Params;
use tgm_ops::gradcheck::randn;
use tgm_random::Streams;

fn model(normalize_target: bool) -> (MaeConfig, VideoMae) {
    let config = MaeConfig {
        frames: 4,
        image_size: [8, 8],
        patch: [4, 4],
        encoder: TransformerConfig::new(8, 1, 2),
        decoder: TransformerConfig::new(8, 1, 2),
        normalize_target,
        ..MaeConfig::micro()
    };
    let mut params = Params::new(Streams::new(2), &Device::Cpu);
    let model = VideoMae::new(&config, &mut params).unwrap();
    (config, model)
}

fn copy_loss(model: &VideoMae, tubelets: &Tensor, sources: Vec<u32>) -> f32 {
    let indices = |values: Vec<u32>| Tensor::from_vec(values, (1, 4), &Device::Cpu).unwrap();
    let split = TokenSplit::from_indices(indices(vec![0, 2, 4, 6]), indices(vec![1, 3, 5, 7]), 8).unwrap();
    model.copy_loss(tubelets, &split, &indices(sources)).unwrap().to_scalar().unwrap()
}

#[test]
fn copying_is_perfect_where_the_copy_is_the_same_and_the_mean_square_elsewhere() {
    for normalize in [false, true] {
        let (config, model) = model(normalize);
        let one = randn("tubelet", &[1, 1, config.tubelet_len()], DType::F32).unwrap();
        let same = Tensor::cat(&[&one; 8], 1).unwrap();
        assert_eq!(copy_loss(&model, &same, vec![0, 2, 4, 6]), 0.0);
        let different = randn("clip", &[1, 8, config.tubelet_len()], DType::F32).unwrap();
        let loss = copy_loss(&model, &different, vec![0, 2, 4, 6]);
        assert!(loss > 0.01, "{loss}");
        if normalize {
            // Two independent tubelets of variance 1 are 2 apart in the mean square.
            assert!((loss - 2.0).abs() < 0.4, "{loss}");
        }
        assert_eq!(copy_loss(&model, &different, vec![1, 3, 5, 7]), 0.0);
    }
}

#[test]
fn a_split_of_unequal_batches_is_refused() {
    let zeros = |clips: usize| Tensor::zeros((clips, 2), DType::U32, &Device::Cpu).unwrap();
    let ones = |clips: usize| zeros(clips).ones_like().unwrap();
    assert!(TokenSplit::from_indices(zeros(2), ones(2), 8).is_ok());
    assert!(TokenSplit::from_indices(zeros(2), ones(3), 8).is_err());
    assert!(TokenSplit::from_indices(zeros(2).flatten_all().unwrap(), ones(3), 8).is_err());
}
