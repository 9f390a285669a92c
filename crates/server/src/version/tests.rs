//! The tables against what dockerd 28.5.2 answered to each version.

use api::container::CreateRequest;
use api::version::ApiVersion;
use serde_json::json;

use super::*;

fn at(minor: u16) -> Requested {
    Requested {
        version: ApiVersion::v1(minor),
        unversioned: false,
    }
}

const UNVERSIONED: Requested = Requested {
    version: ApiVersion::MAX,
    unversioned: true,
};

fn created(minor: u16, body: &str) -> (CreateRequest, Result<Vec<String>, String>) {
    let mut request = CreateRequest::decode(body.as_bytes()).unwrap();
    let outcome = create(at(minor), &mut request).map_err(|failure| failure.message);
    (request, outcome)
}

fn summary() -> Vec<ImageSummary> {
    let tagged = ImageSummary {
        repo_tags: vec!["a:1".to_owned()],
        size: 7,
        ..ImageSummary::default()
    };
    vec![
        tagged,
        ImageSummary {
            size: 9,
            containers: 2,
            ..ImageSummary::default()
        },
    ]
}

fn list(requested: Requested) -> Value {
    serde_json::from_slice(&images(requested, summary())).unwrap()
}

#[test]
fn images_in_each_version() {
    let newest = list(at(51));
    assert_eq!(newest[1]["Containers"], 2);
    assert_eq!(newest[1].get("VirtualSize"), None);
    assert_eq!(newest[1]["RepoTags"], json!([]));
    let unversioned = list(UNVERSIONED);
    assert_eq!(
        (
            &unversioned[0]["VirtualSize"],
            &unversioned[1]["Containers"]
        ),
        (&json!(7), &json!(2))
    );
    assert_eq!(list(at(50))[1]["Containers"], -1);
    assert_eq!(list(at(44))[0].get("VirtualSize"), None);
    assert_eq!(list(at(43))[0]["VirtualSize"], 7);
    assert_eq!(list(at(43))[0]["RepoDigests"], json!([]));
    let old = list(at(42));
    assert_eq!(old[0]["RepoDigests"], Value::Null);
    assert_eq!(old[1]["RepoTags"], json!(["<none>:<none>"]));
    assert_eq!(old[1]["RepoDigests"], json!(["<none>@<none>"]));
}

#[test]
fn an_image_in_each_version() {
    let inspect = ImageInspect {
        size: 5,
        config: Some(api::image::ImageConfig::default()),
        ..ImageInspect::default()
    };
    let shape = |requested| serde_json::from_slice::<Value>(&image(requested, &inspect)).unwrap();
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let newest = shape(at(51));
    assert_eq!(newest.get("VirtualSize"), None);
    assert_eq!(newest.get("Created"), None);
    assert_eq!(shape(UNVERSIONED)["VirtualSize"], 5);
    // The keys of dockerd's own answer to 1.24.
    assert_eq!(
        keys(&shape(at(24))),
        "Id RepoTags RepoDigests Parent Comment Created ContainerConfig DockerVersion Author Architecture Os Size \
         VirtualSize GraphDriver RootFS Metadata Config"
    );
    assert_eq!(
        keys(&shape(at(49))["Config"]),
        "AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env Hostname Image Labels OnBuild OpenStdin \
         StdinOnce Tty User Volumes WorkingDir"
    );
    assert_eq!(
        keys(&shape(at(50))["Config"]),
        "Cmd Entrypoint Env Labels OnBuild User Volumes WorkingDir"
    );
}

