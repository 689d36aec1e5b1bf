//! What other processors have of all this: the names.

use super::Forged;

/// Proof of what there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vaes {}

impl Vaes {
    /// There is none.
    pub fn detect() -> Option<Vaes> {
        None
    }
}

/// One key, expanded, where that can be.
pub struct Gcm(Vaes);

impl Gcm {
    /// Nobody can call this.
    pub fn new(vaes: Vaes, _: &[u8]) -> Gcm {
        match vaes {}
    }

    /// Nobody can call this.
    pub fn vaes(&self) -> Vaes {
        self.0
    }

    /// Nobody can call this.
    pub fn seal(&self, _: [u8; 12], _: &[u8], _: &[u8], _: &mut [u8]) {
        match self.0 {}
    }

    /// Nobody can call this.
    ///
    /// # Errors
    /// None.
    pub fn open(&self, _: [u8; 12], _: &[u8], _: &mut [u8]) -> Result<(), Forged> {
        match self.0 {}
    }
}
