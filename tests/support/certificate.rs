//! Certificates as operators have them: files that `openssl` made.

use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::folder::Folder;

impl Folder {
    /// A certificate for localhost and its key, fresh, in `cert.pem` and `key.pem`.
    pub fn certify(&self) -> Certified {
        let config = "[req]\ndistinguished_name=dn\nprompt=no\nx509_extensions=ext\n[dn]\nCN=localhost\n[ext]\n\
                      basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";
        let config = self.write("openssl.cnf", config.as_bytes());
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", "2", "-config", &config, "-keyout", &key, "-out", &certificate])
            .output()
            .expect("openssl is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Certified { certificate, key }
    }

    /// As [`Folder::certify`], good from one time until another, each written as `20400101000000Z`.
    pub fn certify_between(&self, from: &str, until: &str) -> Certified {
        let config = "[ca]\ndefault_ca=here\n[here]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\n\
                      default_md=sha256\npolicy=any\nx509_extensions=ext\nunique_subject=no\n[any]\n\
                      commonName=supplied\n[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=localhost\n[ext]\n\
                      basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";
        for (name, text) in [("ca.cnf", config), ("index.txt", ""), ("serial", "01\n")] {
            self.write(name, text.as_bytes());
        }
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").args(args).current_dir(self.dir()).output();
            let output = output.expect("openssl is there");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let curve = "ec_paramgen_curve:P-256";
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            curve,
            "-nodes",
            "-config",
            "ca.cnf",
            "-keyout",
            "key.pem",
            "-out",
            "request.pem",
        ]);
        openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-selfsign",
            "-config",
            "ca.cnf",
            "-keyfile",
            "key.pem",
            "-in",
            "request.pem",
            "-out",
            "cert.pem",
            "-startdate",
            from,
            "-enddate",
            until,
        ]);
        Certified { certificate: self.path("cert.pem"), key: self.path("key.pem") }
    }
}

/// Where the two files are.
pub struct Certified {
    /// Of the certificate.
    pub certificate: String,
    /// Of its key.
    pub key: String,
}

impl Certified {
    /// What the server is told.
    pub fn env(&self) -> [(&str, &str); 2] {
        [("TLS_CERT", &self.certificate), ("TLS_KEY", &self.key)]
    }

    /// The certificate itself.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).expect("a certificate")
    }
}
