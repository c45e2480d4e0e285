"""docker-compose.yml, the Dockerfile and Prometheus' configuration fit the program and each other."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecaster.cli.main import build_parser
from forecaster.cli.reloading import SAFE
from forecaster.settings import Settings, load_settings
from forecaster.telemetry.collectors import Collectors
from forecaster.telemetry.http import Health, TelemetryServer

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def filled_in(part: Any, given: dict[str, str] | None = None) -> Any:
    """As compose reads a file that was parsed: variables by their value, or by the default that stands with them."""
    if isinstance(part, dict):
        return {key: filled_in(value, given) for key, value in part.items()}
    if isinstance(part, list):
        return [filled_in(value, given) for value in part]
    if isinstance(part, str):
        return _VARIABLE.sub(lambda found: (given or {}).get(found[1], found[2]), part)
    return part


WRITTEN: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
COMPOSE: dict[str, Any] = filled_in(WRITTEN)
EXAMPLE = [
    line.removeprefix("#").partition("=")
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    if re.match(r"#?[A-Z_]+=", line)
]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("forecaster:")}


def instructions(name: str) -> list[str]:
    """Arguments of every such instruction of the Dockerfile, in order, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return re.findall(rf"^{name}\s+(.+)$", joined, re.MULTILINE)


def settings_in_image() -> dict[str, str]:
    return dict(re.findall(r"(FORECASTER_\w+)=(\S+)", " ".join(instructions("ENV"))))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FORECASTER_")]:
        monkeypatch.delenv(name)


