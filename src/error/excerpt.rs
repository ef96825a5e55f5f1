//! Texts that the other side has a part in.

use std::fmt;

/// Whether a character changes how the text around it looks: control characters, those that cannot be seen, and those
/// that turn the direction of writing.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text that the other side has a part in, such as an error that quotes what it has sent: without characters that
/// deceive, and no longer than people read.
pub(crate) fn excerpt(reason: impl fmt::Display) -> String {
    struct Excerpt(String);

    impl fmt::Write for Excerpt {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                if self.0.len() > 1000 {
                    return Err(fmt::Error);
                }
                if is_deceptive(character) {
                    self.0.extend(character.escape_default());
                } else {
                    self.0.push(character);
                }
            }
            Ok(())
        }
    }

    let mut excerpt = Excerpt(String::new());
    if fmt::write(&mut excerpt, format_args!("{reason}")).is_err() {
        excerpt.0.push_str(" [...]");
    }
    excerpt.0
}
