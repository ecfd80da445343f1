"""How a server stands on the network: who reaches it, who is let in, and what may be done through it."""

from __future__ import annotations

import ipaddress
import platform
import re
import socket
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lark_engine.access import ALL, ROLES, Capability, Role
from lark_engine.errors import ConfigError
from lark_engine.recipes.reading import load_yaml

VARIABLE = "LARK_EXPOSURE"
LOOPBACK = "127.0.0.1"
ANYWHERE = ("0.0.0.0", "::")
Auth = Literal["none", "token", "oidc"]
READ_ONLY = "This workspace is shown read-only: it can be explored and tuned, and nothing can be changed or started."
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]+\]?")


_Word = Annotated[str, Field(min_length=1)]


class Roles(BaseModel):
    """Who has which role after logging in with their organization: by e-mail, by a group of theirs, or by domain.

    The strongest of what fits counts; whom nothing fits is not let in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    emails: dict[_Word, Role] = Field(default_factory=dict)
    groups: dict[_Word, Role] = Field(default_factory=dict)
    domains: dict[_Word, Role] = Field(default_factory=dict)
    groups_claim: str = "groups"
    trust_unverified_emails: bool = False
    """For a provider that never says `email_verified`, and lets nobody choose an e-mail."""

    def role_of(self, claims: Mapping[str, Any]) -> Role | None:
        """The role of somebody with these claims. An e-mail that the provider has not verified counts for nothing."""
        email = self.email_of(claims)
        groups = claims.get(self.groups_claim)
        found = [role for known, role in self.emails.items() if known.casefold() == email]
        found += [role for domain, role in self.domains.items() if email.endswith("@" + domain.casefold().lstrip("@"))]
        found += [role for group, role in self.groups.items() if isinstance(groups, list) and group in groups]
        return max(found, key=list(ROLES).index, default=None)

    def email_of(self, claims: Mapping[str, Any]) -> str:
        """The e-mail that counts; empty where there is none."""
        email = str(claims.get("email") or "").casefold()
        is_verified = claims.get("email_verified") in (True, "true") or self.trust_unverified_emails
        return email if is_verified and email.count("@") == 1 and not email.startswith("@") else ""


class Exposure(BaseModel):
    """The options of a server that decide about safety, checked together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = LOOPBACK
    auth: Auth = "none"
    insecure_no_auth: bool = False
    read_only: bool = False
    hosts: tuple[str, ...] = ()
    most_viewers: int = Field(default=300, ge=1)
    """Open pages at once; each takes memory of the server."""
    access_dir: Path | None = None
    """Where tokens and keys lie; not in what is shown, where that is a bundle."""
    memo_dir: Path | None = None
    """Where derived tables are kept; by default in the workspace, which a read-only server does not touch."""
    roles: Roles | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    secrets: Path | None = None
    """Streamlit's secrets with the section [auth]: who the provider is, and what signs its cookies."""

    def check(self) -> Exposure:
        """Itself. Errors: `ConfigError` for what would let anybody in, or nobody."""
        if not is_loopback(self.address) and self.auth == "none" and not self.insecure_no_auth:
            raise ConfigError(
                f"--address {self.address} would let everybody who reaches this machine explore and start jobs; "
                "use lark serve with --auth token or --auth oidc (or --insecure-no-auth, if the network itself keeps "
                "people out)"
            )
        if self.auth == "oidc" and self.roles is None:
            raise ConfigError("--auth oidc needs --roles FILE, which says who may do what")
        if self.auth == "oidc" and self.secrets is None:
            raise ConfigError("--auth oidc needs --secrets FILE, with the section [auth] of the provider")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key belong together; give both")
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ConfigError(f"--allow-host {host[:80]}: not a host name; give it without scheme and port")
        return self

    @property
    def allowed_hosts(self) -> list[str]:
        """The names by which a browser may call this server: a name that only points here is none of them."""
        own = own_names() if self.address in ANYWHERE else [self.address]
        names = ("localhost", LOOPBACK, "::1", *own, *self.hosts)
        return list(dict.fromkeys(name.strip("[]").lower() for name in names))

    def capabilities(self, role: Role | None) -> frozenset[Capability]:
        """What a role may do here; None is somebody whom no login was asked of."""
        may = ALL if role is None else ROLES[role]
        return may & ROLES["viewer"] if self.read_only else may

    def as_environment(self) -> dict[str, str]:
        """How a server's process is told."""
        return {VARIABLE: self.model_dump_json()}


def of_environment(environment: Mapping[str, str]) -> Exposure:
    """What this process was told; nothing means a server for its own user, on the loopback interface."""
    try:
        return Exposure.model_validate_json(environment.get(VARIABLE) or "{}").check()
    except ValidationError as error:
        raise ConfigError(f"{VARIABLE} is not what lark serve writes; start the server with lark serve") from error


def own_names() -> list[str]:
    """The names and addresses of this machine, by which others reach it."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = [one for ones in psutil.net_if_addrs().values() for one in ones if one.family in families]
    addresses = [one.address.partition("%")[0] for one in found]
    return [*filter(_HOST.fullmatch, (platform.node(), socket.getfqdn())), *addresses]


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a server at this address."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def check_secrets(path: Path) -> None:
    """Errors: `ConfigError` where the login of a provider could not work with these secrets."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8")).get("auth")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error}); --secrets needs a section [auth]") from error
    needed = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
    said = said if isinstance(said, dict) else {}
    if missing := [name for name in needed if not said.get(name)]:
        raise ConfigError(f"{path}: [auth] has no {', '.join(missing)}; the login needs all of {', '.join(needed)}")
    if len(str(said["cookie_secret"])) < 32:
        raise ConfigError(f"{path}: cookie_secret is too short to sign with; give 32 random characters or more")
    if find_spec("authlib") is None:
        raise ConfigError("--auth oidc needs the package Authlib; install it: pip install 'streamlit[auth]'")


def read_roles(path: Path) -> Roles:
    """The roles of a YAML file. Errors: `ConfigError` with the place of the mistake."""
    try:
        return Roles.model_validate(load_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {place}: {first['msg']}; roles are {', '.join(ROLES)}") from error
