//! Class names and their indices.

/// The classes of a dataset: names in the order of their indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    names: Vec<String>,
}

impl Classes {
    /// Classes in a prescribed order, for example a benchmark's official one.
    pub fn from_names(names: Vec<String>) -> Self {
        Self { names }
    }

    /// The distinct names, sorted; when all are whole numbers, by number, so that labels `0`, `1`, …, `10`
    /// keep their values.
    pub(crate) fn sorted(names: &[String]) -> Self {
        let mut names = names.to_vec();
        names.sort();
        if names.iter().all(|name| name.parse::<u64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
        }
        Self { names }
    }

    /// The names, in the order of their indices.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a class.
    pub fn name(&self, class: u32) -> Option<&str> {
        self.names.get(class as usize).map(String::as_str)
    }

    /// The index of a class. Takes time in proportion to the number of classes.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.names.iter().position(|known| known == name).map(|index| index as u32)
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
