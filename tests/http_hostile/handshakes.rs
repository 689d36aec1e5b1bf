//! A flood of TLS handshakes.

use std::cell::RefCell;
use std::sync::Arc;

use gryt_sfu::config::TlsFiles;
use gryt_sfu::http::{Limits, Tls};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::certificate::Folder;

/// Trusts this certificate alone.
fn connector(certified: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certified).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn secure(connector: &TlsConnector, stream: TcpStream) -> TlsStream<TcpStream> {
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

#[test]
fn a_flood_of_tls_handshakes_is_paced_and_keeps_out_nobody_from_elsewhere() {
    const AT_ONCE: u32 = 10;
    const PER_SECOND: u32 = 20;
    let folder = Folder::new();
    let certified = folder.certify();
    let files = TlsFiles { certificate: folder.path("cert.pem").into(), key: folder.path("key.pem").into() };
    let policy = Policy { tls: Some(Rc::new(Tls::load(&files).unwrap())), ..Policy::default() };
    let window = Duration::from_secs(1) * AT_ONCE / PER_SECOND;
    let handshakes = Rate { requests: NonZeroU32::new(AT_ONCE).unwrap(), window };
    let limits = Limits { handshakes, header_timeout: Duration::from_secs(20), ..short() };
    with_policy(Duration::from_secs(30), limits, policy, |door| async move {
        let connector = connector(certified.der());
        let flood = Rc::new(RefCell::new(Vec::new()));
        let begun = Instant::now();
        for _ in 0..100 {
            let (connector, flood) = (connector.clone(), Rc::clone(&flood));
            let stream = door.connect_from([127, 0, 0, 2]).await.stream;
            spawn_local(async move {
                let stream = secure(&connector, stream).await;
                flood.borrow_mut().push(stream);
            });
        }
        let stream = door.connect_from([127, 0, 0, 1]).await.stream;
        let mut other = timeout(STEP_MAX, secure(&connector, stream)).await.expect("a turn");
        assert!(flood.borrow().len() < 60, "he waited for {}", flood.borrow().len());
        other.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = [0; 13];
        timeout(STEP_MAX, other.read_exact(&mut answer)).await.expect("an answer").unwrap();
        assert_eq!(answer, *b"HTTP/1.1 200 ");

        tokio::time::sleep_until(begun + Duration::from_secs(1)).await;
        let count = flood.borrow().len();
        let most = f64::from(AT_ONCE) + begun.elapsed().as_secs_f64() * f64::from(PER_SECOND);
        assert!(count as f64 <= most, "{count} in {:?}", begun.elapsed());
        assert!(count >= AT_ONCE as usize, "{count} in {:?}", begun.elapsed());
        // All have their turn in the end.
        door.until("the others' turn", |_| flood.borrow().len() == 100).await;
        assert_eq!(door.app.counters().tls_failed, 0);
    });
}
