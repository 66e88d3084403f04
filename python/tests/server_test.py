# SPDX-License-Identifier: MIT
"""zmlx.server: mlx_lm's server on a patched model, and what /health proves."""

import json
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request

import lm_models
import pytest

from zmlx import server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, body=None):
    """(status, text) of a request; a body makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def started(*flags):
    port = free_port()
    command = [sys.executable, "-m", "zmlx.server", "--port", str(port), *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    base = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            status, text = get(f"{base}/health")
            if status == 200:
                return process, base
        except OSError:
            pass
        if process.poll() is not None:
            pytest.fail(process.stderr.read())
        time.sleep(0.1)
    process.kill()
    pytest.fail("the server did not come up")


@pytest.fixture(scope="module")
def base():
    process, base = started("--model", str(lm_models.DEMO), "--temp", "0")
    yield base
    process.kill()
    process.communicate()


def complete(base, prompt, **options):
    body = {"prompt": prompt, "max_tokens": 12} | options
    status, text = get(f"{base}/v1/completions", body)
    assert status == 200
    return json.loads(text)["choices"][0]["text"]


def test_health_shows_that_decoding_moves(base):
    status, text = get(f"{base}/health")
    answer = json.loads(text)
    assert status == 200 and answer["status"] == "ok"
    assert answer["decoding"] == "moving" and answer["patched"]["decode_step"] == 1
    again = json.loads(get(f"{base}/health")[1])
    assert again["tokens"] > answer["tokens"]


def test_completions_are_those_of_the_model(base):
    from mlx_lm import generate
    from mlx_lm.utils import load_tokenizer

    from zmlx import decode

    model = lm_models.demo(None)
    decode.install(model)
    tokenizer = load_tokenizer(lm_models.DEMO)
    expected = generate(model, tokenizer, "ROMEO:", max_tokens=12)
    assert complete(base, "ROMEO:") == expected
    # One at a time, without the batch.
    assert complete(base, "ROMEO:", seed=1) == expected


def test_requests_at_once_get_their_own_answers(base):
    prompts = ["ROMEO:", "In the beginning", "Once upon a time there was", "To"]
    alone = [complete(base, prompt) for prompt in prompts]
    together = [None] * len(prompts)

    def ask(i):
        together[i] = complete(base, prompts[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_streams_send_pieces(base):
    body = {"prompt": "ROMEO:", "max_tokens": 6, "stream": True}
    status, text = get(f"{base}/v1/completions", body)
    events = [line for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200 and events[-1] == "data: [DONE]" and len(events) > 3


def test_without_a_model_health_says_so():
    process, base = started("--no-patch")
    try:
        answer = json.loads(get(f"{base}/health")[1])
        assert answer["decoding"] == "no model yet" and answer["tokens"] == 0
    finally:
        process.kill()
        process.communicate()


class Handler:
    """As much of APIHandler as the health check needs."""

    def __init__(self, healthy):
        self.response_generator = types.SimpleNamespace(
            is_healthy=healthy,
            cli_args=types.SimpleNamespace(model="m"),
            model_provider=types.SimpleNamespace(model=object(), patch_result=None),
            last_model=None,
            generate=lambda request, arguments: (None, iter(())),
        )
        self.wfile = types.SimpleNamespace(write=self._write, flush=lambda: None)

    def _set_completion_headers(self, status):
        self.status = status

    def end_headers(self):
        pass

    def _write(self, data):
        self.answer = json.loads(data)


@pytest.mark.parametrize(
    ("healthy", "status"), [(True, "stalled"), (False, "unavailable")]
)
def test_health_is_503_when_no_token_comes(healthy, status):
    own = types.SimpleNamespace(health_timeout=0.05)
    handler = Handler(healthy)
    server.health_check(own, server.Pulse())(handler)
    assert handler.status == 503 and handler.answer["status"] == status


def test_a_token_of_anybody_is_a_sign_of_life():
    pulse = server.Pulse()
    handler = Handler(True)
    threading.Timer(0.05, pulse.beat).start()
    own = types.SimpleNamespace(health_timeout=20)
    server.health_check(own, pulse)(handler)
    assert handler.status == 200 and handler.answer["decoding"] == "moving"
