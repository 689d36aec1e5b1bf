//! TLS at the front door: certificate and key, and how they change while the server runs.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroizing;

use super::validity::Validity;
use crate::config::{Limits, TlsFiles};

/// Why there is no TLS with these files. Names the variable and the path.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be used.
    #[error("{variable}={path:?} is not accepted: {fault}")]
    File {
        /// `TLS_CERT` or `TLS_KEY`.
        variable: &'static str,
        /// Its value.
        path: String,
        /// What is wrong.
        fault: String,
    },
    /// Each may be right, but not with the other.
    #[error("TLS_CERT={0:?} is not accepted with TLS_KEY={1:?}: the key is another certificate's")]
    Strangers(String, String),
    /// The crypto library and we disagree.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// A chain with its key, as a connection needs them.
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
}

/// What new connections are answered with.
pub struct Tls(RefCell<Certificate>);

impl Tls {
    /// Answers with this one.
    pub fn new(certificate: Certificate) -> Tls {
        Tls(RefCell::new(certificate))
    }

    /// Takes this one, for connections from now on. Whether it is another one.
    pub fn renew(&self, certificate: Certificate) -> bool {
        let before = self.0.replace(certificate);
        before.chain != self.0.borrow().chain
    }

    /// What an operator has to do so many seconds after 1970 began, if anything: the certificate ends soon, has
    /// ended, or has not begun.
    pub fn warning(&self, unix_seconds: u32) -> Option<String> {
        self.0.borrow().validity?.warning(unix_seconds.into())
    }

    /// When the certificate ends, in seconds since 1970.
    pub(super) fn expires_at(&self) -> Option<i64> {
        self.0.borrow().validity.map(|validity| validity.not_after)
    }

    /// For a connection from now on.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow().config)
    }
}

/// The one that the DTLS library brings along: with a second one it would not know which to take.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Certificate {
    /// Reads the files: may wait for their disk.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn read(files: &TlsFiles) -> Result<Certificate, TlsError> {
        let provider = provider();
        let no_certificate = |fault: String| fault_of("TLS_CERT", &files.certificate, fault);
        let no_key = |fault: String| fault_of("TLS_KEY", &files.key, fault);

        let text = bytes_of(&files.certificate).map_err(no_certificate)?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| no_certificate(pem_fault(&error, "certificate")))?;
        if chain.is_empty() {
            return Err(no_certificate(pem_fault(&pem::Error::NoItemsFound, "certificate")));
        }
        let text = Zeroizing::new(bytes_of(&files.key).map_err(no_key)?);
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|error| no_key(pem_fault(&error, "private key without a passphrase")))?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| no_key(error.to_string()))?;

        let validity = chain.first().and_then(Validity::of);
        let certified = CertifiedKey::new(chain.clone(), key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let shown = |path: &Path| path.display().to_string();
                return Err(TlsError::Strangers(shown(&files.certificate), shown(&files.key)));
            }
            Err(error) => return Err(no_certificate(error.to_string())),
        }
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Certificate { chain, config: Arc::new(config), validity })
    }
}

/// The whole file. Waits for nobody to write it: only what is a file is opened.
fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no file".to_owned());
    }
    if about.len() > Limits::PEM_LEN_MAX {
        return Err(format!("it is larger than {} KiB", Limits::PEM_LEN_MAX / 1024));
    }
    fs::read(path).map_err(|error| error.to_string())
}

fn pem_fault(error: &pem::Error, what: &str) -> String {
    // In our own words: the library's quote the file, which may be the key.
    match error {
        pem::Error::NoItemsFound => format!("it holds no {what} in PEM form"),
        pem::Error::MissingSectionEnd { .. } => "a section of it has no end".to_owned(),
        _ => "it is no proper PEM".to_owned(),
    }
}

fn fault_of(variable: &'static str, path: &Path, fault: String) -> TlsError {
    TlsError::File { variable, path: path.display().to_string(), fault }
}
