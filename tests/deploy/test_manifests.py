"""The manifests hold against KubeRay's own schemas, and what they start exists."""

from __future__ import annotations

import gzip
import json
import shlex
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.cli.options import build_parser
from scorer.config import ScorerConfig
from service.serve import ReplicaOptions
from service.settings import PREFIX, Settings
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
CRDS = Path(__file__).parent / "crds"
FILES = ("rayservice", "rayjob")


def manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / f"{name}.yaml").read_text()))


@cache
def schema(name: str) -> dict[str, Any]:
    """The kind's schema. Unknown fields are refused, which a cluster would drop in silence."""
    found: dict[str, Any] = json.loads(gzip.decompress((CRDS / f"{name}.v1.json.gz").read_bytes()))
    _close(found)
    found["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return found


def _close(node: Any) -> None:
    if isinstance(node, dict):
        if "properties" in node and node.get("x-kubernetes-preserve-unknown-fields") is not True:
            node.setdefault("additionalProperties", False)
        for child in node.values():
            _close(child)
    elif isinstance(node, list):
        for child in node:
            _close(child)


def validate(name: str, document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema(name)).validate(document)


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_is_what_kuberay_takes(name: str) -> None:
    document = manifest(name)
    validate(name, document)
    assert (document["apiVersion"], document["kind"].lower()) == ("ray.io/v1", name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["unknown", "type", "missing", "deep"])
def test_a_damaged_manifest_is_found_out(name: str, damage: str) -> None:
    """Negative control."""
    document = deepcopy(manifest(name))
    cluster = document["spec"]["rayClusterConfig" if name == "rayservice" else "rayClusterSpec"]
    if damage == "unknown":
        document["spec"]["serveConfig"] = ""
    elif damage == "type":
        cluster["workerGroupSpecs"][0]["maxReplicas"] = "four"
    elif damage == "missing":
        del cluster["headGroupSpec"]["template"]
    else:
        cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsNoRoot"] = True
    with pytest.raises(jsonschema.ValidationError):
        validate(name, document)


def containers(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        own = list(node.get("containers", []))
        return own + [found for child in node.values() for found in containers(child)]
    return [found for child in node for found in containers(child)] if isinstance(node, list) else []


def test_the_service_is_one_that_ray_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    document = manifest("rayservice")
    config = ServeDeploySchema(**yaml.safe_load(document["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "service.serve:app"
    options = ReplicaOptions(**application.args)
    workers = document["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert workers["maxReplicas"] >= options.max_replicas, "a node for each replica"
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert float(limits["cpu"]) >= options.num_cpus
    assert float(limits["nvidia.com/gpu"]) >= (options.num_gpus or 0)


def test_the_services_variables_are_settings() -> None:
    document = manifest("rayservice")
    given = yaml.safe_load(document["spec"]["serveConfigV2"])["applications"][0]["runtime_env"]["env_vars"]
    Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in given.items()})
    for container in containers(document):
        for variable in container.get("env", []):
            if variable["name"].startswith(PREFIX):
                assert variable["name"].removeprefix(PREFIX).lower() in Settings.model_fields
    keys = [variable for c in containers(document) for variable in c["env"] if variable["name"].endswith("API_KEYS")]
    assert len(keys) == 2, "head and workers"
    assert all("secretKeyRef" in variable["valueFrom"] for variable in keys), "a key is a secret, never a literal"


def test_the_job_is_a_command_line_that_exists() -> None:
    interpreter, script, *arguments = shlex.split(manifest("rayjob")["spec"]["entrypoint"])
    assert interpreter == "python"
    assert (ROOT / script).is_file()
    parsed = build_parser().parse_args(arguments)
    ScorerConfig(dtype=parsed.dtype)
    workers = manifest("rayjob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert parsed.actors * parsed.gpus_per_actor <= workers["maxReplicas"]


@pytest.mark.parametrize("name", FILES)
def test_versions_and_images_are_those_of_the_project(name: str) -> None:
    from importlib.metadata import version

    import scorer

    document = manifest(name)
    cluster = document["spec"]["rayClusterConfig" if name == "rayservice" else "rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert {container["image"] for container in containers(document)} == {f"tokensight:{scorer.__version__}"}


def test_the_image_holds_what_the_manifests_start() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]}
    assert {"scorer", "pipelines", "service", "tokensight", "pyproject.toml", "constraints.txt"} <= copied
    assert all((ROOT / source).exists() for source in copied)
    (install,) = [line for line in lines if "pip install" in line]
    assert ".[score,ray,serve,s3]" in install
