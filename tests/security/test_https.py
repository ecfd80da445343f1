"""A server with a certificate: https and wss, and a cookie that no plain connection carries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from attacked import make_workspace

from lark_engine.serve import find_dashboard
from lark_engine.sharing.exposure import Exposure
from lark_engine.sharing.tokens import Guests

pytestmark = pytest.mark.slow


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody else vouches for, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


def test_the_cookie_of_an_https_server_goes_over_https_only(tmp_path: Path) -> None:
    from browser import dashboard  # type: ignore[import-not-found]

    workspace, _, _ = make_workspace(tmp_path)
    cert, key = certificate(tmp_path)
    guests = Guests(workspace.root / "access", root=workspace.root)
    guests.prepare()
    token = guests.add("ann", "viewer").token
    how = Exposure(auth="token", access_dir=guests.folder, tls_cert=cert, tls_key=key)
    with dashboard(workspace, how) as address:
        assert address.startswith("https://127.0.0.1:")
        assert find_dashboard(workspace) is not None
        answer = httpx.get(f"{address}/?token={token}", verify=False)
        assert answer.status_code == 303
        assert "Secure" in answer.headers["set-cookie"]
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert httpx.get(address, headers={"cookie": cookie}, verify=False).status_code == 200
