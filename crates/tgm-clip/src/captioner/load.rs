//! candle's BLIP from a checkpoint, with every parameter found and every weight used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use candle_transformers::models::blip::BlipForConditionalGeneration;

use super::Captioner;
use super::config::Config;
use super::tokens::CaptionTokens;
use crate::source::ModelFiles;
use crate::weights::Weights;
use crate::{ClipError, ModelSource};

pub(super) fn load(source: &ModelSource, device: &Device) -> std::result::Result<Captioner, ClipError> {
    let files = ModelFiles::resolve(source)?;
    let config = Config::parse(&files.config, &files.name)?;
    let mut weights = Weights::read(files.weights, &files.name, device, DType::F32)?;
    tie(&mut weights);

    let shared = SharedWeights(Arc::new(Mutex::new(weights)));
    let builder = VarBuilder::from_backend(Box::new(shared.clone()), DType::F32, device.clone());
    let mut model = BlipForConditionalGeneration::new(&config.model, builder)?;
    shared.into_inner().finish()?;

    Ok(Captioner {
        tokens: CaptionTokens::load(&files.tokenizer, &files.name, &config)?,
        vision: model.vision_model().clone(),
        decoder: model.text_decoder().clone(),
        image_size: config.model.vision_config.image_size,
        max_tokens: config.model.text_config.max_position_embeddings,
        identity: files.identity,
        device: device.clone(),
    })
}

/// The output projection *is* the word embeddings, and its bias has two names; a checkpoint has either or both.
fn tie(weights: &mut Weights) {
    let head = "text_decoder.cls.predictions";
    weights.tie("text_decoder.bert.embeddings.word_embeddings.weight", &format!("{head}.decoder.weight"));
    weights.tie(&format!("{head}.bias"), &format!("{head}.decoder.bias"));
    weights.discard(&format!("{head}.decoder.bias"));
}

/// What candle's constructors take parameters from. They see zeros for what is missing or misshapen, as our own do, so
/// that [`Weights::finish`] names all of it.
#[derive(Clone)]
struct SharedWeights(Arc<Mutex<Weights>>);

impl SharedWeights {
    fn lock(&self) -> MutexGuard<'_, Weights> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_inner(self) -> Weights {
        let mutex = Arc::into_inner(self.0).expect("the builder is gone, and with it the only other handle");
        mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimpleBackend for SharedWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, _: &Device) -> Result<Tensor> {
        self.lock().take(name, shape.dims())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name} is asked for without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().contains(name)
    }
}
