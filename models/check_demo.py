# SPDX-License-Identifier: MIT
"""Prints greedy continuations by mlx_lm in float32 and judges them.

Exit code 0 when at least 8 of the 10 do not loop, 1 otherwise.
"""

import argparse
import sys
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model, load_tokenizer
from prompts import NEW_TOKENS, PROMPTS, loop_in

ALLOWED_LOOPS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the converted model")
    parser.add_argument(
        "prompts", nargs="*", default=PROMPTS, help="instead of the ten"
    )
    args = parser.parse_args()

    model, _ = load_model(args.model)
    model.set_dtype(mx.float32)
    tokenizer = load_tokenizer(args.model)
    loops, begin, count = 0, time.time(), 0
    for prompt in args.prompts:
        ids = mx.array(tokenizer.encode(prompt))
        new = [
            int(token) for token, _ in generate_step(ids, model, max_tokens=NEW_TOKENS)
        ]
        text = tokenizer.decode(new)
        loop = loop_in(new, text)
        if tokenizer.eos_token_id in new:
            loop = "the end token"
        loops += bool(loop)
        count += len(new)
        print(f"--- {prompt!r}: {loop or 'no loop'}\n{prompt}{text}\n", flush=True)
    pace = count / (time.time() - begin)
    print(f"{loops} of {len(args.prompts)} loop; {pace:.0f} tokens a second")
    return int(loops > ALLOWED_LOOPS)


if __name__ == "__main__":
    sys.exit(main())
