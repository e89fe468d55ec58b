//! `/metrics`, `/health` and `/ready`. Nothing can be changed through it, and it tells no names of files.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::Registry;
use tokio::task::JoinHandle;

/// How a program is. Asked for each request, so it must answer at once.
pub trait Health: Send + Sync + 'static {
    /// Whether it works at all; if not it had better be restarted. The error says why, in a few words.
    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether it can serve at the moment. The error says why not.
    fn ready(&self) -> Result<(), String>;
}

/// Serves until it is dropped.
pub struct Observer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Observer {
    /// Where it listens; the port is a real one also where 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    health: Arc<dyn Health>,
}

/// Listens on `address` and answers from then on. Fails where the address cannot be had.
pub async fn serve(address: SocketAddr, registry: Registry, health: Arc<dyn Health>) -> std::io::Result<Observer> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "metrics can be read from other machines");
    }
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(async |State(shared): State<Shared>| answer(shared.health.healthy())))
        .route("/ready", get(async |State(shared): State<Shared>| answer(shared.health.ready())))
        .with_state(Shared { registry, health });
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Ok(Observer { address, task })
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match super::encode(&shared.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn answer(state: Result<(), String>) -> Response {
    let (code, body) = match state {
        Ok(()) => (StatusCode::OK, serde_json::json!({ "status": "ok" })),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({ "status": "unavailable", "reason": reason }))
        }
    };
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus::IntCounter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Default)]
    struct Switch(AtomicBool);

    impl Health for Switch {
        fn ready(&self) -> Result<(), String> {
            if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err("the store is away".to_owned()) }
        }
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_health_and_readiness_can_be_asked_for() {
        let registry = Registry::new();
        let counter = IntCounter::new("des_example_total", "An example.").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc_by(3);
        let health = Arc::new(Switch::default());
        let shared: Arc<dyn Health> = Arc::<Switch>::clone(&health);

        let observer = serve(SocketAddr::from(([127, 0, 0, 1], 0)), registry, shared).await.unwrap();

        let metrics = ask(observer.address(), "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("des_example_total 3"), "{metrics}");
        assert!(ask(observer.address(), "/health").await.contains(r#"{"status":"ok"}"#));
        let away = ask(observer.address(), "/ready").await;
        assert!(away.starts_with("HTTP/1.1 503") && away.contains("the store is away"), "{away}");
        health.0.store(true, Ordering::Relaxed);
        assert!(ask(observer.address(), "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(ask(observer.address(), "/other").await.starts_with("HTTP/1.1 404"));
    }
}
