"""The image has what the documentation runs in it, and compose starts what everybody needs, and nothing more."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTED = sorted(
    {found for path in PAGES for found in re.findall(r"docker compose exec (\w+) python (\S+)", path.read_text())}
)


def _copied() -> set[str]:
    """Return the files of the checkout in the image, by their paths there."""
    found: set[str] = set()
    for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE):
        *sources, target = line.split()
        found |= {f"{target}{Path(source).name}" for source in sources if target.startswith("/app/")}
    return found


def test_a_script_of_the_documentation_is_named() -> None:
    assert ("worker", "scripts/backfill_embeddings.py") in DOCUMENTED


@pytest.mark.parametrize(("service", "path"), DOCUMENTED)
def test_a_documented_path_of_the_container_is_copied(service: str, path: str) -> None:
    (workdir,) = re.findall(r"^WORKDIR (.*)$", DOCKERFILE.rpartition("FROM ")[2], re.MULTILINE)
    assert f"{workdir}/{path}" in _copied()
    assert (ROOT / path).is_file()
    assert SERVICES[service]["build"] == "."


def test_the_image_holds_no_development_package() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert "COPY --from=build /app /app" in final
    for line in DOCKERFILE.splitlines():
        assert "requirements-dev" not in line or "/app/" not in line


def test_only_a_profile_starts_ollama() -> None:
    assert SERVICES["ollama"]["profiles"] == ["ollama"]
    assert not any("ollama" in service.get("depends_on", {}) for service in SERVICES.values())
