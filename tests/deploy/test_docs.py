"""The pages under docs/ say what the code does: settings, formats, files and names, bytes, links."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import socket
from pathlib import Path

import msgspec
import pytest

from forecaster.anomaly.detector import Cause, Direction
from forecaster.app import build_pipeline
from forecaster.codecs.anomaly_json import Anomaly, decode_anomaly
from forecaster.codecs.forecast_json import Forecast, SourcePosition, decode_forecast
from forecaster.codecs.json_codec import JsonCodec, encode_dead_letter
from forecaster.experts.recurrent import RecurrentExpert
from forecaster.models.artifact import Manifest
from forecaster.records import DeadLetter, Observation, RawRecord, Reason, Status
from forecaster.series.columns import Column, row_bytes
from forecaster.settings import Settings
from forecaster.stores.registry_directory import RegistryRecord

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def first_cells(text: str, heading: str) -> list[str]:
    """Names in the first cells of all tables below a heading, up to the next of its kind."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    body = next(part for part in section if part.startswith(heading))
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", body, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


def make_settings_page() -> str:
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.page())


def test_the_page_of_settings_is_up_to_date():
    assert text_of("settings.md") == make_settings_page(), "run `make docs`"


def test_the_page_of_settings_is_the_same_on_every_machine(monkeypatch):
    here = make_settings_page()

    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")

    assert make_settings_page() == here
    assert socket.gethostname() not in here


