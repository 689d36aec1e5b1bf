//! `sfu --health`: asks the server on this machine whether it is alive. For container images that hold no
//! shell and no HTTP client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::tls::provider;

/// For each of connecting, asking and reading: a live server answers within milliseconds, and who calls this
/// has a time-out of seconds.
const STEP_MAX: Duration = Duration::from_secs(1);

/// What of an answer counts: `HTTP/1.1 200` (RFC 9112 §4).
const STATUS_LEN: usize = 12;

/// Why the server does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The port is chosen anew at each start.
    #[error("PORT=0 does not say where the server listens")]
    AnyPort,
    /// Nobody listens, or nobody answers.
    #[error("no answer on TCP port {0}: {1}")]
    Silent(u16, io::Error),
    /// An answer other than 200.
    #[error("the answer on TCP port {0} is {1:?}, not HTTP/1.1 200")]
    Unwell(u16, String),
}

/// `GET /health` on loopback, over IPv4 and else over IPv6; with TLS where the server speaks it.
///
/// # Errors
/// Anything but an answer with status 200, within seconds.
pub fn probe(port: u16, is_tls: bool) -> Result<(), ProbeError> {
    if port == 0 {
        return Err(ProbeError::AnyPort);
    }
    let v4 = (Ipv4Addr::LOCALHOST, port).into();
    let status = status_of(v4, is_tls).or_else(|error| match error.kind() {
        // A server without IPv4; any other fault is the server's own.
        io::ErrorKind::ConnectionRefused => {
            status_of((Ipv6Addr::LOCALHOST, port).into(), is_tls).map_err(|_| error)
        }
        _ => Err(error),
    });
    match status {
        Ok(status) if status == *b"HTTP/1.1 200" => Ok(()),
        Ok(status) => Err(ProbeError::Unwell(port, String::from_utf8_lossy(&status).into_owned())),
        Err(error) => Err(ProbeError::Silent(port, error)),
    }
}

fn status_of(server: SocketAddr, is_tls: bool) -> io::Result<[u8; STATUS_LEN]> {
    let mut stream = TcpStream::connect_timeout(&server, STEP_MAX)?;
    stream.set_read_timeout(Some(STEP_MAX))?;
    stream.set_write_timeout(Some(STEP_MAX))?;
    if is_tls {
        let mut session = session().map_err(io::Error::other)?;
        ask(rustls::Stream::new(&mut session, &mut stream))
    } else {
        ask(stream)
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<[u8; STATUS_LEN]> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; STATUS_LEN];
    stream.read_exact(&mut status)?;
    Ok(status)
}

fn session() -> Result<ClientConnection, rustls::Error> {
    let provider = provider();
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST));
    ClientConnection::new(Arc::new(config), name)
}

/// Takes whatever certificate comes. It is for the server's public name, not for loopback, and may well have
/// expired, which is no reason to start the server anew; nothing secret is sent, and nobody stands between.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
