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


if __name__ == "__main__":
    if len(sys.argv) >= 3 and sys.argv[1] == "testdata":
        testdata(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    else:
        sys.exit(__doc__)
