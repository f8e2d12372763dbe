"""`docker-compose.yml`, `Dockerfile` and `.env.example` agree with the code and with each other.

No Docker engine is needed: the file is read the way Compose reads it, with the variables of `.env.example`, where each
secret that is left empty there is made up.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

import holdfast.cli.main
from api.routes import health
from holdfast.config.agents_yaml import load_agents
from holdfast.config.loading import load_settings
from holdfast.config.models_yaml import load_models
from holdfast.config.settings import ApiSettings, MigrateSettings, PoolSettings, Settings, WorkerSettings
from holdfast.domain.errors import ConfigurationError
from holdfast.secrecy.keyring import new_key
from workflows import names

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]

#: Our processes, by the service that runs each.
SETTINGS: dict[str, type[Settings]] = {
    "api": ApiSettings,
    "worker": WorkerSettings,
    "pool": PoolSettings,
    "migrate": MigrateSettings,
}

ONCE = {name for name, service in SERVICES.items() if service["restart"] == "no"}
LASTING = SERVICES.keys() - ONCE

SECRET = re.compile(r"PASSWORD|PWD|PEPPER|SECRET|TOKEN|API_KEY")
PASSWORD_IN_URL = re.compile(r"://[^:/@]+:(.+)@")
PINNED = re.compile(r".+:v?\d+\.\d+\.\d+[^:]*")
PROVIDERS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OLLAMA_API_BASE")
SLACK = ("HOLDFAST_SLACK_BOT_TOKEN", "HOLDFAST_SLACK_SIGNING_SECRET")


class Reference(NamedTuple):
    """`${name}`, `${name:-text}` or `${name:?text}`."""

    name: str
    operator: str
    text: str


REFERENCE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def references(text: str) -> list[Reference]:
    return [Reference(*found.groups(default="")) for found in REFERENCE.finditer(text)]


REFERENCES = references(TEXT)


def env_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in() -> dict[str, str]:
    """`.env.example` as somebody filled it in who did what it says."""
    required = {reference.name for reference in REFERENCES if reference.operator == ":?"}
    made = {name: secrets.token_hex(32) for name in required} | {"HOLDFAST_PAYLOAD_KEYS": new_key("1")}
    return {name: value or made.get(name, "") for name, value in env_example().items()}


def interpolated(value: Any, variables: Mapping[str, str]) -> str:
    def put_in(found: re.Match[str]) -> str:
        reference = Reference(*found.groups(default=""))
        given = variables.get(reference.name, "")
        if not given and reference.operator == ":?":
            raise LookupError(f"{reference.name}: {reference.text}")
        return given or (reference.text if reference.operator == ":-" else "")

    return REFERENCE.sub(put_in, str(value))


def environment(service: str, **variables: str) -> dict[str, str]:
    """What a service finds in its environment; `variables` were added to `.env`."""
    known = {**filled_in(), **variables}
    return {name: interpolated(value, known) for name, value in SERVICES[service].get("environment", {}).items()}


def dockerfile() -> list[tuple[str, str]]:
    """The instructions, each with its arguments."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last_stage() -> dict[str, str]:
    instructions = dockerfile()
    last_from = max(place for place, (word, _) in enumerate(instructions) if word == "FROM")
    return dict(instructions[last_from:])


def copied() -> list[str]:
    """What the Dockerfile takes from this folder."""
    arguments = [rest.split() for word, rest in dockerfile() if word == "COPY" and not rest.startswith("--from")]
    return [source for words in arguments for source in words[:-1]]


def mounted(service: str) -> Iterator[tuple[str, str, str]]:
    """The volumes of a service: source, target, and `ro` or nothing."""
    for volume in SERVICES[service].get("volumes", []):
        source, target, *mode = volume.split(":")
        yield source, target, "".join(mode)


def asked_by_health_check(service: str) -> tuple[int | None, str]:
    """The port and the path that a service's health check asks for."""
    found = re.search(r"http://[^'\"]+", " ".join(SERVICES[service]["healthcheck"]["test"]))
    assert found is not None
    url = urlsplit(found.group())
    return url.port, url.path


def is_let_in(source: str) -> bool:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    return "*" in ignored and f"!{source}" in ignored


def seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration.removesuffix("s"))


