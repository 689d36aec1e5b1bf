//! Our certificate: self-signed, ECDSA P-256 (RFC 8827 §6.5), fresh at every start.

use sha2::{Digest, Sha256};
use webrtc_dtls::crypto::Certificate;

use crate::ids::Fingerprint;

/// The certificate of this process with its private key. Never written anywhere.
pub struct Identity {
    certificate: Certificate,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Makes a key and a certificate.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Identity, webrtc_dtls::Error> {
        let certificate = Certificate::generate_self_signed(vec!["sfu".to_owned()])?;
        let der = certificate.certificate.first().ok_or(webrtc_dtls::Error::ErrNoCertificates)?;
        let fingerprint = fingerprint_of(der);
        Ok(Identity { certificate, fingerprint })
    }

    /// What our SDP says in `a=fingerprint:sha-256`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn certificate(&self) -> Certificate {
        self.certificate.clone()
    }
}

/// SHA-256 of a certificate in DER (RFC 8122 §5).
pub fn fingerprint_of(der: &[u8]) -> Fingerprint {
    Fingerprint(Sha256::digest(der).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_another_key() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        assert_ne!(one.fingerprint(), other.fingerprint());
        assert_eq!(one.fingerprint(), fingerprint_of(&one.certificate().certificate[0]));
    }
}
