"""Writes torchfile/testdata: tiny files of torch.save in each form, and what torch reads from them.

    python oracle/torch_files.py torchfile/testdata

Needs torch (see requirements.txt); the files here were made with 2.11.
"""
import collections
import io
import json
import os
import pickle
import sys
import zipfile

import torch

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
torch.manual_seed(5)


def tensors():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 - 1
    weight = torch.nn.Parameter(torch.randn(3, 5))
    d = collections.OrderedDict()
    d["f32"] = base
    d["transposed"] = base.t()
    d["rows"] = base[1:3]
    d["column"] = base[:, 2]
    d["block"] = base[1:, 2:5]
    d["permuted"] = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4).permute(2, 0, 1)
    d["steps"] = torch.arange(10, dtype=torch.int64)[1::3]
    d["expanded"] = torch.tensor([[1.5], [-2.0]]).expand(2, 4)
    d["parameter"] = weight
    d["tied"] = weight.detach()
    d["f16"] = torch.tensor([1.0, -0.5, 65504.0, 6e-8], dtype=torch.float16)
    d["bf16"] = torch.tensor([[3.140625, -1e30], [0.0, 1e-40]], dtype=torch.bfloat16)
    d["f64"] = torch.tensor([1 / 3, 1e10], dtype=torch.float64)
    d["i64"] = torch.tensor([-1, 1 << 40])
    d["i32"] = torch.tensor([-7, 1 << 30], dtype=torch.int32)
    d["i16"] = torch.tensor([-300, 7], dtype=torch.int16)
    d["i8"] = torch.tensor([-128, 127], dtype=torch.int8)
    d["u8"] = torch.tensor([0, 255], dtype=torch.uint8)
    d["bool"] = torch.tensor([True, False, True])
    d["scalar"] = torch.tensor(2.5)
    d["empty"] = torch.empty(0, 3)
    d["größe"] = torch.tensor([1.0])
    return d


def small():
    return {"w": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


leaves = {
    "step": 7, "big": 1 << 90, "negative": -(1 << 33), "loss": 0.25, "name": "tiny", "blob": b"\x00\xff", "none": None, "flags": (True, False, (1, 2, 3, 4)),
    "list": [1, [2, {}]], "set": {1, 2}, "frozen": frozenset([3]), "size": torch.Size([1, 2]), "dtype": torch.bfloat16, "device": torch.device("cpu"), 5: 6,
}
loop = {"state_dict": small()}
loop["self"] = loop
linear = torch.nn.Linear(2, 2)
attributes = torch.nn.Parameter(torch.ones(2))
attributes.note = "an attribute"

files = {
    "zip.bin": (tensors(), {}),
    "zip-protocol3.bin": (small(), {"pickle_protocol": 3}),
    "zip-protocol4.bin": ({"model": small(), **leaves}, {"pickle_protocol": 4}),
    "zip-protocol5.bin": ({"w": torch.ones(1), **leaves}, {"pickle_protocol": 5}),
    "legacy.bin": (tensors(), {"_use_new_zipfile_serialization": False}),
    "legacy-protocol4.bin": ({"model": small(), **leaves}, {"_use_new_zipfile_serialization": False, "pickle_protocol": 4}),
    "leaves.pt": ({"epoch": 1, **leaves, "state_dict": small()}, {}),
    "nested.pt": ({"module": {"model": {"module." + k: v for k, v in small().items()}}, "rng": torch.ones(3, dtype=torch.uint8)}, {}),
    "compiled.pt": ({"_orig_mod.module." + k: v for k, v in small().items()}, {}),
    "loop.pt": (loop, {}),
    "untyped.pt": ({"u16": torch.tensor([1, 65535], dtype=torch.uint16), "u32": torch.tensor([1, 4294967295], dtype=torch.uint32)}, {}),
    "attributes.pt": ({"p": attributes}, {}),
    "linear.pt": (linear.state_dict(), {}),
}

names = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16",
         torch.int8: "I8", torch.uint8: "U8", torch.uint16: "U16", torch.uint32: "U32", torch.bool: "BOOL"}
expected = {}
for name, (content, options) in files.items():
    path = os.path.join(out, name)
    torch.save(content, path, **options)
    read = torch.load(path, weights_only=name not in ("zip-protocol4.bin", "zip-protocol5.bin", "legacy-protocol4.bin", "leaves.pt", "attributes.pt"))
    while any(k in read for k in ("state_dict", "model", "module")):
        read = next(read[k] for k in ("state_dict", "model", "module") if k in read)
    expected[name] = [
        {"name": k.removeprefix("_orig_mod.").removeprefix("module."), "dtype": names[v.dtype], "shape": list(v.shape),
         "values": v.detach().to(torch.float64).to(torch.float32).flatten().tolist()}
        for k, v in read.items() if isinstance(k, str) and isinstance(v, torch.Tensor)]
