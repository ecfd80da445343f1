"""`lark serve` and `lark access`: what is refused before anything listens, and who is let in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import refuses, succeeds

from lark_engine.serve import SOURCE_TREE
from lark_engine.sharing.tokens import Guests


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_needs_a_login(address: str, tmp_path: Path) -> None:
    said = refuses("serve", "--address", address, "--background", workspace=tmp_path)
    assert said == (
        f"lark: --address {address} would let everybody who reaches this machine explore and start jobs; use lark "
        "serve with --auth token or --auth oidc (or --insecure-no-auth, if the network itself keeps people out)"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--auth", "password"), "--auth: Input should be 'none', 'token' or 'oidc'"),
        (("--auth", "oidc"), "--auth oidc needs --roles FILE, which says who may do what"),
        (("--allow-host", "http://x/"), "--allow-host http://x/: not a host name; give it without scheme and port"),
        (("--tls-cert", "cert.pem"), "--tls-cert and --tls-key belong together; give both"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert refuses("serve", *options, "--background", workspace=tmp_path) == f"lark: {said}"


def test_tokens_are_given_listed_replaced_and_taken(tmp_path: Path) -> None:
    guests = Guests(tmp_path / "access", root=tmp_path)
    first = succeeds("access", "add", "ann", "--role", "editor", workspace=tmp_path)
    token = first.splitlines()[0].removeprefix("ann (editor): ")
    assert len(token) == 43
    found = guests.holder(token)
    assert found is not None and (found.name, found.role) == ("ann", "editor")
    assert succeeds("access", "list", workspace=tmp_path).startswith("ann                      editor    since 20")
    renewed = succeeds("access", "rotate", "ann", workspace=tmp_path).splitlines()[0].removeprefix("ann (editor): ")
    assert guests.holder(token) is None
    assert guests.holder(renewed) is not None
    assert succeeds("access", "remove", "ann", workspace=tmp_path) == "ann is not let in any more\n"
    assert guests.holder(renewed) is None
    rows = [json.loads(line) for line in succeeds("access", "log", "--json", workspace=tmp_path).splitlines()]
    assert [(row["what"], row["guest"]) for row in rows] == [
        ("guest.remove", "ann"), ("guest.rotate", "ann"), ("guest.add", "ann"),
    ]  # fmt: skip
    assert rows[0]["from"] == "command line"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "ann", "--role", "owner"), "no role 'owner'; did you mean 'viewer'?"),
        (("add", "../ann"), "'../ann': not a name for a token; use letters, digits, spaces and . _ @ + -"),
        (("rotate", "bob"), "bob holds no token here; nobody does yet"),
        (("remove", "bob"), "bob holds no token here; nobody does yet"),
    ],
)  # fmt: skip
def test_what_cannot_be_given_is_said(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert refuses("access", *words, workspace=tmp_path) == f"lark: {said}"


def test_a_name_holds_one_token(tmp_path: Path) -> None:
    succeeds("access", "add", "ann", workspace=tmp_path)
    said = refuses("access", "add", "ann", workspace=tmp_path)
    assert said == "lark: ann holds a token already; rotate it, or remove it first"


@pytest.mark.slow
def test_the_first_start_gives_a_link_for_viewers_and_the_next_names_who_is_let_in(tmp_path: Path) -> None:
    options = ("--auth", "token", "--background", "--port", "8990")
    try:
        first = succeeds("serve", *options, workspace=tmp_path / "w")
        assert "A link for viewers, whose token is shown this once:\n  http://127.0.0.1:899" in first
        token = first.partition("/?token=")[2].split()[0]
        assert Guests(tmp_path / "w" / "access", root=tmp_path).holder(token) is not None
        again = succeeds("serve", *options, workspace=tmp_path / "w")
        assert "Let in by token: guest (viewer)" in again and token not in again
        other = refuses("serve", "--read-only", "--background", workspace=tmp_path / "w")
        assert "runs at http://127.0.0.1:899" in other and "with other options of access" in other
    finally:
        assert succeeds("serve", "--stop", workspace=tmp_path / "w") == "stopped\n"


@pytest.mark.slow
def test_streamlit_started_by_hand_on_the_network_ends_with_the_same_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamlit", "run", str(SOURCE_TREE / "app" / "main.py")]
    done = subprocess.run(
        [*command, "--server.address", "0.0.0.0", "--server.port", "8995"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "LARK_HOME": str(tmp_path)}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode != 0
    assert "would let everybody who reaches this machine explore and start jobs" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
