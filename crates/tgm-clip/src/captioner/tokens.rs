//! BERT's WordPiece, in the one direction that captions need: ids to text.

use super::config::Config;
use crate::ClipError;
use crate::source::TokenizerFiles;

#[derive(Debug)]
pub(super) struct CaptionTokens {
    inner: tokenizers::Tokenizer,
    model: String,
    pub start: u32,
    pub end: u32,
}

impl CaptionTokens {
    pub fn load(files: &TokenizerFiles, model: &str, config: &Config) -> Result<Self, ClipError> {
        let error = |reason: String| ClipError::Tokenizer { model: model.to_owned(), reason };
        let TokenizerFiles::Json(bytes) = files else {
            return Err(error(
                "vocab.json and merges.txt are no WordPiece; BLIP needs tokenizer.json".into(),
            ));
        };
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| error(e.to_string()))?;
        let vocab_size = config.model.text_config.vocab_size;
        let largest = inner.get_vocab(true).into_values().max().unwrap_or_default();
        if largest as usize >= vocab_size {
            return Err(error(format!("token id {largest} is outside the vocabulary of {vocab_size}")));
        }
        let empty = inner.encode_fast("", true).map_err(|e| error(e.to_string()))?;
        if empty.get_ids().last() != Some(&config.end) {
            return Err(error(format!(
                "the empty text has tokens {:?}, but sep_token_id in config.json is {}",
                empty.get_ids(),
                config.end
            )));
        }
        Ok(Self { inner, model: model.to_owned(), start: config.start, end: config.end })
    }

    /// The text of token ids. Special tokens, and ids that only the model knows, have none.
    pub fn text(&self, ids: &[u32]) -> Result<String, ClipError> {
        self.inner.decode(ids, true).map_err(|e| ClipError::Tokenizer {
            model: self.model.clone(),
            reason: format!("cannot decode {ids:?}: {e}"),
        })
    }
}
