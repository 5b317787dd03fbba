//! A registry that serves one image over plain HTTP on the loopback, which an engine trusts as it is: version 2 of the
//! API as far as a pull needs it. The image is one of the engine's, flattened to one layer.

use crate::engine::Engine;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const PIECES: usize = 20;

pub(crate) struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manifest: Part,
    config: Part,
    layer: Part,
    /// Between the pieces of a layer.
    pause: Duration,
    layers_asked: AtomicU64,
    ended: AtomicBool,
}

struct Part {
    kind: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Part {
    fn new(kind: &'static str, bytes: Vec<u8>) -> Self {
        Self { kind, digest: digest(&bytes), bytes }
    }

    fn described(&self) -> Value {
        json!({"mediaType": self.kind, "size": self.bytes.len(), "digest": self.digest})
    }
}

impl Registry {
    /// Serves what `image` holds under any name, as slowly as that: a layer takes 20 pauses.
    pub(crate) fn serve(engine: &Engine, image: &str, command: &[&str], pause: Duration) -> Self {
        engine.create("for-registry", &json!({"Image": image}));
        let layer = Part::new(LAYER, engine.bytes("/containers/for-registry/export"));
        engine.call("DELETE", "/containers/for-registry", None);
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": command, "ExposedPorts": {"8080/tcp": {}}, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        let config = Part::new(CONFIG, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.described(), "layers": [layer.described()],
        });
        let manifest = Part::new(MANIFEST, manifest.to_string().into_bytes());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manifest,
            config,
            layer,
            pause,
            layers_asked: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&serving);
                // A pull that is broken off is its client's affair.
                std::thread::spawn(move || drop(answer(client, &shared)));
            }
        });
        Self { address, shared }
    }

    /// The name of the image there.
    pub(crate) fn image(&self) -> String {
        format!("{}/shop/web:1", self.address)
    }

    /// How often the layer was asked for.
    pub(crate) fn layers_asked(&self) -> u64 {
        self.shared.layers_asked.load(Ordering::Relaxed)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 64 << 10 {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let parts = [&shared.config, &shared.layer];
    let part = match path.rsplit('/').next().unwrap_or_default() {
        _ if path == "/v2/" => None,
        _ if path.contains("/manifests/") => Some(&shared.manifest),
        blob => match parts.into_iter().find(|part| part.digest == blob) {
            Some(part) => Some(part),
            None => {
                return client
                    .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        },
    };
    let (kind, digest, body) = match part {
        Some(part) => (part.kind, part.digest.as_str(), &part.bytes[..]),
        None => ("application/json", "", &b"{}"[..]),
    };
    write!(
        client,
        "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: {kind}\r\n\
         Docker-Content-Digest: {digest}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if method == "HEAD" {
        return Ok(());
    }
    if kind != LAYER {
        return client.write_all(body);
    }
    shared.layers_asked.fetch_add(1, Ordering::Relaxed);
    for piece in body.chunks(body.len().div_ceil(PIECES).max(1)) {
        client.write_all(piece)?;
        std::thread::sleep(shared.pause);
    }
    Ok(())
}

/// By the machine's own program: nothing here needs a hash otherwise.
fn digest(bytes: &[u8]) -> String {
    let mut program = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(bytes).unwrap();
    let printed = program.wait_with_output().unwrap();
    let hex = String::from_utf8_lossy(&printed.stdout).split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(hex.len(), 64, "sha256sum printed {hex:?}");
    format!("sha256:{hex}")
}
