//! The DTLS endpoint against OpenSSL's client. Needs Debian's `openssl`.

mod dtls_support;

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use dtls_support::*;
use gryt_sfu::dtls::endpoint::Error;
use gryt_sfu::dtls::identity::fingerprint_of;
use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ids::Fingerprint;
use tokio::time::timeout;

/// A directory with a certificate in it.
struct Peer {
    directory: PathBuf,
    fingerprint: Fingerprint,
}

impl Peer {
    /// With a key of this kind, as `openssl req` names it.
    fn new(name: &str, key: &[&str]) -> Peer {
        let directory = std::env::temp_dir().join(format!("sfu-dtls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).current_dir(&directory).output();
            let output = output.expect("openssl (Debian's `openssl`) runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let request = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=peer", "-keyout", "key.pem"];
        openssl(&[&request[..], &["-out", "certificate.pem"], key].concat());
        let der = openssl(&["x509", "-in", "certificate.pem", "-outform", "DER"]);
        Peer { fingerprint: fingerprint_of(&der), directory }
    }

    fn ecdsa(name: &str) -> Peer {
        Peer::new(name, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
    }

    /// Starts a client with its certificate.
    fn connect(&self, server: &Server, arguments: &[&str]) -> Client {
        self.connect_bare(server, &[&["-cert", "certificate.pem", "-key", "key.pem"], arguments].concat())
    }

    fn connect_bare(&self, server: &Server, arguments: &[&str]) -> Client {
        let child = Command::new("openssl")
            .args(["s_client", "-timeout", "-connect", &server.address.to_string()])
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Client(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A running client; it ends with its owner.
struct Client(Child);

impl Client {
    /// The keying material that it printed, once it has.
    async fn material(&mut self) -> Vec<u8> {
        let mut stdout = self.0.stdout.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let len = stdout.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..len]);
                let text = String::from_utf8_lossy(&text).into_owned();
                let line = text.split_once("Keying material: ").and_then(|(_, rest)| rest.split_once('\n'));
                if len == 0 || line.is_some() {
                    return line.map(|(line, _)| line.trim().to_owned());
                }
            }
        });
        let hex = timeout(PATIENCE, read).await.expect("no keys in time").unwrap().expect("no keys");
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const EXPORT: [&str; 3] = ["-keymatexport", "EXTRACTOR-dtls_srtp", "-keymatexportlen"];

async fn assert_connects(
    peer: &Peer,
    weather: [Weather; 2],
    profiles: &str,
    expected: SrtpProfile,
    more: &[&str],
) {
    let [inbound, outbound] = weather;
    let mut server = Server::start(&acceptor(), peer.fingerprint, inbound, outbound).await;
    let len = (2 * (expected.key_len() + expected.salt_len())).to_string();
    let arguments = [&["-dtls1_2", "-use_srtp", profiles], &EXPORT[..], &[&len], more].concat();
    let mut client = peer.connect(&server, &arguments);
    let keys = server.news().await.unwrap();
    assert_eq!(keys.profile, expected, "of {profiles}");
    assert_eq!(client.material().await, material_of(&keys));
}

#[test]
fn every_profile_and_our_preference() {
    use SrtpProfile::{AeadAes128Gcm as G128, AeadAes256Gcm as G256, AesCm128HmacSha1_80 as CM};
    let peer = Peer::ecdsa("profiles");
    local(async {
        for (profiles, expected) in [
            ("SRTP_AEAD_AES_128_GCM", G128),
            ("SRTP_AEAD_AES_256_GCM", G256),
            ("SRTP_AES128_CM_SHA1_80", CM),
            (
                "SRTP_AES128_CM_SHA1_32:SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM",
                G128,
            ),
        ] {
            assert_connects(&peer, [fair(), fair()], profiles, expected, &[]).await;
        }
    });
}

#[test]
fn messages_in_pieces_and_losses() {
    let peer = Peer::ecdsa("pieces");
    local(async {
        let profile = SrtpProfile::AeadAes128Gcm;
        for weather in [[fair(), fair()], [swapped(), fair()], [losing(2), fair()], [fair(), losing(4)]] {
            assert_connects(&peer, weather, "SRTP_AEAD_AES_128_GCM", profile, &["-mtu", "256"]).await;
        }
        // The first is used for the exchange; OpenSSL wants the curve of our certificate among them.
        for groups in ["P-256", "P-384:P-256", "X25519:P-256"] {
            let more = ["-groups", groups];
            assert_connects(&peer, [fair(), fair()], "SRTP_AEAD_AES_128_GCM", profile, &more).await;
        }
    });
}

#[test]
fn an_rsa_certificate() {
    let peer = Peer::new("rsa", &["-newkey", "rsa:2048"]);
    let profile = SrtpProfile::AeadAes128Gcm;
    local(assert_connects(&peer, [fair(), fair()], "SRTP_AEAD_AES_128_GCM", profile, &[]));
}

#[test]
fn what_is_refused() {
    let peer = Peer::ecdsa("refused");
    let stranger = Peer::ecdsa("stranger");
    local(async {
        let acceptor = acceptor();
        let srtp = ["-dtls1_2", "-use_srtp", "SRTP_AEAD_AES_128_GCM"];
        let cases: [(&Peer, &[&str], Error); 5] = [
            (&stranger, &srtp, Error::FingerprintMismatch),
            (&peer, &["-dtls1_2"], Error::NoUseSrtp),
            (&peer, &["-dtls1_2", "-use_srtp", "SRTP_AES128_CM_SHA1_32"], Error::NoCommonProfile),
            (
                &peer,
                &[&srtp[..], &["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]].concat(),
                Error::NoCommonCipherSuite,
            ),
            (
                &peer,
                &["-dtls1", "-cipher", "DEFAULT@SECLEVEL=0", "-use_srtp", "SRTP_AES128_CM_SHA1_80"],
                Error::Version,
            ),
        ];
        for (from, arguments, expected) in cases {
            let mut server = Server::start(&acceptor, peer.fingerprint, fair(), fair()).await;
            let _client = from.connect(&server, arguments);
            assert_eq!(server.news().await.err(), Some(expected));
        }
        let mut server = Server::start(&acceptor, peer.fingerprint, fair(), fair()).await;
        let _client = peer.connect_bare(&server, &srtp);
        assert_eq!(server.news().await.err(), Some(Error::NoCertificate));
    });
}
