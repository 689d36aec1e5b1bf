//! What the processor has.

/// Proof that the processor has VAES, VPCLMULQDQ, AVX2 and SHA, with what they rest on, and that the kernel keeps the
/// wide registers. Whichever has the first has the others, unless it is hidden from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vaes(());

impl Vaes {
    /// Asks the processor, or rather what it answered the first time.
    pub fn detect() -> Option<Vaes> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("sha");
        has_all.then_some(Vaes(()))
    }
}
