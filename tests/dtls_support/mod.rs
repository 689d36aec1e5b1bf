//! An endpoint behind a UDP socket on loopback, and clients for it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its share")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gryt_sfu::dtls::endpoint::{Acceptor, Endpoint, Error, Output};
use gryt_sfu::dtls::identity::{Identity, fingerprint_of};
use gryt_sfu::dtls::keying::{KeyingMaterial, SrtpProfile};
use gryt_sfu::ids::Fingerprint;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;
use webrtc_dtls::config::{Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::Certificate;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util::{Conn, KeyingMaterialExporter};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the network does to datagrams: returns those that arrive, in order.
pub type Weather = Box<dyn FnMut(Bytes) -> Vec<Bytes>>;

pub fn fair() -> Weather {
    Box::new(|datagram| vec![datagram])
}

/// Every second datagram overtakes the one before.
pub fn swapped() -> Weather {
    let mut held = None;
    Box::new(move |datagram| match held.take() {
        Some(before) => vec![datagram, before],
        None => {
            held = Some(datagram);
            vec![]
        }
    })
}

/// Loses each of the first `count` datagrams once.
pub fn losing(count: usize) -> Weather {
    let mut seen = 0;
    Box::new(move |datagram| {
        seen += 1;
        // Every second one, so that what is sent again gets through.
        if seen <= 2 * count && seen % 2 == 1 { vec![] } else { vec![datagram] }
    })
}

/// An endpoint behind a UDP socket.
pub struct Server {
    pub address: SocketAddr,
    pub news: mpsc::UnboundedReceiver<Result<KeyingMaterial, Error>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(
        acceptor: &Rc<Acceptor>,
        peer: Fingerprint,
        mut inbound: Weather,
        outbound: Weather,
    ) -> Server {
        let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let (news_tx, news) = mpsc::unbounded_channel();
        let client = Rc::new(RefCell::new(None));
        let sender = (Rc::clone(&socket), Rc::clone(&client), RefCell::new(outbound));
        let mut endpoint = Endpoint::new(acceptor, peer, move |output| match output {
            Output::Datagram(datagram) => {
                let (socket, client, outbound) = &sender;
                for datagram in (outbound.borrow_mut())(datagram) {
                    socket.try_send_to(&datagram, client.borrow().unwrap()).unwrap();
                }
            }
            Output::Established(keys) => news_tx.send(Ok(*keys)).unwrap_or_default(),
            Output::Failed(error) => news_tx.send(Err(error)).unwrap_or_default(),
        });
        let task = spawn_local(async move {
            let mut buffer = [0; 2048];
            // A client that is gone is an error of the next receive.
            loop {
                let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
                *client.borrow_mut() = Some(from);
                for datagram in inbound(Bytes::copy_from_slice(&buffer[..len])) {
                    endpoint.handle_datagram(datagram);
                }
            }
        });
        Server { address, news, task }
    }

    pub async fn news(&mut self) -> Result<KeyingMaterial, Error> {
        timeout(PATIENCE, self.news.recv()).await.expect("no news in time").expect("the endpoint is gone")
    }
}

pub fn acceptor() -> Rc<Acceptor> {
    Acceptor::new(Identity::generate().unwrap())
}

pub fn certificate() -> (Certificate, Fingerprint) {
    let certificate = Certificate::generate_self_signed(vec!["peer".to_owned()]).unwrap();
    let fingerprint = fingerprint_of(&certificate.certificate[0]);
    (certificate, fingerprint)
}

pub fn client_config(certificate: Certificate, profiles: &[SrtpProfile]) -> Config {
    Config {
        certificates: vec![certificate],
        srtp_protection_profiles: profiles
            .iter()
            .map(|&profile| SrtpProtectionProfile::from(profile))
            .collect(),
        extended_master_secret: ExtendedMasterSecretType::Require,
        insecure_skip_verify: true,
        flight_interval: Duration::from_millis(300),
        ..Config::default()
    }
}

pub async fn connect(server: SocketAddr, config: Config) -> Result<DTLSConn, webrtc_dtls::Error> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let conn: Arc<dyn Conn + Send + Sync> = Arc::new(socket);
    timeout(PATIENCE, DTLSConn::new(conn, config, true, None)).await.expect("the client got nowhere in time")
}

pub fn material_of(keys: &KeyingMaterial) -> Vec<u8> {
    [&**keys.client.key, &**keys.server.key, &**keys.client.salt, &**keys.server.salt].concat()
}

pub async fn assert_same_keys(client: &DTLSConn, keys: &KeyingMaterial) {
    let ours = material_of(keys);
    let state = client.connection_state().await;
    let theirs = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], ours.len()).await.unwrap();
    assert_eq!(ours, theirs);
}

pub fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

impl Server {
    /// Both sides succeed and agree.
    pub async fn news_of(
        &mut self,
        client: impl Future<Output = Result<DTLSConn, webrtc_dtls::Error>>,
    ) -> KeyingMaterial {
        let client = client.await.unwrap();
        let keys = self.news().await.unwrap();
        assert_same_keys(&client, &keys).await;
        keys
    }
}

/// What a client sends first.
pub async fn first_datagram(config: Config) -> Bytes {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::spawn(connect(server.local_addr().unwrap(), config));
    let mut buffer = [0; 2048];
    let len = server.recv(&mut buffer).await.unwrap();
    client.abort();
    Bytes::copy_from_slice(&buffer[..len])
}

/// An endpoint without a network.
pub fn bare_endpoint(
    acceptor: &Rc<Acceptor>,
    peer: Fingerprint,
) -> (Endpoint, mpsc::UnboundedReceiver<Output>) {
    let (sender, outputs) = mpsc::unbounded_channel();
    let endpoint = Endpoint::new(acceptor, peer, move |output| sender.send(output).unwrap_or_default());
    (endpoint, outputs)
}

/// Small, seeded and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}
