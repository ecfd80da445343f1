"""An identity provider on this machine that speaks OpenID Connect: whoever it is told to be comes logged in.

It is no stand-in for our side: Streamlit's login, its cookies and our roles run as they do against any provider.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "lark-studio"


class Provider:
    """The server, and the claims of whoever logs in next."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.key = RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig"})
        self.nonces: dict[str, str] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _handler(provider) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                if parts.path == "/.well-known/openid-configuration":
                    self._json(provider.metadata())
                elif parts.path == "/keys":
                    self._json({"keys": [provider.key.as_dict(private=False)]})
                elif parts.path == "/authorize":
                    code = f"code-{len(provider.nonces)}"
                    provider.nonces[code] = asked.get("nonce", "")
                    self.send_response(302)
                    self.send_header(
                        "location", f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
                    )
                    self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                code = parse_qs(body)["code"][0]
                now = int(time.time())
                claims = {
                    "iss": provider.address, "aud": CLIENT_ID, "iat": now, "exp": now + 600, "sub": "1",
                    "nonce": provider.nonces[code], **provider.claims,
                }  # fmt: skip
                token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, provider.key)
                self._json({"access_token": "x", "token_type": "Bearer", "expires_in": 600, "id_token": token})

            def _json(self, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def metadata(self) -> dict[str, Any]:
        """What a client finds out by itself."""
        return {
            "issuer": self.address, "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token", "jwks_uri": f"{self.address}/keys",
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }  # fmt: skip


@contextlib.contextmanager
def provider() -> Iterator[Provider]:
    """A provider that runs while the block does."""
    made = Provider()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join(5)
