#!/usr/bin/env python3
"""Makes golden model folders of the form of shared/golden with other seeds and shapes: every
family that Ringtail knows, with the features that its configurations choose between.

    python3 golden_models.py OUT [SEED]
    RINGTAIL_GOLDEN=OUT go test ./model ./engine -run Golden
"""
import inspect, json, os, random, sys, torch
import transformers as tf
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
rnd = random.Random(seed)
torch.manual_seed(seed)
torch.set_num_threads(1)

def rope(kind, dim):
    p = {"rope_type": kind, "rope_theta": 10000.0}
    if kind in ("linear", "dynamic"): p["factor"] = 4.0
    if kind == "llama3": p |= {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    if kind == "yarn": p |= {"factor": 4.0, "original_max_position_embeddings": 32}
    if kind == "longrope":
        p |= {"short_factor": [rnd.uniform(1, 2) for _ in range(dim // 2)], "long_factor": [rnd.uniform(2, 8) for _ in range(dim // 2)],
              "original_max_position_embeddings": 64}
    return p

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

for i, kind in enumerate(["default", "linear", "dynamic", "llama3", "yarn", "longrope"] * 2):
    kv = rnd.choice([1, 2, 3]); heads = kv * rnd.choice([1, 2, 4]); dim = rnd.choice([8, 12, 16, 20]); bias = rnd.random() < .4
    cfg = LlamaConfig(vocab_size=rnd.randint(50, 500), hidden_size=heads * rnd.choice([8, 9, 12]), intermediate_size=rnd.choice([40, 66, 100]),
        num_hidden_layers=rnd.choice([1, 2, 3]), num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim, max_position_embeddings=256 if kind != "dynamic" else 128,
        rope_parameters=rope(kind, dim), tie_word_embeddings=rnd.random() < .5, attention_bias=bias, mlp_bias=bias and rnd.random() < .5,
        rms_norm_eps=rnd.choice([1e-5, 1e-6]), bos_token_id=1, eos_token_id=2)
    case(f"llama_{kind}_{i}", LlamaForCausalLM, cfg)
for i in range(2):
    case(f"mistral_{i}", MistralForCausalLM, MistralConfig(vocab_size=77 + i, hidden_size=48, intermediate_size=90, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, sliding_window=rnd.choice([3, 7, None]), bos_token_id=1, eos_token_id=2, max_position_embeddings=128))

def family(cls, cfg, n=2, **fields):
    """n models of a family; a field that is a function is drawn anew for each."""
    for i in range(n):
        heads = rnd.choice([2, 3, 4, 6])
        f = {"vocab_size": rnd.randint(50, 400), "hidden_size": heads * rnd.choice([8, 12]), "intermediate_size": rnd.choice([40, 66]),
            "num_hidden_layers": rnd.choice([2, 3]), "num_attention_heads": heads, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
            "max_position_embeddings": 128}
        f |= {k: v(f) if callable(v) else v for k, v in fields.items()}
        case(f"{cls.removesuffix('ForCausalLM').removesuffix('LMHeadModel').lower()}_{i}", getattr(tf, cls), getattr(tf, cfg)(**{k: v for k, v in f.items() if v is not ...}))

coin = lambda f: rnd.random() < .5
kv = lambda f: rnd.choice([h for h in (1, 2, 3) if f["num_attention_heads"] % h == 0])
types = lambda f: [rnd.choice(["sliding_attention", "full_attention"]) for _ in range(f["num_hidden_layers"])]
gelu = lambda f: rnd.choice(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
family("Qwen2ForCausalLM", "Qwen2Config", num_key_value_heads=kv, tie_word_embeddings=coin, use_sliding_window=True, sliding_window=5, layer_types=types)
family("Qwen3ForCausalLM", "Qwen3Config", num_key_value_heads=kv, tie_word_embeddings=coin, head_dim=10, attention_bias=coin)
family("Qwen3MoeForCausalLM", "Qwen3MoeConfig", num_key_value_heads=kv, head_dim=10, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=22,
    norm_topk_prob=coin, mlp_only_layers=lambda f: rnd.choice([[], [0]]), decoder_sparse_step=lambda f: rnd.choice([1, 2]))
family("MixtralForCausalLM", "MixtralConfig", num_key_value_heads=kv, num_local_experts=4, num_experts_per_tok=2, sliding_window=lambda f: rnd.choice([None, 6]))
family("GemmaForCausalLM", "GemmaConfig", num_key_value_heads=kv, head_dim=14)
family("Gemma2ForCausalLM", "Gemma2Config", num_key_value_heads=kv, head_dim=14, query_pre_attn_scalar=11, sliding_window=6, attn_logit_softcapping=4.0,
    final_logit_softcapping=6.0)
family("Gemma3ForCausalLM", "Gemma3TextConfig", num_key_value_heads=kv, head_dim=14, query_pre_attn_scalar=11, sliding_window=6, layer_types=types,
    final_logit_softcapping=lambda f: rnd.choice([None, 5.0]), attn_logit_softcapping=lambda f: rnd.choice([None, 4.0]),
    rope_parameters=lambda f: {"full_attention": rope(rnd.choice(["default", "linear"]), 14) | {"rope_theta": 1e6}, "sliding_attention": rope("default", 14)})
family("Phi3ForCausalLM", "Phi3Config", num_key_value_heads=kv, sliding_window=lambda f: rnd.choice([None, 7]), tie_word_embeddings=coin,
    hidden_size=lambda f: f["num_attention_heads"] * 12, rope_parameters=lambda f: rope(rnd.choice(["default", "longrope"]), 12),
    original_max_position_embeddings=64)
family("GPT2LMHeadModel", "GPT2Config", activation_function=gelu, n_inner=lambda f: rnd.choice([None, 50]), scale_attn_by_inverse_layer_idx=coin,
    scale_attn_weights=coin, intermediate_size=..., tie_word_embeddings=True, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0)
family("GPTNeoXForCausalLM", "GPTNeoXConfig", hidden_act=gelu, use_parallel_residual=coin, attention_bias=coin, tie_word_embeddings=coin,
    hidden_size=lambda f: f["num_attention_heads"] * 16, rope_parameters=lambda f: rope("default", 16) | {"partial_rotary_factor": rnd.choice([.25, .5, 1.0])})
family("OPTForCausalLM", "OPTConfig", n=4, activation_function=gelu, do_layer_norm_before=coin, word_embed_proj_dim=lambda f: rnd.choice([f["hidden_size"], 10]),
    enable_bias=coin, ffn_dim=44, intermediate_size=..., dropout=0.0)
family("BloomForCausalLM", "BloomConfig", n=4, apply_residual_connection_post_layernorm=coin, n_layer=2, n_head=lambda f: f["num_attention_heads"],
    num_attention_heads=lambda f: f["num_attention_heads"], intermediate_size=..., max_position_embeddings=...)