def test_the_file_is_valid_by_the_schema_of_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_command_of_our_image_is_one_of_the_command_line() -> None:
    entrypoint = json.loads(last_stage()["ENTRYPOINT"])
    assert entrypoint == ["holdfast"]
    assert PROJECT["scripts"]["holdfast"].partition(":")[0] == holdfast.cli.main.__name__
    group = typer.main.get_command(holdfast.cli.main.app)
    assert isinstance(group, TyperGroup)
    for service, kind in SETTINGS.items():
        command = SERVICES[service]["command"]
        context = group.make_context("holdfast", list(command))
        name, found, rest = group.resolve_command(context, list(command))
        assert found is not None
        found.make_context(name, rest, parent=context)
        assert name == service, f"{service} runs {name}, and not what {kind.__name__} is for"


def test_each_service_that_is_built_here_is_one_of_our_processes() -> None:
    assert {name for name, service in SERVICES.items() if "build" in service} == SETTINGS.keys()


@pytest.mark.parametrize("service", SETTINGS)
def test_each_setting_that_is_passed_exists_and_none_that_is_needed_is_missing(service: str) -> None:
    fields = {f"HOLDFAST_{name.upper()}": field for name, field in SETTINGS[service].model_fields.items()}
    passed = {name for name in environment(service) if name.startswith("HOLDFAST_")}
    without_file = {name if name in fields else name.removesuffix("_FILE") for name in passed}
    assert without_file <= fields.keys()
    assert {name for name, field in fields.items() if field.is_required()} <= without_file


@pytest.mark.parametrize("service", SETTINGS)
def test_each_process_can_load_its_settings_from_what_it_is_passed(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)
    for name, value in environment(service).items():
        monkeypatch.setenv(name, value)
    settings = load_settings(SETTINGS[service])
    assert settings.environment == "production"
    assert "holdfast_app" in settings.database_url.get_secret_value()


