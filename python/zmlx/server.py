# SPDX-License-Identifier: MIT
"""``python -m zmlx.server``: mlx_lm.server on patched models.

Every flag of mlx_lm.server is taken. ``GET /health`` answers 200 only when a token
was decoded while it waited: a request's own, or one that it asks for itself.
"""

import argparse
import json
import logging
import sys
import threading
import time

from mlx_lm import server

from zmlx import _lm
from zmlx.cli import run


class Pulse:
    """Counts what the generation thread decodes."""

    def __init__(self):
        self.tokens = 0
        self._moved = threading.Condition()

    def beat(self):
        with self._moved:
            self.tokens += 1
            self._moved.notify_all()

    def wait(self, since, seconds):
        """Whether more than `since` tokens came within so many seconds."""
        with self._moved:
            return self._moved.wait_for(lambda: self.tokens > since, seconds)


def probe_request(model):
    """A request for one token of the model."""
    request = server.CompletionRequest("text", "a", [], None, None)
    arguments = server.GenerationArguments(
        model=model,
        sampling=server.SamplingArguments(0.0, 1.0, 0, 0.0, 0.0, 0.0),
        logits=server.LogitsProcessorArguments(None, 0.0, 20, 0.0, 20, 0.0, 20),
        stop_words=[],
        max_tokens=1,
        num_draft_tokens=1,
        logprobs=False,
        top_logprobs=0,
        seed=None,
        chat_template_kwargs=None,
    )
    return request, arguments


def classes_of(own, pulse):
    """What stands for mlx_lm.server's classes."""

    class Provider(server.ModelProvider):
        def _load(self, *args, **kwargs):
            super()._load(*args, **kwargs)
            self.patch_result = None
            if not own.no_patch:
                self.patch_result = _lm.patch_model(self.model, own)
                logging.info(self.patch_result.summary())

    class Generator(server.ResponseGenerator):
        # The description of the model that was asked for last: another one would
        # end the batch under way.
        last_model = server.ModelDescription("default_model", "default_model", None)

        def generate(self, request, generation_args, progress_callback=None):
            self.last_model = generation_args.model
            return super().generate(request, generation_args, progress_callback)

    class Response(server.Response):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            pulse.beat()

    return Provider, Generator, Response


def health_check(own, pulse):
    """The handler of GET /health."""

    def start_probe(generator):
        def consume():
            try:
                _, responses = generator.generate(*probe_request(generator.last_model))
                for _ in responses:
                    pass
            except Exception as error:
                logging.warning(f"The health probe failed: {error}")

        threading.Thread(target=consume, daemon=True).start()

    def handle_health_check(self):
        generator = self.response_generator
        provider = generator.model_provider
        before, start = pulse.tokens, time.monotonic()
        answer = {"status": "ok"}
        if not generator.is_healthy:
            answer = {"status": "unavailable"}
        elif provider.model is None and generator.cli_args.model is None:
            answer["decoding"] = "no model yet"
        else:
            start_probe(generator)
            moves = pulse.wait(before, own.health_timeout)
            answer["status"] = "ok" if moves else "stalled"
            answer["decoding"] = "moving" if moves else "no token"
        answer["tokens"] = pulse.tokens
        answer["seconds"] = round(time.monotonic() - start, 4)
        result = getattr(provider, "patch_result", None)
        answer["patched"] = dict(result.pattern_counts) if result else {}
        self._set_completion_headers(200 if answer["status"] == "ok" else 503)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())
        self.wfile.flush()

    return handle_health_check


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="zmlx.server",
        add_help=False,
        description="mlx_lm.server on patched models; its flags are below.",
    )
    group = _lm.add_patch_flags(parser)
    group.add_argument("--no-patch", action="store_true", help="leave models stock")
    group.add_argument(
        "--health-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long GET /health waits for a token (default: 30)",
    )
    own, rest = parser.parse_known_args(argv)
    _lm.check_patterns(own)
    if "-h" in rest or "--help" in rest:
        print(parser.format_help())
    pulse = Pulse()
    provider, generator, response = classes_of(own, pulse)
    with (
        _lm.replaced(
            server,
            ModelProvider=provider,
            ResponseGenerator=generator,
            Response=response,
        ),
        _lm.replaced(server.APIHandler, handle_health_check=health_check(own, pulse)),
        _lm.replaced(sys, argv=["zmlx.server", *rest]),
    ):
        server.main()
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
