//! The DTLS endpoint against str0m's client, which offers DTLS 1.3 first as browsers do.

mod dtls_support;

use std::rc::Rc;

use bytes::Bytes;
use dtls_support::*;
use gryt_sfu::dtls::endpoint::{Acceptor, Endpoint, Error, Output};
use gryt_sfu::dtls::identity::fingerprint_of;
use gryt_sfu::dtls::keying::{KeyingMaterial, SrtpProfile};
use str0m::config::DtlsVersion;
use str0m::crypto::dtls::{DtlsInstance, DtlsOutput};
use str0m::crypto::from_feature_flags;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

/// What a client learned.
#[derive(Default)]
struct Client {
    server_certificate: Vec<u8>,
    material: Vec<u8>,
    hello_count: usize,
    is_connected: bool,
}

/// Runs a client against an endpoint until both have keys, or the endpoint failed.
async fn run(acceptor: &Rc<Acceptor>, version: DtlsVersion) -> (Client, Result<KeyingMaterial, Error>) {
    let provider = from_feature_flags().dtls_provider;
    let certificate = provider.generate_certificate().unwrap();
    let (sender, mut outputs) = mpsc::unbounded_channel();
    let fingerprint = fingerprint_of(&certificate.certificate);
    let mut endpoint = Endpoint::new(acceptor, fingerprint, move |output| sender.send(output).unwrap());
    let now = tokio::time::Instant::now().into_std();
    let mut dtls = provider.new_dtls(&certificate, now, version, None).unwrap();
    dtls.set_active(true);
    dtls.handle_timeout(now).unwrap();
    let mut client = Client::default();
    let mut news = None;
    loop {
        let wake = drain(&mut *dtls, &mut client, &mut endpoint);
        if let Some(Ok(_)) = &news
            && client.is_connected
            && !client.material.is_empty()
        {
            return (client, news.unwrap());
        }
        tokio::select! {
            output = outputs.recv() => match output.unwrap() {
                Output::Datagram(datagram) => dtls.handle_packet(&datagram).unwrap_or_default(),
                Output::Established(keys) => news = Some(Ok(*keys)),
                Output::Failed(error) => return (client, Err(error)),
            },
            () = sleep_until(wake.into()) => {
                dtls.handle_timeout(tokio::time::Instant::now().into_std()).unwrap_or_default();
            }
        }
    }
}

/// Sends what the client has to say; returns when it wants to be woken.
fn drain(dtls: &mut dyn DtlsInstance, client: &mut Client, endpoint: &mut Endpoint) -> std::time::Instant {
    let mut buffer = vec![0; 4096];
    loop {
        match dtls.poll_output(&mut buffer) {
            DtlsOutput::Packet(datagram) => {
                // A handshake record with a ClientHello.
                client.hello_count += usize::from(datagram[0] == 22 && datagram[13] == 1);
                endpoint.handle_datagram(Bytes::copy_from_slice(datagram));
            }
            DtlsOutput::Timeout(wake) => return wake,
            DtlsOutput::Connected => client.is_connected = true,
            DtlsOutput::PeerCert(der) => client.server_certificate = der.to_vec(),
            DtlsOutput::KeyingMaterial(material, _) => client.material = material.to_vec(),
            _ => {}
        }
    }
}

#[test]
fn version_1_2_and_1_3_with_1_2() {
    local(async {
        let acceptor = acceptor();
        for version in [DtlsVersion::Dtls12, DtlsVersion::Auto] {
            let (client, keys) = timeout(PATIENCE, run(&acceptor, version)).await.unwrap();
            let keys = keys.unwrap();
            assert_eq!(keys.profile, SrtpProfile::AeadAes128Gcm);
            assert_eq!(client.material, material_of(&keys), "{version:?}");
            assert_eq!(fingerprint_of(&client.server_certificate), acceptor.identity().fingerprint());
            assert!(client.hello_count >= 2, "the cookie was asked for");
        }
    });
}

#[test]
fn version_1_3_alone_is_refused() {
    local(async {
        let (_, keys) = timeout(PATIENCE, run(&acceptor(), DtlsVersion::Dtls13)).await.unwrap();
        assert_eq!(keys.err(), Some(Error::Version));
    });
}