def test_only_migrate_gets_the_owner_and_only_what_checks_keys_the_pepper() -> None:
    holders = {
        name: {service for service in SETTINGS if name in environment(service)}
        for name in ("HOLDFAST_DATABASE_OWNER_URL", "HOLDFAST_KEY_PEPPER", "HOLDFAST_PAYLOAD_KEYS")
    }
    assert holders == {
        "HOLDFAST_DATABASE_OWNER_URL": {"migrate"},
        "HOLDFAST_KEY_PEPPER": {"api", "pool"},
        "HOLDFAST_PAYLOAD_KEYS": {"api", "worker", "pool"},
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_one_provider_is_enough_for_the_worker_and_the_empty_ones_are_left_out(provider: str) -> None:
    environ = environment("worker", **{provider: "given"})
    agents = load_agents(ROOT / PurePosixPath(environ["HOLDFAST_AGENTS"]).relative_to("/app"))
    models = load_models(agents.models_path, environ, allow_demo=False)
    assert {"quality", "fast"} <= set(models.aliases)
    assert {left.variable for left in models.left_out} == {*PROVIDERS, "HOLDFAST_DEMO_MODEL_URL"} - {provider}


def test_without_a_provider_there_is_no_model() -> None:
    agents = load_agents(ROOT / "examples/shop/agents.yaml")
    with pytest.raises(ConfigurationError, match="no model can be used"):
        load_models(agents.models_path, environment("worker"), allow_demo=False)


def test_only_what_people_and_programs_reach_has_a_port_on_the_host_and_only_on_its_loopback() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.keys() == {"api", "pool", "temporal-ui"}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    assert not any("network_mode" in service for service in SERVICES.values())


@pytest.mark.parametrize("service", ["api", "pool"])
def test_the_port_that_is_published_is_the_one_that_the_process_listens_on(service: str) -> None:
    given = environment(service)
    assert given[f"HOLDFAST_{service.upper()}_HOST"] == "0.0.0.0"
    assert SERVICES[service]["ports"][0].rsplit(":", 1)[1] == given[f"HOLDFAST_{service.upper()}_PORT"]


def test_each_lasting_service_has_a_health_check_and_starts_again() -> None:
    assert {"postgres", "temporal", "temporal-ui", "api", "worker"} <= LASTING
    for name in LASTING:
        assert SERVICES[name]["restart"] == "unless-stopped", name
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD", name


def test_the_health_checks_of_our_processes_ask_where_they_answer() -> None:
    for service in ("api", "pool"):
        port, path = asked_by_health_check(service)
        assert str(port) == environment(service)[f"HOLDFAST_{service.upper()}_PORT"]
        assert path in {getattr(route, "path", None) for route in health.router.routes}
    port, path = asked_by_health_check("worker")
    assert str(port) == environment("worker")["HOLDFAST_WORKER_HEALTH_PORT"]
    assert f"GET {path} " in (ROOT / "worker/health.py").read_text()


def test_the_health_check_of_postgres_goes_over_tcp_where_it_answers_only_once_the_roles_are_made() -> None:
    assert "--host=127.0.0.1" in SERVICES["postgres"]["healthcheck"]["test"]


def test_each_one_shot_is_waited_for_until_it_succeeded_and_each_lasting_service_until_it_is_healthy() -> None:
    waits = [wait for service in SERVICES.values() for wait in service.get("depends_on", {}).items()]
    for name, how in waits:
        assert how["condition"] == ("service_completed_successfully" if name in ONCE else "service_healthy"), name
    assert {"temporal-schema", "temporal-namespace", "migrate"} == ONCE
    assert {name for name, _ in waits} >= ONCE


def test_every_image_is_pinned() -> None:
    images = {service["image"] for service in SERVICES.values()}
    stages = {rest.split()[0] for word, rest in dockerfile() if word == "FROM"}
    tools = {found for _, rest in dockerfile() for found in re.findall(r"--from=(\S+/\S+)", rest)}
    assert tools
    assert [image for image in images | stages | tools if not PINNED.fullmatch(image)] == []


def test_temporal_and_its_tools_have_the_same_version() -> None:
    versions = {SERVICES[name]["image"].split(":")[1] for name in ("temporal", "temporal-schema", "temporal-namespace")}
    assert len(versions) == 1


def test_our_image_has_the_version_of_the_project() -> None:
    assert {SERVICES[name]["image"] for name in SETTINGS} == {f"holdfast:{PROJECT['version']}"}


def test_every_variable_is_explained_in_the_example_and_every_explained_one_is_used() -> None:
    assert {reference.name for reference in REFERENCES} == env_example().keys()
    lines = (ROOT / ".env.example").read_text().splitlines()
    assigned = [(before, line) for before, line in pairwise(lines) if re.match(r"\w+=", line)]
    assert [line for before, line in assigned if not before.startswith("# ")] == []


def test_a_dollar_starts_nothing_but_a_reference_that_these_tests_read() -> None:
    assert TEXT.count("$") == len(REFERENCES)


def test_no_secret_has_a_default() -> None:
    of_secrets = [reference for reference in REFERENCES if SECRET.search(reference.name)]
    assert {reference.operator for reference in of_secrets} == {":?", ":-"}
    assert {reference for reference in of_secrets if reference.operator == ":-" and reference.text} == set()
    optional = {reference.name for reference in of_secrets if reference.operator == ":-"}
    assert optional <= {*PROVIDERS, *SLACK}, "only what may be left out may be empty"
    assert {name: value for name, value in env_example().items() if SECRET.search(name) and value} == {}


def test_no_secret_is_written_into_the_file() -> None:
    entries = [entry for service in SERVICES.values() for entry in service.get("environment", {}).items()]
    of_secrets = [value for name, value in entries if SECRET.search(name)]
    in_urls = [found.group(1) for _, value in entries if (found := PASSWORD_IN_URL.search(str(value)))]
    assert in_urls
    assert [value for value in (*of_secrets, *in_urls) if not REFERENCE.fullmatch(value)] == []


def test_an_example_that_was_only_copied_starts_nothing() -> None:
    for name in ("postgres", "temporal-schema", "temporal", *SETTINGS):
        with pytest.raises(LookupError, match=r"set it in \.env"):
            [interpolated(value, env_example()) for value in SERVICES[name]["environment"].values()]


def test_the_file_gives_each_database_role_its_own_password() -> None:
    passwords = {name for name in env_example() if name.endswith("_PASSWORD")}
    known = filled_in()
    assert len({known[name] for name in passwords}) == len(passwords) == 4
    urls = {service: urlsplit(environment(service)["HOLDFAST_DATABASE_URL"]).username for service in SETTINGS}
    assert set(urls.values()) == {"holdfast_app"}
    owner = urlsplit(environment("migrate")["HOLDFAST_DATABASE_OWNER_URL"]).username
    roles = (ROOT / "deploy/postgres/roles.sql").read_text()
    assert set(re.findall(r"^CREATE ROLE (\w+)", roles, re.MULTILINE)) == {
        environment("temporal")["POSTGRES_USER"],
        environment("temporal-schema")["SQL_USER"],
        owner,
    }


def test_the_script_that_makes_the_roles_finds_the_variables_that_it_reads() -> None:
    read = re.findall(r"^\\getenv \w+ (\w+)$", (ROOT / "deploy/postgres/roles.sql").read_text(), re.MULTILINE)
    assert read
    assert set(read) <= environment("postgres").keys()


def test_the_namespace_gets_exactly_the_search_attributes_that_workflows_use() -> None:
    assert tuple(environment("temporal-namespace")["SEARCH_ATTRIBUTES"].split()) == names.SEARCH_ATTRIBUTES


def test_everyone_speaks_of_the_same_namespace() -> None:
    clients = [environment(name)["TEMPORAL_NAMESPACE"] for name in ("temporal-namespace", "api", "worker")]
    assert {*clients, environment("temporal-ui")["TEMPORAL_DEFAULT_NAMESPACE"]} == {"holdfast"}


def test_what_is_mounted_from_this_folder_exists_and_is_read_only() -> None:
    mounts = [mount for name in SERVICES for mount in mounted(name) if mount[0].startswith(".")]
    assert mounts
    assert [source for source, _, mode in mounts if mode != "ro" or not (ROOT / source).exists()] == []


def test_each_script_that_a_service_runs_or_reads_is_mounted_there() -> None:
    named = {
        "temporal-schema": SERVICES["temporal-schema"]["entrypoint"][-1],
        "temporal-namespace": SERVICES["temporal-namespace"]["entrypoint"][-1],
        "temporal": environment("temporal")["DYNAMIC_CONFIG_FILE_PATH"],
    }
    for service, path in named.items():
        [(source, target, _)] = mounted(service)
        assert (ROOT / source / PurePosixPath(path).relative_to(target)).is_file(), service


def test_each_named_volume_is_declared_and_the_one_of_postgres_is_where_version_18_keeps_its_data() -> None:
    volumes = {source: target for name in SERVICES for source, target, _ in mounted(name) if not source.startswith(".")}
    assert volumes.keys() == yaml.safe_load(TEXT)["volumes"].keys()
    assert volumes["postgres"] == "/var/lib/postgresql"


def test_the_shop_keeps_its_orders_in_a_volume_that_the_user_of_the_image_may_write() -> None:
    folder = str(PurePosixPath(environment("worker")["SHOP_DATABASE"]).parent)
    assert folder in [target for _, target, mode in mounted("worker") if mode != "ro"]
    assert re.search(rf"install --directory --owner=(\w+) .*{folder}\b", last_stage()["RUN"])


@pytest.mark.parametrize("service", SETTINGS)
def test_our_containers_can_change_nothing_and_gain_nothing(service: str) -> None:
    ours = SERVICES[service]
    assert ours["read_only"] is True
    assert ours["cap_drop"] == ["ALL"]
    assert ours["security_opt"] == ["no-new-privileges:true"]
    assert ours["tmpfs"] == ["/tmp"]
    assert "cap_add" not in ours
    assert "user" not in ours


def test_the_image_runs_as_somebody_who_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last_stage()["USER"])


def test_the_last_stage_of_the_image_installs_nothing() -> None:
    assert last_stage()["COPY"] == "--from=build /app /app"
    assert not re.search(r"\b(apt|apt-get|pip|uv)\b", last_stage()["RUN"])


def test_what_the_image_copies_exists_and_is_let_in() -> None:
    sources = copied()
    assert {"holdfast", "workflows", "activities", "worker", "api", "examples", "pyproject.toml"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists() or not is_let_in(source)] == []


def test_the_agents_that_the_worker_serves_are_in_the_image() -> None:
    path = PurePosixPath(environment("worker")["HOLDFAST_AGENTS"]).relative_to(last_stage()["WORKDIR"])
    assert path.parts[0] in copied()
    assert (ROOT / path).is_file()


def test_the_worker_is_given_longer_to_stop_than_it_takes_to_drain() -> None:
    drain = float(environment("worker")["HOLDFAST_WORKER_DRAIN_S"])
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > drain
