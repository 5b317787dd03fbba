//! A container that a person has labelled for Forerun, as the configuration needs it.

use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use std::collections::{BTreeMap, HashMap};

/// What every container that is Forerun's business carries.
pub const ENABLE: &str = "forerun.enable";

/// A container as the engine describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    pub id: String,
    /// Without the slash in front.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// As it was asked for: `nginx:1.27`.
    pub image: String,
    /// It has processes; a paused one has them too.
    pub running: bool,
    pub paused: bool,
    /// What `restart:` says: `no`, `always`, `unless-stopped` or `on-failure`.
    pub restart: String,
    /// TCP ports that it exposes, smallest first.
    pub ports: Vec<u16>,
    /// Networks that it is in, by name.
    pub networks: Vec<String>,
    /// Why there can be no second one like it, and the mend.
    pub only_one: Option<String>,
}

impl Labelled {
    pub(super) fn of(found: &ContainerInspectResponse) -> Self {
        let config = found.config.as_ref();
        let host = found.host_config.as_ref();
        let state = found.state.as_ref();
        let labels = config.and_then(|config| config.labels.clone()).unwrap_or_default();
        let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let mut networks: Vec<String> = networks.into_iter().flat_map(HashMap::keys).cloned().collect();
        networks.sort();
        let policy = host.and_then(|host| host.restart_policy.as_ref()?.name);
        Self {
            id: found.id.clone().unwrap_or_default(),
            name: name_of(found),
            labels: labels.into_iter().collect(),
            image: config.and_then(|config| config.image.clone()).unwrap_or_default(),
            running: state.and_then(|state| state.running).unwrap_or(false),
            paused: state.and_then(|state| state.paused).unwrap_or(false),
            restart: restart_name(policy).to_owned(),
            ports: exposed(config.and_then(|config| config.exposed_ports.as_deref())),
            networks,
            only_one: super::clone::why_not(found),
        }
    }
}

pub(super) fn name_of(found: &ContainerInspectResponse) -> String {
    found.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned()
}

pub(super) fn restart_name(policy: Option<RestartPolicyNameEnum>) -> &'static str {
    match policy {
        Some(RestartPolicyNameEnum::ALWAYS) => "always",
        Some(RestartPolicyNameEnum::UNLESS_STOPPED) => "unless-stopped",
        Some(RestartPolicyNameEnum::ON_FAILURE) => "on-failure",
        Some(RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY) | None => "no",
    }
}

/// The TCP ports of `80/tcp`, `53/udp` and the like, smallest first.
pub(super) fn exposed(ports: Option<&[String]>) -> Vec<u16> {
    let tcp = |port: &String| port.strip_suffix("/tcp").unwrap_or(port).parse().ok();
    let mut ports: Vec<u16> = ports.unwrap_or_default().iter().filter_map(tcp).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, ContainerState, HostConfig, RestartPolicy};

    #[test]
    fn ports_are_the_tcp_ones() {
        let check = |ports: &[&str], expected: &[u16]| {
            let ports: Vec<String> = ports.iter().map(|port| (*port).to_owned()).collect();
            assert_eq!(exposed(Some(&ports)), expected);
        };
        check(&[], &[]);
        check(&["443/tcp", "80/tcp", "53/udp", "80"], &[80, 443]);
        check(&["x/tcp", "70000/tcp"], &[]);
        assert_eq!(exposed(None), [0; 0]);
    }

    #[test]
    fn an_empty_description_is_a_stopped_container_without_anything() {
        let empty = Labelled::of(&ContainerInspectResponse::default());
        assert_eq!(empty, Labelled { restart: "no".to_owned(), ..Labelled::default() });
    }

    #[test]
    fn what_the_engine_says_is_kept() {
        let found = ContainerInspectResponse {
            id: Some("abc".to_owned()),
            name: Some("/shop-web-1".to_owned()),
            config: Some(ContainerConfig {
                image: Some("web:1".to_owned()),
                labels: Some([(ENABLE.to_owned(), "true".to_owned())].into()),
                exposed_ports: Some(vec!["80/tcp".to_owned()]),
                ..ContainerConfig::default()
            }),
            host_config: Some(HostConfig {
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                ..HostConfig::default()
            }),
            state: Some(ContainerState {
                running: Some(true),
                paused: Some(true),
                ..ContainerState::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let labelled = Labelled::of(&found);
        assert_eq!((labelled.name.as_str(), labelled.image.as_str()), ("shop-web-1", "web:1"));
        assert_eq!((labelled.running, labelled.paused, labelled.ports), (true, true, vec![80]));
        assert_eq!(labelled.restart, "unless-stopped");
        assert_eq!(labelled.labels.get(ENABLE).map(String::as_str), Some("true"));
    }
}
