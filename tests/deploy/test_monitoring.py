"""Alert rules and dashboard: Prometheus accepts them, they fire when they should, and every name in them exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

metrics = pytest.importorskip("limner.server.metrics", reason="the extra `serve` is not installed")

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/limner.rules.yml"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is absent")
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool (package prometheus-alertmanager) is absent"
)
# What Prometheus adds to every series.
ADDED = {"job", "instance", "le"}
RECORDED = re.compile(r"\b(?:instance|job|job_route):\w+:\w+")
SERIES = re.compile(r"\b(?:limner|process|python)_\w+")


def tool(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def registered() -> dict[str, set[str]]:
    """Every series that the server exports, with its labels."""
    found: dict[str, set[str]] = {}
    for collector in list(metrics.Metrics().registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        families = collector.describe() if hasattr(collector, "describe") else collector.collect()
        for family in families or collector.collect():
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            found |= {family.name + ending: labels for ending in endings}
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana/limner.json").read_text("utf-8"))


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of rules, dashboard and the autoscaler's adapter."""
    yield from ((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules())
    for panel in dashboard()["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    adapter = yaml.safe_load((DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text("utf-8"))
    for rule in adapter["rules"]["custom"]:
        yield "adapter", rule["seriesQuery"]
        yield "adapter", rule["metricsQuery"]


@needs_promtool
def test_prometheus_accepts_the_rules() -> None:
    assert "SUCCESS" in tool("promtool", "check", "rules", RULES)


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    tool("promtool", "test", "rules", RULES.with_name("limner.rules.test.yml"))


def test_every_alert_is_tested() -> None:
    tested = yaml.safe_load(RULES.with_name("limner.rules.test.yml").read_text("utf-8"))["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


@needs_promtool
def test_prometheus_accepts_its_configuration() -> None:
    tool("promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml")


@needs_amtool
def test_alertmanager_accepts_its_configuration() -> None:
    tool("amtool", "check-config", DEPLOY / "alertmanager/alertmanager.yml")


@needs_amtool
@pytest.mark.parametrize(("severity", "receiver"), [("page", "pages"), ("ticket", "tickets")])
def test_alerts_reach_who_should_hear_them(severity: str, receiver: str) -> None:
    config = DEPLOY / "alertmanager/alertmanager.yml"
    told = tool("amtool", "config", "routes", "test", f"--config.file={config}", f"severity={severity}")
    assert told.splitlines()[0] == receiver


def test_every_series_is_one_that_the_server_exports() -> None:
    known = registered()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for where, expression in expressions():
        plain = RECORDED.sub("", expression)
        assert set(RECORDED.findall(expression)) <= recorded, where
        assert set(SERIES.findall(plain)) <= known.keys(), where


def test_every_label_is_one_that_its_series_has() -> None:
    known = registered()
    for where, expression in expressions():
        for series, selector in re.findall(r"\b((?:limner|process)_\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*[\"']", selector))
            assert used <= known[series] | ADDED | {"namespace", "pod"}, (where, series)
        for series, grouping in _grouped(expression):
            assert grouping <= known[series] | ADDED, (where, series)


def _grouped(expression: str) -> Iterator[tuple[str, set[str]]]:
    """(series, labels) of every `by (labels) (rate(series...` and `by (labels) (series`."""
    for labels, series in re.findall(
        r"by \(([\w, ]+)\) \((?:rate\(|increase\()?((?:limner|process)_\w+)", RECORDED.sub("", expression)
    ):
        yield series, {label.strip() for label in labels.split(",")}


def test_the_comparison_sees_a_wrong_name() -> None:
    known = registered()
    assert {"limner_queue_seconds_bucket", "limner_requests_total", "process_resident_memory_bytes"} <= known.keys()
    assert known["limner_rejections_total"] == {"reason"}
    assert "limner_queue_second_bucket" not in known


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for _, expression in expressions() for name in SERIES.findall(RECORDED.sub("", expression))}
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown}
    ours = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in registered() if name.startswith("limner_")}
    assert ours - families == {"limner_build_info"}


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in dashboard()["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


@needs_promtool
def test_every_query_of_dashboard_and_autoscaler_is_promql(tmp_path: Path) -> None:
    """As recording rules, which promtool parses."""
    filled = {
        "$__rate_interval": "5m",
        "<<.GroupBy>>": "pod",
        "<<.Series>>": "limner_queue_seconds_bucket",
        "<<.LabelMatchers>>": 'namespace="home"',
    }
    queries = [query for _, query in expressions()]
    for place, value in filled.items():
        queries = [query.replace(place, value) for query in queries]
    group = {"name": "all", "rules": [{"record": f"query:{k}", "expr": query} for k, query in enumerate(queries)]}
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [group]}), "utf-8")
    assert f"{len(queries)} rules found" in tool("promtool", "check", "rules", path)