def test_every_setting_has_a_meaning_a_default_and_what_is_expected():
    rows = re.findall(r"^\| `(FORECASTER_\w+)` \| (.+) \| (.+) \| (.+) \|$", text_of("settings.md"), re.MULTILINE)

    assert len(rows) == text_of("settings.md").count("\n| `FORECASTER_")
    assert [row for row in rows if not all(cell.strip() for cell in row)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_setting_that_does_not_exist(page):
    text = page.read_text(encoding="utf-8")
    known = {
        f"{section}.{field}"
        for section, info in Settings.model_fields.items()
        for field in getattr(info.annotation, "model_fields", {})
    }
    sections = "|".join(name for name in Settings.model_fields if name != "delivery")
    modules = {path.stem for path in (ROOT / "forecaster").rglob("*.py")}

    dotted = set(re.findall(rf"`((?:{sections})\.[a-z][a-z_]*)", text))
    variables = set(re.findall(r"FORECASTER_([A-Z]+__[A-Z0-9_]+)", text))

    topics = {"readings.dlq", "anomalies.csv"}  # names of a topic and of a file, not of settings
    assert {name for name in dotted - known - topics if name.split(".")[1] not in {"py", *modules}} == set()
    assert {name for name in variables if name.replace("__", ".").lower() not in known} == set()


def test_every_field_of_a_forecast_is_described_and_the_example_is_one():
    section = first_cells(text_of("formats.md"), "Forecasts")
    example = re.search(
        r"```json\n(\{\"stream_id\":\"ward-3/bed-12\",\"origin\".*?)```", text_of("formats.md"), re.DOTALL
    )
    assert example

    decoded = decode_forecast(example[1].encode())

    assert set(Forecast.__struct_fields__) <= set(section)
    always = {field.name for field in msgspec.structs.fields(Forecast) if field.required}
    assert set(json.loads(example[1])) == always | {"coverage"}, "of a stream that has been judged, all published"
    assert {name for name in SourcePosition.__struct_fields__ if f"`{name}`" not in text_of("formats.md")} == set()
    assert decoded.status in set(Status)


def test_the_example_of_a_reading_is_one():
    example = re.search(r"```json\n(\{\"stream_id\": .*?\})\n```", text_of("formats.md"))
    assert example

    decoded = JsonCodec().decode(RawRecord("readings", 0, 0, -1.0, None, example[1].encode()))

    assert isinstance(decoded[0], Observation)


def test_the_example_of_an_anomaly_is_one_and_every_field_and_cause_is_described():
    example = re.search(r"```json\n(\{[^`]*?\"cause\".*?\})\n```", text_of("formats.md"), re.DOTALL)
    assert example

    decode_anomaly(example[1].replace("\n ", "").encode())

    assert set(json.loads(example[1])) == set(Anomaly.__struct_fields__)
    cells = " ".join(re.findall(r"^\| (`[^|]+) \|", text_of("formats.md"), re.MULTILINE))
    named = {cause.name.lower() for cause in Cause} | set(Anomaly.__struct_fields__)
    assert [name for name in named if f"`{name}`" not in cells] == []
    assert [way for way in Direction if f"`{way}`" not in text_of("formats.md")] == []


def test_every_status_is_described():
    assert [name for name in first_cells(text_of("formats.md"), "Forecasts") if name in set(Status)] == [
        "fallback",
        "stale",
        "gap",
        "flat",
        "warming",
        "ok",
    ]
    assert {status.value for status in Status} == {"fallback", "stale", "gap", "flat", "warming", "ok"}


def test_every_reason_and_every_header_of_a_dead_letter_is_described():
    named = first_cells(text_of("formats.md"), "Dead letters")
    raw = RawRecord("readings", 0, 7, 1.0, b"a", b"{}")
    record = encode_dead_letter(DeadLetter(raw, Reason.NOT_JSON, "detail", "value"), topic="readings.dlq")

    assert set(named) == set(Reason) | {name for name, _ in record.headers} | {"truncated"}


def test_every_field_of_a_manifest_and_of_the_journal_is_described():
    manifest, journal = (
        first_cells(text_of("formats.md"), heading) for heading in ("Model artifact", "Model registry")
    )

    assert set(manifest) == set(Manifest.__struct_fields__)
    assert set(journal) == {field.name for field in msgspec.structs.fields(RegistryRecord)}


def test_the_bytes_of_a_stream_are_those_of_the_columns():
    pipeline = build_pipeline(Settings())
    groups: dict[str, tuple[Column, ...]] = {
        "event clock": pipeline._clock.columns,
        "scale, level, ring of recent steps": pipeline.encoder.columns,
        "hidden state and the model it belongs to": RecurrentExpert.columns(pipeline.hidden_shape),
        "pending forecasts": pipeline.pending.columns,
        "expert weights": pipeline._mixture.columns,
        "usual errors of experts": pipeline._spreads.columns,
        "interval widths": pipeline._tracker.columns,
        "recent scores": pipeline.recent_score.columns,
        "anomalies": pipeline.detector.columns,
    }
    grouped = {column.name for columns in groups.values() for column in columns}
    counted = {part: row_bytes(columns) for part, columns in groups.items()}
    counted["status of the last answer"] = row_bytes(c for c in pipeline.columns if c.name not in grouped)
    counted["all"] = row_bytes(pipeline.columns)

    rows = re.findall(r"^\| ([\w, ]+) \| (?:`[\w/.]+`)? ?\| ([\d,]+) \|$", text_of("architecture.md"), re.MULTILINE)

    assert {part: int(size.replace(",", "")) for part, size in rows} == counted
    assert f"{counted['all'] // 10} MB for 100,000 streams" in text_of("architecture.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_a_page_names_exists(page):
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|lock|toml))`", page.read_text(encoding="utf-8")))

    def exists(name: str) -> bool:
        return any((start / name).is_file() for start in (ROOT, ROOT / "forecaster"))

    assert [name for name in named if not exists(name) and name != "forecaster.toml"] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_that_follows_a_file_is_defined_in_it(page):
    """As in: `engine/task.py` `PartitionTask.process`."""
    pairs = re.findall(r"`((?:\w+/)*\w+\.py)`,? `(\w+(?:\.(?!py`)\w+)?)`", page.read_text(encoding="utf-8"))

    wrong = []
    for file, name in pairs:
        source = ROOT / "forecaster" / file if (ROOT / "forecaster" / file).is_file() else ROOT / file
        defined = set()
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                defined.add(node.name)
            if isinstance(node, ast.ClassDef):
                defined |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if name not in defined:
            wrong.append((file, name))

    assert wrong == []
    assert page.name != "architecture.md" or len(pairs) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    def anchors(path: Path) -> set[str]:
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file) if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)

    assert broken == []


DECISIONS = sorted((DOCS / "decisions").glob("0*.md"))


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_context_options_cost_and_when_to_look_again(page):
    text = page.read_text(encoding="utf-8")

    assert text.startswith(f"# {page.name[:4]} ")
    parts = ("**Context.**", "**Options.**", "**Decision.**", "**Cost.**", "**Look again**")
    assert [part for part in parts if part not in text] == []


def test_decisions_are_numbered_without_holes_and_listed_with_their_titles():
    index = text_of("decisions/README.md")

    listed = re.findall(r"^\| \[(\d{4})\]\(([\w-]+\.md)\) \| (.+) \|$", index, re.MULTILINE)

    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    titles = {page.name: page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for page in DECISIONS}
    assert {name: f"{number} {title}" for number, name, title in listed} == titles
