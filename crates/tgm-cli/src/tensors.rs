//! Stored tensors that commands take as input.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use tgm_mae::TokenSplit;

/// A safetensors file in memory.
#[derive(Debug)]
pub struct StoredTensors {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl StoredTensors {
    /// Reads all tensors; booleans, which candle does not know, become `u8`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let tensors = read_tensors(&bytes).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_path_buf(), tensors })
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("{}: has no tensor `{name}`", self.path.display()))
    }

    /// The masks `bool_masked_pos` `[B, tokens]`.
    ///
    /// # Errors
    /// When they have another shape, or hide different numbers of tokens.
    pub fn split(&self, tokens: usize) -> Result<TokenSplit> {
        let masked = self.get("bool_masked_pos")?;
        if masked.rank() != 2 || masked.dims()[1] != tokens {
            bail!(
                "{}: bool_masked_pos is {:?}, this model needs [B, {tokens}]",
                self.path.display(),
                masked.dims()
            );
        }
        let rows = masked.to_dtype(DType::U8)?.to_vec2::<u8>()?;
        let flags: Vec<Vec<bool>> = rows.iter().map(|row| row.iter().map(|&m| m != 0).collect()).collect();
        TokenSplit::from_bools(&flags, &Device::Cpu).with_context(|| self.path.display().to_string())
    }
}

fn read_tensors(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let file = safetensors::SafeTensors::deserialize(bytes)?;
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| -> Result<(String, Tensor)> {
        let tensor = if view.dtype() == safetensors::Dtype::BOOL {
            Tensor::from_slice(view.data(), view.shape(), &Device::Cpu)?
        } else {
            candle_core::safetensors::Load::load(&view, &Device::Cpu)?
        };
        Ok((name, tensor))
    };
    file.tensors().into_iter().map(read).collect()
}
