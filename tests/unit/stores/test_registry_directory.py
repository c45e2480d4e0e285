import os
import subprocess
import sys

import pytest
from model_logs import make_model

from forecaster.errors import ArtifactMismatch, TransportError
from forecaster.stores.registry_directory import DirectoryRegistry


@pytest.fixture
def path(tmp_path):
    return tmp_path / "models"


def promoted(registry, count):
    """Put and promote this many models; their versions, oldest first."""
    versions = []
    for seed in range(count):
        artifact = make_model(seed)
        registry.put(artifact)
        registry.promote(artifact.version, {"reason": "test"}, now=float(seed))
        versions.append(artifact.version)
    return versions


def test_directory_that_is_not_there_is_an_empty_registry_and_stays_absent(path):
    registry = DirectoryRegistry(path)

    assert registry.champion() is None
    assert registry.manifests() == []
    assert registry.history() == []
    assert not path.exists()


def test_champion_reads_nothing_while_the_journal_stands_still(path, monkeypatch):
    registry = DirectoryRegistry(path)
    version = promoted(registry, 1)[0]
    registry.champion()

    monkeypatch.setattr(registry, "history", lambda: pytest.fail("the journal was read again"))

    assert registry.champion() == version


def test_a_damaged_file_among_the_models_is_told_of_and_left_out(path, caplog):
    registry = DirectoryRegistry(path)
    version = promoted(registry, 1)[0]
    damaged = make_model(5)
    registry.put(damaged)
    (path / "artifacts" / f"{damaged.version}.model").write_bytes(b"FCMODEL\nrubbish")

    assert [manifest.version for manifest in registry.manifests()] == [version]
    assert "model cannot be read" in caplog.messages


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "gru", "gru-20260101T000000-ABCDEF", "a/b"])
def test_name_that_is_no_version_never_reaches_the_disk(path, name):
    with pytest.raises(ArtifactMismatch, match="not the name of a model"):
        DirectoryRegistry(path).get(name)


def test_journal_cut_anywhere_in_its_last_line_is_the_journal_before_that_line(path):
    registry = DirectoryRegistry(path)
    first, second = promoted(registry, 2)
    journal = path / "decisions.jsonl"
    whole = journal.read_bytes()
    end_of_first = whole.index(b"\n") + 1

    for length in range(end_of_first, len(whole)):
        journal.write_bytes(whole[:length])
        assert DirectoryRegistry(path).champion() == first

    registry.promote(second, {}, now=5.0)

    assert [record.number for record in registry.history()] == [1, 2]
    assert registry.champion() == second


def test_foreign_line_in_the_journal_is_an_error_that_names_the_file(path):
    registry = DirectoryRegistry(path)
    promoted(registry, 1)
    with open(path / "decisions.jsonl", "ab") as file:
        file.write(b"hello\n")

    with pytest.raises(TransportError, match=r"decisions\.jsonl holds a line that cannot be read"):
        registry.champion()


def test_directory_that_cannot_be_written_is_a_transport_error_with_a_hint(tmp_path):
    (tmp_path / "models").write_text("a file in the way")

    with pytest.raises(TransportError, match="cannot be used") as refusal:
        DirectoryRegistry(tmp_path / "models").put(make_model())

    assert "registry.directory" in refusal.value.hint


def test_writer_killed_at_any_moment_leaves_a_registry_that_reads(path):
    version = promoted(DirectoryRegistry(path), 1)[0]
    endless = (
        "import sys; from pathlib import Path\n"
        "from forecaster.stores.registry_directory import DirectoryRegistry\n"
        "registry = DirectoryRegistry(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "while True: registry.refuse(sys.argv[2], {'reason': 'x' * 2000}, now=0.0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", endless, str(path), version], stdout=subprocess.PIPE, env=environment
        )
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        child.wait()
        child.stdout.close()
        numbers = [record.number for record in DirectoryRegistry(path).history()]
        assert numbers == list(range(1, len(numbers) + 1))
        registry = DirectoryRegistry(path)
        registry.refuse(version, {}, now=0.0)  # the lock died with its holder
        assert registry.champion() == version
