//! What a container that Forerun makes is made of: an image and what the service says.

use super::address::port_of;
use super::owner::Owner;
use crate::hooks;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, ImageInspect, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use forerun_types::{Container, InstanceId, ServiceSpec};
use std::collections::HashMap;
use std::path::PathBuf;

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recipe {
    pub(super) body: ContainerCreateBody,
    /// Networks beyond the first, which older engines take only one by one.
    pub(super) networks: Vec<(String, EndpointSettings)>,
    /// Put into it before it starts.
    pub(super) files: Vec<(PathBuf, String)>,
}

/// How a backend makes containers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// What `resources` says becomes the container's limit.
    pub(super) limit: bool,
    /// The engine is on another machine: its containers' ports must be published to be reached.
    pub(super) publish: bool,
}

/// # Errors
/// A sentence about what in the service cannot be had.
pub(super) fn from_image(
    spec: &ServiceSpec,
    launch: &Container,
    image: &ImageInspect,
    manner: Manner,
) -> Result<Recipe, String> {
    let exposes = image.config.as_ref().and_then(|config| config.exposed_ports.as_deref());
    let port = port_of(spec, exposes, &format!("the image `{}`", launch.image))?;
    let filled = |text: &String| text.replace("{port}", &port.to_string());
    let mut env = vec![format!("FORERUN_SERVICE={}", spec.name)];
    if port != 0 && !launch.env.contains_key("PORT") {
        env.push(format!("PORT={port}"));
    }
    env.extend(launch.env.iter().map(|(key, value)| format!("{key}={}", filled(value))));
    let mut networks = launch.networks.iter().map(|name| (name.clone(), EndpointSettings::default()));
    let mut host = HostConfig {
        binds: Some(launch.mounts.clone()),
        network_mode: networks.next().map(|(name, _)| name),
        ..HostConfig::default()
    };
    let mut body = ContainerCreateBody {
        image: Some(launch.image.clone()),
        env: Some(env),
        cmd: match launch.command.as_slice() {
            // Arguments of a key are put behind the image's own.
            [] if spec.variant.is_some() => image.config.as_ref().and_then(|config| config.cmd.clone()),
            [] => None,
            words => Some(words.iter().map(filled).collect()),
        },
        ..ContainerCreateBody::default()
    };
    if port != 0 {
        let port = format!("{port}/tcp");
        body.exposed_ports = Some(vec![port.clone()]);
        host.port_bindings =
            manner.publish.then(|| HashMap::from([(port, Some(vec![PortBinding::default()]))]));
    }
    body.host_config = Some(host);
    Ok(Recipe { body, networks: networks.collect(), files: Vec::new() })
}

impl Recipe {
    /// Gives it its owner's labels, its limits and what its key adds.
    ///
    /// # Errors
    /// A key, or a text with the key in it, that cannot be.
    pub(super) fn finish(
        &mut self,
        spec: &ServiceSpec,
        instance: InstanceId,
        owner: &Owner,
        manner: Manner,
    ) -> Result<(), String> {
        self.body.labels.get_or_insert_default().extend(owner.labels(spec, instance));
        self.body.env.get_or_insert_default().push(format!("FORERUN_INSTANCE={instance}"));
        let host = self.body.host_config.get_or_insert_default();
        // The plan says whether it is wanted again, and the engine must not know better.
        host.restart_policy =
            Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None });
        host.auto_remove = Some(false);
        if manner.limit && host.memory.unwrap_or(0) == 0 && spec.resources.memory_bytes > 0 {
            let bytes = i64::try_from(spec.resources.memory_bytes).unwrap_or(i64::MAX);
            host.memory = Some(bytes);
            host.memory_swap = Some(bytes);
        }
        if manner.limit && host.nano_cpus.unwrap_or(0) == 0 && host.cpu_quota.unwrap_or(0) == 0 {
            let nanos = i64::try_from(spec.resources.cpu_milli).unwrap_or(0).saturating_mul(1_000_000);
            host.nano_cpus = (nanos > 0).then_some(nanos);
        }
        self.specialise(spec)
    }

    fn specialise(&mut self, spec: &ServiceSpec) -> Result<(), String> {
        let Some(variant) = &spec.variant else { return Ok(()) };
        let key = variant.key.as_str();
        hooks::check_key(key).map_err(|error| error.to_string())?;
        let env = self.body.env.get_or_insert_default();
        env.push(format!("FORERUN_KEY={key}"));
        let Some(adds) = &spec.specialise else { return Ok(()) };
        env.extend(adds.env.iter().map(|(name, value)| format!("{name}={}", hooks::fill(value, key))));
        if !adds.args.is_empty() {
            let args = hooks::fill_args(&adds.args, key).map_err(|error| error.to_string())?;
            self.body.cmd.get_or_insert_default().extend(args);
        }
        self.files = hooks::fill_files(&adds.files, key, None).map_err(|error| error.to_string())?;
        let binds = self.body.host_config.get_or_insert_default().binds.get_or_insert_default();
        for mount in &adds.mounts {
            binds.push(filled_mount(mount, key)?);
        }
        Ok(())
    }
}

