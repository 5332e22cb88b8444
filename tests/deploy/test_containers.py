"""What compose.yaml and Containerfile promise, read from the files: no container engine is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Instruction and arguments; a line that ends in a backslash goes on in the next.
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]

one_shot = {
    name
    for service in SERVICES.values()
    for name, how in service.get("depends_on", {}).items()
    if how["condition"] == "service_completed_successfully"
}
every_service = pytest.mark.parametrize("name", SERVICES)
every_long_running = pytest.mark.parametrize("name", sorted(set(SERVICES) - one_shot))
every_role = pytest.mark.parametrize("name", [name for name in SERVICES if "headway" in SERVICES[name]["image"]])


def instructions(word: str) -> list[str]:
    """The arguments of every such instruction of the Containerfile."""
    return [arguments for instruction, arguments in INSTRUCTIONS if instruction == word]


def test_the_services_are_those_of_the_product() -> None:
    """Every role and every server has its service."""
    assert set(SERVICES) == {"hub", "keeper", "worker", "migrate", "flower", "valkey", "postgres"}


@every_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    """There are no tokens yet: nobody but this machine may reach a port."""
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port)


@every_service
def test_only_hub_and_flower_publish_a_port(name: str) -> None:
    """Servers stay inside, and a worker with a port on the host could not be scaled."""
    assert ("ports" in SERVICES[name]) is (name in ("hub", "flower"))


def test_the_servers_are_on_the_inner_network_alone() -> None:
    """Valkey and PostgreSQL reach nobody outside and nobody outside reaches them."""
    assert COMPOSE["networks"]["servers"]["internal"] is True
    assert SERVICES["valkey"]["networks"] == SERVICES["postgres"]["networks"] == ["servers"]


@every_long_running
def test_long_running_services_are_watched_and_restarted(name: str) -> None:
    """Docker can say whether each is well, starts each again when it dies, and gives each time to end in order."""
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[name]["restart"] == "unless-stopped"


@every_role
def test_nothing_starts_before_what_it_needs(name: str) -> None:
    """Servers are healthy first, migrations done first."""
    expected = {"migrate": "service_completed_successfully"}
    for needed, how in SERVICES[name]["depends_on"].items():
        assert how["condition"] == expected.get(needed, "service_healthy")
    if name in ("hub", "keeper", "worker"):
        assert set(SERVICES[name]["depends_on"]) == {"valkey", "postgres", "migrate"}


@every_service
def test_every_service_may_be_scaled_by_name(name: str) -> None:
    """A fixed container name allows only one container."""
    assert "container_name" not in SERVICES[name]


@every_service
def test_images_are_pinned_to_a_major_version(name: str) -> None:
    """Another major version of a server would not read the data of this one."""
    image = SERVICES[name]["image"]
    assert image == "headway:latest" or re.search(r":\d+(\.\d+)*(-\w+)?$", image)


def test_our_image_is_built_by_one_service() -> None:
    """Two builds of one name would race each other."""
    assert [name for name, service in SERVICES.items() if "build" in service] == ["hub"]


def test_the_state_is_in_named_volumes() -> None:
    """Storage is shared by hub and workers; nothing that counts is in a container's own layer."""
    assert set(COMPOSE["volumes"]) == {"valkey", "postgres", "storage"}
    for name in ("hub", "keeper", "worker"):
        assert SERVICES[name]["volumes"] == ["storage:/storage"]
    assert "HEADWAY_STORAGE=/storage" in " ".join(instructions("ENV"))


def test_valkey_writes_everything_down_and_evicts_nothing() -> None:
    """The append-only file is on: the queue survives a restart."""
    command = SERVICES["valkey"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_that_there_are_no_tokens_is_said_openly() -> None:
    """Quoted: a bare off is a boolean in YAML, and an error in compose."""
    assert SERVICES["hub"]["environment"]["HEADWAY_AUTH"] == "off"


def test_a_worker_hands_its_task_back_in_time() -> None:
    """SIGTERM becomes Celery's hand-over, and Docker waits longer than that takes."""
    assert SERVICES["worker"]["environment"]["REMAP_SIGTERM"] == "SIGQUIT"
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= 10


@every_role
def test_our_containers_have_no_rights_they_do_not_need(name: str) -> None:
    """A read-only file system, no capability, none to be gained."""
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_does_not_run_as_root() -> None:
    """By number, so that an orchestrator can see it; no later instruction takes it back."""
    *_, user = instructions("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_image_is_made_from_a_pinned_slim_python() -> None:
    """One stage, one base."""
    assert instructions("FROM") == ["python:3.13-slim"]


def test_dependencies_have_a_layer_before_the_code() -> None:
    """A change of the code does not install them again."""
    steps = [f"{instruction} {arguments}" for instruction, arguments in INSTRUCTIONS]
    install = next(i for i, step in enumerate(steps) if "pip install" in step and "-r requirements.txt" in step)
    copies = [i for i, step in enumerate(steps) if step.startswith("COPY")]
    assert steps[copies[0]].startswith("COPY requirements.txt")
    assert copies[0] < install < copies[1]


def test_requirements_are_pinned() -> None:
    """The image installs them without resolving anything."""
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.match(r"[\w.\[\]-]+==[\w.]+( ;|$)", line)


@pytest.mark.parametrize("word", ["CMD", "HEALTHCHECK"])
def test_commands_are_in_the_exec_form(word: str) -> None:
    """A shell in between would keep SIGTERM to itself."""
    (arguments,) = instructions(word)
    assert re.search(r'(^|CMD )\["python", .*\]$', arguments)


@every_role
def test_commands_of_roles_need_no_shell(name: str) -> None:
    """A string would be split, and its variables replaced, by rules of compose's own."""
    assert isinstance(SERVICES[name]["command"], list)


def test_the_builder_gets_what_the_image_copies_and_nothing_else() -> None:
    """An allow-list: no state, no .env and no history can get into the image."""
    first, *others = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    sent = {line.removeprefix("!").partition("/")[0] for line in others if line.startswith("!")}
    assert first == "*"
    assert sent == {arguments.split()[0] for arguments in instructions("COPY")}
