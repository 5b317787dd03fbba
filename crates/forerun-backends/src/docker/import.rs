//! Images made on the spot, for a demo or a benchmark on a machine that has no registry.

use super::engine::{Engine, EngineError};
use super::host::{Place, TlsFiles};

/// Makes the image `repository:tag` of a root file system's tar archive, and waits for it. Returns what runs there, as
/// `Docker 20.10.24, API 1.41`.
///
/// # Errors
/// If no engine is there, it does not answer in time, or it refuses.
pub fn import(
    host: Option<&str>,
    tls: Option<&TlsFiles>,
    (repository, tag): (&str, &str),
    archive: Vec<u8>,
) -> Result<String, EngineError> {
    with_engine(host, tls, async |engine| {
        engine.import(repository, tag, archive).await?;
        Ok(format!("{} {}, API {}", engine.kind, engine.version, engine.api))
    })
}

/// Removes an image that was made by [`import`]; one that is not there is removed already.
///
/// # Errors
/// If no engine is there, it does not answer in time, or it refuses (a container still uses the image).
pub fn remove_image(host: Option<&str>, tls: Option<&TlsFiles>, name: &str) -> Result<(), EngineError> {
    with_engine(host, tls, async |engine| match engine.remove_image(name).await {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    })
}

fn with_engine<T>(
    host: Option<&str>,
    tls: Option<&TlsFiles>,
    work: impl AsyncFnOnce(Engine) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let place = Place::find(host, tls)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| EngineError::Unreachable { host: place.host.clone(), why: error.to_string() })?;
    runtime.block_on(async { work(Engine::connect(&place).await?).await })
}
