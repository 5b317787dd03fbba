//! A second container like the user's own one.

use super::labelled::name_of;
use super::make::Recipe;
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig,
};
use std::collections::HashMap;

const COMPOSE: &str = "com.docker.compose.";
/// Compose then takes it for a container of one run: `up` leaves it alone, `down` takes it along.
const ONE_RUN: &str = "com.docker.compose.oneoff";
/// The digits of a container's id that are its name in its network, and its host name unless told otherwise.
const SHORT_ID: usize = 12;

/// # Errors
/// One sentence about what cannot be there twice, and the mend.
pub(super) fn like(own: &ContainerInspectResponse) -> Result<Recipe, String> {
    let name = name_of(own);
    let refuse = |why: &str| Err(format!("the container `{name}` cannot be cloned: {why}"));
    if let Some(why) = why_not(own) {
        return refuse(&why);
    }
    let (Some(config), Some(host)) = (own.config.clone(), own.host_config.clone()) else {
        return refuse("the engine does not tell its settings");
    };
    let id = own.id.clone().unwrap_or_default();
    let mode = host.network_mode.clone().unwrap_or_default();
    let networks = own.network_settings.as_ref().and_then(|settings| settings.networks.clone());
    let mut networks: Vec<(String, EndpointSettings)> = networks.unwrap_or_default().into_iter().collect();
    networks.sort_by(|a, b| (a.0 != mode, &a.0).cmp(&(b.0 != mode, &b.0)));
    let mut joined = Vec::new();
    for (network, endpoint) in networks {
        joined.push((network, like_endpoint(endpoint, &id, &name)));
    }
    let mut joined = joined.into_iter();
    let mut body = body(config, host, &id);
    body.networking_config = joined
        .next()
        .filter(|(network, _)| !is_built_in(network))
        .map(|first| bollard::models::NetworkingConfig { endpoints_config: Some(HashMap::from([first])) });
    Ok(Recipe { body, networks: joined.collect(), files: Vec::new() })
}

/// Why there cannot be a second one like it, and the mend; `None` if there can, as far as can be told before it is tried.
pub(super) fn why_not(own: &ContainerInspectResponse) -> Option<String> {
    own.host_config.as_ref().and_then(unique).or_else(|| {
        let networks = own.network_settings.as_ref()?.networks.as_ref()?;
        // In order, so that the same is told each time.
        let mut networks: Vec<_> = networks.iter().collect();
        networks.sort_by_key(|(network, _)| *network);
        networks.into_iter().find_map(|(network, endpoint)| {
            let ipam = endpoint.ipam_config.as_ref()?;
            let fixed = ipam.ipv4_address.as_ref().or(ipam.ipv6_address.as_ref());
            let address = fixed.filter(|address| !address.is_empty())?;
            Some(format!(
                "it has the fixed address {address} in the network `{network}`; leave the address to the engine"
            ))
        })
    })
}

/// What only one container can have.
fn unique(host: &HostConfig) -> Option<String> {
    let mode = host.network_mode.as_deref().unwrap_or_default();
    if mode == "host" {
        return Some(
            "it uses the host's network, where its port is taken; give it a network of its own".to_owned(),
        );
    }
    if mode.starts_with("container:") {
        return Some("it lives in another container's network; give it a network of its own".to_owned());
    }
    let bindings = host.port_bindings.iter().flatten();
    for (port, binding) in bindings.flat_map(|(port, list)| list.iter().flatten().map(move |one| (port, one)))
    {
        if let Some(fixed) = binding.host_port.as_deref().filter(|fixed| !matches!(*fixed, "" | "0")) {
            return Some(format!(
                "its port {port} is published as the fixed port {fixed} of the host; publish none (Forerun reaches it \
                 by its network), or leave the number out"
            ));
        }
    }
    None
}

fn body(config: ContainerConfig, host: HostConfig, id: &str) -> ContainerCreateBody {
    let own_name = config.hostname.as_deref().is_some_and(|name| id.starts_with(name));
    // Where networks tell it, a name of its own would be refused.
    let hostname = config.hostname.filter(|name| !own_name && !name.is_empty());
    ContainerCreateBody {
        hostname,
        domainname: config.domainname.filter(|name| !name.is_empty()),
        user: config.user,
        exposed_ports: config.exposed_ports,
        tty: config.tty,
        open_stdin: config.open_stdin,
        env: config.env,
        cmd: config.cmd,
        healthcheck: config.healthcheck,
        image: config.image,
        volumes: config.volumes,
        working_dir: config.working_dir,
        entrypoint: config.entrypoint,
        labels: Some(labels(config.labels.unwrap_or_default())),
        stop_signal: config.stop_signal,
        stop_timeout: config.stop_timeout,
        shell: config.shell,
        host_config: Some(HostConfig { container_id_file: None, console_size: None, ..host }),
        ..ContainerCreateBody::default()
    }
}

