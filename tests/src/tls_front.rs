//! An encrypted front for a server that has none, under a certificate of an authority of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// An encrypted front that runs until it is dropped.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    authority: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TlsFront {
    /// Starts one before a server (`http://HOST:PORT`). The certificate of its authority is put into a directory.
    pub fn start(upstream: &str, directory: &Path) -> Self {
        let upstream = upstream.strip_prefix("http://").expect("a server without encryption").to_owned();
        let (config, authority_pem) = certificates();
        let authority = directory.join("authority.pem");
        fs::write(&authority, authority_pem).expect("the certificate of the authority");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("the address of the front");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, TlsAcceptor::from(config), upstream) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, authority, stop: Some(stop), thread: Some(thread) }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate of its authority, in PEM.
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, upstream: String) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("the listener of the front");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
        tokio::spawn(async move {
            // A program that does not trust us hangs up.
            let Ok(mut secure) = acceptor.accept(stream).await else { return };
            let Ok(mut plain) = tokio::net::TcpStream::connect(upstream).await else { return };
            drop(tokio::io::copy_bidirectional(&mut secure, &mut plain).await);
        });
    }
}

/// What the front shows, and whom one must trust for it.
fn certificates() -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key);
    (Arc::new(config.expect("a certificate and its key")), issuer.pem())
}