#[test]
fn create_rules_of_old_versions() {
    let body = r#"{"Image":"a","Healthcheck":{"StartInterval":5},"HostConfig":{"Annotations":{"a":"b"},
        "ConsoleSize":[1,2],"PidsLimit":-1,"KernelMemory":5,"Mounts":[
        {"Type":"bind","ReadOnly":true,"BindOptions":{"NonRecursive":true,"CreateMountpoint":true},
        "TmpfsOptions":{"SizeBytes":1}}]}}"#;
    let (newest, warnings) = created(51, body);
    assert_eq!(warnings, Ok(vec![]));
    assert_eq!(newest.host_config.ipc_mode, "");
    assert_eq!(newest.host_config.pids_limit, None);
    assert_eq!(newest.host_config.kernel_memory, 0);
    let (old, _) = created(39, body);
    let host = &old.host_config;
    assert_eq!(host.ipc_mode, "shareable");
    assert_eq!(
        (host.console_size, &host.annotations, host.kernel_memory),
        ([0, 0], &None, 5)
    );
    let mount = &host.mounts.as_ref().unwrap()[0];
    assert_eq!(mount.tmpfs_options, None);
    let bind = mount.bind_options.as_ref().unwrap();
    assert!(!bind.non_recursive && !bind.create_mountpoint && bind.read_only_non_recursive);
    assert_eq!(old.config.healthcheck.unwrap().start_interval, 0);
    let (kept, _) = created(44, body);
    assert_eq!(kept.config.healthcheck.unwrap().start_interval, 5);
    assert!(
        !kept.host_config.mounts.unwrap()[0]
            .bind_options
            .as_ref()
            .unwrap()
            .read_only_non_recursive
    );
}

#[test]
fn what_a_version_does_not_have_is_refused_in_dockers_words() {
    let two = r#"{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"b":{},"a":null}}}"#;
    let told = "Container cannot be created with multiple network endpoints: a, b";
    assert_eq!(created(43, two).1, Err(told.to_owned()));
    assert_eq!(created(44, two).1, Ok(vec![]));
    let subpath = r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"x"}}]}}"#;
    assert_eq!(
        created(44, subpath).1,
        Err("VolumeOptions.Subpath needs API v1.45 or newer".to_owned())
    );
    assert_eq!(created(45, subpath).1, Ok(vec![]));
}

/// What came of it: dockerd 28.5.2 says the same to each of these bodies (`mac_addresses_are_kept_as_by_dockerd`).
#[test]
fn the_containers_mac_address_moves_to_its_endpoint() {
    const MAC: &str = "02:00:00:00:00:01";
    let body = r#"{"Image":"a","MacAddress":"02:00:00:00:00:01"}"#;
    for minor in [43, 44] {
        let (request, warnings) = created(minor, body);
        assert_eq!(warnings.unwrap().len(), usize::from(minor == 44));
        let bridge = request.endpoints["bridge"].as_ref().unwrap();
        assert_eq!(bridge.mac_address, MAC);
        assert_eq!(request.config.mac_address, "");
        assert_eq!(request.host_config.network_mode, "bridge");
    }
    let own = r#"{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"default":{"MacAddress":"02:00:00:00:00:01"}}}}"#;
    for (minor, kept) in [(43, ""), (44, MAC)] {
        let (request, _) = created(minor, own);
        let bridge = request.endpoints["bridge"].as_ref().unwrap();
        assert_eq!(bridge.mac_address, kept, "1.{minor}");
        assert!(!request.endpoints.contains_key("default"));
    }
}

#[test]
fn info_in_each_version() {
    let described = SystemInfo {
        firewall_backend: Some(api::system::FirewallInfo::default()),
        runc_commit: api::system::Commit { id: "x".to_owned() },
        ..SystemInfo::default()
    };
    let shape = |minor| serde_json::from_slice::<Value>(&info(at(minor), &described)).unwrap();
    assert_eq!(info(at(51), &described), go::encode(&described));
    assert_eq!(shape(49).get("BridgeNfIptables"), Some(&json!(false)));
    assert_eq!(shape(50).get("BridgeNfIptables"), None);
    assert_eq!(shape(48).get("FirewallBackend"), None);
    assert!(shape(49).get("FirewallBackend").is_some());
    assert_eq!(shape(48)["RuncCommit"]["Expected"], "x");
    assert_eq!(shape(41)["KernelMemory"], true);
    assert_eq!(shape(42).get("KernelMemory"), None);
}
