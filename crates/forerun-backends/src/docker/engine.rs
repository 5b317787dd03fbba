//! Calls to an engine, each with a deadline: an engine that hangs costs a caller so long, and no more.

use super::host::Place;
use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStatsResponse, ContainerSummary, CreateImageInfo,
    EndpointSettings, EventMessage, ExecConfig, ImageInspect, NetworkConnectRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StatsOptionsBuilder,
    StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bollard::{ClientVersion, Docker};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::time::Duration;

/// For what an engine only looks up. One that swaps or pulls is slow, and not dead, for seconds.
const LOOK: Duration = Duration::from_secs(10);
/// For what an engine has to do: creating, starting, removing. A hundred at once on a small machine take half of it.
const WORK: Duration = Duration::from_secs(60);
/// What stopping takes beyond the grace itself.
const STOP_MARGIN: Duration = Duration::from_secs(15);
/// bollard's own deadline, which is to be later than all of these.
const CLIENT_SECS: u64 = 7 * 86_400;
/// Bytes of a command's output that are kept.
const EXEC_BYTES_MAX: usize = 4 << 10;
/// Bytes of a log's end that are read.
const LOG_BYTES_MAX: usize = 256 << 10;

/// Why a call to an engine failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error("`{host}` is no address of an engine: {why}")]
    Host { host: String, why: String },
    #[error("no engine's socket was found (looked for {looked}): start docker or podman, or set DOCKER_HOST")]
    NoSocket { looked: String },
    #[error(
        "no right to use `{host}`: run forerun as a member of the group `docker`, or behind a socket proxy"
    )]
    Denied { host: String },
    #[error("the engine at `{host}` cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("the engine at `{host}` did not answer within {secs} s when asked to {what}")]
    NoAnswer { host: String, what: &'static str, secs: u64 },
    #[error("the engine at `{host}` speaks API {lowest} to {highest}, forerun speaks {ours} and lower")]
    Version { host: String, lowest: String, highest: String, ours: String },
    #[error("the engine refused to {what}: {message}")]
    Refused { what: &'static str, status: u16, message: String },
}

impl EngineError {
    /// There is no such container or image.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// It is not in the state for that: already being removed, not running, a name taken.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// The engine has died while it started the container, and what runs containers has kept half of it. Seen with
    /// Docker Engine 20.10: no later start of that container succeeds.
    pub(super) fn is_husk(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.starts_with("task ") && message.ends_with("already exists"))
    }

    /// Nothing was refused: what was asked for may have been done or not.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Denied { .. } | Self::NoSocket { .. }
        )
    }
}

/// An engine and how to reach it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    docker: Docker,
    pub(super) place: Place,
    /// The address of the machine that it is on.
    pub(super) machine: IpAddr,
    /// `20.10.24`
    pub(super) version: String,
    /// The API version that both sides speak.
    pub(super) api: String,
    /// The lowest that the engine would speak.
    pub(super) api_min: String,
    /// `Docker` or `Podman`.
    pub(super) kind: &'static str,
}

impl Engine {
    /// Connects, asks for the version and agrees on one for the API.
    pub(super) async fn connect(place: &Place) -> Result<Self, EngineError> {
        let docker = place.open(CLIENT_SECS)?;
        let asked = within(place, "tell its version", LOOK, docker.version()).await?;
        let highest = asked.api_version.clone().unwrap_or_default();
        let lowest = asked.min_api_version.clone().unwrap_or_else(|| highest.clone());
        let ours = docker.client_version();
        let unable = || EngineError::Version {
            host: place.host.clone(),
            lowest: lowest.clone(),
            highest: highest.clone(),
            ours: ours.to_string(),
        };
        let (top, bottom) = (version(&highest).ok_or_else(unable)?, version(&lowest).ok_or_else(unable)?);
        let agreed = top.min((ours.major_version, ours.minor_version));
        if agreed < bottom {
            return Err(unable());
        }
        let docker = within(place, "agree on a version", LOOK, docker.negotiate_version()).await?;
        let prefix = format!("/v{}.{}", agreed.0, agreed.1);
        let components = asked.components.unwrap_or_default();
        let podman = components.iter().any(|part| part.name.to_ascii_lowercase().contains("podman"));
        Ok(Self {
            docker: docker.with_request_modifier(move |request| versioned(request, &prefix)),
            place: place.clone(),
            machine: machine(place).await?,
            version: asked.version.unwrap_or_default(),
            api: format!("{}.{}", agreed.0, agreed.1),
            api_min: lowest,
            kind: if podman { "Podman" } else { "Docker" },
        })
    }

