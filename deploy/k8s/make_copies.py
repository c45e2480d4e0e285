"""Writes what deploy/k8s holds a copy of: Prometheus' rules as a resource of the Prometheus operator."""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).parent
RULES = HERE.parent / "prometheus" / "rules"
TARGET = HERE / "components" / "monitoring" / "prometheus-rule.yaml"


def document() -> str:
    """All rule files as one PrometheusRule."""
    groups = [group for file in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "forecaster"},
        "spec": {"groups": groups},
    }
    head = "# Made from deploy/prometheus/rules by deploy/k8s/make_copies.py (`make docs`); changes belong there.\n"
    return head + yaml.safe_dump(resource, sort_keys=False, width=120)


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
