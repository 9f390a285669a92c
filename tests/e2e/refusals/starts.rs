//! What create takes and start refuses, or takes in a certain way. Status and words were recorded from dockerd 28.5.2.

use serde_json::{Value, json};
use testkit::TestDaemon;
use testkit::client::frames;

use crate::daemon;

const INIT: &str = "failed to create task for container: failed to create shim task: OCI runtime create failed: \
                    runc create failed: unable to start container process: error during container init: ";

fn create(daemon: &TestDaemon, config: &Value, host: &Value) -> String {
    let mut body =
        json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
    for (key, value) in config.as_object().expect("fields") {
        body[key] = value.clone();
    }
    for (key, value) in host.as_object().expect("fields") {
        body["HostConfig"][key] = value.clone();
    }
    daemon.create(&body)
}

#[test]
fn a_start_is_refused_in_dockerds_words() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let none = json!({});
    for (config, host, status, words) in [
        (
            &none,
            json!({"Dns": ["x"]}),
            500,
            "bad nameserver address x: ParseAddr(\"x\"): unable to parse IP".to_owned(),
        ),
        (
            &none,
            json!({"NetworkMode": "host", "Dns": ["1.1.1.1 "]}),
            500,
            "bad nameserver address 1.1.1.1 : ParseAddr(\"1.1.1.1 \"): unexpected character (at \" \")"
                .to_owned(),
        ),
        (
            &none,
            json!({"NetworkMode": "container:nope"}),
            500,
            "joining network namespace of container: No such container: nope".to_owned(),
        ),
        (
            &none,
            json!({"BlkioDeviceReadBps": [{"Path": "/dev/nosuch", "Rate": 1}]}),
            500,
            "stat /dev/nosuch: no such file or directory".to_owned(),
        ),
        (
            &none,
            json!({"Tmpfs": {"/t": "foo=bar"}}),
            500,
            "invalid tmpfs option \"foo\"".to_owned(),
        ),
        (
            &json!({"Env": ["A=\u{0}"]}),
            none.clone(),
            500,
            format!("{INIT}invalid environment variable \"A\": contains nul byte (\\x00)"),
        ),
    ] {
        let id = create(&daemon, config, &host);
        let start = client.post(&format!("/containers/{id}/start"), &Value::Null);
        assert_eq!(start.expect(status).json()["message"], words);
        client.delete(&format!("/containers/{id}")).expect(204);
    }
    let id = daemon.run(&json!({
        "Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"},
    }));
    for keys in ["zz-q", "ctrl-p,zz", ","] {
        let body = json!({"Cmd": ["true"], "DetachKeys": keys});
        let refused = client
            .post(&format!("/containers/{id}/exec"), &body)
            .expect(500);
        let words = format!("Invalid escape keys ({keys}) provided");
        assert_eq!(refused.json()["message"], words);
    }
}

#[test]
fn what_a_container_finds_is_what_dockerd_gives_it() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let environment = |own: &str| {
        format!(
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOSTNAME=h\n{own}HOME=/root\n"
        )
    };
    let mtab = "ls -ld /etc | cut -c1-10; stat -c '%F %a %u:%g' /etc/mtab; readlink /etc/mtab; grep -c ' / ' /etc/mtab";
    for (config, wanted) in [
        (
            json!({"Env": ["A=1", "B", "C=", "D=2"], "Cmd": ["env"]}),
            environment("A=1\nC=\nD=2\n"),
        ),
        (
            json!({"Env": ["A=1", "B=2", "C=3", "B=9", "D=4", "B"], "Cmd": ["env"]}),
            environment("A=1\nC=3\nB=9\nD=4\n"),
        ),
        (
            json!({"Env": ["HOSTNAME", "A=1", "E=5"], "Cmd": ["env"]}),
            environment("A=1\nE=5\n").replace("HOSTNAME=h\n", ""),
        ),
        (
            json!({"Cmd": ["sh", "-c", mtab]}),
            "drwxr-xr-x\nsymbolic link 777 0:0\n/proc/mounts\n1\n".to_owned(),
        ),
    ] {
        let mut config = config;
        config["Hostname"] = json!("h");
        let id = create(&daemon, &config, &json!({}));
        client
            .post(&format!("/containers/{id}/start"), &Value::Null)
            .expect(204);
        client
            .post(&format!("/containers/{id}/wait"), &Value::Null)
            .expect(200);
        let logs = client.get(&format!("/containers/{id}/logs?stdout=1&stderr=1"));
        let (out, err) = frames(&logs.expect(200).body);
        assert_eq!((out, err.as_str()), (wanted, ""));
        client.delete(&format!("/containers/{id}")).expect(204);
    }
}
