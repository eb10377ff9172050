#!/usr/bin/env python3
"""The peer of `ringtail bench sft 15m`: the same LLaMA shape in PyTorch and transformers, on the CPU.

Waits for a line on standard input, makes STEPS training steps (random tokens, 8 x 256, float32, clipping, fused
AdamW), prints one JSON line, waits again; so that a driver can interleave it with others.
"""
import argparse, json, sys, time
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ap = argparse.ArgumentParser()
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--steps", type=int, default=3)
a = ap.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
cfg = LlamaConfig(vocab_size=32000, hidden_size=288, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
                  max_position_embeddings=512, tie_word_embeddings=True)
cfg._attn_implementation = "sdpa"
model = LlamaForCausalLM(cfg)
opt = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
B, S = 8, 256

def step():
    x = torch.randint(0, 32000, (B, S))
    loss = model(input_ids=x, labels=x).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    opt.zero_grad(set_to_none=True)
    return loss

step()
print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    times = []
    for _ in range(a.steps):
        t = time.perf_counter(); loss = step(); times.append(time.perf_counter() - t)
    times.sort()
    print(json.dumps({"bench": "sft", "model": "15m", "threads": a.threads, "tok_per_s": round(B * S / times[len(times) // 2], 1), "loss": round(loss.item(), 4)}), flush=True)
