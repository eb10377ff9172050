#!/usr/bin/env python3
"""Does training give PyTorch's losses? Same weights, same batches, same settings.

    ringtail bench same --init model       # GPT-2's shape of 125M, weights from a seed
    same.bin                               # any text's tokens: int32, --batch rows of --seq + 1 a step
    python3 torch_same.py --model model --batches same.bin --steps 300 > torch.json
    ringtail bench same --model model --batches same.bin --steps 300 --device cuda > ours.json
    python3 torch_same.py --compare ours.json torch.json   # exit status 1 where they differ

fp32 weights under bf16 autocast (--fp32: none), AdamW with weight decay on matrices only, clipping by the
global norm, a learning rate that rises for --warmup steps. Needs torch and transformers, as requirements.txt has them.
"""
import argparse, array, json, sys, time


def train(a):
    import torch
    import torch.nn.functional as F
    from transformers import GPT2LMHeadModel

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    model = GPT2LMHeadModel.from_pretrained(a.model, dtype=torch.float32, attn_implementation="sdpa",
                                            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False).to(a.device)
    model.train()
    tokens = array.array("i")
    with open(a.batches, "rb") as f:
        tokens.frombytes(f.read())
    n = a.steps * a.batch * (a.seq + 1)
    if len(tokens) < n:
        sys.exit(f"{a.batches} has {len(tokens)} tokens, {n} are needed")
    x = torch.tensor(tokens[:n], dtype=torch.long).view(a.steps, a.batch, a.seq + 1).to(a.device)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                            lr=a.lr, betas=(0.9, 0.95), eps=1e-8, fused=a.device == "cuda")
    losses, norms, begin = [], [], time.time()
    for i in range(a.steps):
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (i + 1) / max(a.warmup, 1))
        with torch.autocast(a.device, torch.bfloat16, enabled=not a.fp32):
            logits = model(input_ids=x[i, :, :-1]).logits
        loss = F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), x[i, :, 1:].reshape(-1))
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        opt.step()
        opt.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    losses, norms = torch.stack(losses).tolist(), torch.stack(norms).tolist()
    print(json.dumps({"bench": "same", "by": f"torch {torch.__version__}", "device": a.device, "mode": "fp32" if a.fp32 else "amp",
                      "batch": a.batch, "seq": a.seq, "losses": losses, "grad_norms": norms, "seconds": round(time.time() - begin, 2)}))


def compare(ours, theirs):
    a, b = (json.load(open(p)) for p in (ours, theirs))
    n = min(len(a["losses"]), len(b["losses"]))
    x, y = a["losses"][:n], b["losses"][:n]
    first = max(abs(p - q) / q for p, q in zip(x[:20], y[:20]))
    last = min(20, n)
    p, q = sum(x[-last:]) / last, sum(y[-last:]) / last
    off = max(abs(s - t) / t for s, t in zip(a["grad_norms"][:20], b["grad_norms"][:20]))
    print(json.dumps({"steps": n, "a": f"{a['by']}, {a['mode']}", "b": f"{b['by']}, {b['mode']}", "first": [x[0], y[0]],
                      "most_of_first_20": round(first, 6), "most_of_norms": round(off, 4), "mean_of_last_20": [round(p, 5), round(q, 5)],
                      "last_differs_by": round(p / q - 1, 5)}))
    return 0 if abs(p / q - 1) <= 0.005 and first <= 0.005 else 1


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--model")
p.add_argument("--batches")
p.add_argument("--steps", type=int, default=300)
p.add_argument("--batch", type=int, default=4)
p.add_argument("--seq", type=int, default=256)
p.add_argument("--lr", type=float, default=3e-4)
p.add_argument("--warmup", type=int, default=30)
p.add_argument("--device", default="cuda")
p.add_argument("--fp32", action="store_true", help="no autocast")
p.add_argument("--compare", nargs=2, metavar="JSON")
args = p.parse_args()
if args.compare:
    sys.exit(compare(*args.compare))
train(args)
