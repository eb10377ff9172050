"""Random configurations of every family that Ringtail knows, with the features that they choose between."""
import random
import transformers as tf

def configurations(seed):
    """Yields (name, class, configuration); small, and the same for a seed."""
    rnd = random.Random(seed)

    def rope(kind, dim):
        p = {"rope_type": kind, "rope_theta": 10000.0}
        if kind in ("linear", "dynamic"): p["factor"] = 4.0
        if kind == "llama3": p |= {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
        if kind == "yarn": p |= {"factor": 4.0, "original_max_position_embeddings": 32}
        if kind == "longrope":
            p |= {"short_factor": [rnd.uniform(1, 2) for _ in range(dim // 2)], "long_factor": [rnd.uniform(2, 8) for _ in range(dim // 2)],
                  "original_max_position_embeddings": 64}
        return p

    for i, kind in enumerate(["default", "linear", "dynamic", "llama3", "yarn", "longrope"] * 2):
        kv = rnd.choice([1, 2, 3]); heads = kv * rnd.choice([1, 2, 4]); dim = rnd.choice([8, 12, 16, 20]); bias = rnd.random() < .4
        cfg = tf.LlamaConfig(vocab_size=rnd.randint(50, 500), hidden_size=heads * rnd.choice([8, 9, 12]), intermediate_size=rnd.choice([40, 66, 100]),
            num_hidden_layers=rnd.choice([1, 2, 3]), num_attention_heads=heads, num_key_value_heads=kv, head_dim=dim, max_position_embeddings=256 if kind != "dynamic" else 128,
            rope_parameters=rope(kind, dim), tie_word_embeddings=rnd.random() < .5, attention_bias=bias, mlp_bias=bias and rnd.random() < .5,
            rms_norm_eps=rnd.choice([1e-5, 1e-6]), bos_token_id=1, eos_token_id=2)
        yield (f"llama_{kind}_{i}", tf.LlamaForCausalLM, cfg)
    for i in range(2):
        yield (f"mistral_{i}", tf.MistralForCausalLM, tf.MistralConfig(vocab_size=77 + i, hidden_size=48, intermediate_size=90, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=12, sliding_window=rnd.choice([3, 7, None]), bos_token_id=1, eos_token_id=2, max_position_embeddings=128))

    def family(cls, cfg, n=2, **fields):
        """n models of a family; a field that is a function is drawn anew for each."""
        for i in range(n):
            heads = rnd.choice([2, 3, 4, 6])
            f = {"vocab_size": rnd.randint(50, 400), "hidden_size": heads * rnd.choice([8, 12]), "intermediate_size": rnd.choice([40, 66]),
                "num_hidden_layers": rnd.choice([2, 3]), "num_attention_heads": heads, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
                "max_position_embeddings": 128}
            f |= {k: v(f) if callable(v) else v for k, v in fields.items()}
            yield (f"{cls.removesuffix('ForCausalLM').removesuffix('LMHeadModel').lower()}_{i}", getattr(tf, cls), getattr(tf, cfg)(**{k: v for k, v in f.items() if v is not ...}))

    coin = lambda f: rnd.random() < .5
    kv = lambda f: rnd.choice([h for h in (1, 2, 3) if f["num_attention_heads"] % h == 0])
    types = lambda f: [rnd.choice(["sliding_attention", "full_attention"]) for _ in range(f["num_hidden_layers"])]
    gelu = lambda f: rnd.choice(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
    yield from family("Qwen2ForCausalLM", "Qwen2Config", num_key_value_heads=kv, tie_word_embeddings=coin, use_sliding_window=True, sliding_window=5, layer_types=types)
    yield from family("Qwen3ForCausalLM", "Qwen3Config", num_key_value_heads=kv, tie_word_embeddings=coin, head_dim=10, attention_bias=coin)
    yield from family("Qwen3MoeForCausalLM", "Qwen3MoeConfig", num_key_value_heads=kv, head_dim=10, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=22,
        norm_topk_prob=coin, mlp_only_layers=lambda f: rnd.choice([[], [0]]), decoder_sparse_step=lambda f: rnd.choice([1, 2]))
    yield from family("MixtralForCausalLM", "MixtralConfig", num_key_value_heads=kv, num_local_experts=4, num_experts_per_tok=2, sliding_window=lambda f: rnd.choice([None, 6]))
    yield from family("GemmaForCausalLM", "GemmaConfig", num_key_value_heads=kv, head_dim=14)
    yield from family("Gemma2ForCausalLM", "Gemma2Config", num_key_value_heads=kv, head_dim=14, query_pre_attn_scalar=11, sliding_window=6, attn_logit_softcapping=4.0,
        final_logit_softcapping=6.0)
    yield from family("Gemma3ForCausalLM", "Gemma3TextConfig", num_key_value_heads=kv, head_dim=14, query_pre_attn_scalar=11, sliding_window=6, layer_types=types,
        final_logit_softcapping=lambda f: rnd.choice([None, 5.0]), attn_logit_softcapping=lambda f: rnd.choice([None, 4.0]),
        rope_parameters=lambda f: {"full_attention": rope(rnd.choice(["default", "linear"]), 14) | {"rope_theta": 1e6}, "sliding_attention": rope("default", 14)})
    yield from family("Phi3ForCausalLM", "Phi3Config", num_key_value_heads=kv, sliding_window=lambda f: rnd.choice([None, 7]), tie_word_embeddings=coin,
        hidden_size=lambda f: f["num_attention_heads"] * 12, rope_parameters=lambda f: rope(rnd.choice(["default", "longrope"]), 12),
        original_max_position_embeddings=64)
    yield from family("GPT2LMHeadModel", "GPT2Config", activation_function=gelu, n_inner=lambda f: rnd.choice([None, 50]), scale_attn_by_inverse_layer_idx=coin,
        scale_attn_weights=coin, intermediate_size=..., tie_word_embeddings=True, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0)
    yield from family("GPTNeoXForCausalLM", "GPTNeoXConfig", hidden_act=gelu, use_parallel_residual=coin, attention_bias=coin, tie_word_embeddings=coin,
        hidden_size=lambda f: f["num_attention_heads"] * 16, rope_parameters=lambda f: rope("default", 16) | {"partial_rotary_factor": rnd.choice([.25, .5, 1.0])})
    yield from family("OPTForCausalLM", "OPTConfig", n=4, activation_function=gelu, do_layer_norm_before=coin, word_embed_proj_dim=lambda f: rnd.choice([f["hidden_size"], 10]),
        enable_bias=coin, ffn_dim=44, intermediate_size=..., dropout=0.0)
    yield from family("BloomForCausalLM", "BloomConfig", n=4, apply_residual_connection_post_layernorm=coin, n_layer=2, n_head=lambda f: f["num_attention_heads"],
        num_attention_heads=lambda f: f["num_attention_heads"], intermediate_size=..., max_position_embeddings=...)
