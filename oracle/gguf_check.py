#!/usr/bin/env python3
"""Compares Ringtail's GGUF with the Python package gguf and with transformers' own loader of GGUF.

    python3 oracle/gguf_check.py testdata OUT.gguf [SEED]   a file with every type that Ringtail reads, and what it holds as float32
    python3 oracle/gguf_check.py check RINGTAIL GOLDEN      converts GOLDEN/models/* and GOLDEN/tokenizers/* and compares

`testdata` made gguf/testdata/types.gguf; other seeds and sizes (ROWS, default 2) make more: RINGTAIL_GGUF=FOLDER go test ./gguf
reads every file there. `check` needs the program and the packages of requirements.txt, and exits with 1 if anything differs.
"""
import os
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

READ = [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
WRITE = [T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0]
# Where the f16 (f32 for Q8_K) scales of a block lie, which random bytes would make infinite now and then.
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}


def blocks(rng, kind, rows, width):
    """Random blocks of a type: every bit of the quantised values and small scales is used."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    n = width // elements
    if kind in SCALES:
        data = rng.integers(0, 256, (rows * n, size), dtype=np.uint8)
        for at in SCALES[kind]:
            scale = (rng.standard_normal(rows * n) * 10.0 ** rng.integers(-7, 3, rows * n)).astype(np.float16)
            data[:, at:at + 2] = scale.view(np.uint8).reshape(-1, 2)
        return data.reshape(rows, n * size)
    values = (rng.standard_normal((rows, width)) * 10.0 ** rng.integers(-9, 4, (rows, width))).astype(np.float32)
    return gguf.quantize(values, kind) if kind != T.F32 else values


def source(rng, rows, width):
    """Values to be quantised: of all sizes, ties, zeros, one sign, equal magnitudes, tiny, large."""
    x = (rng.standard_normal((rows, width)) * 10.0 ** rng.integers(-9, 4, (rows, 1))).astype(np.float32)
    b = x.reshape(-1, 32)
    for i in range(len(b)):
        match rng.integers(0, 10):
            case 0: b[i] = 0
            case 1: b[i] = np.abs(b[i])
            case 2: b[i] = np.where(rng.random(32) < .5, 1, -1) * np.abs(b[i, 0])
            case 3: b[i] = rng.integers(-254, 255, 32) / np.float32(2)  # ties of both roundings
            case 4: b[i, rng.integers(0, 32)] = 60000
            case 5: b[i] *= np.float32(1e-26)  # far below f16; where 1/d overflows (1e-38), numpy casts infinities to bytes
    return x


def testdata(path, seed):
    rng = np.random.default_rng(seed)
    rows = int(os.environ.get("ROWS", "2"))
    w = gguf.GGUFWriter(path, "test")
    w.add_uint8("kind.u8", 200); w.add_int8("kind.i8", -100); w.add_uint16("kind.u16", 60000); w.add_int16("kind.i16", -30000)
    w.add_uint32("kind.u32", 4000000000); w.add_int32("kind.i32", -2000000000); w.add_float32("kind.f32", 0.1)
    w.add_bool("kind.bool", True); w.add_string("kind.string", "é 你好 🙂"); w.add_uint64("kind.u64", 1 << 63)
    w.add_int64("kind.i64", -(1 << 62)); w.add_float64("kind.f64", 0.1)
    w.add_array("array.string", ["a", "", "你好"]); w.add_array("array.i32", [1, -2, 3]); w.add_array("array.f32", [0.5, -1.25])
    w.add_array("array.bool", [True, False, True]); w.add_array("array.array", [[1, 2], [3]])
    for kind in READ:
        data = blocks(rng, kind, rows, 256)
        with np.errstate(all="ignore"):
            values = gguf.dequantize(data, kind)
        w.add_tensor(f"{kind.name}.data", data, raw_dtype=kind)
        w.add_tensor(f"{kind.name}.f32", values.reshape(rows, 256))
    x = source(rng, rows * 8, 64)
    w.add_tensor("source.f32", x)
    for kind in WRITE[1:]:
        with np.errstate(all="ignore"):
            w.add_tensor(f"source.{kind.name}", gguf.quantize(x, kind), raw_dtype=kind)
    for name, dtype in {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64}.items():
        v = rng.standard_normal((3, 5)) * 1e3 if dtype == np.float64 else \
            rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (3, 5), dtype=dtype)
        w.add_tensor(f"{name}.data", v.astype(dtype))
        w.add_tensor(f"{name}.f32", v.astype(dtype).astype(np.float32))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def permute(w, heads):
    """LLaMA's rows of q and k, for a rotation of neighbouring columns."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def expected(folder):
    """What llama.cpp's converter makes of a folder's tensors, by the name map of Python's gguf: its rules, written anew."""
    from safetensors.numpy import load_file
    from transformers import AutoConfig
    config = AutoConfig.from_pretrained(folder)
    kind = {"mistral": "llama", "mixtral": "llama", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3", "gpt_neox": "gptneox"} \
        .get(config.model_type, config.model_type)
    arch = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}.get(kind)
    if arch is None:
        return None, None
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    heads, out, experts = config.num_attention_heads, {}, {}
    for name, w in load_file(os.path.join(folder, "model.safetensors")).items():
        base, suffix = name.rsplit(".", 1)
        if kind == "llama" and base.endswith("q_proj"):
            w = permute(w, heads)
        if kind == "llama" and base.endswith("k_proj"):
            w = permute(w, config.num_key_value_heads)
        if kind in ("gemma", "gemma2", "gemma3") and name.endswith("norm.weight"):
            w = w + np.float32(1)
        if kind == "gpt2" and w.ndim == 2 and base.split(".")[-1] in ("c_attn", "c_proj", "c_fc"):
            w = w.T
        if kind in ("bloom", "gptneox") and base.endswith("query_key_value"):
            parts = w.reshape(heads, 3, w.shape[0] // heads // 3, *w.shape[1:])
            w = np.concatenate([parts[:, i].reshape(-1, *w.shape[1:]) for i in range(3)])
        if ".experts." in base:
            before, after = base.split(".experts.")
            number, which = after.split(".")
            merged = f"{before.replace('model.', '').replace('block_sparse_moe', 'feed_forward')}.experts.{which}" \
                if kind == "llama" else f"{before}.experts.{which}"
            experts.setdefault((merged, suffix), {})[int(number)] = w
            continue
        new = names.get_name(base) or names.get_name(base.removeprefix("transformer."))
        out[f"{new}.{suffix}"] = w
    for (base, suffix), parts in experts.items():
        out[f"{names.get_name(base)}.{suffix}"] = np.stack([parts[i] for i in range(len(parts))])
    return config, out


def ringtail(program, *args, fails=False):
    import subprocess
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if fails is not None and (done.returncode != 0) != fails:
        raise SystemExit(f"ringtail {' '.join(args)}: {done.returncode}: {done.stderr}")
    return done.stdout + done.stderr


def same_bits(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def check_tensors(path, want, dtype):
    """Names, shapes, types and bits of every tensor."""
    bad = []
    reader = gguf.GGUFReader(path)
    have = {t.name: t for t in reader.tensors}
    extra = set(have) - set(want) - {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
    if extra or set(want) - set(have):
        return [f"tensors {sorted(extra)} too many, {sorted(set(want) - set(have))} missing"], reader
    kind = T[dtype.upper()]
    for name, w in want.items():
        t, w = have[name], np.ascontiguousarray(w)
        block = gguf.GGML_QUANT_SIZES[kind][0]
        keep = w.ndim < 2 or name == "position_embd.weight" or name.endswith("ffn_gate_inp.weight")
        tied = "output.weight" not in want and name == "token_embd.weight"
        k = T.F32 if keep else T.F16 if w.shape[-1] % block else T.Q8_0 if kind == T.Q4_0 and (name == "output.weight" or tied) else kind
        if t.tensor_type != k:
            bad.append(f"{name} is {t.tensor_type.name}, expected {k.name}")
        elif not same_bits(t.data, gguf.quantize(w, k)):
            bad.append(f"{name}: other bits")
    return bad, reader


def default_rope(config):
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default") == "default" and \
        getattr(config, "head_dim", None) in (None, config.hidden_size // config.num_attention_heads)


def logits(ids, shape, *args, **kwargs):
    import torch
    from transformers import AutoModelForCausalLM
    if any(getattr(shape, k, None) for k in ("num_experts", "num_local_experts")):
        kwargs["experts_implementation"] = "eager"  # the others want aligned shapes
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(*args, dtype=torch.float32, **kwargs).eval()(ids).logits


def check_models(program, golden, tmp):
    import torch
    failed = 0
    loads = {"llama", "qwen2", "qwen3", "qwen3_moe", "gemma3_text", "phi3", "bloom", "gpt2"}  # transformers' own loader; it has no mistral by that name
    for name in sorted(os.listdir(os.path.join(golden, "models"))):
        folder = os.path.join(golden, "models", name)
        config, want = expected(folder)
        path = os.path.join(tmp, name + ".gguf")
        if want is None:
            print(f"{name:22} no architecture in GGUF; refused: {'no architecture' in ringtail(program, 'convert', '--model', folder, '--out', path, fails=True)}")
            continue
        tried = ringtail(program, "convert", "--model", folder, "--out", path, fails=None)
        if "GGUF" in tried and ("can't say" in tried or "no form" in tried):
            print(f"{name:22} {tried.split(': ', 2)[-1].strip()}")
            continue
        bad = []
        for dtype in ("f32", "f16", "bf16", "q8_0", "q4_0"):
            quant = path.replace(".gguf", f"-{dtype}.gguf")
            ringtail(program, "convert", "--model", folder, "--out", quant, "--dtype", dtype)
            bad += [f"{dtype}: {b}" for b in check_tensors(quant, want, dtype)[0]]
        line = "tensors as llama.cpp's converter makes them, in 5 types"
        if config.model_type in loads:
            ids = torch.randint(3, config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(1))
            # transformers' loader takes no windows, rope factors, or (of Qwen3) head_dim from the metadata: config.json gives them.
            given = {} if config.model_type in ("llama", "qwen2", "qwen3_moe", "phi3", "bloom", "gpt2") and default_rope(config) else {"config": config}
            a, b = logits(ids, config, folder), logits(ids, config, tmp, gguf_file=f"{name}-f32.gguf", **given)
            diff = (a - b).abs().max().item() / a.abs().max().item()
            line += f"; transformers' logits{' (config.json given)' if given else ''} differ by {diff:.1e}"
            if not diff < 1e-5:
                bad.append(f"transformers' logits differ by {diff:.1e}")
        back = os.path.join(tmp, name + "-back")
        ringtail(program, "convert", "--model", path.replace(".gguf", "-f32.gguf"), "--out", back)
        ids = torch.randint(3, config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(2))
        a, b = logits(ids, config, folder), logits(ids, config, back)
        diff = (a - b).abs().max().item() / a.abs().max().item()
        line += f"; the folder made of it, by {diff:.1e}"
        if not diff < 1e-5:
            bad.append(f"logits of the folder made of it differ by {diff:.1e}")
        print(f"{name:22} {line}" + "".join(f"\n    {b}" for b in bad), flush=True)
        failed += bool(bad)
    return failed


def vocabulary_file(path, pre, source):
    """A GGUF file with a tokenizer alone, as llama.cpp's converter writes it: of a tokenizer.json on bytes, or a sentencepiece model."""
    w = gguf.GGUFWriter(path, "llama")
    kinds = gguf.TokenType
    if source.endswith(".json"):
        import json
        import shutil
        from tokenizers import Tokenizer
        t = Tokenizer.from_file(source)
        tokens = sorted(t.get_vocab(with_added_tokens=True).items(), key=lambda x: x[1])
        added = t.get_added_tokens_decoder()
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list([k for k, _ in tokens])
        w.add_token_types([(kinds.CONTROL if added[i].special else kinds.USER_DEFINED) if i in added else kinds.NORMAL for _, i in tokens])
        shutil.copy(source, os.path.join(os.path.dirname(path), "tokenizer.json"))
        gguf.SpecialVocab(os.path.dirname(path), load_merges=True).add_to_gguf(w, quiet=True)
        os.remove(os.path.join(os.path.dirname(path), "tokenizer.json"))
        assert json.load(open(source))["post_processor"] is None
    else:
        from sentencepiece import SentencePieceProcessor
        sp = SentencePieceProcessor()
        sp.LoadFromFile(source)
        def kind(i):
            return kinds.UNKNOWN if sp.IsUnknown(i) else kinds.CONTROL if sp.IsControl(i) else kinds.UNUSED if sp.IsUnused(i) else \
                kinds.BYTE if sp.IsByte(i) else kinds.NORMAL
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list([sp.IdToPiece(i).encode() for i in range(sp.vocab_size())])
        w.add_token_scores([sp.GetScore(i) for i in range(sp.vocab_size())])
        w.add_token_types([kind(i) for i in range(sp.vocab_size())])
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def check_tokenizers(program, golden, tmp):
    """Files of llama.cpp's form give the ids of the tokenizers that they were made of."""
    import json
    failed = 0
    for name, pre in {"gpt2_bytelevel.json": "gpt-2", "llama3_regex.json": "smaug-bpe", "qwen2_regex_nfc.json": "qwen2", "sentencepiece_bpe.model": None}.items():
        source, path = os.path.join(golden, "tokenizers", name), os.path.join(tmp, name + ".gguf")
        if not os.path.exists(source):
            continue
        vocabulary_file(path, pre, source)
        vectors = json.load(open(source.rsplit(".", 1)[0] + ".vectors.json"))[:80]
        bad = []
        for v in vectors:
            if "\0" in v["text"]:
                continue
            special = name.endswith(".json")
            ids = json.loads(ringtail(program, "tokenizer", "encode", "--model", path, "--json", *(["--special"] if special else []), "--", v["text"])) or []
            if ids != v["ids"]:
                bad.append(f"{v['text']!r}: {ids}, expected {v['ids']}")
        print(f"{name:26} {len(vectors)} texts, {len(bad)} with other ids" + "".join(f"\n    {b}" for b in bad[:3]), flush=True)
        failed += bool(bad)
    return failed


def main_check(program, golden):
    import tempfile
    import logging
    import transformers
    logging.getLogger("transformers").setLevel(logging.ERROR)
    print(f"gguf {__import__('importlib.metadata').metadata.version('gguf')}, transformers {transformers.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as tmp:
        failed = check_models(program, golden, tmp) + check_tokenizers(program, golden, tmp)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if len(sys.argv) >= 3 and sys.argv[1] == "testdata":
        testdata(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    elif len(sys.argv) == 4 and sys.argv[1] == "check":
        main_check(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
