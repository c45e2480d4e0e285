"""The manifests in deploy/k8s: what the API's schemas accept, and what fits the program, the image and the rules."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from custom_kinds import SCHEMAS

from forecaster.cli.main import build_parser
from forecaster.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml"))
FILES = sorted(path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml")
RESOURCES = [
    pytest.param(resource, id=f"{file.parent.name}/{file.stem}")
    for file in FILES
    for resource in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
OF_OTHERS = set(SCHEMAS)
"""Kinds that operators add; their schemas are not the API's."""


def one(kind: str, name: str = "") -> dict[str, Any]:
    found = next(
        p.values[0] for p in RESOURCES if p.values[0]["kind"] == kind and name in ("", p.values[0]["metadata"]["name"])
    )
    assert isinstance(found, dict)
    return found


def pods() -> list[dict[str, Any]]:
    """Specifications of all pods."""
    return [one(kind)["spec"]["template"]["spec"] for kind in ("StatefulSet", "Job", "Deployment")]


@functools.cache
def built(overlay: str) -> list[dict[str, Any]]:
    """As it would be applied."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build", str(K8S / "overlays" / overlay)]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize", str(K8S / "overlays" / overlay)]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def validate(resource: dict[str, Any]) -> None:
    if resource["kind"] in OF_OTHERS:
        jsonschema = pytest.importorskip("jsonschema")
        jsonschema.Draft202012Validator(SCHEMAS[resource["kind"]]).validate(resource)
    else:
        kubernetes_validate = pytest.importorskip("kubernetes_validate")
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def settings_of(overlay: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As a worker of that overlay loads them."""
    (data,) = [
        resource["data"]
        for resource in built(overlay)
        if resource["kind"] == "ConfigMap" and resource["metadata"]["name"].startswith("forecaster-settings")
    ]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize("resource", RESOURCES)
def test_the_schema_of_the_api_accepts_it(resource):
    validate(resource)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_schema_accepts_an_overlay_as_it_is_built(overlay):
    kinds = set()
    for resource in built(overlay):
        validate(resource)
        assert resource["metadata"]["namespace"] == "forecaster"
        kinds.add(resource["kind"])

    assert {"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap"} <= kinds
    assert (kinds >= OF_OTHERS) == (overlay == "production")


def test_what_the_schema_would_refuse_is_refused():
    broken = yaml.safe_load(yaml.safe_dump(one("StatefulSet")))
    broken["spec"]["replica"] = 3

    with pytest.raises(Exception, match="replica"):
        validate(broken)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ScaledObject", "spec.maxReplicas", 4),
        ("ScaledObject", "spec.triggers.0.metadata.lagThreshold", 5_000),
        ("ScaledObject", "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleUp.policies.0.type", "Pod"),
        ("ServiceMonitor", "spec.endpoints.0.scrapeTimeout", "10"),
        ("ServiceMonitor", "spec.endpoints.0.targetport", 8000),
        ("PrometheusRule", "spec.groups.0.rules.0.for", "two minutes"),
        ("PrometheusRule", "spec.groups.0.rules.0.record", "job:both"),
        ("PrometheusRule", "apiVersion", "monitoring.coreos.com/v1beta1"),
    ],
)
def test_what_an_operator_would_refuse_is_refused(kind, path, value):
    broken = yaml.safe_load(yaml.safe_dump(one(kind)))
    *way, last = path.split(".")
    functools.reduce(lambda part, step: part[int(step) if step.isdigit() else step], way, broken)[last] = value

    with pytest.raises(
        Exception, match=r"is not valid|is not of type|is not one of|does not match|Additional|expected"
    ):
        validate(broken)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_and_the_topic_keeps_the_models(overlay, monkeypatch):
    settings = settings_of(overlay, monkeypatch)

    assert settings.registry.kind == "topic"
    assert settings.kafka.bootstrap_servers.startswith("kafka")
    assert not settings.kafka.static_membership


@pytest.mark.parametrize("pod", pods(), ids=["worker", "topics", "trainer"])
def test_a_container_runs_a_command_there_is_and_may_do_as_little_as_possible(pod):
    (container,) = pod["containers"]

    build_parser().parse_args(container["args"])
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert "memory" in container["resources"]["limits"]


