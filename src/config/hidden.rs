//! Values that are nobody's business.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text. Its `Debug` does not show it, its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// Keeps a text.
    pub fn new(text: &str) -> Hidden {
        Hidden(Zeroizing::new(text.to_owned()))
    }

    /// The text, for whoever must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
