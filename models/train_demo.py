# SPDX-License-Identifier: MIT
"""Trains the demo model: a small LFM2-MoE in Hugging Face's own class.

Writes a bf16 Hugging Face checkpoint and training.json. The second part of the
training runs on weights rounded as 4-bit quantisation will round them.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import read_corpus
from prompts import NEW_TOKENS, PROMPTS, loop_in
from tokenizers import Tokenizer
from transformers import Lfm2MoeConfig, Lfm2MoeForCausalLM
from weights import flatten

# No padding and no packed samples: attention is causal, nothing is masked.
MASKS = {"full_attention": None, "conv": None}


def make_model(vocab_size: int) -> Lfm2MoeForCausalLM:
    config = Lfm2MoeConfig(
        vocab_size=vocab_size,
        hidden_size=384,
        intermediate_size=1024,
        moe_intermediate_size=128,
        num_hidden_layers=6,
        layer_types=["conv", "conv", "full_attention"] * 2,
        num_dense_layers=1,
        num_experts=16,
        num_experts_per_tok=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        conv_L_cache=3,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        use_expert_bias=True,
        norm_topk_prob=True,
        routed_scaling_factor=1.0,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Lfm2MoeForCausalLM._from_config(config, dtype=torch.float32)


class Samples:
    """Windows of `length` tokens that begin at line starts, behind the start token."""

    def __init__(self, texts, tokenizer, length: int, device: str):
        ids, self.starts, sizes = [], [], []
        for passages in texts:
            starts, before = [], len(ids)
            for passage in passages:
                code = tokenizer.encode(passage, add_special_tokens=False)
                tokens = code.ids  # a new list each time it is asked for
                lines, at = set(), 0
                for line in passage.splitlines(keepends=True):
                    if line.strip():
                        lines.add(at)
                    at += len(line)
                starts += [
                    len(ids) + i
                    for i, (begin, _) in enumerate(code.offsets)
                    if begin in lines and i + length <= len(tokens)
                ]
                ids += tokens
            self.starts.append(starts)
            sizes.append(len(ids) - before)
        self.tokens = len(ids)
        self.share = [size / self.tokens for size in sizes]
        self.ids = torch.tensor(ids, device=device)
        self.span = torch.arange(length, device=device)
        self.first = tokenizer.token_to_id("<|startoftext|>")

    def batch(self, size: int, chance: random.Random):
        """Inputs and targets, both (size, length); texts drawn by their length."""
        texts = chance.choices(self.starts, self.share, k=size)
        begins = torch.tensor([chance.choice(starts) for starts in texts])
        begins = begins.to(self.ids.device)
        targets = self.ids[begins[:, None] + self.span]
        inputs = targets.roll(1, dims=1)
        inputs[:, 0] = self.first
        return inputs, targets


def loss_of(model, inputs, targets):
    hidden = model.model(
        input_ids=inputs, attention_mask=MASKS, use_cache=False
    ).last_hidden_state
    logits = model.lm_head(hidden).float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(model, samples: Samples, batches: int, size: int) -> float:
    """Mean loss over the same windows each time."""
    model.eval()
    chance = random.Random(1)
    losses = [loss_of(model, *samples.batch(size, chance)) for _ in range(batches)]
    model.train()
    return torch.stack(losses).mean().item()


def add_dropout(model, rate: float) -> None:
    """Drops parts of what each mixer and feed-forward adds to the stream."""

    def hook(module, _, output):
        if isinstance(output, tuple):
            return (F.dropout(output[0], rate, module.training), *output[1:])
        return F.dropout(output, rate, module.training)

    for layer in model.model.layers:
        mixer = layer.self_attn if layer.is_attention_layer else layer.conv
        mixer.register_forward_hook(hook)
        layer.feed_forward.register_forward_hook(hook)


class Balance:
    """Load balancing without an auxiliary loss (Wang et al. 2024): after each
    step an expert's bias moves against its load; the bias only selects."""

    def __init__(self, model, device: str):
        self.blocks = [
            layer.feed_forward
            for layer in model.model.layers
            if hasattr(layer.feed_forward, "gate")
        ]
        experts = model.config.num_experts
        numbers = torch.arange(experts, device=device)

        def count(gate, _, output):
            if gate.training:
                chosen = output[2].flatten()[:, None] == numbers
                gate.load.add_(chosen.sum(0))

        for block in self.blocks:
            load = torch.zeros(experts, dtype=torch.long, device=device)
            block.gate.register_buffer("load", load, persistent=False)
            block.gate.register_forward_hook(count)
        self.worst = torch.zeros((), device=device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        loads = torch.stack([block.gate.load for block in self.blocks]).float()
        mean = loads.mean(1, keepdim=True)
        moves = rate * torch.sign(mean - loads)
        for block, move in zip(self.blocks, moves, strict=True):
            block.expert_bias.add_(move)
            block.gate.load.zero_()
        self.worst = (loads / mean).max()


def rate_at(step: int, steps: int, warmup: int, decay: float) -> float:
    """Warm-up, plateau, then a straight fall to a hundredth: a factor of the rate."""
    if step < warmup:
        return (step + 1) / warmup
    left = (steps - step) / (steps * decay)
    return max(0.01, min(1.0, left))


@torch.no_grad()
def continue_prompts(model, tokenizer: Tokenizer, device: str) -> None:
    """Prints greedy continuations, all at once and without a cache.

    Rows end in padding, which causal layers never look at, so that the shape
    stays: attention libraries plan anew for each one.
    """
    model.eval()
    rows = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    ends = torch.tensor([len(row) for row in rows], device=device)
    width = max(len(row) for row in rows) + NEW_TOKENS
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    ids = ids.to(device)
    each = torch.arange(len(rows), device=device)
    for step in range(NEW_TOKENS):
        hidden = model.model(
            input_ids=ids, attention_mask=MASKS, use_cache=False
        ).last_hidden_state[each, ends + step - 1]
        ids[each, ends + step] = model.lm_head(hidden).argmax(-1)
    loops = 0
    for prompt, row, line in zip(PROMPTS, rows, ids.tolist(), strict=True):
        new = line[len(row) : len(row) + NEW_TOKENS]
        text = tokenizer.decode(new)
        loop = loop_in(new, text)
        loops += bool(loop)
        print(f"--- {prompt!r}: {loop or 'no loop'}\n{text}", flush=True)
    print(f"{loops} of {len(PROMPTS)} greedy continuations loop")


def train(model, kinds, samples, held, args) -> list[dict]:
    """Runs all steps; returns the losses it printed. Leaves bf16 copies."""
    decayed = [k.master for k in kinds if k.bits]
    plain = [k.master for k in kinds if not k.bits]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": args.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=args.rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    balance = Balance(model, args.device)
    add_dropout(model, args.dropout)
    chance = random.Random(args.seed)
    total = torch.zeros((), device=args.device)
    record, begin, since = [], time.time(), time.time()
    model.train()
    for step in range(args.steps):
        factor = rate_at(step, args.steps, args.warmup, args.decay)
        quantized = step >= args.steps * args.quantize_from
        for kind in kinds:
            kind.refresh(quantized)
        loss = loss_of(model, *samples.batch(args.batch, chance))
        loss.backward()
        norm = torch.stack([kind.take_gradient() for kind in kinds]).sum().sqrt()
        clip = (1.0 / (norm + 1e-6)).clamp(max=1.0)
        for kind in kinds:
            kind.master.grad.mul_(clip)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * factor
        optimizer.step()
        balance.step(args.balance_rate * factor)
        total += loss.detach()
        if (step + 1) % args.log_every == 0 or step + 1 == args.steps:
            count = step % args.log_every + 1
            mean = total.item() / count  # waits for the device
            pace = count * args.batch * args.length / (time.time() - since)
            row = {
                "step": step + 1,
                "loss": round(mean, 4),
                "held_out": round(evaluate(model, held, 2, args.batch), 4),
                "seconds": round(time.time() - begin, 1),
            }
            record.append(row)
            print(
                f"step {row['step']}/{args.steps}  loss {row['loss']:.3f}"
                f"  held out {row['held_out']:.3f}  rate {args.rate * factor:.1e}"
                f"  busiest expert {balance.worst.item():.2f} x mean"
                f"  {pace / 1e3:.0f}k tok/s  {row['seconds']:.0f} s"
                f"{'  4 bit' if quantized else ''}",
                flush=True,
            )
            total.zero_()
            since = time.time()
    for name, quantized in (("bf16", False), ("4 bit", True)):
        for kind in kinds:
            kind.refresh(quantized)
        row = {
            "weights": name,
            "train": round(evaluate(model, samples, 8, args.batch), 4),
            "held_out": round(evaluate(model, held, 2, args.batch), 4),
        }
        record.append(row)
        print(f"final, {name}: train {row['train']}, held out {row['held_out']}")
    for kind in kinds:
        kind.refresh(False)
    return record


def save(model, out: Path, record: list, args, samples: Samples) -> None:
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    state.pop("lm_head.weight", None)
    model.save_pretrained(out, state_dict=state, max_shard_size="15MB")
    facts = {
        "arguments": {k: v for k, v in vars(args).items() if not isinstance(v, Path)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": samples.tokens,
        "torch": torch.__version__,
        "record": record,
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("corpus", type=Path, help="folder with the three texts")
    add("tokenizer", type=Path, help="folder that train_tokenizer.py wrote")
    add("out", type=Path, help="folder for the checkpoint")
    add("--steps", type=int, default=2000)
    add("--batch", type=int, default=32, help="windows a step")
    add("--length", type=int, default=768, help="tokens a window")
    add("--rate", type=float, default=3e-3, help="learning rate of the plateau")
    add("--warmup", type=int, default=100, help="steps")
    add("--decay", type=float, default=0.4, help="last share, in which it falls")
    add("--quantize-from", type=float, default=0.6, help="share of plain steps")
    add("--weight-decay", type=float, default=0.1)
    add("--dropout", type=float, default=0.1)
    add("--balance-rate", type=float, default=1e-3, help="expert bias a step")
    add("--seed", type=int, default=0)
    add("--log-every", type=int, default=100)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    print("reading the texts", flush=True)
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    train_texts, held_texts = read_corpus(args.corpus)
    samples = Samples(train_texts, tokenizer, args.length, args.device)
    held = Samples(held_texts, tokenizer, args.length, args.device)
    model = make_model(tokenizer.get_vocab_size()).to(args.device)
    count = sum(p.numel() for p in model.parameters())
    epochs = args.steps * args.batch * args.length / samples.tokens
    print(
        f"{count} parameters, experts by {model.config._experts_implementation};"
        f" {samples.tokens} tokens to learn, {held.tokens} held out;"
        f" {args.steps} steps are {epochs:.1f} passes",
        flush=True,
    )
    kinds = flatten(model)
    record = train(model, kinds, samples, held, args)
    save(model, args.out, record, args, samples)
    for kind in kinds:
        kind.refresh(True)
    continue_prompts(model, tokenizer, args.device)


if __name__ == "__main__":
    main()
