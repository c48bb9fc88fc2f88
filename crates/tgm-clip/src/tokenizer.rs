//! CLIP's byte-pair encoding: text to token ids.

use serde_json::json;

use crate::ClipError;
use crate::source::TokenizerFiles;
use crate::text::EndOfText;

/// One caption as token ids, from start-of-text to end-of-text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, at least two.
    pub ids: Vec<u32>,
    /// Whether the caption was longer than the text tower takes, and its end is lost.
    pub truncated: bool,
}

#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    model: String,
    max_tokens: usize,
}

impl Tokenizer {
    /// `vocab_size`, `max_tokens` and `end` are those of the text tower that will read the ids.
    pub fn load(
        files: &TokenizerFiles,
        model: &str,
        vocab_size: usize,
        max_tokens: usize,
        end: EndOfText,
    ) -> Result<Self, ClipError> {
        let error = |reason: String| ClipError::Tokenizer { model: model.to_owned(), reason };
        let inner = match files {
            TokenizerFiles::Json(bytes) => tokenizers::Tokenizer::from_bytes(bytes),
            TokenizerFiles::VocabAndMerges { vocab, merges } => {
                let json = tokenizer_json(vocab, merges).map_err(error)?;
                tokenizers::Tokenizer::from_bytes(json)
            }
        };
        let mut inner = inner.map_err(|e| error(e.to_string()))?;
        // Padding and truncation are ours, whatever was saved in the file: truncation is counted.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| error(e.to_string()))?;

        let largest = inner.get_vocab(true).into_values().max().unwrap_or_default();
        if largest as usize >= vocab_size {
            return Err(error(format!("token id {largest} is outside the vocabulary of {vocab_size}")));
        }
        let this = Self { inner, model: model.to_owned(), max_tokens };
        let empty = this.encode("")?.ids;
        if empty.len() != 2 {
            return Err(error(format!(
                "the empty caption has tokens {empty:?}, expected start-of-text and end-of-text"
            )));
        }
        if let EndOfText::Id(id) = end
            && empty[1] != id
        {
            return Err(error(format!(
                "texts end with token {}, but eos_token_id in config.json is {id}",
                empty[1]
            )));
        }
        Ok(this)
    }

    /// Too long a caption keeps its beginning and its end-of-text token, as with `truncation=True` in `transformers`.
    pub fn encode(&self, caption: &str) -> Result<Tokens, ClipError> {
        let encoding = self.inner.encode_fast(caption, true).map_err(|e| ClipError::Tokenizer {
            model: self.model.clone(),
            reason: format!("cannot encode {caption:?}: {e}"),
        })?;
        let mut ids = encoding.get_ids().to_vec();
        let truncated = ids.len() > self.max_tokens;
        if truncated {
            let end = ids[ids.len() - 1];
            ids.truncate(self.max_tokens - 1);
            ids.push(end);
        }
        Ok(Tokens { ids, truncated })
    }
}

/// A `tokenizer.json` around `vocab.json` and `merges.txt`, with the steps of `CLIPTokenizer` in `transformers`.
fn tokenizer_json(vocab: &[u8], merges: &[u8]) -> Result<Vec<u8>, String> {
    const START: &str = "<|startoftext|>";
    const END: &str = "<|endoftext|>";
    let vocab: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(vocab).map_err(|e| format!("vocab.json: {e}"))?;
    let merges = std::str::from_utf8(merges).map_err(|e| format!("merges.txt: {e}"))?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
    let id = |token: &str| vocab.get(token).cloned().ok_or(format!("vocab.json has no {token}"));
    let (start, end) = (id(START)?, id(END)?);
    let special = |content: &str, id: &serde_json::Value| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let json = json!({
        "version": "1.0",
        "added_tokens": [special(START, &start), special(END, &end)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "behavior": "Removed", "invert": true, "pattern": {"Regex":
                "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [END, end], "cls": [START, start],
                           "trim_offsets": false, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": END, "fuse_unk": false,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "</w>"},
    });
    Ok(json.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::PathBuf;

    use super::*;

    /// OpenAI's vocabulary from its one published file: bytes, bytes ending a word, merged pieces, special tokens.
    fn openai_files() -> Option<TokenizerFiles> {
        let data =
            std::env::var_os("TGM_SHARED_DATA").map_or_else(|| "../../../shared/data".into(), PathBuf::from);
        let file = std::fs::File::open(data.join("labels/clip/bpe_simple_vocab_16e6.txt.gz")).ok()?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        let merges: Vec<&str> = text.lines().skip(1).take(49_152 - 256 - 2).collect();

        // Printable bytes stand for themselves, the others for characters from U+0100 on, in this order.
        let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let kept = (0..=255).filter(printable).map(char::from);
        let moved = ('\u{100}'..).take(256 - kept.clone().count());
        let alphabet: Vec<String> = kept.chain(moved).map(String::from).collect();
        let vocab = alphabet
            .iter()
            .cloned()
            .chain(alphabet.iter().map(|piece| format!("{piece}</w>")))
            .chain(merges.iter().map(|pair| pair.replace(' ', "")))
            .chain(["<|startoftext|>".to_owned(), "<|endoftext|>".to_owned()]);
        let vocab: serde_json::Map<_, _> = vocab.enumerate().map(|(id, piece)| (piece, id.into())).collect();
        Some(TokenizerFiles::VocabAndMerges {
            vocab: serde_json::to_vec(&vocab).unwrap(),
            merges: merges.join("\n").into_bytes(),
        })
    }

    #[test]
    fn openais_vocabulary_gives_the_ids_of_transformers() {
        let Some(files) = openai_files() else {
            eprintln!("skipped: shared data not found (labels/clip)");
            return;
        };
        let tokenizer = Tokenizer::load(&files, "openai", 49_408, 77, EndOfText::Id(49_407)).unwrap();
        // From CLIPTokenizer of transformers 5.23.0 with the same vocabulary.
        let expected: [(&str, &[u32]); 5] = [
            ("a photo of a cat", &[320, 1125, 539, 320, 2368]),
            ("a diagram", &[320, 22697]),
            (
                "Don't  worry: it's 2024, they'll WIN!",
                &[847, 713, 7534, 281, 585, 568, 273, 271, 273, 275, 267, 889, 1342, 1225, 256],
            ),
            ("größer – 星 🚀", &[709, 7255, 127, 253, 528, 1224, 42891, 509, 13542]),
            ("stop <|endoftext|> after this", &[1691, 49407, 953, 589]),
        ];
        for (caption, inner) in expected {
            let ids = tokenizer.encode(caption).unwrap().ids;
            assert_eq!((ids[0], ids[ids.len() - 1]), (49_406, 49_407), "{caption}");
            assert_eq!(&ids[1..ids.len() - 1], inner, "{caption}");
        }
    }

    #[test]
    fn vocabularies_without_the_special_tokens_are_refused() {
        let files = TokenizerFiles::VocabAndMerges { vocab: br#"{"a": 0}"#.to_vec(), merges: Vec::new() };
        let error = Tokenizer::load(&files, "folder", 10, 77, EndOfText::LargestId).unwrap_err();
        assert!(error.to_string().contains("<|startoftext|>"), "{error}");
    }
}