    /// Boxed, since what bollard has in its hands while it waits is large.
    fn call<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> impl Future<Output = Result<T, EngineError>> {
        within(&self.place, what, deadline, Box::pin(call))
    }

    /// By a connection of its own: an engine that is being stopped takes no new ones, and answers the old ones to its
    /// end.
    pub(super) async fn ping(&self) -> Result<(), EngineError> {
        let fresh = self.place.open(CLIENT_SECS)?;
        self.call("answer a ping", LOOK / 2, fresh.ping()).await.map(drop)
    }

    /// All containers with this label (`key` or `key=value`), running or not; empty is every container.
    pub(super) async fn list(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        let mut options = ListContainersOptionsBuilder::default().all(true);
        if !label.is_empty() {
            options = options.filters(&HashMap::from([("label", vec![label])]));
        }
        self.call("list containers", LOOK, self.docker.list_containers(Some(options.build()))).await
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, EngineError> {
        self.call("describe a container", LOOK, self.docker.inspect_container(id, None)).await
    }

    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let made = self.docker.create_container(Some(options), body);
        self.call("create a container", WORK, made).await.map(|made| made.id)
    }

    /// Starting what runs already changes nothing.
    pub(super) async fn start(&self, id: &str) -> Result<(), EngineError> {
        self.call("start a container", WORK, self.docker.start_container(id, None)).await
    }

