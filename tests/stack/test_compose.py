"""docker-compose.yml and the Dockerfile promise what a server needs: pinned, healthy before used, nothing lost."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evervec.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {"migrate": "migrate", "api": "api", "worker": "worker", "scheduler": "scheduler"}
STORES = {"postgres": "/var/lib/postgresql", "nats": "/data", "ollama": "/root/.ollama"}


def test_every_service_of_the_design_is_there() -> None:
    assert set(SERVICES) == set(OURS) | set(STORES)
    assert all(SERVICES[service]["command"] == [command] for service, command in OURS.items())


@pytest.mark.parametrize("service", STORES)
def test_images_are_pinned_to_a_version(service: str) -> None:
    tag = SERVICES[service]["image"].partition(":")[2]
    assert re.match(r"\d+\.\d+\.\d+(-|$)", tag), tag


def test_the_database_image_has_the_postgresql_and_pgvector_that_evervec_needs() -> None:
    found = re.fullmatch(r"pgvector/pgvector:(\d+)\.(\d+)\.(\d+)-pg18", SERVICES["postgres"]["image"])
    assert found is not None
    assert tuple(map(int, found.groups())) >= (0, 8, 4)


@pytest.mark.parametrize("service", sorted({*OURS, *STORES} - {"migrate"}))
def test_every_lasting_service_is_watched_and_restarted(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "start_period", "retries"} <= set(check)
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize(("service", "folder"), STORES.items())
def test_data_is_on_named_volumes(service: str, folder: str) -> None:
    volume, _, target = SERVICES[service]["volumes"][0].partition(":")
    assert target == folder
    assert volume in COMPOSE["volumes"]


@pytest.mark.parametrize("service", OURS)
def test_ours_wait_until_the_servers_are_healthy_and_know_their_addresses(service: str) -> None:
    ours = SERVICES[service]
    assert ours["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert ours["depends_on"]["nats"]["condition"] == "service_healthy"
    assert "@postgres:5432/" in ours["environment"]["EVERVEC_DATABASE_URL"]
    assert ours["environment"]["EVERVEC_NATS_URL"].endswith("@nats:4222")
    assert ours["build"] == "."


@pytest.mark.parametrize("service", ["api", "worker", "scheduler"])
def test_nothing_of_ours_runs_before_the_schema_is_there(service: str) -> None:
    assert SERVICES[service]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_every_variable_that_is_set_is_a_setting() -> None:
    names = {name.removeprefix("EVERVEC_").lower() for service in OURS for name in SERVICES[service]["environment"]}
    assert names <= set(Settings.model_fields)


def test_secrets_come_from_the_environment() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for secret in re.findall(r"(?:PASSWORD|TOKEN|KEY|token): (.*)", text):
        assert secret.startswith(("${", '"${', "#")), secret
    in_urls = re.findall(r"://(?:\w+:)?([^@\s]+)@", text)
    assert len(in_urls) == 2
    assert all(secret.startswith("${") for secret in in_urls)


def test_only_the_api_is_published_and_on_the_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


def test_the_database_has_room_for_a_parallel_index_build() -> None:
    settings = dict(option.split("=") for option in SERVICES["postgres"]["command"] if "=" in option)
    assert settings["maintenance_work_mem"] == "512MB"
    assert SERVICES["postgres"]["shm_size"] == "1gb"


def test_the_image_is_built_from_checked_packages_and_does_not_run_as_root() -> None:
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    assert all(re.search(r":\d+\.\d+\.\d+-", line) for line in re.findall(r"^FROM .*", DOCKERFILE, re.MULTILINE))
    assert DOCKERFILE.rindex("USER evervec") > DOCKERFILE.rindex("FROM ")


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name.strip("./")
        for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)
