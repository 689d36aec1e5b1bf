//! Floods of TLS handshakes.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::Arc;

use gryt_sfu::config::TlsFiles;
use gryt_sfu::http::{Certificate, Limits, Tls};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::folder::Folder;

/// Trusts this certificate alone.
fn config(certified: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certified).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Limits with so many handshakes at once and in a second, and a front door with a certificate.
fn paced(folder: &Folder, at_once: u32, per_second: u32) -> (Limits, Policy) {
    let files = TlsFiles { certificate: folder.path("cert.pem").into(), key: folder.path("key.pem").into() };
    let policy =
        Policy { tls: Some(Rc::new(Tls::new(Certificate::read(&files).unwrap()))), ..Policy::default() };
    let window = Duration::from_secs(1) * at_once / per_second;
    let handshakes = Rate { requests: NonZeroU32::new(at_once).unwrap(), window };
    (Limits { handshakes, header_timeout: Duration::from_secs(20), ..short() }, policy)
}

/// A request of somebody from whom an answer takes `delay`; whether it was answered.
async fn from_afar(config: &Arc<ClientConfig>, mut stream: TcpStream, delay: Duration) -> bool {
    let mut tls = client(config);
    // The hello comes along with the connection.
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    stream.write_all(&hello).await.unwrap();
    while tls.is_handshaking() || tls.wants_write() {
        let mut bytes = Vec::new();
        if tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
            tokio::time::sleep(delay).await;
            if stream.write_all(&bytes).await.is_err() {
                return false;
            }
            continue;
        }
        match stream.read_buf(&mut bytes).await {
            Ok(len) if len > 0 => {
                assert_eq!(tls.read_tls(&mut &bytes[..]).unwrap(), bytes.len());
                tls.process_new_packets().unwrap();
            }
            _ => return false,
        }
    }
    let mut request = Vec::new();
    tls.writer().write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    tls.write_tls(&mut request).unwrap();
    if stream.write_all(&request).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    loop {
        let mut bytes = Vec::new();
        if !matches!(stream.read_buf(&mut bytes).await, Ok(len) if len > 0) {
            return false;
        }
        assert_eq!(tls.read_tls(&mut &bytes[..]).unwrap(), bytes.len());
        tls.process_new_packets().unwrap();
        let _ = tls.reader().read_to_end(&mut answer); // There is no more for now.
        if answer.starts_with(b"HTTP/1.1 200") {
            return true;
        }
    }
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
    let (limits, policy) = paced(&folder, AT_ONCE, PER_SECOND);
    with_policy(Duration::from_secs(30), limits, policy, |door| async move {
        let connector = TlsConnector::from(config(certified.der()));
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
        let stream = door.connect_from([127, 0, 0, 3]).await.stream;
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

#[test]
fn whose_turn_it_is_is_not_ended_by_those_who_come_after() {
    let folder = Folder::new();
    let certified = folder.certify();
    let (limits, policy) = paced(&folder, 20, 20);
    let limits = Limits { requests_max: 20, ..limits };
    with_policy(Duration::from_secs(60), limits, policy, |door| async move {
        let config = config(certified.der());
        // Ever more addresses say hello, three times as many as have a turn, and wait.
        let (mut hello, to) = (Vec::new(), door.address);
        client(&config).write_tls(&mut hello).unwrap();
        spawn_local(async move {
            let mut beat = tokio::time::interval(Duration::from_secs(1) / 60);
            let mut silent = Vec::new();
            for number in 0_u16.. {
                beat.tick().await;
                let [high, low] = number.to_be_bytes();
                let mut client = connect_from([127, 1, high, low], to).await;
                let _ = client.stream.write_all(&hello).await; // It may be over again.
                silent.push(client);
            }
        });
        door.until("a full house", |door| door.app.counters().connections_accepted >= 60).await;
        // One in three has a turn before he is the oldest.
        let mut tries = 0;
        loop {
            tries += 1;
            // Never in step with the turns.
            tokio::time::sleep(Duration::from_millis(7 * tries % 50)).await;
            let stream = door.connect_from([127, 2, 0, 1]).await.stream;
            if from_afar(&config, stream, Duration::from_millis(60)).await {
                break;
            }
            assert!(tries < 40, "nobody comes in");
        }
    });
}

#[test]
fn this_machine_does_not_wait_for_strangers() {
    let folder = Folder::new();
    let certified = folder.certify();
    let (limits, policy) = paced(&folder, 1, 1);
    with_policy(Duration::from_secs(30), limits, policy, |door| async move {
        let config = config(certified.der());
        let mut hello = Vec::new();
        client(&config).write_tls(&mut hello).unwrap();
        let mut waiting = Vec::new();
        for low in 0..10 {
            let mut client = door.connect_from([127, 1, 0, low]).await;
            client.write(&hello).await;
            waiting.push(client);
        }
        let port = door.address.port();
        let probe = tokio::task::spawn_blocking(move || gryt_sfu::http::probe(port, true));
        probe.await.unwrap().unwrap();
        assert_eq!(door.app.counters().tls_failed, 0);
    });
}
