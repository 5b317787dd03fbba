//! Images made on the spot, for a demo or a benchmark on a machine that has no registry.

use super::engine::{Engine, EngineError};
use super::host::{Place, TlsFiles};
use super::owner::MADE;
use std::collections::BTreeSet;

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

/// Removes images of this repository by [`import`], and containers that were made of them, where `is_over` says so of
/// the tag: what a run that was killed has left. Returns how many containers went.
///
/// # Errors
/// If no engine is there, it does not answer in time, or it refuses.
pub fn remove_leftovers(
    host: Option<&str>,
    tls: Option<&TlsFiles>,
    repository: &str,
    is_over: impl Fn(&str) -> bool,
) -> Result<usize, EngineError> {
    let over = |name: &str| {
        let tag = name.strip_prefix(repository).and_then(|rest| rest.strip_prefix(':'));
        tag.is_some_and(&is_over)
    };
    with_engine(host, tls, async |engine| {
        let (mut removed, mut images) = (0, BTreeSet::new());
        for made in engine.list(&format!("{MADE}=true")).await? {
            let (Some(id), Some(image)) = (made.id, made.image.filter(|image| over(image))) else { continue };
            match engine.remove(&id).await {
                Err(error) if !error.is_absent() && !error.is_conflict() => return Err(error),
                _ => removed += 1,
            }
            images.insert(image);
        }
        for image in images {
            match engine.remove_image(&image).await {
                Err(error) if !error.is_absent() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(removed)
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