    /// Asks it to end by its own stop signal, and kills it after so long. Returns when it has ended.
    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let secs = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options =
            StopContainerOptionsBuilder::default().t(i32::try_from(secs).unwrap_or(i32::MAX)).build();
        let deadline = grace.saturating_add(STOP_MARGIN);
        self.call("stop a container", deadline, self.docker.stop_container(id, Some(options))).await
    }

    pub(super) async fn kill(&self, id: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        self.call("kill a container", LOOK, self.docker.kill_container(id, Some(options))).await
    }

    pub(super) async fn rename(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        self.call("rename a container", LOOK, self.docker.rename_container(id, options)).await
    }

    pub(super) async fn pause(&self, id: &str) -> Result<(), EngineError> {
        self.call("pause a container", LOOK, self.docker.pause_container(id)).await
    }

    pub(super) async fn unpause(&self, id: &str) -> Result<(), EngineError> {
        self.call("unpause a container", LOOK, self.docker.unpause_container(id)).await
    }

    /// With its processes and its unnamed volumes.
    pub(super) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.call("remove a container", WORK, self.docker.remove_container(id, Some(options))).await
    }

    /// The last bytes that it printed, standard output and error, of its last so many lines since a time (seconds since
    /// 1970 by the engine's clock): a container keeps what its earlier runs have printed.
    pub(super) async fn last_lines(
        &self,
        id: &str,
        lines: u32,
        since_secs: i32,
    ) -> Result<Vec<u8>, EngineError> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).since(since_secs);
        let options = options.tail(&lines.to_string()).build();
        let mut stream = Box::pin(self.docker.logs(id, Some(options)));
        let read = async move {
            let mut text = Vec::new();
            while let Some(piece) = stream.next().await {
                text.extend_from_slice(&piece?.into_bytes());
                if text.len() > LOG_BYTES_MAX {
                    text.drain(..text.len() - LOG_BYTES_MAX);
                }
            }
            Ok(text)
        };
        self.call("show a container's log", LOOK, read).await
    }

    /// What it prints from a time on (seconds since 1970 by the engine's clock), without end.
    pub(super) fn log(&self, id: &str, since_secs: i32) -> Items<LogOutput> {
        let options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).since(since_secs).build();
        Box::pin(self.docker.logs(id, Some(options)))
    }

    pub(super) async fn stats(&self, id: &str) -> Result<ContainerStatsResponse, EngineError> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stream = Box::pin(self.docker.stats(id, Some(options)));
        let first = async move {
            match stream.next().await {
                Some(stats) => stats,
                None => Err(bollard::errors::Error::RequestTimeoutError),
            }
        };
        self.call("tell what a container uses", LOOK / 2, first).await
    }

    /// Runs a command in a container. Its exit code, and what it printed, as far as it is short.
    pub(super) async fn exec(
        &self,
        id: &str,
        command: Vec<String>,
        env: Vec<String>,
        deadline: Duration,
    ) -> Result<(i64, Vec<u8>), EngineError> {
        let config = ExecConfig {
            cmd: Some(command),
            env: Some(env),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let run = async {
            let exec = self.docker.create_exec(id, config).await?.id;
            let mut printed = Vec::new();
            if let StartExecResults::Attached { mut output, .. } = self.docker.start_exec(&exec, None).await?
            {
                while let Some(piece) = output.next().await {
                    let piece = piece?.into_bytes();
                    let room = EXEC_BYTES_MAX.saturating_sub(printed.len());
                    printed.extend_from_slice(&piece[..piece.len().min(room)]);
                }
            }
            let code = self.docker.inspect_exec(&exec).await?.exit_code;
            Ok((code.unwrap_or(-1), printed))
        };
        self.call("run a command in a container", deadline, run).await
    }

    /// Unpacks a tar archive over a container's root.
    pub(super) async fn upload(&self, id: &str, archive: Vec<u8>) -> Result<(), EngineError> {
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let body = bollard::body_full(Bytes::from(archive));
        self.call(
            "copy files into a container",
            WORK,
            self.docker.upload_to_container(id, Some(options), body),
        )
        .await
    }

    /// Into one more network, before it is started.
    pub(super) async fn join(
        &self,
        id: &str,
        network: &str,
        endpoint: EndpointSettings,
    ) -> Result<(), EngineError> {
        let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(endpoint) };
        self.call("join a network", LOOK, self.docker.connect_network(network, request)).await
    }

    pub(super) async fn image(&self, name: &str) -> Result<ImageInspect, EngineError> {
        self.call("describe an image", LOOK, self.docker.inspect_image(name)).await
    }

    /// Pulls an image, by its layers' progress.
    pub(super) fn pull(&self, name: &str) -> Items<CreateImageInfo> {
        let (image, tag) = split_tag(name);
        let options = CreateImageOptionsBuilder::default().from_image(image).tag(tag).build();
        Box::pin(self.docker.create_image(Some(options), None, None))
    }

    /// Makes an image of a root file system's tar archive.
    pub(super) async fn import(&self, name: &str, tag: &str, archive: Vec<u8>) -> Result<(), EngineError> {
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(name).tag(tag).build();
        let body = bollard::body_full(Bytes::from(archive));
        let mut told = Box::pin(self.docker.create_image(Some(options), Some(body), None));
        let all = async move {
            while let Some(item) = told.next().await {
                item?;
            }
            Ok(())
        };
        self.call("make an image", WORK, all).await
    }

    pub(super) async fn remove_image(&self, name: &str) -> Result<(), EngineError> {
        let options = None::<bollard::query_parameters::RemoveImageOptions>;
        self.call("remove an image", WORK, self.docker.remove_image(name, options, None)).await.map(drop)
    }

    /// What happens to containers from a time on (seconds since 1970 by the engine's clock; empty is now).
    pub(super) fn events(&self, since: &str) -> Items<EventMessage> {
        let options = EventsOptionsBuilder::default().filters(&HashMap::from([("type", vec!["container"])]));
        let options = if since.is_empty() { options } else { options.since(since) };
        Box::pin(self.docker.events(Some(options.build())))
    }

    pub(super) fn failed(&self, what: &'static str, error: &bollard::errors::Error) -> EngineError {
        failed(&self.place, what, Duration::ZERO, error)
    }
}

