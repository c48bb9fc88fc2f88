//! What every page of this program needs: text that cannot become markup, and pictures that are part of the page.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Text as HTML shows it, in an element or in a quoted attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The bytes of a PNG file as the address of a picture.
pub fn png_address(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_captions_cannot_write_html() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn a_picture_is_in_its_own_address() {
        assert_eq!(png_address(b"fooba"), "data:image/png;base64,Zm9vYmE=");
    }
}
