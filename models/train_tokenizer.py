# SPDX-License-Identifier: MIT
"""Trains the demo model's tokenizer: byte-level BPE with LFM2's split pattern."""

import argparse
import json
from pathlib import Path

from corpus import read_corpus
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

PAD, START, END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def chunks(passages, lines_each=200):
    """Cuts passages into pieces small enough for the trainer's threads."""
    for passage in passages:
        lines = passage.splitlines(keepends=True)
        for i in range(0, len(lines), lines_each):
            yield "".join(lines[i : i + lines_each])


def train(passages, vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [
            Split(Regex(PATTERN), behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=True,
    )
    tokenizer.train_from_iterator(chunks(passages), trainer)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A",
        pair=f"{START} $A {START}:1 $B:1",
        special_tokens=[(START, tokenizer.token_to_id(START))],
    )
    return tokenizer


def write(tokenizer: Tokenizer, out: Path, max_length: int) -> None:
    """Writes tokenizer.json and the two files Hugging Face reads beside it."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    names = {"bos_token": START, "eos_token": END, "pad_token": PAD}
    config = {
        **names,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, value in (
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", names),
    ):
        (out / name).write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder with the three texts")
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--vocab-size", type=int, default=6144)
    parser.add_argument("--max-length", type=int, default=2048)
    args = parser.parse_args()

    texts, _ = read_corpus(args.corpus)
    passages = [passage for text in texts for passage in text]
    tokenizer = train(passages, args.vocab_size)
    write(tokenizer, args.out, args.max_length)
    count = sum(
        len(tokenizer.encode(p, add_special_tokens=False).ids) for p in passages
    )
    size = sum(len(p.encode()) for p in passages)
    print(
        f"{tokenizer.get_vocab_size()} tokens in the vocabulary; {size} bytes"
        f" of training text make {count} tokens"
    )


if __name__ == "__main__":
    main()
