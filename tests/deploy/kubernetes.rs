//! The manifests: each checked against Kubernetes' own schema, and against one another.

use std::collections::HashMap;
use std::fs;

use gryt_sfu::config::{Config, Error};
use serde_json::{Value, json};

use crate::house::{CLOSING, NOBODY, assert_variables, path, printed, seconds, text, tool, yaml};

const FOLDER: &str = "tools/deploy/kubernetes";

fn manifests() -> HashMap<String, Value> {
    let mut all = HashMap::new();
    for entry in fs::read_dir(path(FOLDER)).expect("the manifests") {
        let name = entry.expect("the manifests").file_name().into_string().expect("plain names");
        for manifest in yaml(&format!("{FOLDER}/{name}")) {
            let key =
                |field: &str| manifest.pointer(field).and_then(Value::as_str).expect("named").to_owned();
            let key = format!("{} {}", key("/kind"), key("/metadata/name"));
            assert!(all.insert(key, manifest).is_none());
        }
    }
    all
}

fn pod(manifests: &HashMap<String, Value>) -> &Value {
    &manifests["StatefulSet gryt-sfu"]["spec"]["template"]["spec"]
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn they_follow_the_schema() {
    for entry in fs::read_dir(path(FOLDER)).expect("the manifests") {
        // Strict: a misspelt field is a fault.
        printed(tool("kubernetes-validate").arg("--strict").arg(entry.expect("the manifests").path()));
    }
}

#[test]
fn the_schema_finds_a_misspelt_field() {
    let folder = crate::house::Folder::new("schema");
    let wrong = folder.0.join("wrong.yaml");
    let set = text("tools/deploy/kubernetes/statefulset.yaml");
    fs::write(&wrong, set.replace("readinessProbe", "readynessProbe")).expect("our own folder");
    let output = tool("kubernetes-validate").arg("--strict").arg(&wrong).output().expect("it runs");
    assert!(!output.status.success());
}

#[test]
fn there_is_one_server_on_the_nodes_network() {
    let manifests = manifests();
    let set = &manifests["StatefulSet gryt-sfu"]["spec"];
    assert_eq!(set["replicas"], 1, "rooms do not span processes");
    let pod = pod(&manifests);
    assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!(true), &json!("ClusterFirstWithHostNet")));
    let env = pod["containers"][0]["env"].as_array().expect("variables");
    let advertised = env.iter().find(|variable| variable["name"] == "ICE_ADVERTISE_IP").expect("set");
    assert_eq!(advertised["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP");
}

/// What the server makes of the manifests once each secret has been replaced, but for this one.
fn configured(manifests: &HashMap<String, Value>, shipped: Option<&str>) -> Result<Config, Error> {
    let settings = &manifests["ConfigMap gryt-sfu"]["data"];
    let secrets = &manifests["Secret gryt-sfu"]["stringData"];
    Config::parse(2, |name| match (name, secrets.get(name)) {
        ("ICE_ADVERTISE_IP", _) => Some("192.0.2.1".to_owned()),
        (_, Some(secret)) if shipped == Some(name) => Some(text_of(secret).to_owned()),
        (_, Some(_)) => Some("a-secret-as-long-as-it-takes-to-be-accepted".to_owned()),
        (_, None) => settings.get(name).map(|value| text_of(value).to_owned()),
    })
}

#[test]
fn the_server_is_set_up_with_values_that_it_takes() {
    let manifests = manifests();
    let settings = manifests["ConfigMap gryt-sfu"]["data"].as_object().expect("data");
    let secrets = manifests["Secret gryt-sfu"]["stringData"].as_object().expect("data");
    let container = &pod(&manifests)["containers"][0];
    let own =
        container["env"].as_array().expect("variables").iter().map(|variable| text_of(&variable["name"]));
    assert_variables(FOLDER, settings.keys().chain(secrets.keys()).map(String::as_str).chain(own));
    configured(&manifests, None).unwrap_or_else(|error| panic!("{FOLDER}: {error}"));
    assert_eq!(
        container["envFrom"],
        json!([{ "configMapRef": { "name": "gryt-sfu" } }, { "secretRef": { "name": "gryt-sfu" } }])
    );
}

/// Everybody can read them here: each is too short on purpose.
#[test]
fn no_secret_is_taken_as_it_is_shipped() {
    let manifests = manifests();
    let secrets = manifests["Secret gryt-sfu"]["stringData"].as_object().expect("data");
    assert!(!secrets.is_empty());
    for name in secrets.keys() {
        let error = configured(&manifests, Some(name)).expect_err(name);
        assert!(error.to_string().starts_with(&format!("{name}=")), "{name}: {error}");
    }
}

#[test]
fn ports_are_the_same_everywhere() {
    let manifests = manifests();
    let settings = &manifests["ConfigMap gryt-sfu"]["data"];
    let ports = pod(&manifests)["containers"][0]["ports"].as_array().expect("ports");
    for (name, protocol, variable, service) in [
        ("http", "TCP", "PORT", "Service gryt-sfu"),
        ("media", "UDP", "ICE_UDP_MUX_PORT", "Service gryt-sfu-media"),
    ] {
        let number: u64 = text_of(&settings[variable]).parse().expect("a port");
        assert!(ports.contains(&json!({ "name": name, "containerPort": number, "protocol": protocol })));
        let service = &manifests[service]["spec"];
        let expected = json!([{ "name": name, "protocol": protocol, "port": number, "targetPort": name }]);
        assert_eq!(service["ports"], expected);
        let labels = &manifests["StatefulSet gryt-sfu"]["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&service["selector"], labels);
    }
    let set = &manifests["StatefulSet gryt-sfu"];
    assert!(manifests.contains_key(&format!("Service {}", text_of(&set["spec"]["serviceName"]))));
    assert_eq!(set["spec"]["selector"]["matchLabels"], set["spec"]["template"]["metadata"]["labels"]);
    let scraped = &set["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"];
    assert_eq!(scraped, &settings["PORT"]);
}

#[test]
fn probes_tell_alive_from_ready_and_calls_may_end() {
    let manifests = manifests();
    let pod = pod(&manifests);
    let container = &pod["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"], json!({ "path": "/health", "port": "http" }));
    assert_eq!(container["readinessProbe"]["httpGet"], json!({ "path": "/ready", "port": "http" }));
    let drain = seconds(text_of(&manifests["ConfigMap gryt-sfu"]["data"]["DRAIN_TIMEOUT"]));
    assert!(pod["terminationGracePeriodSeconds"].as_u64().expect("set") > drain + CLOSING);
}

#[test]
fn the_server_is_confined_and_may_use_rings() {
    let manifests = manifests();
    let pod = pod(&manifests);
    let nobody: u64 = NOBODY.parse().expect("a number");
    assert_eq!(
        pod["securityContext"],
        json!({
            "runAsNonRoot": true, "runAsUser": nobody, "runAsGroup": nobody,
            "seccompProfile": { "type": "Localhost", "localhostProfile": "gryt-sfu.json" },
        })
    );
    assert_eq!(
        pod["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        })
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    let resources = &pod["containers"][0]["resources"];
    assert_eq!(resources["requests"], resources["limits"], "else the CPUs are not the server's own");
}
