//! The API over a source without an engine, asked by hand.

// Each test binary uses a part of it.
#![allow(dead_code)]

use forerun_api::{
    Answer, Api, ControlError, Guard, Health, Metrics, Order, Outcome, PurgeOrder, Purged, ServiceStatus,
    Source, Status, TokenStore, Told, Waits, http,
};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A state folder, gone when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("forerun-api-{name}-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn guard(&self, token_needed: bool) -> Guard {
        Guard::new(&self.0, token_needed)
    }

    /// What there is to make tokens with.
    pub(crate) fn tokens(&self) -> TokenStore {
        TokenStore::of(&self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn service(name: &str, tenant: &str) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        wait_seconds: Some(Waits { p50: 0.0, p99: 1.5 }),
        reason: "makes way for rival-db".to_owned(),
        ..ServiceStatus::default()
    }
}

/// A source without an engine: three services of two tenants, and one of the default tenant.
pub(crate) struct Fake {
    metrics: Metrics,
    ready: bool,
}

impl Source for Fake {
    fn status(&self) -> Status {
        Status {
            version: "1.2.3".to_owned(),
            services: vec![
                service("web", "default"),
                service("acme-shop", "acme"),
                service("rival-shop", "rival"),
                service("rival-db", "rival"),
            ],
            ..Status::default()
        }
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn healthy(&self) -> Health {
        Health::Good
    }

    fn control(&self, service: &str, order: Order) -> Result<Told, ControlError> {
        match (service, order) {
            ("web" | "acme-shop" | "rival-shop", order) => {
                Ok(Told { said: format!("{order:?}"), ..Told::default() })
            }
            _ => Err(ControlError::NoService {
                name: service.to_owned(),
                hint: "; did you mean `web`?".to_owned(),
            }),
        }
    }

    fn purge(&self, order: &PurgeOrder) -> Result<Purged, String> {
        Ok(Purged { said: format!("purged for {}", order.tenant.as_deref().unwrap_or("all")) })
    }

    fn beside(&self, asked: http::Request<()>, client: IpAddr) -> Option<Answer> {
        let path = asked.uri().path().to_owned();
        let of_service = |end: &&str| path.starts_with("/v1/services/") && path.ends_with(*end);
        let known = ["/api/", "/v1/page", "/v1/route", "/v1/traefik", "/v1/caddy", "/health"];
        let known = known.iter().any(|known| path.starts_with(known))
            || path == "/v1/wake"
            || ["/health", "/badge.svg", "/wakes"].iter().any(of_service);
        known.then(|| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let host = asked.headers().get("host").map_or("", |host| host.to_str().unwrap()).to_owned();
                http::Response::builder()
                    .status(202)
                    .body(format!("{path} {client} {host} {:?}", asked.headers().get("authorization")).into())
                    .unwrap()
            }) as Answer
        })
    }

    fn ready(&self) -> Health {
        if self.ready {
            Health::Good
        } else {
            Health::Bad("the first route table is not there yet".to_owned())
        }
    }
}

impl Fake {
    pub(crate) fn source(ready: bool) -> Arc<Self> {
        let metrics = Metrics::new();
        metrics.requests("web", "local", "default", Outcome::Answered, 1);
        Arc::new(Self { metrics, ready })
    }
}

pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// On a loopback address, without tokens.
pub(crate) async fn start(ready: bool) -> Api {
    let folder = Folder::new("open");
    Api::start(ANY_PORT, Fake::source(ready), folder.guard(false)).await.unwrap()
}

/// Sends a request head and reads the answer to its end.
pub(crate) async fn ask(api: &Api, head: &str) -> String {
    let mut stream = TcpStream::connect(api.address()).await.unwrap();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// The same for an answer that does not end: reads until what came is enough.
pub(crate) async fn ask_until(api: &Api, head: &str, enough: impl Fn(&str) -> bool) -> String {
    let mut stream = TcpStream::connect(api.address()).await.unwrap();
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    let read = async {
        while !enough(&String::from_utf8_lossy(&answer)) {
            match stream.read(&mut chunk).await.unwrap() {
                0 => break,
                n => answer.extend_from_slice(&chunk[..n]),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Sends an order with a body and more of a head.
pub(crate) async fn tell(api: &Api, path: &str, more: &str, body: &str) -> String {
    let kind = if body.is_empty() || more.contains("Content-Type") {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    let length = body.len();
    ask(api, &format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")).await
}
