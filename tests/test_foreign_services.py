"""Experts behind HTTP and MCP: what is sent, what is believed, and every way in which a service may fail."""

from __future__ import annotations

import base64
import contextlib
import email.parser
import email.policy
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from foreign_files import radiograph, study, write
from foreign_service import respond
from hypothesis import given
from hypothesis import strategies as st

from experts.foreign import mcp as tool
from experts.foreign import remote, wire
from fovea import registry
from fovea.errors import ExpertError, ModelError
from fovea.testing import ExpertContract
from fovea.types import Origin, Study

PERSON = {
    "kind": "http",
    "name": "distant",
    "task": "finds bright things",
    "modalities": ["DX"],
    "labels": {"opacity": {}, "device": {"code": {"scheme": "SCT", "value": "49062001", "meaning": "Device"}}},
    "service_version": "7",
    "send": ["view"],
    "pause": 0,
}


class Service(BaseHTTPRequestHandler):
    """Answers as its server's `plan` says: one entry an attempt, the last one for all others."""

    def do_POST(self):
        server = self.server
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(kind + body)
        parts = {
            p.get_param("name", header="content-disposition"): p.get_payload(decode=True) for p in message.iter_parts()
        }
        server.seen.append((self.path, dict(self.headers), parts))
        plan = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        if plan == "drop":
            self.connection.close()
            return
        if plan == "slow":
            time.sleep(1)
        status = plan if isinstance(plan, int) else 200
        answer = json.dumps(respond(json.loads(parts["request"]), parts["pixels"], parts["valid"])).encode()
        answer = plan if isinstance(plan, bytes) else answer
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/other")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if plan == "drip":
            for byte in answer[:20]:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.1)
        self.wfile.write(answer[: len(answer) // 2] if plan == "half" else answer)

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(OSError, ValueError):
            super().handle()


@pytest.fixture(scope="module")
def running():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.plan, server.seen = ["well"], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running):
    running.plan, running.seen = ["well"], []
    return running


def http(folder: Path, server, **changes) -> remote.RemoteExpert:
    write(folder / "expert.json", {**PERSON, "url": f"http://127.0.0.1:{server.server_port}/find?x=1", **changes})
    return remote.open(folder)


class TestHttp(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, running, tmp_path_factory):
        running.plan = ["well"]
        return http(tmp_path_factory.mktemp("http"), running)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return radiograph()

    def test_the_registry_opens_it(self):
        assert registry.expert_kind("http") is remote

    def test_what_the_service_measures_comes_back(self, expert, study):
        opacity, device = expert.run(study, "all")
        np.testing.assert_array_equal(opacity.region.data, study.images[0].pixels[0] > 2000)
        assert opacity.instances[0].score == 0.8
        assert device.code.meaning == "Device"
        assert opacity.by == Origin("distant", expert.card.version, study.digest)


def test_only_pixels_grid_and_what_is_allowed_is_sent(server, tmp_path):
    image = radiograph().images[0]
    seen = study("radiology", image, modality="DX", view="PA", date="2026-01-01", body_part="CHEST")
    http(tmp_path, server).run(seen, "device")
    (path, headers, parts) = server.seen[0]
    asked = json.loads(parts["request"])
    assert path == "/find?x=1"
    assert set(headers) == {"Host", "Accept-Encoding", "Content-Length", "Content-Type", "Accept"}
    assert set(parts) == {"request", "pixels", "valid"}
    assert set(asked) == {"argument", "labels", "modality", "meta", "channels", "grid"}
    assert asked["meta"] == {"view": "PA"}
    assert seen.digest not in json.dumps(asked)
    assert seen.source.hashes[0] not in json.dumps(asked)
    np.testing.assert_array_equal(np.frombuffer(parts["pixels"], "<f4").reshape(image.pixels.shape), image.pixels)


@pytest.mark.parametrize(("plan", "calls"), [(["drop", 503, "well"], 3), ([503, "well"], 2), (["half", "well"], 2)])
def test_it_tries_again_where_that_may_help(server, tmp_path, plan, calls):
    server.plan = plan
    assert len(http(tmp_path, server).run(radiograph(), "all")) == 2
    assert len(server.seen) == calls


@pytest.mark.parametrize(
    ("plan", "calls", "match"),
    [
        ([503], 3, "3 times"),
        (["drop"], 3, "3 times"),
        ([500], 1, "status 500"),
        ([302], 1, "status 302"),
        ([b"<html>"], 1, "JSON"),
        ([b"[" * 100_000], 1, "JSON"),
        ([b" " * (2 << 20)], 1, "more than 1 MB"),
        (["slow"], 1, "within 0.4 s"),
        (["drip"], 1, "within 0.4 s"),
        ([b'{"version": "7"}'], 1, "without findings"),
        ([b'{"version": "8", "findings": []}'], 1, "another version"),
        ([b'{"version": "7", "findings": []}'], 1, "other labels"),
    ],
)
def test_every_failure_is_an_expert_error(server, tmp_path, plan, calls, match):
    server.plan = plan
    with pytest.raises(ExpertError, match=match):
        http(tmp_path, server, timeout=0.4, answer_limit=1).run(radiograph(), "all")
    assert len(server.seen) == calls


def test_nobody_there(tmp_path, server):
    expert = http(tmp_path, server, url="http://127.0.0.1:9/")
    with pytest.raises(ExpertError, match="3 times"):
        expert.run(radiograph(), "all")


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "file:///etc/hostname", "http://example.org/", "http://u:p@127.0.0.1/", "127.0.0.1", ""]
)
def test_other_addresses_are_refused_when_opened(server, tmp_path, url):
    with pytest.raises(ModelError, match="url"):
        http(tmp_path, server, url=url)


