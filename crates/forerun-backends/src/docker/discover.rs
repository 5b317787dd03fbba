//! One look at an engine, for commands that print what is there.

use super::engine::{Engine, EngineError};
use super::host::{Place, TlsFiles};
use super::labelled::Labelled;

/// An engine and the containers that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// `unix:///var/run/docker.sock`
    pub host: String,
    /// `Docker` or `Podman`.
    pub kind: &'static str,
    pub version: String,
    /// The API version that is spoken with it, and the lowest that it would speak.
    pub api: String,
    pub api_min: String,
    /// In order of name.
    pub containers: Vec<Labelled>,
}

/// Looks once, and waits for it: at most some ten seconds for each container. `label` is `key` or `key=value`;
/// empty is every container.
///
/// # Errors
/// If no engine is there, it does not answer in time, or it refuses.
pub fn discover(host: Option<&str>, tls: Option<&TlsFiles>, label: &str) -> Result<Discovered, EngineError> {
    let place = Place::find(host, tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| EngineError::Unreachable { host: place.host.clone(), why: error.to_string() })?;
    runtime.block_on(async {
        let engine = Engine::connect(&place).await?;
        let containers = labelled(&engine, label).await?;
        Ok(Discovered {
            host: place.host.clone(),
            kind: engine.kind,
            version: engine.version.clone(),
            api: engine.api.clone(),
            api_min: engine.api_min.clone(),
            containers,
        })
    })
}

/// The containers with a label, in order of name.
pub(super) async fn labelled(engine: &Engine, label: &str) -> Result<Vec<Labelled>, EngineError> {
    let mut containers = Vec::new();
    for summary in engine.list(label).await? {
        let Some(id) = summary.id else { continue };
        match engine.inspect(&id).await {
            Ok(found) => containers.push(Labelled::of(&found)),
            // It went between the two looks.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(containers)
}