with open(os.path.join(out, "expected.json"), "w") as f:
    json.dump(expected, f, separators=(",", ":"), ensure_ascii=False)
    f.write("\n")

# Files that are to be refused.
class Evil:
    def __reduce__(self):
        return os.system, ("echo this must never be printed",)


torch.save({"w": torch.ones(1), "x": Evil()}, os.path.join(out, "evil.pt"))
torch.save({"w": torch.ones(1), "x": Evil()}, os.path.join(out, "evil-legacy.pt"), _use_new_zipfile_serialization=False)
torch.save(linear, os.path.join(out, "module.pt"))
torch.save(torch.ones(2), os.path.join(out, "tensor.pt"))
torch.save({"w": torch.ones(2).to(torch.float8_e4m3fn)}, os.path.join(out, "float8.pt"))
torch.save({"w": torch.tensor([1j])}, os.path.join(out, "complex.pt"))
torch.save({"step": 1, "lr": 0.1}, os.path.join(out, "no-tensors.pt"))
torch.jit.save(torch.jit.script(linear), os.path.join(out, "script.pt"))
with open(os.path.join(out, "plain.pkl"), "wb") as f:
    pickle.dump({"a": 1}, f)

# An archive that was packed again, with compression.
with zipfile.ZipFile(os.path.join(out, "linear.pt")) as z, zipfile.ZipFile(os.path.join(out, "compressed.pt"), "w", zipfile.ZIP_DEFLATED) as w:
    for e in z.infolist():
        w.writestr(e.filename, z.read(e))
print(torch.__version__, {n: os.path.getsize(os.path.join(out, n)) for n in sorted(os.listdir(out))})

# Tiny models for package model, in model/testdata/torch/FAMILY: what transformers saves, and
# the same decoder in the classes that DeepSpeed-Chat and ColossalChat save reward models with.
if len(sys.argv) > 2:
    import shutil

    import transformers

    shape = dict(vocab_size=24, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    families = {
        "llama": transformers.LlamaConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
                                          tie_word_embeddings=False, **shape),
        "opt": transformers.OPTConfig(hidden_size=8, ffn_dim=12, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16, word_embed_proj_dim=8, **shape),
        "bloom": transformers.BloomConfig(hidden_size=8, n_layer=1, n_head=2, **shape),
        "gpt2": transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=16, **shape),
    }

    class DeepSpeedChat(torch.nn.Module):  # dschat/utils/model/reward_model.py
        def __init__(self, decoder, name="rwtransformer"):
            super().__init__()
            self.v_head = torch.nn.Linear(8, 1, bias=False)
            setattr(self, name, decoder)

    class ColossalChat(torch.nn.Module):  # coati/models/{base,reward_model}.py
        def __init__(self, decoder):
            super().__init__()
            self.model = decoder
            self.value_head = torch.nn.Linear(8, 1)

    once = "llama"  # has the forms that don't depend on the family
    for family, config in families.items():
        lm = transformers.AutoModelForCausalLM.from_config(config)
        at = os.path.join(sys.argv[2], family)
        shutil.rmtree(at, ignore_errors=True)
        lm.save_pretrained(os.path.join(at, "safetensors"))

        def folder(name):
            dir = os.path.join(at, name)
            os.makedirs(dir)
            shutil.copy(os.path.join(at, "safetensors", "config.json"), dir)
            return dir

        state = lm.state_dict()
        torch.save(state, os.path.join(folder("bin"), "pytorch_model.bin"))
        names = list(state)
        for name, file in (("shards", "pytorch_model-{:05d}-of-00002.bin"), ("colossal-shards", "pytorch_model-{:05d}.bin")) * (family == once):
            dir, where = folder(name), {}
            for i in (1, 2):
                part = {k: state[k].clone() for k in names[(i - 1) * len(names) // 2:i * len(names) // 2]}
                torch.save(part, os.path.join(dir, file.format(i)))
                where |= {k: file.format(i) for k in part}
            with open(os.path.join(dir, "pytorch_model.bin.index.json"), "w") as f:
                json.dump({"metadata": {"total_size": 0}, "weight_map": where}, f)
        decoder = lm.base_model
        for name, rm in (("deepspeed-rm", DeepSpeedChat(decoder)), ("deepspeed-old-rm", DeepSpeedChat(decoder, "rwtranrsformer")), ("colossal-rm", ColossalChat(decoder))):
            if "old" in name and family != once:
                continue
            head = rm.v_head if hasattr(rm, "v_head") else rm.value_head
            head.weight.data = torch.arange(8, dtype=torch.float32).reshape(1, 8) / 4
            torch.save(rm.state_dict(), os.path.join(folder(name), "pytorch_model.bin"))
    print(transformers.__version__, sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(sys.argv[2]) for f in fs), "bytes")
