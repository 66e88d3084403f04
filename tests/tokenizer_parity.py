# SPDX-License-Identifier: MIT
"""Token ids and decoded text of zmlx equal those of Hugging Face's tokenizers.

Trains small tokenizers with the parts that known model families use, and runs
ZMLX_TOKENIZER_DRIVER on the same files and strings. ZMLX_TEST_CORPUS may name
a folder of further .txt files.
"""

import json
import os
import pathlib
import random
import subprocess

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    processors,
    trainers,
)
from tokenizers import normalizers as norm
from tokenizers import pre_tokenizers as pre

DRIVER = os.environ["ZMLX_TOKENIZER_DRIVER"]
ROOT = pathlib.Path(__file__).resolve().parent.parent
RANDOM_STRINGS = 5000

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN = LLAMA3.replace("{1,3}", "")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
GPT_OSS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Several scripts, so that the trained tokens hold more than ASCII.
WORLD = (
    "Gr\u00fc\u00dfe aus K\u00f6ln; \u041f\u0440\u0438\u0432\u0435\u0442 \u043c"
    "\u0438\u0440; \u4f60\u597d\u4e16\u754c; \u3053\u3093\u306b\u3061\u306f; "
    "\uc548\ub155\ud558\uc138\uc694; \u0645\u0631\u062d\u0628\u0627; "
    "\u0928\u092e\u0938\u094d\u0924\u0947; \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"
    "; \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44b\U0001f3fd; "
    "I'll say we've 1234 things, they're 56.78%!\r\n\tx += 1;\n\n"
)


def repo_texts():
    paths = [p for e in ("md", "h", "cpp", "py") for p in ROOT.glob(f"zmlx/**/*.{e}")]
    paths += ROOT.glob("*.md")
    return [p.read_text() for p in sorted(paths)]


def split(pattern):
    return pre.Split(Regex(pattern), "isolated")


def byte_level(pattern):
    steps = [pre.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    return pre.Sequence(([split(pattern)] if pattern else []) + steps)


def special(*names):
    return [AddedToken(name, special=True, normalized=False) for name in names]


def trained(model, pre_tokenizer, decoder, normalizer=None, added=(), alphabet=None):
    tok = Tokenizer(model)
    tok.decoder = decoder
    if pre_tokenizer:
        tok.pre_tokenizer = pre_tokenizer
    if normalizer:
        tok.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        show_progress=False,
        initial_alphabet=alphabet or pre.ByteLevel.alphabet(),
        special_tokens=["<unk>", "<s>", "</s>"],
    )
    tok.train_from_iterator(repo_texts() + [WORLD] * 20, trainer)
    tok.add_tokens(list(added))
    return tok


def lfm2(tmp):
    tok = trained(
        models.BPE(),
        byte_level(LLAMA3),
        decoders.ByteLevel(),
        added=special("<|im_start|>", "<|im_end|>", "<|startoftext|>"),
    )
    bos = tok.token_to_id("<|startoftext|>")
    tok.post_processor = processors.TemplateProcessing(
        "<|startoftext|> $A", special_tokens=[("<|startoftext|>", bos)]
    )
    return tok


def llama3(tmp):
    tok = trained(
        models.BPE(ignore_merges=True),
        byte_level(LLAMA3),
        decoders.ByteLevel(),
        added=special("<|begin_of_text|>", "<|eot_id|>"),
    )
    bos = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                "<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
            ),
        ]
    )
    return tok


def qwen3(tmp):
    added = special("<|im_start|>", "<|im_end|>")
    added += [AddedToken("<think>", normalized=False), AddedToken("caf\u00e9")]
    return trained(
        models.BPE(), byte_level(QWEN), decoders.ByteLevel(), norm.NFC(), added
    )


def gpt_oss(tmp):
    return trained(
        models.BPE(ignore_merges=True),
        byte_level(GPT_OSS),
        decoders.ByteLevel(),
        added=special("<|start|>", "<|end|>", "<|message|>"),
    )