def settings_of(service: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the program loads them in that container."""
    environment = settings_in_image() | OURS[service]["environment"]
    mounts = [volume.split(":") for volume in OURS[service].get("volumes", [])]
    for outside, inside, _ in mounts:
        if environment.get("FORECASTER_CONFIG", "").startswith(f"{inside}/"):
            environment["FORECASTER_CONFIG"] = environment["FORECASTER_CONFIG"].replace(inside, str(ROOT / outside))
    for name, value in environment.items():
        assert isinstance(value, str), f"{name} of {service} has to be quoted: YAML reads {value!r}"
        monkeypatch.setenv(name, value)
    return load_settings()


def arguments_of(service: dict[str, Any]) -> list[str]:
    command = service["command"]
    return shlex.split(command) if isinstance(command, str) else command


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_the_services_are_a_broker_ours_and_what_watches_them():
    watchers = {"prometheus", "alertmanager", "grafana"}
    assert set(OURS) == {"topics", "forecaster", "trainer", "simulator"}
    assert set(SERVICES) == {"kafka", *OURS, *watchers}


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_and_loads(service, monkeypatch):
    settings = settings_of(service, monkeypatch)

    assert settings.kafka.bootstrap_servers == "kafka:9092"


@pytest.mark.parametrize("service", OURS)
def test_every_command_is_one_that_the_program_understands(service):
    args = build_parser().parse_args(arguments_of(OURS[service]))

    assert (
        args.command
        == {"topics": "topics", "forecaster": "run", "trainer": "trainer", "simulator": "simulate"}[service]
    )


@pytest.mark.parametrize("image", [s["image"] for n, s in SERVICES.items() if n not in OURS] + instructions("FROM"))
def test_images_of_others_are_pinned_to_a_version(image):
    tag = image.split(" ")[0].partition(":")[2]

    assert re.match(r"v?\d+\.\d+", tag), f"{image} can change under us"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_the_loopback_address_only(service):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


def test_workers_may_be_several_so_that_their_port_on_the_host_is_any_free_one(monkeypatch):
    settings = settings_of("forecaster", monkeypatch)

    assert OURS["forecaster"]["ports"] == [f"127.0.0.1::{settings.telemetry.port}"]
    assert settings.telemetry.host == "0.0.0.0"
    assert instructions("EXPOSE") == [str(settings.telemetry.port)]
    assert "container_name" not in OURS["forecaster"]


@pytest.mark.parametrize("service", ["forecaster", "trainer"])
def test_models_are_shared_through_a_topic_and_no_volume_and_the_trainer_alone_trains(service, monkeypatch):
    settings = settings_of(service, monkeypatch)

    assert settings.registry.kind == "topic"
    assert settings.training.mode == "service"
    assert [volume for volume in OURS[service]["volumes"] if not volume.endswith(":ro")] == []


@pytest.mark.parametrize("service", ["forecaster", "trainer"])
def test_what_may_be_read_again_comes_from_a_file_and_from_no_variable(service, monkeypatch):
    variables = {f"FORECASTER_{name.replace('.', '__').upper()}" for name in SAFE}

    assert settings_of(service, monkeypatch).telemetry.watch == ("*",)
    assert variables & set(OURS[service]["environment"]) == set()


def test_the_topics_that_are_made_are_those_that_workers_ask_for(monkeypatch):
    made, asked = settings_of("topics", monkeypatch), settings_of("forecaster", monkeypatch)

    assert made.topics == asked.topics
    assert (made.registry.kind, made.delivery) == (asked.registry.kind, asked.delivery)


def test_every_variable_has_a_default_and_a_line_in_the_example():
    used = dict(_VARIABLE.findall((ROOT / "docker-compose.yml").read_text(encoding="utf-8")))

    assert set(re.findall(r"\$\{?(\w+)", json.dumps(WRITTEN))) == set(used)
    listed = [(name, value) for name, _, value in EXAMPLE]
    assert {name for name, _ in listed} == set(used)
    assert {name: value for name, value in used.items() if (name, value) not in listed} == {}


def test_one_line_turns_the_simulator_off_and_another_replays_a_file(monkeypatch):
    lines = {name: value for name, _, value in EXAMPLE}  # the last of a name: the alternatives stand behind the default
    off = filled_in(WRITTEN, {"SIMULATORS": "0"})["services"]["simulator"]
    assert lines["SIMULATORS"] == "1"
    assert off["scale"] == "0"

    (replay,) = (value for name, _, value in EXAMPLE if name == "READINGS" and "replay" in value)
    service = filled_in(WRITTEN, {"READINGS": replay})["services"]["simulator"]
    args = build_parser().parse_args(arguments_of(service))

    assert args.command == "replay"
    assert "./deploy/readings:/readings:ro" in service["volumes"]


def test_every_named_volume_is_declared_and_every_file_mounted_is_there():
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    sources += [secret["file"] for secret in COMPOSE["secrets"].values()]

    assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])
    assert [source for source in sources if source.startswith(".") and not (ROOT / source).exists()] == []
    assert {s for service in SERVICES.values() for s in service.get("secrets", [])} == set(COMPOSE["secrets"])


@pytest.mark.parametrize("service", SERVICES)
def test_files_of_ours_are_mounted_so_that_they_cannot_be_written(service):
    mounts = [volume for volume in SERVICES[service].get("volumes", []) if volume.startswith(".")]

    assert [mount for mount in mounts if not mount.endswith(":ro")] == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_bounds_and_all_but_the_one_shot_start_again(service):
    assert re.fullmatch(r"\d+[mg]", SERVICES[service]["mem_limit"])
    assert 0 < float(SERVICES[service]["cpus"]) <= 2
    restart = SERVICES[service].get("restart", "no")
    assert restart == {"topics": "no", "simulator": "on-failure"}.get(service, "unless-stopped")


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in OURS])
def test_what_is_not_ours_is_asked_for_its_health(service):
    check = SERVICES[service]["healthcheck"]

    assert check["test"][0] == "CMD"
    assert seconds(check["timeout"]) <= seconds(check["interval"])


def test_no_password_stands_in_the_file():
    environment = SERVICES["grafana"]["environment"]

    assert [name for name in environment if "PASSWORD" in name and not name.endswith("__FILE")] == []
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana-password"
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_nobody_waits_for_a_health_that_is_not_looked_at():
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]


def test_readings_and_answers_flow_only_once_the_topics_are_made():
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for service in ("forecaster", "trainer", "simulator"):
        assert SERVICES[service]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_broker_tells_clients_on_this_machine_the_port_that_is_published():
    environment = SERVICES["kafka"]["environment"]
    listeners = dict(entry.split("://") for entry in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(entry.split("://") for entry in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))

    _, published, inside = SERVICES["kafka"]["ports"][0].split(":")

    assert listeners["HOST"] == f":{inside}"
    assert advertised["HOST"] == f"localhost:{published}" == load_settings().kafka.bootstrap_servers
    assert set(listeners) == {
        entry.split(":")[0] for entry in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    }


def test_a_stop_waits_for_the_last_commit(monkeypatch):
    settings = settings_of("forecaster", monkeypatch)

    grace = int(OURS["forecaster"]["stop_grace_period"].removesuffix("s"))

    assert grace >= settings.kafka.delivery_timeout_seconds


@pytest.mark.parametrize("service", OURS)
def test_our_containers_may_do_as_little_as_possible(service):
    assert OURS[service]["read_only"] is True
    assert OURS[service]["cap_drop"] == ["ALL"]
    assert OURS[service]["security_opt"] == ["no-new-privileges:true"]


def test_what_listens_is_asked_for_its_health():
    assert all("healthcheck" not in OURS[service] for service in ("forecaster", "trainer")), "the image's own holds"
    assert all(OURS[service]["healthcheck"] == {"disable": True} for service in ("topics", "simulator"))


def test_the_image_runs_as_nobody_in_particular_and_starts_the_program_itself():
    assert int(instructions("USER")[-1]) >= 1000
    assert instructions("ENTRYPOINT") == ['["forecaster"]']
    assert instructions("CMD")[-1] == '["run"]'


def test_the_health_check_of_the_image_succeeds_and_fails_with_the_daemon():
    is_well = True
    (check,) = (yaml.safe_load(line.partition(" CMD ")[2]) for line in instructions("HEALTHCHECK"))
    server = TelemetryServer(
        "127.0.0.1",
        0,
        collectors=Collectors(build={}),
        health=lambda: Health(ok=is_well, reason=""),
        ready=lambda: Health(ok=True, reason=""),
        streams=lambda query: [],
        stream=lambda stream_id: None,
        before_scrape=lambda: None,
    )
    try:
        environment = {**os.environ, "FORECASTER_TELEMETRY__PORT": str(server.port)}
        assert check[0] == "python"
        command = [sys.executable, *check[1:]]

        assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
        is_well = False
        assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0
    finally:
        server.close()


def test_the_image_holds_the_compiled_loops_of_the_program_that_it_runs():
    """Beside the sources Python would import these, and the image would compile at each start of a container."""
    (command,) = (command for command in instructions("RUN") if "compile_kernels" in command)

    assert command.startswith("/opt/forecaster/bin/python -P ")
    after = DOCKERFILE.index("uv pip install --no-deps --no-build-isolation .")
    assert after < DOCKERFILE.index("compile_kernels") < DOCKERFILE.index("COPY --from=build")


def test_the_image_is_made_with_the_uv_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert instructions("ARG")[0] == "UV_VERSION=" + re.search(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)[1]


def test_what_the_image_copies_is_there_and_is_sent_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for line in instructions("COPY") if not line.startswith("--from") for name in line.split()[:-1]]

    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    assert ignored[1] == "*", "everything else stays here"
    assert not any(fnmatch(".git", line.removeprefix("!")) for line in ignored if line.startswith("!"))


@pytest.mark.parametrize(("name", "service"), [("forecaster", "forecaster"), ("forecaster-trainer", "trainer")])
def test_prometheus_scrapes_them_where_they_listen(name, service, monkeypatch):
    settings = settings_of(service, monkeypatch)

    (job,) = [job for job in PROMETHEUS["scrape_configs"] if job["job_name"] == name]

    (discovery,) = job["dns_sd_configs"]
    assert discovery["names"] == [service]
    assert discovery["port"] == settings.telemetry.port
    assert service in SERVICES
    assert job.get("metrics_path", "/metrics") == "/metrics"


def test_prometheus_and_alertmanager_read_the_files_that_are_mounted():
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["prometheus"]["volumes"])

    assert f"--config.file={mounts['./deploy/prometheus/prometheus.yml']}" in SERVICES["prometheus"]["command"]
    assert PROMETHEUS["rule_files"] == [f"{mounts['./deploy/prometheus/rules']}/*.yml"]
    (manager,) = PROMETHEUS["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    (directory,) = [v.split(":")[1] for v in SERVICES["alertmanager"]["volumes"] if v.startswith(".")]
    assert f"--config.file={directory}/alertmanager.yml" in SERVICES["alertmanager"]["command"]


def test_grafana_asks_the_services_that_there_are():
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))

    hosts = [re.fullmatch(r"http://(\w+):\d+", source["url"]).group(1) for source in provisioned["datasources"]]

    assert set(hosts) <= set(SERVICES)


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="`docker-compose` is not installed")
def test_docker_compose_accepts_the_file():
    done = subprocess.run(
        ["docker-compose", "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
