//! Protocol buffers, as far as writing them goes.

/// The type of a field as it is written.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// The bytes of a message, to which fields are added in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn varint(mut self, field: u64, value: u64) -> Self {
        self.key(field, VARINT);
        self.number(value);
        self
    }

    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, FIXED64);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, LENGTH);
        self.number(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub fn string(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.number(field << 3 | kind);
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own description (protobuf.dev/programming-guides/encoding).
    #[test]
    fn fields_are_written_as_the_format_says() {
        assert_eq!(Message::default().varint(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().string(2, "testing").as_bytes(), b"\x12\x07testing");
        let inner = Message::default().varint(1, 150);
        assert_eq!(Message::default().message(3, inner).as_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }
}
