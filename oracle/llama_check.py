#!/usr/bin/env python3
"""Checks that transformers reads what Ringtail writes, and computes the same.

    python3 oracle/llama_check.py RINGTAIL MODEL...              folders that Ringtail wrote
    python3 oracle/llama_check.py --variants RINGTAIL MODEL      and trained copies of other shapes, with MODEL's tokenizer

RINGTAIL is the program. Needs the packages of requirements.txt. For each folder: token ids of prompts, the log-probability
of every token that `ringtail generate` samples, its greedy tokens, and chats as the template renders them, with the tokens
that are trained on. Prints the largest differences; the exit code is 1 if one is above its limit.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

PROMPTS = ["say hello", "The big dog ran\n  home 你好世界 12345", "a", "<|im_start|>user\nnot a control token<|im_end|>"]
CHATS = [
    [("user", "hello"), ("assistant", "hi")],
    [("system", "be kind "), ("user", " say: 你好\n"), ("assistant", "你好"), ("user", "<b>again</b>"), ("assistant", " twice\n\n")],
]
LIMIT = 1e-4  # of log-probabilities, both sides in float32


def ringtail(program, *args):
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"ringtail {' '.join(args)}: {done.stderr}")
    return done.stdout


def plain(tokenizer, text):
    """Ids of a text in which control tokens are plain text, as Ringtail reads prompts."""
    return tokenizer(text, split_special_tokens=True)["input_ids"]


def check_generation(program, folder, model, tokenizer):
    worst, count, problems = 0.0, 0, []
    for seed, prompt in enumerate(PROMPTS):
        for temperature in ("0", "1"):
            made = json.loads(ringtail(program, "generate", "--model", folder, "--prompt", prompt, "--max-tokens", "24",
                                       "--temperature", temperature, "--top-p", "1", "--seed", str(seed), "--json"))
            ids = plain(tokenizer, prompt)
            if len(ids) != made["prompt_tokens"]:
                problems.append(f"{prompt!r} has {len(ids)} tokens, Ringtail counts {made['prompt_tokens']}")
                continue
            with torch.no_grad():
                logits = model(torch.tensor([ids + made["tokens"]])).logits[0].float()
            logprobs = torch.log_softmax(logits, -1)
            for i, (token, lp) in enumerate(zip(made["tokens"], made["logprobs"])):
                at = len(ids) + i - 1
                worst = max(worst, abs(logprobs[at, token].item() - lp))
                count += 1
                if temperature == "0" and logits[at].max().item() - logits[at, token].item() > 1e-4:
                    problems.append(f"{prompt!r}: greedy token {i} is {token}, transformers' {logits[at].argmax().item()}")
            if temperature == "0":
                text = tokenizer.decode(made["tokens"], skip_special_tokens=True)
                if text != made["text"] and "\ufffd" not in text:
                    problems.append(f"{prompt!r}: text {made['text']!r}, transformers' {text!r}")
    if worst > LIMIT:
        problems.append(f"log-probabilities differ by {worst:g}")
    return worst, count, problems


def marked(tokenizer, ids, mask):
    """The text with its trained tokens in brackets, as `ringtail data show` prints it."""
    out, at = "", 0
    while at < len(ids):
        end = at
        while end < len(ids) and mask[end] == mask[at]:
            end += 1
        text = tokenizer.decode(ids[at:end])
        out += f"\u27e6{text}\u27e7" if mask[at] else text
        at = end
    return out


def check_chats(program, folder, tokenizer, scratch):
    problems = []
    for i, chat in enumerate(CHATS):
        messages = [{"role": role, "content": content} for role, content in chat]
        path = os.path.join(scratch, "chat.jsonl")
        with open(path, "w") as f:
            f.write(json.dumps({"messages": messages}) + "\n")
        shown = ringtail(program, "data", "show", path, "--model", folder, "--color", "never").split("\n", 1)[1]
        kept = tokenizer.apply_chat_template(messages, tokenize=False)
        if shown.replace("\u27e6", "").replace("\u27e7", "").rstrip("\n") != kept.rstrip("\n"):
            problems.append(f"chat {i}: Ringtail renders {shown!r}, transformers {kept!r}")
        if "generation" in (tokenizer.chat_template or ""):
            both = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            want = marked(tokenizer, both["input_ids"], both["assistant_masks"])
            if shown.rstrip("\n") != want.rstrip("\n"):
                problems.append(f"chat {i}: Ringtail trains {shown!r}, transformers {want!r}")
    return problems


def check(program, folder, name):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    worst, count, problems = check_generation(program, folder, model, tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        problems += check_chats(program, folder, tokenizer, scratch)
    print(f"{name}: {count} log-probabilities differ by at most {worst:.2g}, {len(CHATS)} chats; {len(problems)} problems")
    for p in problems:
        print("   ", p)
    return not problems


def variants(vocab):
    base = dict(vocab_size=vocab, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
                num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, eos_token_id=0)
    theta = {"rope_theta": 10000.0}
    draw = random.Random(5)
    yield "attention_bias", LlamaForCausalLM, LlamaConfig(**base, attention_bias=True), torch.float32
    yield "mlp_bias", LlamaForCausalLM, LlamaConfig(**base, mlp_bias=True), torch.float32
    yield "both biases, tied, bfloat16", LlamaForCausalLM, LlamaConfig(**base, attention_bias=True, mlp_bias=True, tie_word_embeddings=True), torch.bfloat16
    yield "float16, wide heads", LlamaForCausalLM, LlamaConfig(**base, head_dim=24), torch.float16
    yield "gelu", LlamaForCausalLM, LlamaConfig(**base, hidden_act="gelu"), torch.float32
    for kind, more in {
        "linear": {"factor": 2.0},
        "dynamic": {"factor": 2.0},
        "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
        "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        "longrope": {"short_factor": [draw.uniform(1, 2) for _ in range(4)], "long_factor": [draw.uniform(2, 8) for _ in range(4)], "original_max_position_embeddings": 256},
    }.items():
        yield "rope " + kind, LlamaForCausalLM, LlamaConfig(**base, rope_parameters={"rope_type": kind, **theta, **more}), torch.float32
    yield "mistral, window of 8", MistralForCausalLM, MistralConfig(**base, sliding_window=8), torch.float32


def check_variants(program, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    good = True
    for name, cls, config, dtype in variants(len(tokenizer)):
        torch.manual_seed(3)
        model = cls(config)
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(torch.rand_like(p) + 0.5 if "norm" in n else torch.randn_like(p) * (0.1 if p.dim() == 1 else 0.2))
        with tempfile.TemporaryDirectory() as scratch:
            start, run = os.path.join(scratch, "start"), os.path.join(scratch, "run")
            model.to(dtype).save_pretrained(start)
            tokenizer.save_pretrained(start)
            with open(os.path.join(scratch, "chats.jsonl"), "w") as f:
                for i in range(40):
                    f.write(json.dumps({"instruction": f"say {i}", "output": f"{i} it is"}) + "\n")
            with open(os.path.join(scratch, "recipe.yaml"), "w") as f:
                f.write("model: start\ndata: {train: [chats.jsonl], max_tokens: 128, held_out: 0}\n"
                        "train: {steps: 3, batch: 4, lr: 0.003}\nsamples: {off: true}\n")
            good &= check(program, start, name + ", as transformers wrote it")
            ringtail(program, "train", "sft", os.path.join(scratch, "recipe.yaml"), "--dir", run, "--quiet")
            good &= check(program, os.path.join(run, "model"), name + ", as Ringtail trained and wrote it")
    return good


def main():
    args = sys.argv[1:]
    if len(args) < 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args[0] == "--variants":
        return check(args[1], args[2], args[2]) & check_variants(args[1], args[2])
    return all([check(args[0], folder, folder) for folder in args[1:]])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
