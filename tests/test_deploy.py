"""What a host copies from the page and from `deploy/`: the commands and their options are there."""

import re

import pytest
import typer.main
import yaml

from extractbook.build import execute
from extractlib.cli import app

ROOT = execute.ROOT
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "book" / "challenge.md").read_text(encoding="utf-8").replace("\\\n", " ")
LINES = re.findall(r"^extractlib (.*)$|server +(challenge new .*)$|`extractlib ([a-z][^`]*)`", PAGE, re.M)
COMMANDS = [next(filter(None, found)).split() for found in LINES]
COMMANDS.append(re.findall(r'"([^"]+)"', DOCKERFILE.rpartition("CMD [")[2]))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_and_its_options_are_there(words):
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert not hasattr(command, "commands") and {word for word in words if word.startswith("--")} <= known


def test_all_commands_of_the_page_are_tried():
    assert [words[:2] for words in COMMANDS] == [
        ["challenge", "new"],
        ["challenge", "serve"],
        ["challenge", "new"],
        ["keys", "rotate"],
        ["challenge", "serve"],
    ]


def test_the_image_has_what_the_package_is_built_from():
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M) for word in line.split()}
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert all((ROOT / name).exists() for name in copied)
    assert copied == {line[1:] for line in ignored if line.startswith("!")} and ignored[0] == "*"
    assert "USER 1000" in DOCKERFILE  # the sandbox counts on it


def test_the_server_is_reached_through_caddy_alone():
    services = COMPOSE["services"]
    assert {name for name, service in services.items() if "ports" in service} == {"caddy"}
    assert services["caddy"]["environment"]["UPSTREAM"] == "server:8000"
    assert services["server"]["environment"]["EXTRACTLIB_DATABASE"].startswith("postgresql+psycopg://")
    caddy = (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    assert "reverse_proxy {$UPSTREAM:127.0.0.1:8000}" in caddy and caddy.count("{$SITE}") == 1
