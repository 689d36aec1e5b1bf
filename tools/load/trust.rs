//! Whose certificate is taken, where the server speaks TLS.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Who vouches for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust<'a> {
    /// Whom this machine trusts.
    Machine,
    /// Those in a PEM file.
    File(&'a Path),
    /// Nobody has to.
    Anybody,
}

impl Trust<'_> {
    /// How connections are made.
    ///
    /// # Errors
    /// When nobody is left to trust.
    pub(crate) fn client(self) -> Result<Arc<ClientConfig>> {
        // Named, for there may be only one that names itself: the DTLS library asks for that one.
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("TLS has no version to speak")?;
        let roots = match self {
            Trust::Machine => machine()?,
            Trust::File(path) => file(path).with_context(|| path.display().to_string())?,
            Trust::Anybody => {
                let anybody = Arc::new(Anybody(provider));
                let config = config.dangerous().with_custom_certificate_verifier(anybody);
                return Ok(Arc::new(config.with_no_client_auth()));
            }
        };
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn machine() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // What of the machine's store cannot be read is nobody to trust.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(added > 0, "this machine trusts nobody (Debian: ca-certificates); --ca names whom to trust");
    Ok(roots)
}

fn file(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "it holds no certificate");
    Ok(roots)
}

/// Takes every certificate, and still asks for the proof of its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
