//! How a connection is protected: by TLS with the server's name and chain verified, unless the server is this machine.

use std::path::Path;
use std::sync::Arc;

use postgres::config::{Host, SslMode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::DatabaseError;

/// Whether the rows and the password travel protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// The chain and the name of the server are verified.
    Verified,
    /// In the clear.
    Clear,
}

/// Decides by where the server is and what was asked for. `asked` is what the configuration says, `mode` what the URL says.
pub(super) fn decide(hosts: &[Host], mode: Option<&str>, asked: Option<&str>) -> Result<Protection, DatabaseError> {
    let is_near = hosts.iter().all(is_near);
    match (asked, mode) {
        (None, Some("disable")) if !is_near => Err(DatabaseError::unfit(
            "the URL says sslmode=disable, so that the password and the rows would cross the network in the clear; \
             say database.tls = \"off\" if that is meant",
        )),
        (Some("off"), _) | (None, Some("disable")) => Ok(Protection::Clear),
        // Whatever else the URL says, nothing less than verify-full protects.
        (Some("verify-full"), _) | (None, Some("prefer" | "allow" | "require" | "verify-ca" | "verify-full")) => {
            Ok(Protection::Verified)
        }
        (Some(other), _) => {
            Err(DatabaseError::unfit(format!("database.tls is {other:?}; verify-full and off are known")))
        }
        (None, Some(other)) => Err(DatabaseError::unfit(format!("the URL says sslmode={other}, which is not known"))),
        (None, None) if is_near => Ok(Protection::Clear),
        (None, None) => Ok(Protection::Verified),
    }
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) if name == "localhost" => true,
        Host::Tcp(name) => name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

impl Protection {
    /// What the driver is told.
    pub(super) const fn mode(self) -> SslMode {
        match self {
            Self::Verified => SslMode::Require,
            Self::Clear => SslMode::Disable,
        }
    }
}

/// Makes connections that trust the authorities of the system, or only those of a file.
pub(super) fn connector(
    protection: Protection,
    authorities: Option<&Path>,
) -> Result<MakeRustlsConnect, DatabaseError> {
    let mut roots = RootCertStore::empty();
    match (protection, authorities) {
        (Protection::Clear, _) => {}
        (Protection::Verified, Some(file)) => add_file(&mut roots, file)?,
        (Protection::Verified, None) => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DatabaseError::unfit(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), DatabaseError> {
    let unfit = |reason: String| DatabaseError::unfit(format!("database.ca_file {}: {reason}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unfit(error.to_string()))?;
    let mut count = 0_u32;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
        roots.add(certificate).map_err(|error| unfit(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(unfit("there is no certificate in it".to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Vec<Host> {
        vec![Host::Tcp(name.to_owned())]
    }

    #[test]
    fn off_this_machine_only_verified_tls_is_taken_unless_told_otherwise() {
        let far = host("db.example.org");
        for mode in [None, Some("prefer"), Some("require"), Some("verify-ca"), Some("verify-full")] {
            assert_eq!(decide(&far, mode, None).unwrap(), Protection::Verified, "{mode:?}");
        }
        assert!(decide(&far, Some("disable"), None).unwrap_err().to_string().contains("database.tls"));
        assert_eq!(decide(&far, Some("disable"), Some("off")).unwrap(), Protection::Clear);
        assert!(decide(&far, None, Some("maybe")).is_err());
        assert!(decide(&far, Some("maybe"), None).is_err());
    }

    #[test]
    fn on_this_machine_tls_is_a_choice() {
        for near in [host("localhost"), host("127.0.0.1"), host("::1"), vec![Host::Unix("/run".into())], vec![]] {
            assert_eq!(decide(&near, None, None).unwrap(), Protection::Clear, "{near:?}");
            assert_eq!(decide(&near, Some("require"), None).unwrap(), Protection::Verified);
        }
        let mixed = [host("localhost"), host("10.0.0.1")].concat();
        assert_eq!(decide(&mixed, None, None).unwrap(), Protection::Verified);
    }
}
