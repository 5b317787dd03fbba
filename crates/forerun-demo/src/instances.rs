//! What the race's instances run in: processes, or containers of an image that is made on the spot.

use crate::DemoError;
use forerun_backends::{Backend, ProcessBackend, ProcessSettings, SetupError, Sink};
use forerun_types::{Launch, Span};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the race runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunsOn {
    #[default]
    Processes,
    /// Containers of the engine that is found, as `up` finds it.
    Containers,
}

/// The same program for both sides.
pub(crate) enum Instances {
    Processes(PathBuf),
    #[cfg(feature = "docker")]
    Containers(crate::image::Image),
}

impl Instances {
    /// Finds this program, or makes an image of it.
    ///
    /// # Errors
    /// Its own file is not found, or no engine takes the image.
    pub(crate) async fn prepare(runs: RunsOn) -> Result<Self, DemoError> {
        let this = std::env::current_exe().map_err(DemoError::Program)?;
        match runs {
            RunsOn::Processes => Ok(Self::Processes(this)),
            #[cfg(feature = "docker")]
            RunsOn::Containers => {
                let making = tokio::task::spawn_blocking(move || crate::image::Image::make(&this));
                making.await.map_err(|e| DemoError::Image(e.to_string()))?.map(Self::Containers)
            }
            #[cfg(not(feature = "docker"))]
            RunsOn::Containers => Err(DemoError::Image("this forerun was built without docker".to_owned())),
        }
    }

    /// What they are, for the preface.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Processes(_) => "real processes".to_owned(),
            #[cfg(feature = "docker")]
            Self::Containers(image) => format!("real containers, {}", image.engine),
        }
    }

    /// A service's backend, how an instance is started that sleeps so long before it listens, and its port.
    pub(crate) fn launch(&self, sleep: Span) -> (&'static str, Launch, Option<u16>) {
        let sleep = sleep.as_millis().to_string();
        match self {
            Self::Processes(program) => {
                let program = program.to_string_lossy();
                let command = [program.as_ref(), "__fixture", "--start-delay", &sleep].map(str::to_owned);
                (
                    "process",
                    Launch::Process { command: command.into(), env: BTreeMap::new(), folder: None },
                    None,
                )
            }
            #[cfg(feature = "docker")]
            Self::Containers(image) => ("docker", image.launch(&sleep), Some(crate::image::PORT)),
        }
    }

    /// One backend for one side, with a state folder of its own.
    ///
    /// # Errors
    /// [`SetupError`].
    pub(crate) fn backend(&self, sink: Sink, folder: &Path) -> Result<Arc<dyn Backend>, SetupError> {
        match self {
            Self::Processes(_) => {
                Ok(Arc::new(ProcessBackend::new(ProcessSettings::of_this_program(folder), sink)?))
            }
            #[cfg(feature = "docker")]
            Self::Containers(_) => crate::image::backend(sink),
        }
    }
}
