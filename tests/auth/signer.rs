//! Keys and tokens from Python and openssl.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::folder::Folder;
use crate::support::{Client, Options, Server};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/auth/sign.py");

/// Of exactly the length that is needed.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What signs.
pub(crate) enum Signer {
    Secret(String),
    /// Algorithm, and the folder with the private key.
    Key(&'static str, Folder),
}

/// Seconds since 1970, so many from now.
#[expect(clippy::disallowed_methods, reason = "tokens speak of the wall clock")]
pub(crate) fn unix_time(from_now: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    now.as_secs() as i64 + from_now
}

/// Good for an hour.
pub(crate) fn claims(room: &str, user: &str) -> Value {
    json!({"room": room, "sub": user, "exp": unix_time(3600)})
}

/// As [`claims`], with these grants.
pub(crate) fn claims_with(room: &str, user: &str, grants: Value) -> Value {
    let mut claims = claims(room, user);
    claims["grants"] = grants;
    claims
}

impl Signer {
    pub(crate) fn secret() -> Signer {
        Signer::Secret(SECRET.to_owned())
    }

    /// A new key pair of openssl's making, and its public half.
    pub(crate) fn key(algorithm: &'static str) -> (Signer, String) {
        let signer = Signer::Key(algorithm, Folder::new());
        let private = signer.file();
        let kind: &[&str] = match algorithm {
            "EdDSA" => &["-algorithm", "ed25519"],
            _ => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        };
        openssl(&[&["genpkey", "-out", private.as_str()], kind].concat());
        let public = openssl(&["pkey", "-in", &private, "-pubout"]);
        (signer, public)
    }

    /// The private key's, which is gone with the value.
    pub(crate) fn file(&self) -> String {
        match self {
            Signer::Secret(_) => panic!("a secret is in no file"),
            Signer::Key(_, folder) => folder.path("private.pem"),
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Signer::Secret(_) => "HS256",
            Signer::Key(algorithm, _) => algorithm,
        }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"typ": "JWT", "alg": self.algorithm()}), claims)
    }

    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        match self {
            Signer::Secret(secret) => sign(self.algorithm(), secret, header, claims),
            Signer::Key(algorithm, _) => sign(algorithm, &self.file(), header, claims),
        }
    }
}

/// A token that is not signed at all.
pub(crate) fn unsigned(claims: &Value) -> String {
    sign("none", "", &json!({"alg": "none"}), claims)
}

fn sign(algorithm: &str, key: &str, header: &Value, claims: &Value) -> String {
    output(Command::new("python3").arg(SCRIPT).args([
        algorithm,
        key,
        &header.to_string(),
        &claims.to_string(),
    ]))
}

pub(crate) fn openssl(arguments: &[&str]) -> String {
    output(Command::new("openssl").args(arguments))
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("Debian's python3 and openssl are there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A server that takes tokens signed with [`SECRET`].
pub(crate) fn server() -> Server {
    Server::spawn(&[("AUTH_SECRET", SECRET)])
}

pub(crate) fn with_token(token: String) -> Options {
    Options { token: Some(token), ..Options::default() }
}

/// A member with a token of its own, with these grants.
pub(crate) async fn member(server: &Server, room: &str, user: &str, grants: Value) -> Client {
    let token = Signer::secret().sign(&claims_with(room, user, grants));
    Client::join(server, room, user, with_token(token)).await
}

/// It is told why it may not come in, and the WebSocket ends.
pub(crate) async fn is_refused(client: &Client, why: &str) {
    let joined = client.message("joined", |data| data["success"] == false).await;
    assert_eq!(joined["message"], why);
    assert!(
        joined["resume"].is_null() && joined["grants"].is_null() && joined["peers"] == json!([]),
        "{joined}"
    );
    let error = client.error("unauthorized").await;
    assert_eq!(error["message"], why);
    assert_eq!(client.closed().await.0, 1008);
}