def test_a_host_may_be_named_and_facts_of_persons_may_not(server, tmp_path):
    http(tmp_path, server, url="https://example.org/find", hosts=["example.org"])
    with pytest.raises(ModelError, match="only body_part"):
        http(tmp_path, server, send=["patient"])
    with pytest.raises(ExpertError, match="at most 1"):
        http(tmp_path, server, request_limit=1).run(radiograph((600, 800)), "all")


def expert_for(folder: Path) -> remote.RemoteExpert:
    write(folder / "expert.json", {**PERSON, "url": "http://127.0.0.1:9/"})
    return remote.open(folder)


def believed(expert, seen: Study, entry: object) -> bool:
    data = {"version": "7", "findings": [entry]}
    try:
        found = wire.answer(expert, expert.settings, data, seen, 0, "opacity", Origin("a", "b", seen.digest))
    except ExpertError:
        return False
    from fovea.testing import check_finding

    check_finding(found["opacity"], seen)
    return True


GOOD = {"label": "opacity", "present": True, "score": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        {"score": 1.5}, {"score": float("nan")}, {"score": "much"}, {"score": None}, {"present": 1}, {"present": "no"},
        {"location": "downstairs"}, {"code": {}}, {"by": {}}, {"image": 5, "extra": 1}, {"measures": 3},
        {"measures": [{"name": "count", "value": float("inf"), "unit": "1"}]},
        {"measures": [{"name": "count", "value": 1, "unit": "1"}] * 2},
        {"measures": [{"name": "a\nb", "value": 1, "unit": "1"}]},
        {"region": {"region": "Mask", "shape": [1, 60, 80], "runs": [0, 10**15]}},
        {"region": {"region": "Mask", "shape": [1, 60, 80], "runs": [4800]}},
        {"region": {"region": "Mask", "shape": [1, 10**6, 10**6], "runs": [0, 10**12]}},
        {"region": {"region": "Mask", "shape": [1, 60, 80], "runs": [-5, 4805]}},
        {"region": {"region": "Mask", "shape": [1, 60, 80], "runs": [0.5, 4799.5]}},
        {"region": {"region": "Patch", "start": [0, 59, 0], "shape": [1, 2, 2], "runs": [0, 4]}},
        {"region": {"region": "Patch", "start": [0, -1, 0], "shape": [1, 2, 2], "runs": [0, 4]}},
        {"region": {"region": "Box", "start": [0, 0, 0], "stop": [1, 61, 2]}},
        {"region": {"region": "Polygon", "points": [[0, 0], [500, 1]]}},
        {"region": {"region": "OrientedBox", "center": [1, 1], "length": float("nan"), "width": 1, "angle": 0}},
        {"region": {"region": "Study"}}, {"region": 3}, {"region": {}}, {"slices": [0, 2]}, {"slices": [0]},
        {"instances": [{"region": {"region": "Box", "start": [0, 0, 0], "stop": [9, 9, 9]}, "score": 1}]},
        {"instances": [{"score": 1}]}, {"instances": 3},
        {"present": False, "region": {"region": "Box", "start": [0, 0, 0], "stop": [1, 1, 1]}},
    ],
)  # fmt: skip
def test_findings_that_are_not_well_formed_are_not_believed(tmp_path, change):
    assert believed(expert_for(tmp_path), radiograph(), GOOD)
    assert not believed(expert_for(tmp_path), radiograph(), {**GOOD, **change})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 90)
    | st.floats()
    | st.sampled_from(["Mask", "Box", "Polygon", "left", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["region", "shape", "runs", "start", "stop", "points", "name", "score"]), inner
        )
    ),
    max_leaves=12,
)


