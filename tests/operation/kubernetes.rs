//! The manifests of `deploy/kubernetes`, without Kubernetes: keys and types against its models, names that have to fit
//! one another, and a pod's command in a sandbox as the manifest describes it (`pod.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};
use support::project;

mod pod;
mod sandbox;

/// What is changed in a manifest, and what has to be said of it.
const PLANTED: &[(&str, &str, &str, &str)] = &[
    ("deployment.yaml", "failureThreshold: 60", "failureTreshold: 60", "V1Probe has no `failureTreshold`"),
    ("deployment.yaml", "replicas: 3", "replicas: \"3\"", "'3' is no int"),
    ("deployment.yaml", "  selector:\n    matchLabels:", "  selectors:\n    matchLabels:", "has no `selectors`"),
    ("deployment.yaml", "replicas: 3", "replicas: 3\n  replicas: 2", "replicas twice"),
    ("deployment.yaml", "DoNotSchedule", "Never", "'Never' is none of DoNotSchedule"),
    ("services.yaml", "externalTrafficPolicy: Local", "externalTrafficPolicy: local", "'local' is none of Local"),
    ("network-policy.yaml", "  podSelector:", "  podselector:", "V1NetworkPolicySpec has no `podselector`"),
    ("service-monitor.yaml", "interval: 15s", "intervall: 15s", "there is no `intervall`"),
    ("service-monitor.yaml", "  endpoints:", "  endpoint:", "`endpoints` is missing"),
    ("kustomization.yaml", "disableNameSuffixHash", "disableNameSufixHash", "there is no `disableNameSufixHash`"),
    ("disruption-budget.yaml", "policy/v1", "policy/v2", "policy/v2 PodDisruptionBudget is not known"),
];

fn folder() -> PathBuf {
    project().join("deploy/kubernetes")
}

/// What the script says of these files: the documents, and what is wrong.
fn validate(files: &[PathBuf]) -> (Vec<Value>, Vec<String>) {
    let script = project().join("tests/operation/kubernetes/validate.py");
    let output = Command::new("/usr/bin/python3").arg(script).args(files).output().expect("Debian's Python is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut said: Map<String, Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let documents = said["documents"].as_array_mut().expect("a list");
    let documents = documents.iter_mut().map(|item| item["document"].take()).collect();
    let errors = said["errors"].as_array().expect("a list").iter();
    (documents, errors.map(|error| error.as_str().expect("a text").to_owned()).collect())
}

/// All documents, which are valid.
fn manifests() -> Vec<Value> {
    let entries = fs::read_dir(folder()).expect("it is there").flatten().map(|entry| entry.path());
    let files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    assert!(files.len() >= 8, "only {files:?}");
    let (documents, errors) = validate(&files);
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    documents
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let found: Vec<_> = documents.iter().filter(|document| document["kind"] == kind).collect();
    assert!(!found.is_empty(), "there is no {kind}");
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).expect("readable")
}

#[test]
fn what_is_misspelled_is_an_error() {
    let planted = tempfile::tempdir().expect("a folder");
    let files: Vec<_> = PLANTED
        .iter()
        .enumerate()
        .map(|(number, (file, old, new, _))| {
            let text = read(file);
            assert!(text.contains(old), "{file} has no {old:?}");
            let path = planted.path().join(format!("{number}-{file}"));
            fs::write(&path, text.replacen(old, new, 1)).expect("writable");
            path
        })
        .collect();
    let (_, errors) = validate(&files);
    for (file, (_, _, new, expected)) in files.iter().zip(PLANTED) {
        let of_file = |error: &&String| error.starts_with(&file.display().to_string());
        let found: Vec<_> = errors.iter().filter(of_file).collect();
        assert!(found.iter().any(|error| error.contains(expected)), "{new:?}: {found:?}");
    }
}

#[test]
fn the_parts_fit_one_another() {
    let documents = manifests();
    let [deployment] = of_kind(&documents, "Deployment")[..] else { panic!("one Deployment") };
    let pod = &deployment["spec"]["template"]["spec"];
    let labels = deployment["spec"]["template"]["metadata"]["labels"].as_object().expect("labels");
    selectors(&documents, deployment, labels);
    ports(&documents, pod);
    volumes(&documents, pod);
    let kustomization = of_kind(&documents, "Kustomization")[0];
    for file in list(&kustomization["resources"]).iter().chain(list(&kustomization["configMapGenerator"][0]["files"])) {
        assert!(folder().join(text(file)).exists(), "{file} is missing");
    }
    let images: BTreeSet<_> = list(&kustomization["images"]).iter().map(|image| text(&image["name"])).collect();
    for container in list(&pod["initContainers"]).iter().chain(list(&pod["containers"])) {
        assert!(images.contains(text(&container["image"])), "{container}");
        let names: Vec<_> = list(&container["env"]).iter().map(|variable| text(&variable["name"])).collect();
        assert!(names.contains(&"POD_NAME") && read("fingerpost.toml").contains("\"$POD_NAME\""), "{names:?}");
    }
    let namespace = &kustomization["namespace"];
    assert_eq!(&of_kind(&documents, "Namespace")[0]["metadata"]["name"], namespace);
    assert!(of_kind(&documents, "Secret").iter().all(|secret| &secret["metadata"]["namespace"] == namespace));
}

