"""What ships to run limner elsewhere is valid, agrees with the server, and with itself."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from limner.server import health
from limner.server.config import ServerConfig, load

DEPLOY = Path(__file__).parents[2] / "deploy"


def kubernetes() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes/limner.yaml").read_text("utf-8"))
    return {each["kind"]: each for each in documents}


def container() -> dict[str, Any]:
    return kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def routes() -> set[str]:
    return {str(getattr(route, "path", "")) for route in health.router.routes}


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.y*ml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_yaml(path: Path) -> None:
    assert all(yaml.safe_load_all(path.read_text("utf-8")))


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.json")), ids=lambda path: path.name)
def test_json(path: Path) -> None:
    assert json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.toml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_the_server_accepts_its_configuration(path: Path) -> None:
    config = load(path)
    assert config.host == "0.0.0.0"
    assert config.results.folder


def test_examples_in_comments_are_accepted_too() -> None:
    lines = (DEPLOY / "server.toml").read_text("utf-8").splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("# [feedback]"))
    commented = [line.removeprefix("# ") for line in lines[at:] if re.match(r"# (\[|\w+ =)", line)]
    table = tomllib.loads("\n".join(commented).replace('"..."', f'"{"0" * 64}"'))
    config = ServerConfig.model_validate(table)
    assert config.feedback.url
    assert config.keys[0].requests_per_minute == 600


def test_probes_ask_what_the_server_answers() -> None:
    probes = {name: container()[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {each["path"] for each in probes.values()} <= routes()
    assert probes["livenessProbe"]["path"] == "/livez", "a server that drains must not be killed for it"
    named = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert {each["port"] for each in probes.values()} == {"http"}
    assert named["http"] == load(DEPLOY / "kubernetes/server.toml").port


def test_a_leaving_pod_has_time_for_what_it_accepted() -> None:
    config = load(DEPLOY / "kubernetes/server.toml")
    grace = kubernetes()["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= config.drain_s + config.batching.deadline_s
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]["limner"]
    at_home = load(DEPLOY / "server.toml")
    assert int(compose["stop_grace_period"].removesuffix("s")) >= at_home.drain_s + at_home.batching.deadline_s


def test_labels_and_names_agree() -> None:
    found = kubernetes()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    mounts = {each["name"] for each in container()["volumeMounts"]}
    volumes = {each["name"] for each in found["Deployment"]["spec"]["template"]["spec"]["volumes"]}
    assert mounts == volumes


def test_results_lie_where_a_volume_is() -> None:
    folder = Path(load(DEPLOY / "kubernetes/server.toml").results.folder or "")
    places = [Path(each["mountPath"]) for each in container()["volumeMounts"] if not each.get("readOnly")]
    assert any(place == folder or place in folder.parents for place in places)


def test_the_autoscaler_reads_what_the_adapter_gives() -> None:
    (metric,) = kubernetes()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    adapter = yaml.safe_load((DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text("utf-8"))
    assert [rule["name"]["as"] for rule in adapter["rules"]["custom"]] == [metric["pods"]["metric"]["name"]]


def test_nothing_runs_as_root() -> None:
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container()["securityContext"]["readOnlyRootFilesystem"]
    assert re.search(r"^USER limner$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)


def test_files_that_others_name_are_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    mounted = [each.split(":")[0] for service in compose["services"].values() for each in service.get("volumes", [])]
    assert all((DEPLOY / path).exists() for path in mounted if path.startswith("."))
    copied = re.findall(r"^COPY (deploy/\S+)", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert copied
    assert all((DEPLOY.parent / path).exists() for path in copied)
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text("utf-8"))
    named = [*kustomization["resources"], *kustomization["configMapGenerator"][0]["files"]]
    assert all((DEPLOY / "kubernetes" / name).exists() for name in named)


def test_the_proxy_lets_through_what_the_server_takes() -> None:
    limit = re.search(r"client_max_body_size (\d+)m;", (DEPLOY / "nginx/limner.conf").read_text("utf-8"))
    assert limit is not None
    assert int(limit[1]) * 2**20 == ServerConfig().limits.upload_bytes
