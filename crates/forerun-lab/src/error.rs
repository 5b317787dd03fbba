//! What the lab refuses.

/// Settings that do not fit each other or the trace.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LabError {
    #[error("{option}: {why}")]
    Option { option: &'static str, why: String },
    #[error("service {name:?} takes {bytes} bytes, more than the capacity of {capacity}: raise --capacity")]
    NeverFits { name: String, bytes: u64, capacity: u64 },
    #[error("the trace has no request before --until")]
    Nothing,
    #[error("policy {policy}: its actions at {at_s} s never come to an end")]
    Restless { policy: String, at_s: f64 },
}

impl LabError {
    pub(crate) fn option(option: &'static str, why: impl Into<String>) -> Self {
        Self::Option { option, why: why.into() }
    }
}
