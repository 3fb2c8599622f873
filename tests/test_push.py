"""electra push against a server that speaks the Hub's few endpoints, through huggingface_hub itself."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_models import make_model_folder

from electra.front_matter import front_matter

Request = tuple[str, str, bytes]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = make_model_folder(tmp_path / "model")
    (folder / "README.md").write_text(front_matter(tags=["electra"]) + "\n# A model\n")
    (folder / "notes.log").write_text("not for the Hub")
    return folder


@pytest.fixture
def hub() -> Iterator[tuple[str, list[Request]]]:
    """Its address, and what it was asked."""
    asked: list[Request] = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers.get("Authorization", ""), body))
            address = f"http://{self.headers['Host']}"
            answer: dict[str, object] = {}
            if self.path == "/api/repos/create":
                answer = {"url": f"{address}/me/electra-xx", "name": "me/electra-xx"}
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                answer = {
                    "files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
                }
            elif "/commit/" in self.path:
                answer = {"commitUrl": f"{address}/me/electra-xx/commit/{'0' * 40}", "commitOid": "0" * 40}
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def push(*words: object, token: str = "hf_test", endpoint: str = "http://127.0.0.1:9") -> tuple[int, str]:
    """Exit code, and output with errors; a process of its own, since the endpoint is read at import."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    given = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN_PATH": os.devnull}
    found = subprocess.run(
        [sys.executable, "-m", "electra", "push", *map(str, words)],
        env=kept | given | ({"HF_TOKEN": token} if token else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return found.returncode, found.stdout


def test_all_files_go_in_one_commit(model: Path, hub: tuple[str, list[Request]]) -> None:
    endpoint, asked = hub
    code, said = push(model, "me/electra-xx", "--private", endpoint=endpoint)
    assert code == 0 and f"sent        {endpoint}/me/electra-xx" in said, said
    assert {authorization for _, authorization, _ in asked} == {"Bearer hf_test"}
    bodies = {path: body for path, _, body in asked}
    created = json.loads(bodies["/api/repos/create"])
    assert created["name"] == "electra-xx" and created["organization"] == "me"
    assert created.get("visibility") == "private" or created.get("private") is True
    assert json.loads(bodies["/api/validate-yaml"])["content"] == (model / "README.md").read_text()
    lines = [json.loads(line) for line in bodies["/api/models/me/electra-xx/commit/main"].splitlines()]
    files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
    assert {name: base64.b64decode(content) for name, content in files.items()} == {
        path.name: path.read_bytes() for path in model.iterdir() if path.name != "notes.log"
    }


def test_a_dry_run_needs_no_hub_and_no_token(model: Path) -> None:
    code, said = push(model, "me/electra-xx", "--dry-run", token="")
    assert code == 0 and "model.safetensors" in said and "card        valid" in said and "nothing was sent" in said


def test_mistakes_are_a_sentence(model: Path, tmp_path: Path) -> None:
    assert "no token for the Hugging Face Hub is known" in push(model, "me/x", token="")[1]
    code, said = push(model, "me/x")
    assert code == 2 and "127.0.0.1:9 did not take the model" in said.splitlines()[-1]
    (model / "README.md").write_text("---\nlanguage: English\n---\n# A model\n")
    code, said = push(model, "me/x", "--dry-run")
    assert code == 2 and "is not valid: its language 'English'" in said.splitlines()[-1]
    assert "no name of a repository" in push(model, "me/x y", "--dry-run")[1]
    (tmp_path / "empty").mkdir()
    assert "is no model folder" in push(tmp_path / "empty", "me/x", "--dry-run")[1]
