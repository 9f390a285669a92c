"""What a docker-py program does with an engine, one line of output a step, ids and times taken out.

Called with: base URL, an archive of the image IMAGE, IMAGE, and the same image's name on a registry. Two engines
that behave alike print the same lines.
"""

import json
import re
import sys
import threading
import urllib.request

import docker
from docker.errors import APIError, ContainerError

# No answer takes longer; a hang becomes a failure that names its step.
TIMEOUT_S = 60

url, archive, image, remote = sys.argv[1:]
client = docker.DockerClient(base_url=url, timeout=TIMEOUT_S)
# One engine may serve several runs of this scenario.
mark = image.rsplit(":", 1)[1]
known = {mark: "<mark>", remote.split("/")[0]: "<registry>"}
IDS = re.compile(r"(sha256:)?\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b")


def plain(value):
    """The value as JSON, without what differs between any two engines."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=repr)
    for part, name in known.items():
        text = text.replace(part, name)
    return IDS.sub("<id>", text)


def say(step, *values):
    print(step + ":", *(plain(value) for value in values), flush=True)


def refused(step, call):
    """What a failing call raises: the class, the status and the words."""
    try:
        call()
    except APIError as error:
        code = error.response.status_code if error.response is not None else None
        say(step, type(error).__name__, code, error.explanation)
    else:
        say(step, "was not refused")


def named(name):
    return f"{name}-{mark}"


def engine():
    say("ping", client.ping())
    version = client.version()
    say("version", {key: version[key] for key in ("ApiVersion", "Os", "Arch")})
    info = client.info()
    say("info", {key: info[key] for key in ("OSType", "Driver", "NCPU", "MemTotal", "Architecture")})
    say("negotiated", client.api._version)
    say("login without a registry", login())


def login():
    try:
        client.login("user", "word", registry="127.0.0.1:1")
    except APIError as error:
        return error.response.status_code, error.explanation
    return "accepted"


def images():
    with open(archive, "rb") as tar:
        say("load", [loaded.tags for loaded in client.images.load(tar)])
    found = client.images.get(image)
    say("get", found.tags, found.attrs["Config"]["Cmd"], found.attrs["Os"], len(found.attrs["RootFS"]["Layers"]))
    say("history", [sorted(entry) for entry in found.history()])
    say("tag", found.tag("cooper-py/second", tag=mark))
    say("list", [sorted(one.tags) for one in client.images.list("cooper-py/second")])
    refused("remove a name that is none", lambda: client.images.remove("cooper-py/none"))
    client.images.remove(f"cooper-py/second:{mark}")
    say("list after remove", client.images.list("cooper-py/second"))
    pulled = client.images.pull(remote)
    say("pull", sorted(pulled.tags), pulled.id == found.id)
    lines = client.api.pull(*remote.rsplit(":", 1), stream=True, decode=True)
    say("pull again", [line["status"] for line in lines if "Digest" not in line["status"]])
    client.images.remove(remote)
    host = remote.split("/")[0]
    refused("pull of none", lambda: client.images.pull(f"{host}/none", tag="x"))
    refused("get of none", lambda: client.images.get("cooper-py/none"))
    refused("tag of none", lambda: client.api.tag("cooper-py/none", "cooper-py/x"))
    refused("tag with a bad name", lambda: found.tag("Bad Name"))


def run():
    say("run", client.containers.run(image, ["echo", "hello"], remove=True, network_mode="none"))
    both = ["sh", "-c", "echo out; echo err >&2"]
    say("run with stderr", client.containers.run(image, both, remove=True, stdout=False, stderr=True))
    try:
        client.containers.run(image, ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    except ContainerError as error:
        say("run that fails", error.exit_status, error.stderr)
    refused("run of no image", lambda: client.api.create_container("cooper-py/none", "true"))
    refused("run of no command", lambda: client.containers.run(image, "/no/such/command", name=named("nothing")))
    client.api.remove_container(named("nothing"))
    client.containers.run(image, "true", name=named("gone"), detach=True, auto_remove=True, network_mode="none")
    waited = client.events(decode=True, until=in_a_minute(), since=0, filters={"container": named("gone"), "event": "destroy"})
    say("auto_remove", next(iter(waited))["Action"])
    refused("get after auto_remove", lambda: client.containers.get(named("gone")))


def in_a_minute():
    import time

    return int(time.time()) + TIMEOUT_S


def detached():
    script = "echo first; echo second >&2; trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done"
    box = client.containers.run(
        image, ["sh", "-c", script], name=named("box"), detach=True, labels={"of": mark},
        environment={"A": "b"}, working_dir="/tmp", hostname="box", init=True,
        restart_policy={"Name": "no"}, mem_limit="64m",
    )
    follow = box.logs(stream=True, follow=True, stdout=True, stderr=False)
    say("follow", next(iter(follow)))
    box.reload()
    say("status", box.status, box.name, box.labels, box.attrs["Config"]["Hostname"], box.attrs["HostConfig"]["Memory"])
    say("list", [one.name for one in client.containers.list(filters={"label": f"of={mark}"})])
    say("top", box.top()["Titles"])
    say("exec", box.exec_run(["sh", "-c", "echo $A; pwd; exit 4"]))
    say("exec demux", box.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True))
    say("exec stream", list(box.exec_run(["echo", "streamed"], stream=True).output))
    say("exec of none", exec_of_none(box))
    say("exec with stdin", exec_socket(box))
    box.pause()
    box.reload()
    say("paused", box.status)
    refused("exec while paused", lambda: box.exec_run("true"))
    box.unpause()
    box.rename(named("boxed"))
    refused("name in use", lambda: client.containers.create(image, "true", name=named("boxed")))
    refused("remove while running", box.remove)
    box.stop(timeout=20)
    say("wait", box.wait())
    say("rest of the log", b"".join(follow))
    say("logs", box.logs(stdout=True, stderr=True, tail=1))
    say("no timestamps lost", len(box.logs(timestamps=True).splitlines()))
    box.start()
    box.kill("SIGKILL")
    say("killed", box.wait())
    refused("kill again", box.kill)
    box.remove()
    refused("remove again", box.remove)


def exec_of_none(box):
    code, output = box.exec_run("/no/such/command")
    return code, output


def exec_socket(box):
    made = client.api.exec_create(box.id, ["cat"], stdin=True)
    sock = client.api.exec_start(made["Id"], socket=True)
    return conversation(sock, b"typed\n"), client.api.exec_inspect(made["Id"])["ExitCode"]


def conversation(sock, text):
    """Sends the text, closes that direction, and reads all frames there are."""
    raw = getattr(sock, "_sock", sock)
    raw.settimeout(TIMEOUT_S)
    raw.sendall(text)
    raw.shutdown(1)
    frames = docker.utils.socket.frames_iter(sock, tty=False)
    answer = b"".join(data for _, data in frames)
    sock.close()
    return answer


def attached():
    box = client.containers.create(image, "cat", stdin_open=True, name=named("cat"), network_mode="none")
    sock = box.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    box.start()
    raw = getattr(sock, "_sock", sock)
    raw.settimeout(TIMEOUT_S)
    raw.sendall(b"to cat\n")
    frames = docker.utils.socket.frames_iter(sock, tty=False)
    say("attach", next(frames))
    sock.close()
    box.kill()
    box.wait()
    box.remove()


def terminal():
    box = client.containers.create(image, ["sh", "-c", "stty size; tty"], tty=True, name=named("tty"), network_mode="none")
    box.start()
    box.wait()
    say("terminal", box.logs().splitlines()[-1])
    refused("resize when over", lambda: box.resize(10, 20))
    box.remove()


def ports():
    serve = "echo served > /index.html; exec httpd -f -p 80 -h /"
    box = client.containers.run(image, ["sh", "-c", serve], detach=True, ports={"80/tcp": None}, name=named("web"))
    box.reload()
    (place, *_) = box.ports["80/tcp"]
    say("ports", sorted(box.ports), place["HostIp"])
    port = place["HostPort"]
    known[port] = "<port>"
    say("page", page(f"http://127.0.0.1:{port}/index.html"))
    taken = client.containers.create(image, "true", ports={"80/tcp": int(port)}, name=named("taken"))
    try:
        taken.start()
    except APIError as error:
        say("port in use", error.response.status_code, "already allocated" in error.explanation or error.explanation)
    taken.remove()
    box.remove(force=True)
    del known[port]


def page(address):
    for _ in range(200):
        try:
            return urllib.request.urlopen(address, timeout=TIMEOUT_S).read()
        except OSError:
            threading.Event().wait(0.05)
    return "nobody answers"


def volumes():
    volume = client.volumes.create(named("volume"), labels={"of": mark})
    say("volume", volume.name, volume.attrs["Driver"], volume.attrs["Labels"], volume.attrs["Scope"])
    say("volumes", [one.name for one in client.volumes.list(filters={"label": f"of={mark}"})])
    mounts = {volume.name: {"bind": "/data", "mode": "rw"}}
    client.containers.run(image, ["sh", "-c", "echo kept > /data/file"], volumes=mounts, remove=True)
    box = client.containers.run(image, ["cat", "/data/file"], volumes=mounts, detach=True)
    say("kept", box.wait(), box.logs())
    refused("remove in use", volume.remove)
    box.remove()
    volume.remove()
    refused("get of none", lambda: client.volumes.get(named("volume")))
    refused("remove again", volume.remove)


def events():
    before = [event for event in client.events(since=0, until=now(), decode=True, filters={"label": f"of={mark}"})]
    order = [(event["Type"], event["Action"]) for event in before if event["Type"] == "container"]
    say("events", order)
    ones = [event for event in before if event["Action"] == "die"]
    say("attributes", sorted(ones[0]["Actor"]["Attributes"]), sorted(ones[0]))


def now():
    import time

    return int(time.time()) + 1


def refusals():
    refused("no such container", lambda: client.containers.get("cooper-py-none"))
    refused("bad filter", lambda: client.containers.list(filters={"nope": "x"}))
    refused("bad name", lambda: client.containers.create(image, "true", name="_"))
    refused("bad memory", lambda: client.containers.create(image, "true", mem_limit=1000))
    refused("bad signal", lambda: client.containers.get("cooper-py-none").kill("NOPE"))
    refused("unauthorised pull", lambda: client.images.pull("127.0.0.1:1/x", tag="y"))
    networks = sorted(network.name for network in client.networks.list(names=["bridge", "host", "none"]))
    say("networks", networks)
    refused("no such network", lambda: client.networks.get("cooper-py-none"))


for part in (engine, images, run, detached, attached, terminal, ports, volumes, events, refusals):
    print(f"# {part.__name__}")
    part()
client.images.remove(image)