/// Without what made the own one a service, and for compose no container of its count.
fn labels(labels: HashMap<String, String>) -> HashMap<String, String> {
    let kept = |key: &str| match key.strip_prefix(COMPOSE) {
        Some(rest) => matches!(rest, "project" | "service"),
        None => key != "forerun" && !key.starts_with("forerun."),
    };
    let mut labels: HashMap<String, String> = labels.into_iter().filter(|(key, _)| kept(key)).collect();
    if labels.contains_key("com.docker.compose.project") {
        labels.insert(ONE_RUN.to_owned(), "True".to_owned());
    }
    labels
}

/// The names by which it is found in a network, without those that are the own one's alone.
fn like_endpoint(endpoint: EndpointSettings, id: &str, name: &str) -> EndpointSettings {
    let short = id.get(..SHORT_ID).unwrap_or(id).to_owned();
    let aliases = endpoint.aliases.map(|aliases| {
        aliases.into_iter().filter(|alias| *alias != short && alias != name).collect::<Vec<_>>()
    });
    EndpointSettings {
        aliases: aliases.filter(|aliases| !aliases.is_empty()),
        links: endpoint.links,
        driver_opts: endpoint.driver_opts,
        ..EndpointSettings::default()
    }
}

/// Networks that take no names.
fn is_built_in(network: &str) -> bool {
    matches!(network, "bridge" | "host" | "none" | "default" | "podman")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{EndpointIpamConfig, NetworkSettings, PortBinding};

    const ID: &str = "0123456789abcdef";

    fn own(host: HostConfig, endpoint: EndpointSettings) -> ContainerInspectResponse {
        let labels = [
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "web"),
            ("com.docker.compose.container-number", "1"),
            ("com.docker.compose.config-hash", "00"),
            ("forerun.enable", "true"),
            ("team", "a"),
        ];
        let config = ContainerConfig {
            image: Some("web:1".to_owned()),
            hostname: Some("0123456789ab".to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ContainerConfig::default()
        };
        let networks =
            [("shop_default".to_owned(), endpoint), ("back".to_owned(), EndpointSettings::default())];
        ContainerInspectResponse {
            id: Some(ID.to_owned()),
            name: Some("/shop-web-1".to_owned()),
            config: Some(config),
            host_config: Some(host),
            network_settings: Some(NetworkSettings {
                networks: Some(networks.into()),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    fn plain() -> HostConfig {
        HostConfig { network_mode: Some("shop_default".to_owned()), ..HostConfig::default() }
    }

    #[test]
    fn a_clone_is_like_its_own_without_what_is_its_own() {
        let aliases = ["web", "shop-web-1", "0123456789ab"].map(str::to_owned).to_vec();
        let endpoint = EndpointSettings { aliases: Some(aliases), ..EndpointSettings::default() };
        let recipe = like(&own(plain(), endpoint)).unwrap();
        let first = recipe.body.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(first["shop_default"].aliases.as_deref().unwrap(), ["web"]);
        assert_eq!(recipe.networks.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["back"]);
        assert_eq!((recipe.body.hostname, recipe.body.image.as_deref()), (None, Some("web:1")));
        let mut labels: Vec<_> = recipe.body.labels.unwrap().into_iter().collect();
        labels.sort();
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            labels,
            [
                "com.docker.compose.oneoff=True",
                "com.docker.compose.project=shop",
                "com.docker.compose.service=web",
                "team=a"
            ]
        );
    }

    #[test]
    fn what_cannot_be_there_twice_is_refused_with_a_reason() {
        let check = |host: HostConfig, endpoint: EndpointSettings, part: &str| {
            let error = like(&own(host, endpoint)).unwrap_err();
            assert!(
                error.starts_with("the container `shop-web-1` cannot be cloned: ") && error.contains(part),
                "{error}"
            );
        };
        let mode = |mode: &str| HostConfig { network_mode: Some(mode.to_owned()), ..HostConfig::default() };
        check(mode("host"), EndpointSettings::default(), "the host's network");
        check(mode("container:abc"), EndpointSettings::default(), "another container's network");
        let port = |port: &str| HostConfig {
            port_bindings: Some(HashMap::from([(
                "80/tcp".to_owned(),
                Some(vec![PortBinding { host_ip: None, host_port: Some(port.to_owned()) }]),
            )])),
            ..plain()
        };
        check(
            port("8080"),
            EndpointSettings::default(),
            "its port 80/tcp is published as the fixed port 8080",
        );
        assert!(like(&own(port(""), EndpointSettings::default())).is_ok());
        let fixed = EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some("10.1.2.3".to_owned()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        check(plain(), fixed, "the fixed address 10.1.2.3 in the network `shop_default`");
    }
}
