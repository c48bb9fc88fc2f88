//! The indices of the videos of a manifest that was made from another one's rows.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use tgm_data::index_store::{IndexStore, IndexWriter};
use tgm_data::manifest::Manifest;

/// Writes the indices of these rows' videos beside a manifest of them, by the paths that they have there. Where there are none,
/// as of a check that read headers only, no file is made.
pub(super) fn write_indices(
    out: &Path,
    manifest: &Manifest,
    rows: &[usize],
    indices: &IndexStore,
) -> Result<()> {
    if indices.is_empty() {
        return Ok(());
    }
    let unwritten = || format!("cannot write {}", IndexStore::file_of(out).display());
    let writer = IndexWriter::open(out, true).with_context(unwritten)?;
    let mut written = HashSet::new();
    for row in rows.iter().map(|&row| manifest.row(row)) {
        let file = row.video();
        // A video may have many rows.
        let index = written.insert(row.path()).then(|| indices.get(row.path(), &file)).flatten();
        if let Some(index) = index {
            writer.append(&row.record(out)?.path, &file, &index).with_context(unwritten)?;
        }
    }
    Ok(())
}