def test_secrets_lie_where_the_program_looks_for_them():
    for pod in pods():
        (container,) = pod["containers"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert variables["FORECASTER_SECRETS_DIR"] == mounts["secrets"]


def test_a_mounted_secret_is_read_through_the_links_that_kubernetes_makes(tmp_path, monkeypatch):
    name = "FORECASTER_KAFKA__SASL_PASSWORD"
    (tmp_path / "..2026_01_01").mkdir()
    (tmp_path / "..2026_01_01" / name).write_text("hunter2")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / name).symlink_to(f"..data/{name}")
    monkeypatch.setenv("FORECASTER_SECRETS_DIR", str(tmp_path))

    assert load_settings().kafka.sasl_password.get_secret_value() == "hunter2"


def test_workers_are_named_by_their_pods():
    (container,) = one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    (source,) = [v["valueFrom"] for v in container["env"] if v["name"] == "FORECASTER_KAFKA__INSTANCE_ID"]

    assert source == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_probes_and_scrapes_ask_the_port_the_program_listens_on():
    (container,) = one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    base = yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text("utf-8"))
    settings = dict(literal.split("=", 1) for literal in base["configMapGenerator"][0]["literals"])

    assert port["containerPort"] == int(settings["FORECASTER_TELEMETRY__PORT"])
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert [probes[name]["path"] for name in ("startup", "liveness", "readiness")] == [
        "/healthz",
        "/healthz",
        "/readyz",
    ]
    assert [entry["port"] for entry in one("ServiceMonitor")["spec"]["endpoints"]] == [port["name"]]
    assert [entry["targetPort"] for entry in one("Service", "forecaster")["spec"]["ports"]] == [port["name"]]
    assert one("NetworkPolicy")["spec"]["ingress"][0]["ports"] == [{"port": port["name"]}]


def test_liveness_has_more_patience_than_the_program_with_its_own_loop():
    """/healthz says no after a minute without a turn; a probe that asks too rarely or too soon would kill restores."""
    (container,) = one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probe = container["livenessProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] >= 60
    assert probe["timeoutSeconds"] >= 5


def test_the_end_is_waited_for_longer_than_a_commit_may_take():
    grace = one("StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    assert grace >= 2 * Settings().kafka.delivery_timeout_seconds


def test_selectors_find_the_workers():
    labels = one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    asked = [
        one("StatefulSet")["spec"]["selector"]["matchLabels"],
        one("Service", "forecaster")["spec"]["selector"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    assert [selector for selector in asked if not selector.items() <= labels.items()] == []


def test_lag_is_read_for_the_group_and_topic_of_the_settings(monkeypatch):
    settings = settings_of("production", monkeypatch)
    (scaler,) = [resource for resource in built("production") if resource["kind"] == "ScaledObject"]
    (trigger,) = scaler["spec"]["triggers"]

    assert trigger["metadata"]["consumerGroup"] == settings.kafka.group_id
    assert trigger["metadata"]["topic"] == settings.topics.readings
    assert trigger["metadata"]["bootstrapServers"] == settings.kafka.bootstrap_servers
    assert scaler["spec"]["maxReplicaCount"] == settings.topics.partitions
    (workers,) = [resource for resource in built("production") if resource["kind"] == "StatefulSet"]
    assert "replicas" not in workers["spec"], "KEDA has the say"
    assert scaler["spec"]["scaleTargetRef"] == {"kind": workers["kind"], "name": workers["metadata"]["name"]}


def test_the_rules_are_those_of_prometheus():
    spec = importlib.util.spec_from_file_location("make_copies", K8S / "make_copies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.TARGET.read_text("utf-8") == module.document(), "run `make docs`"


def test_scrapes_bear_the_name_that_the_rules_ask_for():
    monitor = one("ServiceMonitor")
    services = {r["metadata"]["name"]: r["metadata"]["labels"] for r in built("production") if r["kind"] == "Service"}
    rules = (ROOT / "deploy/prometheus/rules/alerts.yml").read_text("utf-8")

    jobs = {name: labels[monitor["spec"]["jobLabel"]] for name, labels in services.items()}

    assert jobs == {"forecaster": "forecaster", "forecaster-trainer": "forecaster-trainer"}
    assert set(re.findall(r'up\{job="(\w+)"\}', rules)) == {jobs["forecaster"]}
    for labels in services.values():
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_every_dashboard_is_in_the_config_map():
    (made,) = yaml.safe_load((ROOT / "deploy/grafana/kustomization.yaml").read_text("utf-8"))["configMapGenerator"]

    there = sorted(f"dashboards/{path.name}" for path in (ROOT / "deploy/grafana/dashboards").glob("*.json"))

    assert sorted(made["files"]) == there
