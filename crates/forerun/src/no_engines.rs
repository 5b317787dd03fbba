//! In place of [`engines`](crate::engines) where Forerun is built without containers: there are none.

use crate::config::{Config, Service};
use crate::zones::Zones;
use forerun_backends::{Backend, SetupError, Sink};
use forerun_engine::live::Describer;
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Engines;

pub(crate) struct Labels;

impl Engines {
    pub(crate) fn find(config: &Config, _zones: Zones) -> (Self, Labels) {
        if let Some(service) = config.services.iter().find(|s| s.spec.backend.starts_with("docker")) {
            let name = &service.spec.name;
            tracing::warn!("this forerun was built without docker: {name} cannot be started");
        }
        (Self, Labels)
    }

    /// # Errors
    /// None.
    pub(crate) fn backends(self, _sink: &Sink, _folder: &Path) -> Result<Vec<Arc<dyn Backend>>, SetupError> {
        Ok(Vec::new())
    }
}

impl Labels {
    pub(crate) fn services(&self) -> Vec<Service> {
        Vec::new()
    }

    /// # Errors
    /// None.
    pub(crate) fn follow(self, _describer: Describer) -> std::io::Result<()> {
        Ok(())
    }
}
