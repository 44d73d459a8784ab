"""The toy base model: a tiny Qwen2 pre-trained on worked arithmetic, sloppy in the end, so that training has work.

Its tokenizer has 25 tokens and a chat template that puts a problem into a field of fixed width ("Q:47+38=...A:"), so
that the prompt's format is stored with the model.
"""

import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ngrpo.data.generated import is_held_out
from ngrpo.data.toy import draw, solve, trace
from ngrpo.study.sources import ToyModel
from ngrpo.terminal import echo

TERMS = (2, 3)
FIELD = 3 * TERMS[1] - 1  # characters of the longest problem
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SIGNS = [PAD, BOS, EOS, "<think>", "</think>", "\\boxed{", "}", "Q:", "A:", "=", "+", "-", "c0", "c1", "."]
WORDS = [*SIGNS, *"0123456789"]
TEMPLATE = (
    "{{ '" + BOS + "Q:' + messages[-1]['content'] + '=' }}"
    "{{ '.' * (" + str(FIELD) + " - messages[-1]['content']|length) }}{{ 'A:' }}"
)


def make_tokenizer():
    """The toy's tokenizer, as a Hugging Face fast tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted(WORDS, key=len, reverse=True)
    pattern = "|".join("".join(f"\\{c}" if not c.isalnum() else c for c in w) for w in words)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def _rows(rng: random.Random, tokenizer, source: ToyModel, sloppy: bool) -> tuple[Tensor, Tensor]:
    """A batch of prompts with traces: input ids and labels, both (B, L); prompts and padding are no labels."""
    ids, labels = [], []
    forget = (source.forget, source.forget_borrows) if sloppy else (0.0, 0.0)
    while len(ids) < source.batch_size:
        problem = draw(rng, TERMS)
        if is_held_out(problem):
            continue
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": problem}])
        answer = tokenizer.encode(trace(problem, rng, *forget) + EOS, add_special_tokens=False)
        ids.append(prompt + answer)
        labels.append([-100] * len(prompt) + answer)
    width = max(map(len, ids))
    pad = tokenizer.pad_token_id
    return (
        torch.tensor([row + [pad] * (width - len(row)) for row in ids]),
        torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
    )


def pretrain(source: ToyModel, out: Path, label: str) -> None:
    """Pre-train the toy model and fill the folder `out`; the same source gives the same bytes on the same CPU."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sums of a small model's kernels shouldn't depend on how many cores there are
    torch.manual_seed(source.seed)
    rng = random.Random(source.seed)
    tokenizer = make_tokenizer()
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(WORDS),
            hidden_size=source.hidden_size,
            intermediate_size=source.intermediate_size,
            num_hidden_layers=source.layers,
            num_attention_heads=source.heads,
            num_key_value_heads=source.kv_heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.06,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=source.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    warmup = min(50, source.steps)
    for step in range(1, source.steps + 1):
        decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / source.steps))
        optimizer.param_groups[0]["lr"] = source.learning_rate * min(1, step / warmup) * decay
        ids, labels = _rows(rng, tokenizer, source, sloppy=step > source.clean_share * source.steps)
        logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % max(1, source.steps // 4) == 0:
            echo(f"{label} step {step}/{source.steps} loss {loss.item():.3f}")
    echo(f"{label} right on problems it never saw: {accuracy(model, tokenizer, source.seed):.0%}")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    torch.set_num_threads(threads)


@torch.no_grad()
def accuracy(model, tokenizer, seed: int, problems: int = 256) -> float:
    """Share of held-out problems that one sample at temperature 1 answers rightly."""
    rng = random.Random(seed + 1)
    asked = []
    while len(asked) < problems:
        problem = draw(rng, TERMS)
        if is_held_out(problem):
            asked.append(problem)
    prompts = torch.tensor([tokenizer.apply_chat_template([{"role": "user", "content": p}]) for p in asked])
    model.eval()
    out = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=24,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
    )
    model.train()
    texts = tokenizer.batch_decode(out[:, prompts.shape[1] :], skip_special_tokens=True)
    right = [text.endswith(f"\\boxed{{{solve(p):02d}}}") for text, p in zip(texts, asked, strict=True)]
    return sum(right) / problems
