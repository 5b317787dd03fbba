//! The caches that are compared, each on a port of its own before the same origin.

use crate::tools;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of them takes to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that listens; it ends with this.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx and Varnish end their workers when they are asked to end.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let since = Instant::now();
        while asked.is_ok() && since.elapsed() < Duration::from_secs(5) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for their files.
///
/// # Errors
/// It cannot be made.
pub(super) fn folder() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("forerun-cache-stage-{}", std::process::id()));
    for name in ["nginx/cache", "nginx/temp", "varnish"] {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(folder)
}

/// # Errors
/// None is free.
pub(super) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|e| format!("no free port: {e}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|e| format!("no free port: {e}"))
}

/// Starts a program and waits until its port answers.
///
/// # Errors
/// It ends, or does not listen in time.
pub(super) fn started(name: &str, mut command: Command, port: u16) -> Result<Server, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|e| format!("{name} cannot be started: {e}"))?;
    let mut server = Server { port, child };
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Ok(Some(status)) = server.child.try_wait() {
            return Err(format!("{name} ended with {status}"));
        }
        if since.elapsed() > PATIENCE {
            return Err(format!("{name} does not listen on port {port}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// # Errors
/// As [`started`].
pub(super) fn forerun(router: &Path, origin: u16) -> Result<Server, String> {
    let port = free_port()?;
    let mut command = Command::new(router);
    command.args([format!("127.0.0.1:{port}"), format!("127.0.0.1:{origin}")]);
    started("forerun", command, port)
}

/// `proxy_cache` as the suite itself sets it up.
///
/// # Errors
/// As [`started`], or there is none.
pub(super) fn nginx(folder: &Path, origin: u16) -> Result<Server, String> {
    let program = tools::find("nginx").ok_or("there is no nginx")?;
    let (port, folder) = (free_port()?, folder.join("nginx"));
    let at = folder.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/temp/{kind};\n"))
        .collect();
    let text = format!(
        "daemon off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}\
         proxy_cache_path {at}/cache levels=1:2 keys_zone=c:8m max_size=1000m inactive=600m;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{origin};\n\
         proxy_cache c; proxy_cache_revalidate on; proxy_http_version 1.1; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = Command::new(program);
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(&file);
    started("nginx", command, port)
}

/// With its built-in rules, and the times that the suite itself gives it: what says nothing is not kept.
///
/// # Errors
/// As [`started`], or there is none.
pub(super) fn varnish(folder: &Path, origin: u16) -> Result<Server, String> {
    let program = tools::find("varnishd").ok_or("there is no varnishd")?;
    let (port, folder) = (free_port()?, folder.join("varnish"));
    let mut command = Command::new(program);
    command.args(["-F", "-s", "malloc,64m", "-p", "default_ttl=0", "-p", "default_grace=0"]);
    command.args(["-p", "default_keep=3600", "-a"]).arg(format!("127.0.0.1:{port}"));
    command.arg("-b").arg(format!("127.0.0.1:{origin}")).arg("-n").arg(folder.join("work"));
    started("varnish", command, port)
}
