//! Numbers that JSON has no form for: NaN and infinities as text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Finite(f64),
    Text(String),
}

pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let form = if value.is_finite() { Form::Finite(*value) } else { Form::Text(value.to_string()) };
    form.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match Form::deserialize(deserializer)? {
        Form::Finite(value) => Ok(value),
        Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}
