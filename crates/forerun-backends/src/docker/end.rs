//! How a container ended, as the engine knows it and as a person reads it.

use super::engine::{Engine, EngineError};
use super::labelled::restart_name;
use super::ready::started_secs;
use crate::output::Tail;
use crate::process::{signal_name, with_lines};
use bollard::models::ContainerInspectResponse;

/// Lines of its log that are looked at.
const LINES: u32 = 20;

/// What is left of a container that does not run.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) code: i64,
    oom: bool,
    /// Its limit in bytes; 0 is none.
    memory_bytes: i64,
    /// What the engine says of a start that came to nothing.
    error: String,
    restart: &'static str,
    /// The engine is about to start it again by its restart policy.
    again: bool,
    /// It is not there any more.
    pub(super) removed: bool,
    tail: Tail,
}

/// Whether the container has ended since it was started at that time.
pub(super) fn has_ended(found: &ContainerInspectResponse, started_at: &str) -> bool {
    let Some(state) = &found.state else { return true };
    let runs = state.running == Some(true) && state.restarting != Some(true);
    // One that the engine has started again in between is another run.
    !runs || state.started_at.as_deref().unwrap_or_default() != started_at
}

impl Ended {
    /// Looks at a container that does not run any more, and at the last lines of its log.
    pub(super) async fn of(engine: &Engine, id: &str, saw_oom: bool) -> Result<Self, EngineError> {
        match engine.inspect(id).await {
            Ok(found) => {
                let mut ended = Self::described(&found, saw_oom);
                // Lines are worth a moment, not an outcome.
                if let Ok(lines) = engine.last_lines(id, LINES, started_secs(&found)).await {
                    ended.tail.push(&lines, None);
                }
                Ok(ended)
            }
            Err(error) if error.is_absent() => Ok(Self { removed: true, ..Self::default() }),
            Err(error) => Err(error),
        }
    }

    fn described(found: &ContainerInspectResponse, saw_oom: bool) -> Self {
        let state = found.state.clone().unwrap_or_default();
        let host = found.host_config.as_ref();
        let code = state.exit_code.unwrap_or(-1);
        Self {
            code,
            // The engine's own flag is set for the first process only, on some versions and control groups.
            oom: state.oom_killed == Some(true) || (saw_oom && code == 137),
            memory_bytes: host.and_then(|host| host.memory).unwrap_or(0),
            error: state.error.unwrap_or_default(),
            restart: restart_name(host.and_then(|host| host.restart_policy.as_ref()?.name)),
            again: state.restarting == Some(true),
            removed: false,
            tail: Tail::default(),
        }
    }

    /// By its own will and as it was meant to: nobody starts it again.
    pub(super) fn is_completed(&self) -> bool {
        self.code == 0 && !self.removed && !self.again && matches!(self.restart, "no" | "on-failure")
    }

    /// `exit code 3; last lines: ...`
    pub(super) fn sentence(&self) -> String {
        if self.removed {
            return "its container was removed".to_owned();
        }
        if !self.error.is_empty() {
            let error = self.error.split_whitespace().collect::<Vec<_>>().join(" ");
            return with_lines(error, &self.tail);
        }
        let mut how = match (self.oom, self.code) {
            (true, _) if self.memory_bytes > 0 => format!(
                "out of memory: it used more memory than its limit of {:.1} MB, and the kernel killed it",
                self.memory_bytes as f64 / 1e6
            ),
            (true, _) => "out of memory: the machine had none left, and the kernel killed it".to_owned(),
            (_, 137) => "exit code 137, killed by SIGKILL, not by forerun (was memory short?)".to_owned(),
            (_, code @ 129..=192) => {
                format!("exit code {code}, killed by {}", signal_name(i32::try_from(code).unwrap_or(0) - 128))
            }
            (_, code) => format!("exit code {code}"),
        };
        if self.again {
            how += &format!(" (the engine starts it again: its restart policy is `{}`)", self.restart);
        }
        with_lines(how, &self.tail)
    }

    /// The last lines alone, behind a sentence of somebody else's.
    pub(super) fn with_lines(&self, what: String) -> String {
        with_lines(what, &self.tail)
    }

    pub(super) fn printed(bytes: &[u8]) -> Self {
        let mut ended = Self::default();
        ended.tail.push(bytes, None);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerState, HostConfig, RestartPolicy, RestartPolicyNameEnum};

    fn found(state: ContainerState, policy: RestartPolicyNameEnum) -> ContainerInspectResponse {
        ContainerInspectResponse {
            state: Some(state),
            host_config: Some(HostConfig {
                memory: Some(16_000_000),
                restart_policy: Some(RestartPolicy { name: Some(policy), maximum_retry_count: None }),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    fn check(state: ContainerState, saw_oom: bool, sentence: &str) {
        let ended = Ended::described(&found(state, RestartPolicyNameEnum::ALWAYS), saw_oom);
        assert_eq!(ended.sentence(), sentence);
    }

    #[test]
    fn ends_are_told_in_a_sentence() {
        let code = |code| ContainerState { exit_code: Some(code), ..ContainerState::default() };
        check(code(3), false, "exit code 3; it printed nothing");
        check(code(3), true, "exit code 3; it printed nothing");
        check(code(139), false, "exit code 139, killed by SIGSEGV; it printed nothing");
        check(code(255), false, "exit code 255; it printed nothing");
        let limit = "out of memory: it used more memory than its limit of 16.0 MB, and the kernel killed it; it printed nothing";
        check(code(137), true, limit);
        check(ContainerState { oom_killed: Some(true), ..code(1) }, false, limit);
        check(
            ContainerState { restarting: Some(true), ..code(1) },
            false,
            "exit code 1 (the engine starts it again: its restart policy is `always`); it printed nothing",
        );
        check(
            ContainerState { error: Some("exec: \"x\":\nnot found".to_owned()), ..code(127) },
            false,
            "exec: \"x\": not found; it printed nothing",
        );
    }

    #[test]
    fn only_what_nobody_starts_again_is_completed() {
        let done = |code, policy| {
            let state = ContainerState { exit_code: Some(code), ..ContainerState::default() };
            Ended::described(&found(state, policy), false).is_completed()
        };
        assert!(done(0, RestartPolicyNameEnum::NO) && done(0, RestartPolicyNameEnum::ON_FAILURE));
        assert!(!done(1, RestartPolicyNameEnum::NO) && !done(0, RestartPolicyNameEnum::ALWAYS));
    }

    #[test]
    fn a_run_ends_when_another_begins() {
        let state = |running, restarting| ContainerState {
            running: Some(running),
            restarting: Some(restarting),
            started_at: Some("then".to_owned()),
            ..ContainerState::default()
        };
        for (running, restarting, started_at, ended) in [
            (true, false, "then", false),
            (true, false, "before", true),
            (false, false, "then", true),
            (true, true, "then", true),
        ] {
            let found = found(state(running, restarting), RestartPolicyNameEnum::NO);
            assert_eq!(has_ended(&found, started_at), ended);
        }
    }
}