def bytes_and_marks(pre_tokenizer, normalizer, decoder):
    """The vocabulary of a trained plain BPE, plus the 256 byte tokens."""
    tok = trained(
        models.BPE(unk_token="<unk>"),
        pre_tokenizer,
        decoder,
        normalizer,
        alphabet=["\u2581"],
    )
    data = json.loads(tok.to_str())
    vocab = data["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    data["model"] |= {"byte_fallback": True, "fuse_unk": True}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    return Tokenizer.from_str(json.dumps(data))


def llama2(tmp):
    return bytes_and_marks(
        None,
        norm.Sequence([norm.Prepend("\u2581"), norm.Replace(" ", "\u2581")]),
        decoders.Sequence(
            [
                decoders.Replace("\u2581", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
    )


def mistral(tmp):
    mark = dict(replacement="\u2581", prepend_scheme="first", split=False)
    return bytes_and_marks(
        pre.Metaspace(**mark),
        None,
        decoders.Sequence(
            [decoders.Metaspace(**mark), decoders.ByteFallback(), decoders.Fuse()]
        ),
    )


def gpt2(tmp):
    return trained(
        models.BPE(),
        pre.ByteLevel(add_prefix_space=True),
        decoders.ByteLevel(),
        normalizer=norm.NFKD(),
        added=[
            AddedToken("<a>", lstrip=True),
            AddedToken("<b>", rstrip=True),
            AddedToken("word", single_word=True),
            *special("<|endoftext|>"),
        ],
    )


def words(tmp):
    """Every other pre-tokenizer, with unknown tokens and NFKC; no decoder."""
    tok = trained(
        models.BPE(unk_token="<unk>"),
        pre.Sequence(
            [
                pre.WhitespaceSplit(),
                pre.Punctuation("merged_with_previous"),
                pre.Digits(individual_digits=False),
                pre.Whitespace(),
                pre.Split("e", "merged_with_next"),
                pre.Metaspace(split=True),
                pre.Split(Regex(r"[A-Z]\w*|z{2}+"), "removed", invert=True),
            ]
        ),
        None,
        norm.Sequence([norm.NFKC(), norm.Strip(), norm.Replace(Regex(r"\d"), "#")]),
        alphabet=["\u2581"],
    )
    return tok


def unfused(tmp):
    """Unknown tokens one by one, and NFD."""
    return trained(
        models.BPE(unk_token="<unk>", fuse_unk=False),
        pre.Sequence([pre.Punctuation("contiguous"), pre.Digits(True)]),
        decoders.Metaspace(),
        norm.NFD(),
        alphabet=["a"],
    )


def pairs(pre_tokenizer):
    """Merges any two bytes, so that ids tell where every word ends."""

    def build(tmp):
        letters = sorted(pre.ByteLevel.alphabet())
        merges = [(a, b) for a in letters for b in letters]
        random.Random(1).shuffle(merges)
        tokens = letters + [a + b for a, b in merges]
        model = models.BPE({t: i for i, t in enumerate(tokens)}, merges)
        tok = Tokenizer(model)
        tok.pre_tokenizer = pre_tokenizer
        tok.decoder = decoders.ByteLevel()
        return tok

    return build


def named(name, build):
    build.__name__ = name
    return build


BYTES = pre.ByteLevel(add_prefix_space=False, use_regex=False)
FAMILIES = [
    lfm2,
    llama3,
    qwen3,
    gpt_oss,
    llama2,
    mistral,
    gpt2,
    words,
    unfused,
    named("pairs_llama3", pairs(byte_level(LLAMA3))),
    named("pairs_gpt_oss", pairs(byte_level(GPT_OSS))),
    named("pairs_gpt2", pairs(byte_level(None))),
    named("pairs_whitespace", pairs(pre.Sequence([pre.Whitespace(), BYTES]))),
    named(
        "pairs_classes",
        pairs(pre.Sequence([pre.Punctuation("isolated"), pre.Digits(False), BYTES])),
    ),
    # Han by script (not its extensions), word classes, ^ and $ of lines, repeated
    # repetitions
    named(
        "pairs_syntax",
        pairs(
            pre.Sequence(
                [
                    split(r"\p{Han}|\w+$|^\W|[\w']+|\v|\u00e9|\x21"),
                    split(r"\p{Nd}{1,2}+x|\p{^Ll}{,2}y|(?:ab){1,2}+"),
                    BYTES,
                ]
            )
        ),
    ),
    named("pairs_empty", pairs(pre.Sequence([split("[a-f]*"), BYTES]))),
]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.__name__)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    tok = request.param(folder)
    tok.save(str(folder / "tokenizer.json"))
    return Tokenizer.from_file(str(folder / "tokenizer.json")), folder


def drive(mode, folder, items):
    done = subprocess.run(
        [DRIVER, mode, str(folder)],
        input=json.dumps(items),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same(inputs, theirs, ours):
    assert len(theirs) == len(ours) == len(inputs)
    wrong = [i for i in range(len(inputs)) if theirs[i] != ours[i]]
    shown = [(ascii(inputs[i])[:300], theirs[i][:40], ours[i][:40]) for i in wrong[:3]]
    assert not wrong, f"{len(wrong)} of {len(inputs)} differ: {shown}"


def check_encode(pair, texts, mode="encode"):
    tok, folder = pair
    theirs = tok.encode_batch(texts, add_special_tokens=mode == "encode-special")
    assert_same(texts, [e.ids for e in theirs], drive(mode, folder, texts))


def any_code_point(rng):
    while True:
        point = rng.randrange(0x110000)
        if not 0xD800 <= point < 0xE000:
            return chr(point)


def random_text(rng, tok):
    tokens = [t.content for t in tok.get_added_tokens_decoder().values()]
    parts = [
        lambda: rng.choice(tokens + ["<|im_", "<unk", "|>", "word", "words"]),
        lambda: any_code_point(rng),
        lambda: chr(rng.randrange(0x20, 0x7F)),
        lambda: chr(rng.randrange(0x20)),
        lambda: chr(rng.randrange(0x80, 0x3000)),
        lambda: chr(rng.randrange(0x4E00, 0xA000)),
        lambda: chr(rng.randrange(0xAC00, 0xD7A4)),
        lambda: chr(rng.randrange(0x1100, 0x1200)),
        lambda: (
            rng.choice("aeo\u0041")
            + "".join(
                chr(rng.randrange(0x300, 0x370)) for _ in range(rng.randrange(1, 4))
            )
        ),
        lambda: (
            chr(rng.randrange(0x1F300, 0x1FA00))
            + rng.choice(["\u200d", "\ufe0f", "\U0001f3fd", ""])
        ),
        lambda: "".join(
            rng.choice(" \t\n\r\u00a0\u2028\u3000\u180e\u200b\x0b\x85")
            for _ in range(rng.randrange(1, 6))
        ),
        lambda: rng.choice(["'s", "'S", "'ll", "'LL", "'\u017f", "\u2019t", "'rE"]),
        lambda: str(rng.randrange(10 ** rng.randrange(1, 9))),
        lambda: " " * rng.randrange(1, 5) + rng.choice(WORLD.split()),
        lambda: rng.choice(WORLD) * rng.randrange(1, 9),
        lambda: rng.choice(["zz", "Zebra_1", "e", "the", "\ufb01", "\u1e9b\u0323"]),
    ]
    return "".join(rng.choice(parts)() for _ in range(rng.randrange(12)))


def random_texts(tok, count=RANDOM_STRINGS):
    rng = random.Random(7)
    return [random_text(rng, tok) for _ in range(count)]


def test_random_strings(pair):
    check_encode(pair, random_texts(pair[0]))


def test_random_strings_between_special_tokens(pair):
    check_encode(pair, random_texts(pair[0], 500), "encode-special")


def test_special_tokens_as_text(pair):
    tok, folder = pair
    tok.encode_special_tokens = True
    check_encode((tok, folder), random_texts(tok, 2000), "encode-plain")
    tok.encode_special_tokens = False


def test_every_kind_of_code_point(pair):
    """All code points, but one in 61 of the large uniform blocks."""
    blocks = [
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A3),
        (0xD800, 0xF8FF),
        (0x17000, 0x18AFF),
        (0x20000, 0x10FFFF),
    ]
    points = [
        c
        for c in range(0x110000)
        if not 0xD800 <= c < 0xE000
        and (c % 61 == 0 or not any(a <= c <= b for a, b in blocks))
    ]
    texts = [
        "".join(f"a{chr(c)} {chr(c)}1'{chr(c)}\n" for c in points[i : i + 9])
        for i in range(0, len(points), 9)
    ]
    check_encode(pair, texts)


def test_marks_in_any_order(pair):
    """Combining marks around a letter: what normalisation sorts and joins."""
    rng = random.Random(3)
    marks = [c for c in range(0x300, 0x1F000) if not 0xD800 <= c < 0xE000]
    texts = [
        "".join(
            "e"
            + chr(rng.choice(marks[:0x70]))
            + chr(rng.choice(marks))
            + chr(rng.choice(marks))
            + "\u0323\u0301"
            for _ in range(8)
        )
        for _ in range(RANDOM_STRINGS)
    ]
    check_encode(pair, texts)


def test_corpus(pair):
    texts = repo_texts()
    folder = os.environ.get("ZMLX_TEST_CORPUS")
    for path in sorted(pathlib.Path(folder).glob("*.txt")) if folder else []:
        texts.append(path.read_text()[:1_000_000])
    check_encode(pair, texts)


def test_decode(pair):
    tok, folder = pair
    rng = random.Random(5)
    lists = [e.ids for e in tok.encode_batch(random_texts(tok, 1500))]
    top = tok.get_vocab_size() + 3  # a few ids without a token
    lists += [
        [rng.randrange(top) for _ in range(rng.randrange(20))] for _ in range(1500)
    ]
    lists += [[rng.randrange(300) for _ in range(30)] for _ in range(300)]
    low = tok.token_to_id("<0x00>")
    if low is not None:
        lists += [
            [low + rng.randrange(256) for _ in range(rng.randrange(1, 4))]
            + [rng.randrange(top)]
            for _ in range(1000)
        ]
    for mode, skip in (("decode", False), ("decode-skip", True), ("stream", False)):
        theirs = [tok.decode(ids, skip_special_tokens=skip) for ids in lists]
        assert_same(lists, theirs, drive(mode, folder, lists))