/// `{key}` in a mount names one folder or volume, and can neither climb nor add a part of its own.
fn filled_mount(mount: &str, key: &str) -> Result<String, String> {
    let odd = key.contains(['/', ':', ',']) || matches!(key, "." | "..");
    match mount.contains("{key}") && odd {
        true => Err(format!("with this key the mount `{mount}` would lie in another place")),
        false => Ok(hooks::fill(mount, key)),
    }
}

/// Files as a tar archive (POSIX.1-1988), each of mode 0644.
///
/// # Errors
/// A path that is too long for the format.
pub(super) fn archive(files: &[(PathBuf, String)]) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    for (path, content) in files {
        let name = path.to_str().unwrap_or_default().trim_start_matches('/');
        let long = || format!("the path `{}` is too long for a file of a container", path.display());
        let (prefix, name) = split_name(name).ok_or_else(long)?;
        let mut head = [0u8; 512];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        // The sum counts its own field as blanks.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        put(345, prefix);
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&head);
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    Ok(tar)
}

/// The format has 155 bytes for folders and 100 for the rest.
fn split_name(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    let splits = name.match_indices('/').map(|(at, _)| (&name[..at], &name[at + 1..]));
    splits.into_iter().find(|(prefix, rest)| prefix.len() <= 155 && rest.len() <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ImageConfig;
    use forerun_types::{Resources, ServiceId, Specialise, Variant};

    const MANNER: Manner = Manner { limit: true, publish: false };

    fn image() -> ImageInspect {
        let config = ImageConfig { exposed_ports: Some(vec!["80/tcp".to_owned()]), ..ImageConfig::default() };
        ImageInspect { config: Some(config), ..ImageInspect::default() }
    }

    fn launch() -> Container {
        Container {
            image: "web:1".to_owned(),
            command: vec!["serve".to_owned(), "--on={port}".to_owned()],
            networks: vec!["front".to_owned(), "back".to_owned()],
            ..Container::default()
        }
    }

    #[test]
    fn an_image_becomes_a_container() {
        let spec = ServiceSpec::named(ServiceId(1), "web");
        let mut recipe = from_image(&spec, &launch(), &image(), MANNER).unwrap();
        recipe.finish(&spec, InstanceId(5), &Owner::of(None, "docker").unwrap(), MANNER).unwrap();
        assert_eq!(recipe.body.cmd.unwrap(), ["serve", "--on=80"]);
        assert_eq!(recipe.body.env.unwrap(), ["FORERUN_SERVICE=web", "PORT=80", "FORERUN_INSTANCE=i5"]);
        let host = recipe.body.host_config.unwrap();
        assert_eq!((host.network_mode.as_deref(), host.memory), (Some("front"), Some(1_000_000_000)));
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
        assert_eq!(host.port_bindings, None);
        assert_eq!(recipe.networks[0].0, "back");
        assert_eq!(recipe.body.labels.unwrap()["forerun.instance"], "5");
    }

    #[test]
    fn a_key_adds_and_cannot_climb() {
        let mut spec = ServiceSpec::named(ServiceId(2), "web/jo");
        spec.resources = Resources::default();
        spec.specialise = Some(Specialise {
            env: [("DATA".to_owned(), "/data/{key}".to_owned())].into(),
            args: vec!["--user={key}".to_owned()],
            files: [("/etc/app/{key}.conf".to_owned(), "for {key}".to_owned())].into(),
            mounts: vec!["sets-{key}:/data:ro".to_owned()],
            ..Specialise::default()
        });
        let owner = Owner::of(None, "docker").unwrap();
        let mut with = |key: &str| {
            spec.variant = Some(Variant { of: ServiceId(1), key: key.to_owned() });
            let mut recipe = from_image(&spec, &launch(), &image(), MANNER).unwrap();
            recipe.finish(&spec, InstanceId(5), &owner, MANNER).map(|()| recipe)
        };
        let recipe = with("jo").unwrap();
        assert_eq!(recipe.body.cmd.unwrap()[2], "--user=jo");
        let env = recipe.body.env.unwrap();
        assert!(env.contains(&"DATA=/data/jo".to_owned()) && env.contains(&"FORERUN_KEY=jo".to_owned()));
        assert_eq!(recipe.body.host_config.as_ref().unwrap().binds.as_deref().unwrap(), ["sets-jo:/data:ro"]);
        assert_eq!(recipe.body.host_config.unwrap().memory, None);
        assert_eq!(recipe.files, [(PathBuf::from("/etc/app/jo.conf"), "for jo".to_owned())]);
        for key in ["..", "a/b", "a:b", "a\nb", ""] {
            assert!(with(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn an_archive_is_blocks_with_a_sum() {
        let tar = archive(&[(PathBuf::from("/etc/a"), "x".repeat(513))]).unwrap();
        assert_eq!(tar.len(), 512 + 1024 + 1024);
        assert_eq!(
            (&tar[..6], &tar[257..262], &tar[124..135]),
            (&b"etc/a\0"[..], &b"ustar"[..], &b"00000001001"[..])
        );
        let long = "a/".repeat(70) + &"b".repeat(90);
        assert_eq!(split_name(&long).map(|(prefix, name)| prefix.len() + 1 + name.len()), Some(long.len()));
        assert!(archive(&[(PathBuf::from("b".repeat(101)), String::new())]).is_err());
    }
}
