"""The files of deploy/ fit what they are for, as far as that can be seen without a cluster."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.cli.main import cli
from stillhouse.runtime.cluster import INLINE, INLINE_BYTES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return found


def test_the_cluster_is_one_that_ray_takes() -> None:
    """Ray's own schema of clusters accepts the file, and every command of it keeps token authentication on."""
    jsonschema = pytest.importorskip("jsonschema", reason="comes with the extra 'ray'")
    found = find_spec("ray")
    assert found is not None and found.origin is not None
    schema = json.loads((Path(found.origin).parent / "autoscaler/ray-schema.json").read_text())
    cluster = read("ray-cluster.yaml")
    jsonschema.validate(cluster, schema)
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)


def test_the_job_is_whole() -> None:
    """The RayJob has what KubeRay asks for, token authentication, and teachers on machines that may go."""
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["enableInTreeAutoscaling"]
    (teachers,) = cluster["workerGroupSpecs"]
    assert teachers["minReplicas"] <= teachers["replicas"] <= teachers["maxReplicas"]
    pod = teachers["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 0 and pod["nodeSelector"] and pod["tolerations"]
    for spec in (pod, cluster["headGroupSpec"]["template"]["spec"]):
        (container,) = spec["containers"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    pins = (ROOT / "constraints.txt").read_text()
    assert f"ray=={cluster['rayVersion']}\n" in pins


def test_lost_machines_are_missed_soon() -> None:
    """Both heads, which look for lost machines, do it as often; a teacher's pod has the time to drain.

    Teachers' machines send answers with the reply.
    """
    command = next(each for each in read("ray-cluster.yaml")["head_start_ray_commands"] if "ray start" in each)
    cluster = read("rayjob.yaml")["spec"]["rayClusterSpec"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    told = {each["name"]: each["value"] for each in head["env"]}
    assert told == dict(re.findall(r"(RAY_health\w+)=(\S+)", command)) and len(told) == 3
    pod = cluster["workerGroupSpecs"][0]["template"]["spec"]
    drain, inline = pod["containers"][0]["env"]
    (start,) = (each for each in read("ray-cluster.yaml")["worker_start_ray_commands"] if "ray start" in each)
    assert inline == {"name": f"RAY_{INLINE}", "value": str(INLINE_BYTES)}
    assert f"RAY_{INLINE}={INLINE_BYTES} " in start
    assert drain["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert float(drain["value"]) < pod["terminationGracePeriodSeconds"]


def commands() -> list[list[str]]:
    """Every call of our command line in deploy/."""
    text = "\n".join(path.read_text() for path in sorted(DEPLOY.iterdir()))
    text = text.replace("docker run -v", "").replace("\n    ", " ")
    return [shlex.split(each) for each in re.findall(r"\bstillhouse ((?:run|resume) [^;'\n]+)", text)]


def test_commands_are_ours() -> None:
    """Each command that is given there is one of ours, with options that it has."""
    found = commands()
    assert len(found) >= 4
    for verb, *words in found:
        known = {option for parameter in cli.commands[verb].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_the_image_holds_what_it_installs() -> None:
    """The Dockerfile copies files that are there, and installs extras that the project has."""
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1]), line
    (extras,) = re.findall(r"/src\[([a-z,]+)\]", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert 'ENTRYPOINT ["stillhouse"]' in text
