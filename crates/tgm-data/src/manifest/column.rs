//! Columns that hold a million values in few bytes.

use std::collections::HashMap;

/// Strings one after the other in a single allocation.
#[derive(Debug, Default)]
pub(crate) struct TextColumn {
    text: String,
    ends: Vec<usize>,
}

impl TextColumn {
    pub fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.ends.push(self.text.len());
    }

    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no value has any text.
    pub fn is_blank(&self) -> bool {
        self.text.is_empty()
    }

    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

/// Few distinct strings, each value a number; the empty string is "none".
#[derive(Debug, Default)]
pub(crate) struct CategoryColumn {
    ids: Vec<u32>,
    names: Vec<String>,
    lookup: HashMap<String, u32>,
}

const NONE: u32 = u32::MAX;

impl CategoryColumn {
    pub fn push(&mut self, value: &str) {
        let id = if value.is_empty() {
            NONE
        } else if let Some(&id) = self.lookup.get(value) {
            id
        } else {
            let id = self.names.len() as u32;
            self.names.push(value.to_owned());
            self.lookup.insert(value.to_owned(), id);
            id
        };
        self.ids.push(id);
    }

    pub fn get(&self, index: usize) -> Option<u32> {
        Some(self.ids[index]).filter(|&id| id != NONE)
    }

    pub fn name(&self, index: usize) -> Option<&str> {
        self.get(index).map(|id| self.names[id as usize].as_str())
    }

    /// The distinct values, in the order of their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether every value is "none".
    pub fn is_blank(&self) -> bool {
        self.ids.iter().all(|&id| id == NONE)
    }

    /// Gives the values other numbers: `order` has, for each old number, the new one.
    pub fn renumber(&mut self, order: &[u32], names: Vec<String>) {
        for id in self.ids.iter_mut().filter(|id| **id != NONE) {
            *id = order[*id as usize];
        }
        self.lookup = names.iter().enumerate().map(|(id, name)| (name.clone(), id as u32)).collect();
        self.names = names;
        self.ids.shrink_to_fit();
    }
}
