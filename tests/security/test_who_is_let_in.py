"""A server that asks for tokens, attacked from outside: nobody gets past the gate, by no route and no method."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from attacked import SECRET, Served
from streamlit.proto.BackMsg_pb2 import BackMsg
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.gate import Gate
from benchmarks.raw_client import session
from lark_engine.access import ROLES, Role, Visitor
from lark_engine.sharing.tokens import Guests

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ROUTES = """
import json, sys
sys.path.insert(0, sys.argv[1])
from streamlit import config
config.get_config_options()
config._set_option("server.address", "127.0.0.1", "test")
from app.main import app
print(json.dumps([route.path for route in app._build_starlette_app().routes]))
"""
OPEN = {"/_stcore/health"}


@pytest.fixture(scope="module")
def routes() -> list[str]:
    """Every route of the application, Streamlit's and ours, as the server builds them."""
    done = subprocess.run(
        [sys.executable, "-c", ROUTES, str(ROOT)], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def cookie_of(served: Served, token: str) -> str:
    """The cookie that a browser gets for a token, as a header."""
    answer = httpx.get(f"{served.address}/?token={token}", follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["set-cookie"].partition(";")[0]


def test_without_a_token_no_route_answers_whatever_the_method(
    guarded: tuple[Served, Guests], routes: list[str]
) -> None:
    served, _ = guarded
    paths = {re.sub(r"{[^}]*}", "x", path) or "/" for path in routes}
    assert {"/_stcore/stream", "/_stcore/metrics", "/_stcore/host-config"} <= paths
    assert len(paths) > 15
    got_in = []
    with httpx.Client(base_url=served.address, timeout=30) as client:
        for path in sorted(paths - OPEN):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                answer = client.request(method, path)
                is_login = path == "/lark/login" or path == "/lark/logout"
                if answer.status_code not in ((200, 303, 401, 403, 429) if is_login else (401,)):
                    got_in.append((method, path, answer.status_code))
    assert got_in == []


def test_health_says_that_the_server_lives_and_nothing_else(guarded: tuple[Served, Guests]) -> None:
    answer = httpx.get(f"{guarded[0].address}/_stcore/health")
    assert (answer.status_code, answer.text) == (200, "ok")


def test_without_a_token_there_is_no_websocket(guarded: tuple[Served, Guests]) -> None:
    with pytest.raises(InvalidStatus) as refused, session(guarded[0].address):
        pass
    assert refused.value.response.status_code == 403
    forged = urlsplit(guarded[0].address).port
    with pytest.raises(InvalidStatus), session(guarded[0].address, cookie=f"lark_guest_{forged}=eyJ4IjoxfQ.aaaa.bbbb"):
        pass


def test_a_browser_is_shown_where_to_type_its_token(guarded: tuple[Served, Guests]) -> None:
    answer = httpx.get(f"{guarded[0].address}/tune?B=3", headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert '<form method="post" action="/lark/login">' in answer.text
    assert 'value="/tune?B=3"' in answer.text


def test_a_token_becomes_a_cookie_that_scripts_cannot_read_and_leaves_the_address(
    guarded: tuple[Served, Guests],
) -> None:
    served, guests = guarded
    token = guests.add("ann", "viewer").token
    answer = httpx.get(f"{served.address}/tune?B=3&token={token}&mode=budget", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/tune?B=3&mode=budget")
    said = answer.headers["set-cookie"]
    assert "HttpOnly" in said and "SameSite=lax" in said
    assert token not in said
    assert token not in answer.text
    cookie = said.partition(";")[0]
    assert httpx.get(f"{served.address}/_stcore/host-config", headers={"cookie": cookie}).status_code == 200
    with session(served.address, cookie=cookie) as ann:
        ann.open("tune", B=3)
        assert ann.button("Save this selection").disabled
        assert ann.says("This takes the role operator, and you visit as viewer; ask whoever sent you the link.")


def test_a_link_leads_to_no_other_site_after_the_login(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    token = guests.add("bob", "viewer").token
    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nx: y"):
        answer = httpx.post(f"{served.address}/lark/login", data={"token": token, "next": target})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "x" not in answer.headers


def test_who_is_shut_out_is_out_at_once_and_another_token_ends_the_one_before(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    token = guests.add("carl", "operator").token
    cookie = cookie_of(served, token)
    with session(served.address, cookie=cookie) as carl:
        carl.open("tune", B=3)
        assert not carl.button("Save this selection").disabled
        save = carl.button("Save this selection").id
        renewed = guests.rotate("carl").token
        assert httpx.get(f"{served.address}/?token={token}").status_code == 403
        assert httpx.get(served.address, headers={"cookie": cookie}).status_code == 401
        carl.press(save)  # the socket that is open still, and may do nothing any more
        carl.open("tune", B=2)
        assert carl.says("You are not logged in.")
        assert not carl.says("Where does more budget stop paying?")
    assert not (served.workspace.root / "jobs").exists()
    cookie = cookie_of(served, renewed)
    guests.remove("carl")
    assert httpx.get(served.address, headers={"cookie": cookie}).status_code == 401


def test_ten_wrong_tokens_and_none_is_looked_at_for_a_minute(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    right = guests.add("dora", "viewer").token
    from_there = {"x-forwarded-for": "198.51.100.7"}  # a proxy on this machine says so; other tests stay unharmed
    said = [
        httpx.post(f"{served.address}/lark/login", data={"token": f"guess {i}"}, headers=from_there) for i in range(12)
    ]
    assert [answer.status_code for answer in said] == [403] * 10 + [429] * 2
    assert 1 <= int(said[-1].headers["retry-after"]) <= 61
    assert httpx.get(f"{served.address}/?token={right}", headers=from_there).status_code == 429
    assert httpx.get(f"{served.address}/?token={right}").status_code == 303


def test_what_a_guest_changes_is_recorded_with_name_time_and_place(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    cookie = cookie_of(served, guests.add("eve", "editor").token)
    with session(served.address, cookie=cookie) as eve:
        eve.open("trajectory")
        eve.press(eve.button("Flag this candidate").id)  # without a reason: refused, which is recorded too
    rows = [json.loads(line) for line in (served.workspace.root / "logs" / "audit.jsonl").read_text().splitlines()]
    assert {"who", "from", "at", "what", "outcome"} <= set(rows[-1])
    added = [row for row in rows if row["what"] == "guest.add"]
    assert (added[-1]["guest"], added[-1]["role"], added[-1]["outcome"]) == ("eve", "editor", "done")


def test_tokens_and_keys_are_this_users_alone_and_no_token_is_stored(guarded: tuple[Served, Guests]) -> None:
    _, guests = guarded
    token = guests.add("fay", "viewer").token
    assert guests.folder.stat().st_mode & 0o077 == 0
    for path in guests.folder.iterdir():
        if not path.name.startswith("."):
            assert path.stat().st_mode & 0o077 == 0, path
            assert token.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "null", "http://localhost.evil.example"]
)
def test_another_site_opens_no_websocket_even_with_the_cookie(guarded: tuple[Served, Guests], origin: str) -> None:
    served, guests = guarded
    name = f"of {abs(hash(origin))}"
    cookie = cookie_of(served, guests.add(name, "admin").token)
    with pytest.raises(InvalidStatus) as refused, session(served.address, cookie=cookie, Origin=origin):
        pass
    assert refused.value.response.status_code == 403


def test_another_name_that_points_here_gets_nothing(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    cookie = cookie_of(served, guests.add("gus", "admin").token)
    answer = httpx.get(served.address, headers={"host": "evil.example", "cookie": cookie})
    assert (answer.status_code, answer.text) == (400, "Invalid host header")
    port = urlsplit(served.address).port
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        pytest.raises(InvalidStatus),
        connect(
            f"ws://evil.example:{port}/_stcore/stream", sock=raw, additional_headers={"Cookie": cookie}, proxy=None
        ),
    ):
        pass


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("told", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_a_post_that_another_site_makes_the_browser_send_is_refused(
    guarded: tuple[Served, Guests], method: str, told: dict[str, str]
) -> None:
    served, guests = guarded
    name = f"{method} {next(iter(told))}"
    headers = {"cookie": cookie_of(served, guests.add(name, "admin").token), **told}
    for path in ("/_stcore/upload_file/s/f", "/lark/login", "/"):
        answer = httpx.request(method, f"{served.address}{path}", headers=headers, content=SECRET)
        assert (answer.status_code, answer.text) == (403, "another site may not do this")


@pytest.mark.parametrize(
    "junk", ['x={"a":1}', "a b=1", 'j="[1,2]', "x=é", "a[b]=1", "@x=1", "flag", "expires=x", "path=/"]
)
def test_the_cookie_counts_whatever_other_programs_on_this_host_left(guarded: tuple[Served, Guests], junk: str) -> None:
    served, guests = guarded
    name = f"junk {len(guests.all())}"
    mine = cookie_of(served, guests.add(name, "viewer").token)
    answer = httpx.get(f"{served.address}/_stcore/host-config", headers={b"cookie": f"{junk}; {mine}".encode()})
    assert answer.status_code == 200


def test_addresses_that_are_none_are_refused_or_lead_to_the_first_page(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    token = guests.add("ida", "viewer").token
    assert httpx.post(f"{served.address}/lark/login", headers={"origin": "http://["}).status_code == 403
    for target in ("//[", "//℀.x", "/\u0000"):
        answer = httpx.post(f"{served.address}/lark/login", data={"token": token, "next": target})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert '<form method="post"' in httpx.get(f"{served.address}/lark/login").text
    across = httpx.get(f"{served.address}/lark/logout", headers={"sec-fetch-site": "cross-site"})
    assert across.status_code == 403


def test_a_message_that_no_page_sends_ends_the_session(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    cookie = cookie_of(served, guests.add("jan", "viewer").token)
    with session(served.address, cookie=cookie) as jan:
        jan.open("tune", B=2)
        jan.socket.send(b"x" * (2 << 20))
        with pytest.raises(ConnectionClosed) as ended:
            while True:
                jan.socket.recv(timeout=20)
    assert ended.value.rcvd is not None and ended.value.rcvd.code == 1009


@pytest.mark.parametrize(("role", "heard"), [("viewer", [b"other"]), ("admin", [b"drop", b"other"])])
def test_who_only_looks_cannot_empty_what_was_computed_for_all(role: Role, heard: list[bytes]) -> None:
    """What the gate passes on of the messages of a page: the one that drops the caches of everybody, and another."""
    drop = BackMsg()
    drop.clear_cache = True
    sent = {b"drop": drop.SerializeToString(), b"other": b"\x00\x01"}
    coming = [{"type": "websocket.receive", "bytes": said} for said in sent.values()]
    coming.append({"type": "websocket.disconnect", "code": 1000})
    passed: list[bytes] = []

    async def page(scope: object, receive: Any, send: object) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            passed.append(next(name for name, said in sent.items() if said == message["bytes"]))

    async def receive() -> Any:
        return coming.pop(0)

    async def send(message: object) -> None:
        raise AssertionError(message)

    who = Visitor(name="kim", origin="192.0.2.1", may=ROLES[role], role=role)
    with ThreadPoolExecutor(1) as thread:  # after a test in a browser, this one has a loop that runs
        thread.submit(asyncio.run, Gate(page)._follow({"type": "websocket"}, receive, send, who)).result()
    assert passed == heard


def test_a_damaged_file_of_tokens_lets_nobody_in_and_says_so_in_the_log(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    cookie = cookie_of(served, guests.add("leo", "admin").token)
    path = guests.folder / "tokens.json"
    whole = path.read_bytes()
    try:
        for garbage in (b"{", b'[{"name": "x", "role": "admin", "digest": "\xc3\xa9", "created_at": ""}]', b"[1]"):
            path.write_bytes(garbage)
            for sent in ({"cookie": cookie}, {}):
                answer = httpx.get(f"{served.address}/?token=x", headers=sent)
                assert (answer.status_code, answer.text) == (503, "nobody can be let in: see the log of the server")
                assert answer.headers["x-frame-options"] == "DENY"
    finally:
        path.write_bytes(whole)
    assert httpx.get(served.address, headers={"cookie": cookie}).status_code == 200


def test_every_answer_tells_the_browser_how_to_be_careful(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    cookie = cookie_of(served, guests.add("hal", "viewer").token)
    for path in ("/", "/tune", "/lark/nothing", "/app/static/lark.css", "/_stcore/health"):
        for headers in ({"cookie": cookie}, {}):
            answer = httpx.get(f"{served.address}{path}", headers=headers)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy, path
            assert "unsafe-eval" not in policy
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"


def test_a_viewer_is_not_told_where_the_workspace_lies(guarded: tuple[Served, Guests]) -> None:
    served, guests = guarded
    told = []
    with session(served.address, cookie=cookie_of(served, guests.add("mia", "viewer").token)) as mia:
        for page in ("", "score", "explore", "trajectory", "tune", "train", "evaluate", "share"):
            for params in ({}, {"view": "runs"}, {"share": "report"}, {"share": "bundle"}, {"share": "access"}):
                mia.open(page, **params)
                if mia.says(str(served.workspace.root)):
                    told.append((page, params))
    assert told == []
