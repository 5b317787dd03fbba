//! Several engines: one on a socket, one that is reached by TCP with TLS, as two sites of one Forerun.

use crate::engine::{Engine, FIXTURE, Second, eventually};
use crate::world::World;
use forerun_backends::docker::{TlsFiles, discover};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);
/// A bridge of the second engine's own: two engines on one bridge would give the same addresses.
const BRIDGE: &str = "second0";

/// An authority with a certificate for an engine on this machine and one for its client.
struct Authority(PathBuf);

impl Authority {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let made = Self(folder);
        made.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
                      -keyout ca-key.pem -out ca.pem",
        );
        for (name, extension) in [
            ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
            ("client", "extendedKeyUsage=clientAuth\n"),
        ] {
            fs::write(made.0.join("extension"), extension).unwrap();
            made.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}-key.pem \
                 -out {name}.csr"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile extension \
                 -out {name}.pem"
            ));
        }
        made
    }

    fn openssl(&self, words: &str) {
        let ran =
            Command::new("openssl").args(words.split_whitespace()).current_dir(&self.0).output().unwrap();
        assert!(ran.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn client(&self) -> TlsFiles {
        TlsFiles { ca: self.file("ca.pem"), cert: self.file("client.pem"), key: self.file("client-key.pem") }
    }
}

/// An engine that only clients of the authority may use, and its address.
fn with_tls(engine: &Engine, authority: &Authority) -> (Second, String) {
    for words in [
        format!("link add {BRIDGE} type bridge"),
        format!("addr add 172.31.77.1/24 dev {BRIDGE}"),
        format!("link set {BRIDGE} up"),
    ] {
        // There already after a test that failed.
        let _ = Command::new("ip").args(words.split(' ')).output();
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("tcp://127.0.0.1:{port}");
    let file = |name: &str| authority.file(name).display().to_string();
    let arguments = [
        format!("--host={host}"),
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", file("ca.pem")),
        format!("--tlscert={}", file("server.pem")),
        format!("--tlskey={}", file("server-key.pem")),
        format!("--bridge={BRIDGE}"),
        // The first one has these.
        "--iptables=false".to_owned(),
        "--ip-masq=false".to_owned(),
    ];
    let second = engine.second(&arguments);
    engine.give(FIXTURE, &second.0);
    (second, host)
}

#[test]
fn an_engine_with_tls_is_used_by_whom_it_knows_and_others_are_told_why_not() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("tls", "");
    let (known, stranger) = (Authority::new(world.path("known")), Authority::new(world.path("stranger")));
    let (_second, host) = with_tls(&engine, &known);
    let found = discover(Some(&host), Some(&known.client()), "").unwrap();
    assert_eq!((found.host.as_str(), found.containers.len()), (host.as_str(), 0));
    let check = |tls: TlsFiles, mentions: &[&str]| {
        let error = discover(Some(&host), Some(&tls), "").unwrap_err().to_string();
        assert!(error.contains(&host) && !error.contains('\n'), "{error}");
        for mention in mentions {
            assert!(error.contains(mention), "`{mention}` is not in `{error}`");
        }
    };
    let path = |authority: &Authority, name: &str| authority.file(name).display().to_string();
    let wrong_ca = path(&stranger, "ca.pem");
    check(
        TlsFiles { ca: stranger.file("ca.pem"), ..known.client() },
        &[&wrong_ca, "did not sign its certificate"],
    );
    let wrong_client = path(&stranger, "client.pem");
    check(
        TlsFiles { ca: known.file("ca.pem"), ..stranger.client() },
        &[&wrong_client, "does not take the certificate"],
    );
    check(TlsFiles { key: known.file("nothing.pem"), ..known.client() }, &["nothing.pem"]);
    check(TlsFiles { ca: known.file("extension"), ..known.client() }, &["extension"]);
    let error = discover(Some(&host), None, "").unwrap_err().to_string();
    assert!(error.contains(&host) && error.contains("it wants TLS"), "{error}");
}

#[test]
fn two_engines_are_two_sites_of_one_forerun() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("sites", "");
    let authority = Authority::new(world.path("tls"));
    let (second, host) = with_tls(&engine, &authority);
    let service = |name: &str, more: &str| {
        format!(
            "[service.{name}]\nimage = \"{FIXTURE}\"\ncommand = [\"forerun-fixture\", \"--listen\", \"0.0.0.0\", \
             \"--port\", \"8080\", \"--tag\", \"{name}\"]\nroute = {{ host = \"{name}.test\" }}\n\
             ready = {{ http = \"/\" }}\nresources = {{ memory = \"64MB\" }}\nmin = 1\n{more}\n"
        )
    };
    let site = format!(
        "[site.far]\nengine = \"{host}\"\ntls = {{ ca = \"tls/ca.pem\", cert = \"tls/client.pem\", \
         key = \"tls/client-key.pem\" }}\n"
    );
    world.configure(&(site + &service("near", "") + &service("away", "engine = \"far\"")));
    let here = format!("unix://{}", engine.socket.display());
    let mut live = world.up_with(&[("DOCKER_HOST", Path::new(&here))]);
    let mut ids = Vec::new();
    for life in 0..2 {
        for (name, at) in [("near", &engine), ("away", &second.0)] {
            live.until(name, "ready", |s| s["instances"]["ready"] == 1);
            let answer = live.get(&format!("{name}.test"), "/");
            assert!(
                answer.status == 200 && answer.text().starts_with(name),
                "{life} {name}: {}",
                answer.text()
            );
            let there = at.containers();
            let own = format!("forerun-{name}-");
            assert!(there.len() == 1 && there[0].0.starts_with(&own), "{life} {name}: {there:?}");
            ids.push(at.inspect(&there[0].0)["Id"].clone());
        }
        if life == 0 {
            live.kill();
            live = world.up_with(&[("DOCKER_HOST", Path::new(&here))]);
        }
    }
    assert_eq!(ids[..2], ids[2..], "the second life took over what the first had");
    let sites = live.status()["sites"].clone();
    let told: Vec<(&str, u64)> = sites
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| Some((s["name"].as_str()?, s["instances"].as_u64()?)))
        .collect();
    assert_eq!(told[1..], [("far", 1)], "each site has its own: {sites}");
    assert_eq!(told[0].1, 1, "{sites}");
    // One that is away is no trouble of the other's.
    second.0.freeze_daemon();
    for _ in 0..5 {
        assert_eq!(live.get("near.test", "/").status, 200);
        assert_eq!(live.get("away.test", "/").status, 200, "what is warm there is served");
    }
    engine.call("DELETE", &format!("/containers/{}?force=1", engine.containers()[0].0), None);
    eventually("the first engine's service is told", SOON, || {
        live.service("near")["instances"]["ready"] != 1
    });
    second.0.thaw_daemon();
    live.has_held();
}