/// Every selector finds the pods, or the Service that it is for.
fn selectors(documents: &[Value], deployment: &Value, labels: &Map<String, Value>) {
    let finds = |selector: &Value, labels: &Map<String, Value>| {
        let wanted = selector.as_object().expect("labels");
        !wanted.is_empty() && wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    let pod = &deployment["spec"]["template"]["spec"];
    let mut all = vec![&deployment["spec"]["selector"]["matchLabels"]];
    all.extend(of_kind(documents, "Service").iter().map(|service| &service["spec"]["selector"]));
    all.extend(
        of_kind(documents, "PodDisruptionBudget").iter().map(|budget| &budget["spec"]["selector"]["matchLabels"]),
    );
    all.extend(of_kind(documents, "NetworkPolicy").iter().map(|policy| &policy["spec"]["podSelector"]["matchLabels"]));
    let spread = list(&pod["topologySpreadConstraints"]);
    all.extend(spread.iter().map(|constraint| &constraint["labelSelector"]["matchLabels"]));
    assert!(all.len() >= 7, "only {all:?}");
    assert!(all.iter().all(|selector| finds(selector, labels)), "{all:?} and {labels:?}");

    let monitor = &of_kind(documents, "ServiceMonitor")[0]["spec"];
    let wanted = &monitor["selector"]["matchLabels"];
    let found: Vec<_> = of_kind(documents, "Service")
        .into_iter()
        .filter(|service| finds(wanted, service["metadata"]["labels"].as_object().expect("labels")))
        .collect();
    let [service] = found[..] else { panic!("one Service is monitored: {found:?}") };
    let names: Vec<_> = list(&service["spec"]["ports"]).iter().map(|port| &port["name"]).collect();
    assert!(names.contains(&&monitor["endpoints"][0]["port"]), "{names:?}");
}

/// Ports that are named are those of the container, which are those of the configuration.
fn ports(documents: &[Value], pod: &Value) {
    let container = &pod["containers"][0];
    let ports = list(&container["ports"]);
    let mut used = Vec::new();
    for service in of_kind(documents, "Service") {
        used.extend(list(&service["spec"]["ports"]).iter().map(|port| &port["targetPort"]));
    }
    for rule in list(&of_kind(documents, "NetworkPolicy")[0]["spec"]["ingress"]) {
        used.extend(list(&rule["ports"]).iter().map(|port| &port["port"]));
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        used.push(&container[probe]["httpGet"]["port"]);
    }
    assert!(used.len() >= 7, "only {used:?}");
    assert!(used.iter().all(|name| ports.iter().any(|port| &port["name"] == *name)), "{used:?} and {ports:?}");
    let configuration = read("fingerpost.toml");
    for port in ports {
        assert!(configuration.contains(&format!("\"0.0.0.0:{}\"", port["containerPort"])), "{port}");
    }
}

/// Every mount has its volume, and every file that the configuration names its place in one of them.
fn volumes(documents: &[Value], pod: &Value) {
    let volumes = list(&pod["volumes"]);
    let generated = &of_kind(documents, "Kustomization")[0]["configMapGenerator"][0]["name"];
    let mut places = Vec::new();
    for container in list(&pod["initContainers"]).iter().chain(list(&pod["containers"])) {
        for mount in list(&container["volumeMounts"]) {
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
            let volume = volume.unwrap_or_else(|| panic!("{mount} has no volume"));
            let files = volume_files(documents, volume, generated);
            places.extend(files.into_iter().map(|file| Path::new(text(&mount["mountPath"])).join(file)));
        }
    }
    let configuration = read("fingerpost.toml");
    let named = configuration.split('"').filter(|word| word.starts_with("/etc/")).map(PathBuf::from);
    let named: Vec<_> = named.chain(["/etc/fingerpost/domains.toml".into()]).collect();
    assert!(named.len() >= 5, "only {named:?}");
    assert!(named.iter().all(|file| places.contains(file)), "{named:?} and {places:?}");
}

/// The names of the files in a volume.
fn volume_files(documents: &[Value], volume: &Value, generated: &Value) -> Vec<String> {
    if volume.get("configMap").is_some() {
        assert_eq!(&volume["configMap"]["name"], generated);
        return vec!["fingerpost.toml".into(), "domains.toml".into()];
    }
    let Some(secret) = volume.get("secret") else {
        assert!(volume.get("emptyDir").is_some(), "{volume}");
        return Vec::new();
    };
    let named = |document: &&&Value| document["metadata"]["name"] == secret["secretName"];
    let secrets = of_kind(documents, "Secret");
    let secret = secrets.iter().find(named).unwrap_or_else(|| panic!("{secret} is not made"));
    secret["stringData"].as_object().expect("files").keys().cloned().collect()
}

/// A pod that is deleted has the time that `drain` and the stop behind it take.
#[test]
fn there_is_time_to_leave() {
    let documents = manifests();
    let pod = &of_kind(&documents, "Deployment")[0]["spec"]["template"]["spec"];
    let command = list(&pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]);
    assert_eq!(command[..3], ["fingerpost", "drain", "--pause"], "{command:?}");
    let pause: u64 = text(&command[3]).trim_end_matches('s').parse().expect("seconds");
    assert!(read("fingerpost.toml").contains("drain_timeout = \"30s\""));
    // Background tasks may take 10 s to end, and then the node leaves.
    assert!(pod["terminationGracePeriodSeconds"].as_u64().expect("seconds") >= pause + 30 + 10 + 15);
}
