"""`--auth oidc`: who the organization's provider says somebody is, and what the roles file lets them do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from attacked import make_workspace
from provider import CLIENT_ID, Provider, provider
from websockets.exceptions import InvalidStatus

from benchmarks.raw_client import session
from lark_engine.errors import ConfigError
from lark_engine.serve import free_port
from lark_engine.sharing.exposure import Exposure, Roles, check_secrets, read_roles

ROLES = """
emails: {Ann@Uni.example: admin}
groups: {distillers: operator}
domains: {uni.example: viewer}
"""


class Login(NamedTuple):
    address: str
    provider: Provider


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    from browser import FIRST_PORT, dashboard

    folder = tmp_path_factory.mktemp("oidc")
    workspace, _, _ = make_workspace(folder)
    (folder / "roles.yaml").write_text(ROLES)
    port = free_port(FIRST_PORT)
    with provider() as running:
        secrets = folder / "secrets.toml"
        secrets.write_text(
            f'[auth]\nredirect_uri = "http://127.0.0.1:{port}/oauth2callback"\ncookie_secret = "{"s" * 40}"\n'
            f'client_id = "{CLIENT_ID}"\nclient_secret = "x"\n'
            f'server_metadata_url = "{running.address}/.well-known/openid-configuration"\n'
        )
        check_secrets(secrets)
        how = Exposure(auth="oidc", roles=read_roles(folder / "roles.yaml"), secrets=secrets)
        with dashboard(workspace, how) as address:
            assert address.endswith(f":{port}")
            yield Login(address, running)


@contextlib.contextmanager
def log_in(login: Login, **claims: Any) -> Iterator[httpx.Client]:
    """A browser that went the whole way: to the provider, back with a code, and has the cookies."""
    login.provider.claims = claims
    with httpx.Client(base_url=login.address, follow_redirects=True, timeout=30) as client:
        client.get("/lark/login")
        yield client


def cookies(client: httpx.Client) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


@pytest.mark.slow
def test_nobody_is_let_in_before_the_login(login: Login) -> None:
    answer = httpx.get(login.address, headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert 'href="/lark/login"' in answer.text
    with pytest.raises(InvalidStatus), session(login.address):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"email": "ann@uni.example", "email_verified": True}, "admin"),
        ({"email": "bob@uni.example", "email_verified": "true"}, "viewer"),
        ({"email": "carl@uni.example", "groups": ["distillers", "others"]}, "operator"),
    ],
)  # fmt: skip
def test_the_strongest_role_that_fits_counts(login: Login, claims: dict[str, Any], role: str) -> None:
    with log_in(login, **claims) as client:
        assert client.get("/_stcore/host-config").status_code == 200
        with session(login.address, cookie=cookies(client), Origin=login.address) as visitor:
            visitor.open("tune", B=3)
            assert visitor.button("Save this selection").disabled == (role == "viewer")
            if role != "admin":
                visitor.open("share", share="access")
                assert visitor.says(f"You visit as {role}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "claims",
    [{"email": "eve@evil.example", "email_verified": True}, {"email": "ann@uni.example", "email_verified": False}, {},
     {"email": "ann@uni.example"}, {"email": "ann@uni.example", "email_verified": "false"},
     {"email": "ann@uni.example@evil.example", "email_verified": True}, {"email": "x", "groups": "distillers"}],
)  # fmt: skip
def test_whom_no_role_fits_is_not_let_in(login: Login, claims: dict[str, Any]) -> None:
    with log_in(login, **claims) as client:
        assert client.get("/_stcore/host-config").status_code == 401
        with pytest.raises(InvalidStatus), session(login.address, cookie=cookies(client), Origin=login.address):
            pass


@pytest.mark.slow
def test_a_cookie_that_was_changed_is_none(login: Login) -> None:
    with log_in(login, email="ann@uni.example", email_verified=True) as client:
        (name, value) = next((c.name, c.value) for c in client.cookies.jar if c.name.startswith("_streamlit_user"))
        for forged in (value[:-2] + "aa", value.replace(".", "", 1), "{}", value[1:]):
            answer = httpx.get(f"{login.address}/_stcore/host-config", headers={"cookie": f"{name}={forged}"})
            assert answer.status_code == 401


def test_roles_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    for text, said in [
        ("emails: {a@b.c: owner}", r"roles.yaml: emails.a@b.c: .*; roles are viewer, editor, operator, admin"),
        ("everybody: admin", r"roles.yaml: everybody: "),
        ('domains: {"": admin}', r"roles.yaml: domains"),
        ("emails: &a {x: viewer}\ngroups: *a", "aliases are not allowed"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_roles(path)


def test_a_domain_is_a_whole_one_and_letters_case_tells_nothing_apart() -> None:
    roles = Roles(domains={"uni.example": "viewer"}, emails={"ANN@x.org": "admin"}, trust_unverified_emails=True)
    assert roles.role_of({"email": "a@UNI.example"}) == "viewer"
    assert roles.role_of({"email": "a@evil-uni.example"}) is None
    assert roles.role_of({"email": "a@uni.example.evil"}) is None
    assert roles.role_of({"email": "ann@X.org"}) == "admin"


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "has no redirect_uri, cookie_secret"), ("[auth", "cannot be read as TOML"),
     ('[auth]\nredirect_uri="x"\ncookie_secret="short"\nclient_id="x"\nclient_secret="x"\nserver_metadata_url="x"',
      "too short")],
)  # fmt: skip
def test_secrets_that_could_not_work_are_refused_before_the_server_starts(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "secrets.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        check_secrets(tmp_path / "secrets.toml")
