//! What a program tells about itself while it runs: metrics, health and readiness over HTTP, or the metrics in a file.
//!
//! Metrics are structs of whoever counts, registered on a [`Registry`] that the program passes around; there is no global
//! one. The names and labels of all are listed in `docs/metrics.md`.

mod http;
mod textfile;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use http::{Health, Observer, serve};
pub use prometheus::Registry;
pub use textfile::write_textfile;

use prometheus::{Encoder, TextEncoder};

/// Understands an address to listen on: `HOST:PORT` with a numeric host, or a port, which then is the loopback's.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = numeric.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:9550, [::1]:9550 or 9550"))
}

/// All metrics in the text format of Prometheus.
pub(crate) fn encode(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_listens_on_this_machine_only() {
        for text in ["9550", ":9550", "127.0.0.1:9550", "localhost:9550"] {
            assert_eq!(parse_address(text).unwrap().to_string(), "127.0.0.1:9550", "{text}");
        }
        assert_eq!(parse_address("0.0.0.0:1").unwrap().to_string(), "0.0.0.0:1");
        for text in ["", "example.org:80", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(parse_address(text).unwrap_err().contains("127.0.0.1:9550"), "{text}");
        }
    }
}
