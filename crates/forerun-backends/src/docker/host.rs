//! Where an engine is: which socket or address, and how it is reached.

use super::engine::{EngineError, newest};
use bollard::Docker;
use std::env;
use std::path::{Path, PathBuf};

/// The files of a connection by TLS, as `DOCKER_CERT_PATH` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// `ca.pem`, `cert.pem` and `key.pem` of a folder.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Self {
        Self { ca: folder.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") }
    }
}

/// An engine's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `unix:///var/run/docker.sock`, `tcp://10.0.0.5:2376`
    pub(super) host: String,
    tls: Option<TlsFiles>,
}

impl Place {
    /// Where a person says, else where `DOCKER_HOST` says, else the first socket that is there: Docker's, a rootless
    /// Docker's, Podman's.
    pub(super) fn find(host: Option<&str>, tls: Option<&TlsFiles>) -> Result<Self, EngineError> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let told = host.map(str::to_owned).or_else(|| variable("DOCKER_HOST"));
        let Some(host) = told else {
            return Self::first_socket(&sockets(variable("XDG_RUNTIME_DIR").as_deref()));
        };
        let by_variables = || {
            // As the docker command reads them.
            variable("DOCKER_TLS_VERIFY")?;
            let folder = variable("DOCKER_CERT_PATH").map(PathBuf::from);
            let folder = folder.or_else(|| Some(Path::new(&variable("HOME")?).join(".docker")))?;
            Some(TlsFiles::of_folder(&folder))
        };
        let tls = tls.cloned().or_else(by_variables).filter(|_| !host.starts_with("unix://"));
        check(&host)?;
        Ok(Self { host, tls })
    }

    fn first_socket(sockets: &[String]) -> Result<Self, EngineError> {
        match sockets.iter().find(|socket| Path::new(socket).exists()) {
            Some(socket) => Ok(Self { host: format!("unix://{socket}"), tls: None }),
            None => Err(EngineError::NoSocket { looked: sockets.join(", ") }),
        }
    }

    /// The name or address of another machine that the engine may be on; `None` is this one.
    pub(super) fn machine(&self) -> Option<&str> {
        let rest =
            ["tcp://", "http://", "https://"].iter().find_map(|scheme| self.host.strip_prefix(scheme))?;
        let authority = rest.trim_end_matches('/');
        let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
        Some(name.trim_start_matches('[').trim_end_matches(']'))
    }

    /// What TLS says of a connection, with the file that it is about.
    pub(super) fn explained(&self, why: String) -> String {
        let Some(TlsFiles { ca, cert, .. }) = &self.tls else { return why };
        if why.contains("invalid peer certificate") {
            return format!("`{}` did not sign its certificate: {why}", ca.display());
        }
        if why.contains("received fatal alert") {
            return format!("it does not take the certificate `{}`: {why}", cert.display());
        }
        why
    }

    /// The files are looked at first: what reads them later does not name them.
    fn check_files(&self) -> Result<(), EngineError> {
        let Some(TlsFiles { ca, cert, key }) = &self.tls else { return Ok(()) };
        for path in [ca, cert, key] {
            let why = match std::fs::read_to_string(path) {
                Ok(text) if text.contains("-----BEGIN") => continue,
                Ok(_) => "is no PEM file".to_owned(),
                Err(error) => format!("cannot be read: {error}"),
            };
            let why = format!("`{}` {why}; mend the path or the file", path.display());
            return Err(EngineError::Unreachable { host: self.host.clone(), why });
        }
        Ok(())
    }

    pub(super) fn open(&self, timeout_secs: u64) -> Result<Docker, EngineError> {
        self.check_files()?;
        let version = newest();
        let opened = match (&self.tls, self.host.strip_prefix("unix://")) {
            (_, Some(path)) => Docker::connect_with_unix(path, timeout_secs, &version),
            (Some(tls), None) => {
                Docker::connect_with_ssl(&self.host, &tls.key, &tls.cert, &tls.ca, timeout_secs, &version)
            }
            (None, None) => Docker::connect_with_http(&self.host, timeout_secs, &version),
        };
        opened.map_err(|error| EngineError::Unreachable {
            host: self.host.clone(),
            why: lower(&error.to_string()),
        })
    }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + chars.as_str())
}

/// Sockets in the order in which they are tried.
fn sockets(runtime_folder: Option<&str>) -> Vec<String> {
    let own = |name: &str| runtime_folder.map(|folder| format!("{folder}/{name}"));
    let sockets = [
        Some("/var/run/docker.sock".to_owned()),
        own("docker.sock"),
        own("podman/podman.sock"),
        Some("/run/podman/podman.sock".to_owned()),
    ];
    sockets.into_iter().flatten().collect()
}

fn check(host: &str) -> Result<(), EngineError> {
    let wrong = |why: &str| Err(EngineError::Host { host: host.to_owned(), why: why.to_owned() });
    let Some((scheme, rest)) = host.split_once("://") else {
        return wrong("write `unix:///path/to/docker.sock` or `tcp://host:port`");
    };
    match scheme {
        "unix" if rest.starts_with('/') => Ok(()),
        "unix" => wrong("a socket's path starts with `/`: `unix:///var/run/docker.sock`"),
        "tcp" | "http" | "https" => match rest.trim_end_matches('/').rsplit_once(':') {
            Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
            _ => wrong("it needs a port: `tcp://host:2376`"),
        },
        "ssh" => wrong(
            "ssh is not spoken here; forward the socket (`ssh -L /tmp/docker.sock:/var/run/docker.sock host`) and name that",
        ),
        _ => wrong("only unix:// and tcp:// are known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for (host, error) in [
            ("unix:///var/run/docker.sock", None),
            ("tcp://10.0.0.5:2376", None),
            ("tcp://[::1]:2375/", None),
            ("tcp://10.0.0.5", Some("it needs a port")),
            ("/var/run/docker.sock", Some("write `unix:///")),
            ("unix://var/run", Some("a socket's path starts with `/`")),
            ("ssh://me@there", Some("ssh is not spoken here")),
            ("npipe:////./pipe/x", Some("only unix:// and tcp://")),
        ] {
            match (check(host), error) {
                (Ok(()), None) => {}
                (Err(found), Some(error)) => assert!(found.to_string().contains(error), "{found}"),
                (found, _) => panic!("{host}: {found:?}"),
            }
        }
    }

    #[test]
    fn another_machine_has_a_name() {
        for (host, machine) in [
            ("unix:///var/run/docker.sock", None),
            ("tcp://10.0.0.5:2376", Some("10.0.0.5")),
            ("tcp://[::1]:2375/", Some("::1")),
            ("https://box.lan:2376", Some("box.lan")),
        ] {
            let place = Place { host: host.to_owned(), tls: None };
            assert_eq!(place.machine(), machine);
        }
    }

    #[test]
    fn what_was_looked_for_is_said() {
        let error = Place::first_socket(&sockets(Some("/nowhere"))[1..3]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/docker.sock, /nowhere/podman/podman.sock"), "{error}");
        assert_eq!(sockets(None).len(), 2);
    }
}
