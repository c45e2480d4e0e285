"""The run of the whole stack: what it needs stands beside it, and the page quotes what it measured."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STACK = ROOT / "deploy" / "stack"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SCRIPTS = [ROOT / "deploy" / "test_stack.sh", STACK / "prepare.sh", STACK / "run.sh"]


@pytest.fixture
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", STACK / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_quotes_what_a_run_measured_between_its_marks(record):
    found = {
        "engine": "podman", "cores": 2, "load": 3.2, "first_forecast_seconds": 61, "first_model_seconds": 190,
        "image_bytes": 1_900_000_000, "torch_index": "", "count": {"readings": 54_321, "missing": 0, "doubled": 0},
    }  # fmt: skip
    before = record.PAGE.read_text("utf-8")

    page = record.page(before, found)

    head, tail = before.split(record.BEGIN)[0], before.split(record.END)[1]
    assert page == f"{head}{record.BEGIN}\n{record.text(found)}\n{record.END}{tail}"
    assert "61 s after `docker-compose up`" in page
    assert "54,321 readings" in page
    assert record.page(page, found) == page


def test_the_page_is_the_one_that_the_last_run_makes(record):
    if not record.RESULT.is_file():
        pytest.skip("no run of deploy/test_stack.sh is recorded yet")
    found = json.loads(record.RESULT.read_text("utf-8"))
    page = record.PAGE.read_text("utf-8")

    assert record.page(page, found) == page, "run deploy/stack/record.py"
    assert (found["count"]["missing"], found["count"]["doubled"], found["count"]["answers_to_nothing"]) == (0, 0, 0)


def test_every_public_image_of_the_stack_has_a_stand_in():
    targets = re.findall(r"^FROM \S+ AS (\w+)$", (STACK / "Containerfile").read_text("utf-8"), re.MULTILINE)
    public = {service["image"] for service in COMPOSE["services"].values()} - {"forecaster:dev"}

    assert {image.split("/")[1].split(":")[0] for image in public} == set(targets)


def test_every_service_has_its_limits():
    override = yaml.safe_load((STACK / "override.yml").read_text("utf-8"))

    assert set(override["services"]) == set(COMPOSE["services"])
    assert all(set(service["ulimits"]) == {"nofile", "nproc"} for service in override["services"].values())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_parses_and_may_be_run(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("setup", "code", "starts"),
    [
        ("", 0, True),
        ("Log directory /data is already formatted. Use --ignore-formatted to ignore this directory.", 1, True),
        ("CLUSTER_ID is not set.", 1, False),
    ],
    ids=["a new disk", "a disk it had before", "no cluster id"],
)
def test_the_stand_in_broker_starts_on_a_new_disk_and_on_the_one_it_had(tmp_path, setup, code, starts):
    java = tmp_path / "java"
    java.write_text(f'#!/bin/sh\ncase $* in *" setup "*) echo "{setup}"; exit {code};; esac\necho "runs: $*"\n')
    java.chmod(0o755)

    done = subprocess.run(
        ["sh", str(STACK / "kafka" / "start.sh")], env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ("kafka.Kafka" in done.stdout) == starts
    assert (done.returncode == 0) == starts
    assert starts or setup in done.stderr
