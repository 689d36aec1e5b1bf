//! What the processor has.

/// Proof that the processor has AES, VAES, PCLMULQDQ, VPCLMULQDQ and AVX2, and the kernel keeps its wide registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vaes(());

impl Vaes {
    /// Asks the processor, or rather what it answered the first time.
    pub fn detect() -> Option<Vaes> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("vpclmulqdq");
        has_all.then_some(Vaes(()))
    }
}
