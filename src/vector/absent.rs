//! What other processors have of all this: the names. Nobody can make a [`Vaes`] there, and so nothing else.

use super::Forged;

/// Proof of what there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vaes(Nobody);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nobody {}

impl Vaes {
    /// There is none.
    pub fn detect() -> Option<Vaes> {
        None
    }
}

/// One key of AES-GCM.
pub struct Gcm(Vaes);

impl Gcm {
    /// Nobody can call this.
    pub fn new(vaes: Vaes, _: &[u8]) -> Box<Gcm> {
        match vaes.0 {}
    }

    /// Nobody can call this.
    pub fn vaes(&self) -> Vaes {
        self.0
    }

    /// Nobody can call this.
    pub fn fetch(&self) {
        match self.0.0 {}
    }

    /// Nobody can call this.
    pub fn seal(&self, _: u128, _: &[u8], _: &[u8], _: &mut [u8]) {
        match self.0.0 {}
    }

    /// Nobody can call this.
    ///
    /// # Errors
    /// None.
    pub fn open(&self, _: u128, _: &[u8], _: &mut [u8]) -> Result<(), Forged> {
        match self.0.0 {}
    }
}

/// One key of AES in counter mode.
pub struct Ctr(Vaes);

impl Ctr {
    /// Nobody can call this.
    pub fn new(vaes: Vaes, _: &[u8]) -> Ctr {
        match vaes.0 {}
    }

    /// Nobody can call this.
    pub fn vaes(&self) -> Vaes {
        self.0
    }

    /// Nobody can call this.
    pub fn apply(&self, _: u128, _: &[u8], _: &mut [u8]) {
        match self.0.0 {}
    }

    /// Nobody can call this.
    pub fn apply_in_place(&self, _: u128, _: &mut [u8]) {
        match self.0.0 {}
    }
}

/// One key of HMAC-SHA1.
pub struct HmacSha1(Vaes);

impl HmacSha1 {
    /// Nobody can call this.
    pub fn new(vaes: Vaes, _: &[u8]) -> HmacSha1 {
        match vaes.0 {}
    }

    /// Nobody can call this.
    pub fn digest(&self, _: &[u8], _: &[u8]) -> [u8; 20] {
        match self.0.0 {}
    }
}

/// Does nothing.
pub fn fetch<T>(_: &T) {}
/// Does nothing.
pub fn fetch_start_behind<T>(_: &T, _: isize) {}
