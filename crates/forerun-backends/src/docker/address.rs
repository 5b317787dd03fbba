//! Where a container answers.

use super::engine::Engine;
use super::labelled::{exposed, name_of};
use bollard::models::ContainerInspectResponse;
use forerun_types::ServiceSpec;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port that a service listens on in its container; 0 for one that takes no requests and has none.
pub(super) fn port_of(spec: &ServiceSpec, exposes: Option<&[String]>, what: &str) -> Result<u16, String> {
    if let Some(port) = spec.port {
        return Ok(port);
    }
    match exposed(exposes).as_slice() {
        [port] => Ok(*port),
        _ if spec.unrouted => Ok(0),
        [] => Err(format!("{what} exposes no port: say which it listens on (`port`, label `forerun.port`)")),
        ports => Err(format!(
            "{what} exposes several ports ({}): say which one takes the requests (`port`, label `forerun.port`)",
            ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Where it may answer, the likeliest first; never empty.
pub(super) async fn candidates(
    engine: &Engine,
    found: &ContainerInspectResponse,
    spec: &ServiceSpec,
) -> Result<Vec<SocketAddr>, String> {
    let what = format!("the container `{}`", name_of(found));
    let config = found.config.as_ref();
    let port = port_of(spec, config.and_then(|config| config.exposed_ports.as_deref()), &what)?;
    let mode = found.host_config.as_ref().and_then(|host| host.network_mode.as_deref()).unwrap_or_default();
    let other;
    let place = match mode.strip_prefix("container:") {
        // It lives in another one's network, whose addresses are its own.
        Some(id) => {
            other = engine.inspect(id).await.map_err(|error| error.to_string())?;
            &other
        }
        None => found,
    };
    let mut places = Vec::new();
    if mode == "host" {
        places.push(SocketAddr::new(engine.machine, port));
    }
    let on_network: Vec<SocketAddr> = addresses(place).map(|ip| SocketAddr::new(ip, port)).collect();
    let published = published(engine, place, port);
    // From another machine a container's own address is out of reach, as a rule.
    match engine.place.machine() {
        None => places.extend(on_network.into_iter().chain(published)),
        Some(_) => places.extend(published.into_iter().chain(on_network)),
    }
    if places.is_empty() && spec.unrouted {
        places.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    }
    match places.is_empty() {
        true => Err(format!("{what} is in no network and publishes no port {port}: nothing can reach it")),
        false => Ok(places),
    }
}

/// Its addresses in its networks, in order of their names.
fn addresses(found: &ContainerInspectResponse) -> impl Iterator<Item = IpAddr> + '_ {
    let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut networks: Vec<_> = networks.into_iter().flatten().collect();
    networks.sort_by_key(|(name, _)| *name);
    let given =
        networks.into_iter().flat_map(|(_, network)| [&network.ip_address, &network.global_ipv6_address]);
    given.filter_map(|ip| ip.as_deref()?.parse().ok())
}

fn published(engine: &Engine, found: &ContainerInspectResponse, port: u16) -> Vec<SocketAddr> {
    let ports = found.network_settings.as_ref().and_then(|settings| settings.ports.as_ref());
    let bindings = ports.and_then(|ports| ports.get(&format!("{port}/tcp"))?.as_ref());
    let mut places = Vec::new();
    for binding in bindings.into_iter().flatten() {
        let Some(host_port) = binding.host_port.as_deref().and_then(|port| port.parse().ok()) else {
            continue;
        };
        let told: Option<IpAddr> = binding.host_ip.as_deref().and_then(|ip| ip.parse().ok());
        let ip = match (engine.place.machine(), told) {
            (None, Some(ip)) if !ip.is_unspecified() => ip,
            _ => engine.machine,
        };
        places.push(SocketAddr::new(ip, host_port));
    }
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::ServiceId;

    fn check(port: Option<u16>, unrouted: bool, exposes: &[&str], expected: Result<u16, &str>) {
        let spec = ServiceSpec { port, unrouted, ..ServiceSpec::named(ServiceId(1), "web") };
        let exposes: Vec<String> = exposes.iter().map(|port| (*port).to_owned()).collect();
        match (port_of(&spec, Some(&exposes), "the image `web`"), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_port_is_said_or_the_only_one() {
        check(Some(9), false, &["80/tcp"], Ok(9));
        check(None, false, &["80/tcp", "53/udp"], Ok(80));
        check(None, false, &[], Err("the image `web` exposes no port: say which"));
        check(None, false, &["80/tcp", "81/tcp"], Err("exposes several ports (80, 81): say which"));
        check(None, true, &[], Ok(0));
        check(None, true, &["80/tcp", "81/tcp"], Ok(0));
    }
}
