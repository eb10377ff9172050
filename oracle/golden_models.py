#!/usr/bin/env python3
"""Makes golden model folders of the form of shared/golden with other seeds and shapes: every
family that Ringtail knows, with the features that its configurations choose between.

    python3 golden_models.py OUT [SEED]
    RINGTAIL_GOLDEN=OUT go test ./model ./engine -run Golden
"""
import inspect, json, os, random, sys, torch
from safetensors.torch import save_file
import families

out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
rnd = random.Random(seed)
torch.manual_seed(seed)
torch.set_num_threads(1)

def case(name, cls, cfg):
    d = os.path.join(out, "models", name); os.makedirs(d, exist_ok=True)
    cfg._attn_implementation = "eager"; cfg._experts_implementation = "eager"
    m = cls(cfg).float().eval()
    with torch.no_grad():
        for n, q in m.named_parameters():
            if q.dim() == 1 and n.endswith("bias"): q.copy_(torch.randn_like(q) * 0.1)
            elif q.dim() == 1: q.copy_(torch.rand_like(q) + (-0.5 if "Gemma" in cls.__name__ else 0.5)) # norms
            else: q.mul_(float(os.environ.get("SCALE", "3")))
    m.save_pretrained(d)
    B, S = rnd.randint(2, 4), rnd.randint(9, int(os.environ.get("LONGEST", "40")))
    ids = torch.randint(3, cfg.vocab_size, (B, S)); mask = torch.ones_like(ids)
    for r in range(1, B):
        n = rnd.randint(1, S - 4)
        if rnd.random() < .5: mask[r, S - n:] = 0
        else: mask[r, :n] = 0
    ids[mask == 0] = 0
    labels = ids.clone(); labels[mask == 0] = -100
    labels[torch.rand(labels.shape) < .3] = -100
    pos = (mask.cumsum(1) - 1).clamp(min=0)
    # A label is predicted only from an unmasked token before it.
    first = (mask.cumsum(1) == 1) & (mask == 1); labels[first] = -100
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in inspect.signature(m.forward).parameters: inputs["position_ids"] = pos
    o = m(**inputs, labels=labels)
    o.loss.backward()
    io = {"input_ids": ids, "attention_mask": mask, "labels": labels, "logits": o.logits.detach().contiguous(), "loss": o.loss.detach().reshape(1)}
    for r in range(2):
        p = ids[r][mask[r] == 1][None]
        g = m.generate(input_ids=p, attention_mask=torch.ones_like(p), max_new_tokens=20, min_new_tokens=20, do_sample=False, pad_token_id=0)
        io[f"greedy_{r}"] = g[0, p.shape[1]:].contiguous()
    save_file(io, os.path.join(d, "io.safetensors"))
    save_file({"grad." + n: p.grad.contiguous() for n, p in m.named_parameters() if p.grad is not None}, os.path.join(d, "grads.safetensors"))
    m.zero_grad()
    opt = torch.optim.AdamW(m.parameters(), lr=1e-3, betas=(.9, .95), eps=1e-8, weight_decay=.1)
    losses, norms = [], []
    for _ in range(3):
        o = m(**inputs, labels=labels); o.loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0))); losses.append(float(o.loss)); opt.step(); opt.zero_grad()
    after = {n: p.detach().clone().contiguous() for n, p in m.named_parameters()}
    save_file(after, os.path.join(d, "after_3_adamw_steps.safetensors"))
    json.dump({"losses": losses, "grad_norms": norms}, open(os.path.join(d, "train.json"), "w"))
    print(name, losses[0], norms[0], flush=True)

for name, cls, cfg in families.configurations(seed): case(name, cls, cfg)