@given(key=st.sampled_from(sorted(wire._KEYS - {"label"})), value=JSON)
def test_whatever_is_believed_is_a_finding(tmp_path_factory, key, value):
    believed(_KEPT.setdefault("expert", expert_for(tmp_path_factory.getbasetemp())), radiograph(), {**GOOD, key: value})


_KEPT: dict[str, remote.RemoteExpert] = {}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The user's file of servers, with one over stdio and one over HTTP."""
    import socket
    import subprocess

    folder = tmp_path_factory.mktemp("mcp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = str(Path(__file__).with_name("foreign_service.py"))
    server = {
        "local": {"command": sys.executable, "args": [script]},
        "http": {"url": f"http://127.0.0.1:{port}/mcp"},
        "gone": {"command": str(folder / "no such program")},
        "closed": {"url": "http://127.0.0.1:9/mcp"},
        "dies": {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]},
    }
    command = [sys.executable, script, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        with socket.socket() as probe:
            if process.poll() is not None or probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tool.SERVERS, str(write(folder / "servers.json", {"mcpServers": server})))
        yield
    process.terminate()
    process.wait()


def called(folder: Path, **changes) -> tool.ToolExpert:
    write(folder / "expert.json", {**PERSON, "kind": "mcp", "server": "http", "tool": "find", **changes})
    return tool.open(folder)


class TestMcp(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, servers, tmp_path_factory):
        return called(tmp_path_factory.mktemp("tool"))

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return radiograph()

    def test_the_registry_opens_it(self):
        assert registry.expert_kind("mcp") is tool


def test_over_stdio_too(servers, tmp_path):
    seen = radiograph()
    opacity, _ = called(tmp_path, server="local").run(seen, "all")
    np.testing.assert_array_equal(opacity.region.data, seen.images[0].pixels[0] > 2000)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tool": "sleepy", "timeout": 2}, "within 2 s"),
        ({"tool": "broken"}, "tool failed"),
        ({"tool": "absent"}, "tool failed|refused"),
        ({"server": "gone"}, "the server failed"),
        ({"server": "dies"}, "server failed|refused"),
        ({"server": "closed", "attempts": 2}, "2 times"),
        ({"server": "elsewhere"}, "no MCP server 'elsewhere'"),
        ({"service_version": "8"}, "another version"),
    ],
)
def test_every_failure_of_a_tool_is_an_expert_error(servers, tmp_path, change, match):
    with pytest.raises(ExpertError, match=match) as error:
        called(tmp_path, **change).run(radiograph(), "all")
    assert "secret" not in str(error.value)


def test_a_folder_cannot_name_a_program(servers, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="command"):
        called(tmp_path, command="touch")
    monkeypatch.delenv(tool.SERVERS)
    with pytest.raises(ExpertError, match="no MCP servers"):
        called(tmp_path).run(radiograph(), "all")
    assert base64.b64encode(b"x")