/// The address of the machine that an engine is on.
async fn machine(place: &Place) -> Result<IpAddr, EngineError> {
    let Some(name) = place.machine() else { return Ok(Ipv4Addr::LOCALHOST.into()) };
    if let Ok(ip) = name.parse() {
        return Ok(ip);
    }
    let unknown = |why: String| EngineError::Unreachable { host: place.host.clone(), why };
    let found = tokio::time::timeout(LOOK, tokio::net::lookup_host((name, 0))).await;
    let found = found.map_err(|_| unknown("its name was not resolved in time".to_owned()))?;
    let mut found = found.map_err(|error| unknown(error.to_string()))?;
    found.next().map(|at| at.ip()).ok_or_else(|| unknown("its name has no address".to_owned()))
}

/// What an engine tells bit by bit.
pub(super) type Items<T> = Pin<Box<dyn Stream<Item = Result<T, bollard::errors::Error>> + Send>>;

/// `1.41` as numbers that compare.
fn version(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// With the agreed version in front of its path: without one, an engine takes its own newest.
fn versioned(request: bollard::BollardRequest, prefix: &str) -> bollard::BollardRequest {
    let path = request.uri().path();
    let stated = path.strip_prefix("/v").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if stated {
        return request;
    }
    let (mut head, body) = request.into_parts();
    let mut parts = head.uri.clone().into_parts();
    let old = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
    parts.path_and_query = format!("{prefix}{old}").parse().ok();
    if let Ok(uri) = hyper::Uri::from_parts(parts) {
        head.uri = uri;
    }
    hyper::Request::from_parts(head, body)
}

/// `registry:5000/a/b:tag` as its name and its tag, or its whole name with a digest; without either it is `latest`,
/// since an engine would pull every tag there is.
fn split_tag(name: &str) -> (&str, &str) {
    if name.contains('@') {
        return (name, "");
    }
    match name.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') => (image, tag),
        _ => (name, "latest"),
    }
}

async fn within<T>(
    place: &Place,
    what: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(place, what, deadline, &error)),
        Err(_) => Err(EngineError::NoAnswer { host: place.host.clone(), what, secs: deadline.as_secs() }),
    }
}

fn failed(
    place: &Place,
    what: &'static str,
    deadline: Duration,
    error: &bollard::errors::Error,
) -> EngineError {
    use bollard::errors::Error;
    let host = place.host.clone();
    match error {
        Error::DockerResponseServerError { message, .. }
            if message.contains("HTTP request to an HTTPS server") =>
        {
            EngineError::Unreachable { host, why: "it wants TLS: give ca, cert and key".to_owned() }
        }
        Error::DockerResponseServerError { status_code, message } => {
            let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
            EngineError::Refused { what, status: *status_code, message }
        }
        Error::DockerStreamError { error } => EngineError::Refused {
            what,
            status: 0,
            message: error.split_whitespace().collect::<Vec<_>>().join(" "),
        },
        Error::RequestTimeoutError => EngineError::NoAnswer { host, what, secs: deadline.as_secs() },
        error => {
            let why = causes(error);
            if why.contains("Permission denied") {
                EngineError::Denied { host }
            } else {
                EngineError::Unreachable { host, why: place.explained(why) }
            }
        }
    }
}

/// An error with those that it came from, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The version of this side.
pub(super) fn newest() -> ClientVersion {
    *bollard::API_DEFAULT_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (name, parts) in [
            ("nginx", ("nginx", "latest")),
            ("nginx:1.27", ("nginx", "1.27")),
            ("localhost:5000/nginx", ("localhost:5000/nginx", "latest")),
            ("localhost:5000/nginx:1", ("localhost:5000/nginx", "1")),
            ("nginx@sha256:00", ("nginx@sha256:00", "")),
        ] {
            assert_eq!(split_tag(name), parts, "{name}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("1.9") < version("1.41") && version("1.41") < version("1.100"));
        assert_eq!((version("1"), version("1.x"), version("")), (None, None, None));
    }
}
