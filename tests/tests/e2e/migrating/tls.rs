//! How the database is reached when it is protected by TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use des_tests::{Postgres, command, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};

/// An authority in a directory of its own.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(place: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(place.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer }
    }

    /// Gives the server a certificate for a name, and lets it use that.
    fn certify(&self, server: &Postgres, name: &str, years: (i32, i32)) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (file, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
            let path = server.data().join(file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            run(command("chown").arg("postgres:").arg(&path)).success();
        }
        server.connect().batch_execute("ALTER SYSTEM SET ssl = on").unwrap();
        server.stop("fast");
        server.begin();
    }
}

#[test]
fn only_a_certificate_of_a_known_authority_for_this_very_name_is_taken() {
    let (server, place) = (Postgres::start(), des_tests::scratch());
    let authority = Authority::new(place.path());
    let config = |host: &str, more: &str| {
        let path = place.path().join("tls.toml");
        let text = format!(
            "[database]\nurl = 'postgres://postgres@{host}:{}/postgres?sslmode=require'\n{more}\n\
             [archive]\nuri = '/nowhere'\n",
            server.port()
        );
        fs::write(&path, text).unwrap();
        path
    };
    let init = |host: &str, more: &str| {
        let mut init = command("des-migrate");
        run(init.arg("--config").arg(config(host, more)).arg("init"))
    };
    let trusted = format!("ca_file = '{}'", place.path().join("ca.pem").display());

    authority.certify(&server, "localhost", (2020, 2099));
    init("localhost", &trusted).success();
    for (host, more, what) in [("127.0.0.1", trusted.as_str(), "another name"), ("localhost", "", "a stranger")] {
        let refused = init(host, more).exits(1);
        assert!(refused.stderr.contains("certificate"), "{what}: {}", refused.stderr);
    }
    authority.certify(&server, "localhost", (2020, 2021));
    let refused = init("localhost", &trusted).exits(1);
    assert!(refused.stderr.contains("xpired"), "{}", refused.stderr);
    // In the clear it is reached only where that is said.
    init("localhost", "tls = 'off'").success();
}
