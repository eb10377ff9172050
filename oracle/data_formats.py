"""Write the same rows in every container that `ringtail` reads, for package data's TestOracle.

    python oracle/data_formats.py OUT
    RINGTAIL_DATA_ORACLE=OUT go test ./data -run TestOracle -v
    python oracle/data_formats.py OUT --ringtail bin/ringtail     # compares `ringtail data show --json` as well

OUT/rows holds sets of chat rows: SET.jsonl is what a set must be read as, and beside it SET.* and SET-*/ hold the same
rows as Parquet (by pyarrow, in all its codecs and page versions, and by datasets), Arrow, zstd, gzip, CSV, and folders
of Hugging Face datasets. OUT/types holds columns of all types: NAME.json is what Python makes of NAME.parquet or
NAME.arrow, by the rules at the head of package data/parquet.

Needs datasets, pyarrow and zstandard from PyPI.
"""

import argparse
import base64
import datetime
import decimal
import gzip
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import zstandard

UNICODE = ["Grüße", "你好，世界", "שלום", "👩‍👩‍👧 family", "tab\there", 'quote "inside"', "line\nbreak", "back\\slash", "", "e\u0301", "\u2028"]


def words(rng, n):
    return " ".join(rng.choice(["the", "old", "clock", "of", "rain", "seven", "blue", *UNICODE]) for _ in range(n))


def row_sets(rng):
    """Chat rows of several formats, as lists of dicts."""
    chats = []
    for i in range(700):
        messages = []
        if rng.random() < 0.3:
            messages.append({"role": "system", "content": words(rng, 5) + "."})
        for _ in range(rng.randint(1, 4)):
            messages.append({"role": "user", "content": words(rng, rng.randint(1, 30)) + "?"})
            messages.append({"role": "assistant", "content": words(rng, rng.randint(1, 60)) + "."})
        chats.append({"messages": messages, "category": rng.choice(["a", "b"]), "n": i})
    tools = []
    for i in range(150):
        call = {"id": f"call_{i}", "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": words(rng, 1) + "x"})}}
        tools.append({
            "messages": [
                {"role": "user", "content": "Rain in " + words(rng, 2) + "?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": f"call_{i}", "content": "dry"},
                {"role": "assistant", "content": "No, it is dry.", "weight": 1},
            ],
            "tools": [{"type": "function", "function": {"name": "weather", "description": "Looks it up."}}],
        })
    alpaca = [{"instruction": words(rng, 6) + "?", "input": rng.choice(["", words(rng, 4)]), "output": words(rng, 20) + "."} for _ in range(400)]
    pairs = [{"prompt": words(rng, 6) + "?", "chosen": f"yes {i}" + words(rng, 8), "rejected": f"no {i}" + words(rng, 8),
              "score_chosen": rng.randint(5, 9) + 0.5, "score_rejected": float(rng.randint(0, 4))} for i in range(300)]
    kto = [{"prompt": [{"from": "user", "content": words(rng, 6) + "?"}], "completion": {"from": "assistant", "content": words(rng, 7) + "!"},
            "label": rng.random() < 0.5} for _ in range(200)]
    ranking = [{"question": words(rng, 5) + "?", "responses": [{"text": f"{i} {k} " + words(rng, 4), "score": float(k)} for k in range(3)]} for i in range(100)]
    prepared = []
    for i in range(120):
        n = rng.randint(3, 40)
        ids = [rng.randint(0, 31999) for _ in range(n)]
        prepared.append({"input_ids": ids, "labels": [-100] + ids[1:], "inputs_decode": words(rng, 5), "labels_decode": [words(rng, 2)],
                         "seq_length": n, "seq_category": "None"})
    return {"chats": chats, "tools": tools, "alpaca": alpaca, "pairs": pairs, "kto": kto, "ranking": ranking, "prepared": prepared}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def write_rows(out, rng):
    out.mkdir(parents=True)
    for name, rows in row_sets(rng).items():
        write_jsonl(out / f"{name}.jsonl", rows)
        raw = (out / f"{name}.jsonl").read_bytes()
        (out / f"{name}.list.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (out / f"{name}.jsonl.gz").write_bytes(gzip.compress(raw))
        (out / f"{name}.jsonl.zst").write_bytes(zstandard.ZstdCompressor(level=6, write_checksum=True).compress(raw))
        (out / f"{name}.list.json.zst").write_bytes(zstandard.ZstdCompressor().compress(json.dumps(rows).encode()))
        table = pa.Table.from_pylist(rows)
        for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
            for version in ["1.0", "2.0"]:
                pq.write_table(table, out / f"{name}.{codec}-{version}.parquet", compression=codec, data_page_version=version,
                               row_group_size=64, data_page_size=2048, use_dictionary=version == "1.0", write_page_checksum=version == "2.0")
        pq.write_table(table, out / f"{name}.delta.parquet", use_dictionary=False, column_encoding=delta_encodings(table.schema), row_group_size=1000)
        with pa.OSFile(str(out / f"{name}.stream.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
            w.write_table(table, max_chunksize=50)
        for codec in [None, "lz4", "zstd"]:
            options = pa.ipc.IpcWriteOptions(compression=codec)
            with pa.OSFile(str(out / f"{name}.file-{codec}.arrow"), "wb") as f, pa.ipc.new_file(f, table.schema, options=options) as w:
                w.write_table(table, max_chunksize=170)
        pa.feather.write_feather(table, str(out / f"{name}.feather"))
        stream = (out / f"{name}.stream.arrow").read_bytes()
        (out / f"{name}.stream.arrow.gz").write_bytes(gzip.compress(stream))
        # Folders, as datasets and the hub have them.
        set_ = datasets.Dataset.from_list(rows)
        set_.save_to_disk(str(out / f"{name}-disk"), num_shards=3)
        set_.to_parquet(str(out / f"{name}.datasets.parquet"))
        datasets.DatasetDict({"train": set_, "test": set_.select(range(5))}).save_to_disk(str(out / f"{name}-dict"))
        half = len(rows) // 2
        hub = out / f"{name}-hub" / "data"
        hub.mkdir(parents=True)
        set_.select(range(half)).to_parquet(str(hub / "train-00000-of-00002.parquet"))
        set_.select(range(half, len(rows))).to_parquet(str(hub / "train-00001-of-00002.parquet"))
        set_.select(range(3)).to_parquet(str(hub / "test-00000-of-00001.parquet"))
        (hub.parent / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - split: test\n    path: data/test-*\n---\n# A set\n")
        parts = out / f"{name}-parts" / "arrow"  # ColossalChat's prepare_dataset.py
        for i, span in enumerate([range(half), range(half, len(rows))]):
            set_.select(span).save_to_disk(str(parts / f"part-{i:05d}"))
        if all(isinstance(v, (str, float, int, bool)) for v in rows[0].values()):
            pa.csv.write_csv(table, str(out / f"{name}.csv"))
            set_.to_csv(str(out / f"{name}.pandas.csv"), index=False)
            set_.to_csv(str(out / f"{name}.tsv"), index=False, sep="\t")
            (out / f"{name}.bom.csv").write_bytes(b"\xef\xbb\xbf" + (out / f"{name}.pandas.csv").read_bytes())
            (out / f"{name}.csv.zst").write_bytes(zstandard.ZstdCompressor().compress((out / f"{name}.csv").read_bytes()))


def delta_encodings(schema):
    """DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY and BYTE_STREAM_SPLIT for every leaf that can have them."""
    leaves = {}

    def walk(path, t):
        if pa.types.is_struct(t):
            for f in t:
                walk(path + [f.name], f.type)
        elif pa.types.is_list(t):
            walk(path + ["list", "element"], t.value_type)
        elif pa.types.is_string(t):
            leaves[".".join(path)] = "DELTA_BYTE_ARRAY" if len(leaves) % 2 else "DELTA_LENGTH_BYTE_ARRAY"
        elif pa.types.is_integer(t):
            leaves[".".join(path)] = "DELTA_BINARY_PACKED"
        elif pa.types.is_floating(t):
            leaves[".".join(path)] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_boolean(t):
            leaves[".".join(path)] = "RLE"

    for f in schema:
        walk([f.name], f.type)
    return leaves


def type_tables(rng):
    n = 1000

    def maybe(values, share=0.2):
        return [None if rng.random() < share else v for v in values]

    ints = {}
    for bits in (8, 16, 32, 64):
        ints[f"int{bits}"] = pa.array(maybe([rng.randint(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for _ in range(n)]), getattr(pa, f"int{bits}")())
        ints[f"uint{bits}"] = pa.array(maybe([rng.randint(0, 2**bits - 1) for _ in range(n)]), getattr(pa, f"uint{bits}")())
    ints["small"] = pa.array([rng.randint(0, 3) for _ in range(n)], pa.int64())
    ints["rising"] = pa.array(range(10**12, 10**12 + 7 * n, 7), pa.int64())
    floats = {
        "f64": pa.array(maybe([rng.gauss(0, 10 ** rng.randint(-300, 300)) for _ in range(n)])),
        "f32": pa.array(maybe([rng.gauss(0, 1) for _ in range(n)]), pa.float32()),
        "special": pa.array([rng.choice([0.0, -0.0, math.inf, -math.inf, math.nan, 1e308, 5e-324]) for _ in range(n)]),
    }
    texts = {
        "text": pa.array(maybe([words(rng, rng.randint(0, 8)) for _ in range(n)])),
        "large": pa.array(maybe([words(rng, 3) for _ in range(n)]), pa.large_string()),
        "binary": pa.array(maybe([rng.randbytes(rng.randint(0, 9)) for _ in range(n)]), pa.binary()),
        "fixed": pa.array(maybe([rng.randbytes(5) for _ in range(n)]), pa.binary(5)),
        "dictionary": pa.array(maybe([rng.choice(UNICODE) for _ in range(n)])).dictionary_encode(),
        "bool": pa.array(maybe([rng.random() < 0.5 for _ in range(n)])),
        "runs": pa.array([i // 100 % 2 == 0 for i in range(n)]),
        "nothing": pa.nulls(n, pa.string()),
        "null": pa.nulls(n),
    }
    start = datetime.datetime(1960, 1, 1)
    times = {
        "date": pa.array(maybe([datetime.date(1950, 1, 1) + datetime.timedelta(days=rng.randint(0, 50000)) for _ in range(n)])),
        "ms": pa.array(maybe([start + datetime.timedelta(milliseconds=rng.randint(0, 10**13)) for _ in range(n)]), pa.timestamp("ms")),
        "us": pa.array(maybe([start + datetime.timedelta(microseconds=rng.randint(0, 10**15)) for _ in range(n)]), pa.timestamp("us", "UTC")),
        "time": pa.array(maybe([datetime.time(rng.randint(0, 23), rng.randint(0, 59), rng.randint(0, 59)) for _ in range(n)]), pa.time64("us")),
        "decimal": pa.array(maybe([decimal.Decimal(rng.randint(-(10**11), 10**11)) / 1000 for _ in range(n)]), pa.decimal128(20, 3)),
        "small_decimal": pa.array(maybe([decimal.Decimal(rng.randint(-999, 999)) / 100 for _ in range(n)]), pa.decimal128(5, 2)),
    }

    def tree(depth):
        if depth == 0:
            return rng.choice([None, "x", "", words(rng, 2)])
        return None if rng.random() < 0.15 else [tree(depth - 1) for _ in range(rng.randint(0, 3))]

    struct = pa.struct([("a", pa.int32()), ("b", pa.struct([("c", pa.string()), ("d", pa.list_(pa.struct([("e", pa.float64()), ("f", pa.list_(pa.int8()))])))]))])

    def value():
        return None if rng.random() < 0.1 else {
            "a": rng.choice([None, 1, -2]),
            "b": rng.choice([None, {"c": rng.choice([None, "hi"]), "d": rng.choice([None, [], [None], [
                {"e": rng.choice([None, 1.5]), "f": rng.choice([None, [], [1, None, 3]])} for _ in range(rng.randint(1, 3))]])}])}

    nested = {
        "list1": pa.array([tree(1) for _ in range(n)], pa.list_(pa.string())),
        "list3": pa.array([tree(3) for _ in range(n)], pa.list_(pa.list_(pa.list_(pa.string())))),
        "large_list": pa.array([tree(2) for _ in range(n)], pa.large_list(pa.list_(pa.string()))),
        "struct": pa.array([value() for _ in range(n)], struct),
        "map": pa.array(maybe([[(rng.choice("abcd") + str(k), rng.choice([1, 2])) for k in range(rng.randint(0, 3))] for _ in range(n)]), pa.map_(pa.string(), pa.int64())),
        "fixed_list": pa.array(maybe([[rng.randint(0, 9) for _ in range(3)] for _ in range(n)]), pa.list_(pa.int16(), 3)),
        "list_dictionary": pa.array([rng.choice([None, [], ["a", None], ["b", "b", "c"]]) for _ in range(n)], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    }
    arrow_only = {
        "f16": pa.array(np.array([rng.gauss(0, 1) for _ in range(n)], np.float16)),
        "view": pa.array(maybe([words(rng, rng.randint(0, 4)) for _ in range(n)]), pa.string_view()),
        "binary_view": pa.array(maybe([rng.randbytes(rng.randint(0, 20)) for _ in range(n)]), pa.binary_view()),
        "decimal256": pa.array(maybe([decimal.Decimal(rng.randint(-(10**40), 10**40)) for _ in range(n)]), pa.decimal256(50, 0)),
        "time32": pa.array(maybe([datetime.time(rng.randint(0, 23), 1, 2) for _ in range(n)]), pa.time32("s")),
        "date64": pa.array(maybe([datetime.date(2020, 1, 1 + rng.randint(0, 30)) for _ in range(n)]), pa.date64()),
        "duration": pa.array(maybe([rng.randint(0, 10**9) for _ in range(n)]), pa.duration("ms")),
        "null_list": pa.array([rng.choice([None, [], [None]]) for _ in range(n)], pa.list_(pa.null())),
    }
    return {"ints": ints, "floats": floats, "texts": texts, "times": times, "nested": nested}, {"arrow_only": arrow_only}


def plain(v, t):
    """The JSON form of a value, by the rules of data/parquet."""
    if v is None:
        return None
    if pa.types.is_dictionary(t):
        return plain(v, t.value_type)
    if pa.types.is_struct(t):
        fields = {f.name: plain(v[f.name], f.type) for f in t}
        return {k: x for k, x in fields.items() if x is not None}
    if pa.types.is_map(t):
        return {k: plain(x, t.item_type) for k, x in v if x is not None}
    if pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t):
        return [plain(x, t.value_type) for x in v]
    if isinstance(v, bytes):
        try:
            return v.decode()
        except UnicodeDecodeError:
            return base64.b64encode(v).decode()
    if isinstance(v, datetime.timedelta):
        return v // datetime.timedelta(milliseconds=1)
    if isinstance(v, datetime.datetime):
        return v.replace(tzinfo=None).isoformat().rstrip("0").rstrip(".") if v.microsecond else v.replace(tzinfo=None).isoformat()
    if isinstance(v, (datetime.date, datetime.time)):
        return v.isoformat()
    if isinstance(v, decimal.Decimal):
        return "decimal:" + format(v, "f")
    if isinstance(v, (float, np.floating)):
        if not math.isfinite(v):
            return None
        return float(v) if pa.types.is_float64(t) else float(str(np.float32(v)))  # the shortest that reads back
    return v


def write_types(out, rng):
    out.mkdir(parents=True)

    def expect(name, table):
        rows = []
        for row in table.to_pylist(maps_as_pydicts=None):
            rows.append({k: x for k, x in ((f.name, plain(row[f.name], f.type)) for f in table.schema)
                         if row[k] is not None})
        (out / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")

    both, arrow = type_tables(rng)
    for name, columns in {**both, **arrow}.items():
        table = pa.table(columns)
        expect(name, table)
        if name in both:
            for label, options in {
                "a": dict(compression="snappy", row_group_size=300),
                "b": dict(compression="zstd", data_page_version="2.0", data_page_size=500, use_dictionary=False),
                "c": dict(compression="none", version="1.0", use_deprecated_int96_timestamps=True, row_group_size=10),
                "d": dict(compression="gzip", use_compliant_nested_type=False, store_decimal_as_integer=True),
            }.items():
                pq.write_table(table, out / f"{name}.{label}.parquet", **options)
        with pa.OSFile(str(out / f"{name}.stream.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
            w.write_table(table, max_chunksize=99)
        for codec in ["lz4", "zstd"]:
            with pa.OSFile(str(out / f"{name}.{codec}.arrow"), "wb") as f, pa.ipc.new_file(f, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as w:
                w.write_table(table)
        sliced = table.slice(37, 500)  # arrays with offsets
        expect(name + "-sliced", sliced)
        with pa.OSFile(str(out / f"{name}-sliced.stream.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
            w.write_table(sliced)


def compare(out, ringtail):
    """Checks that `ringtail data show --json` prints the same rows for every container of a set."""
    uses = {"chats": "sft", "tools": "sft", "alpaca": "sft", "pairs": "pairs", "kto": "kto", "ranking": "rankings", "prepared": "sft"}
    bad = 0
    for want_file in sorted((out / "rows").glob("*.jsonl")):
        name = want_file.name.removesuffix(".jsonl")

        def rows(path):
            text = subprocess.run([ringtail, "data", "show", str(path), "--json", "--count", "100000", "--use", uses[name]],
                                  check=True, capture_output=True, text=True).stdout
            got = [json.loads(line) for line in text.splitlines()]
            for r in got:
                del r["where"]
            return got

        want = rows(want_file)
        others = [p for p in sorted((out / "rows").iterdir()) if p.name.startswith((name + ".", name + "-")) and p != want_file]
        for path in others:
            same = rows(path) == want
            bad += not same
            if not same:
                print(f"DIFFERS {path}")
        print(f"{name}: {len(want)} rows, {len(others)} containers")
    return bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out", type=Path)
    p.add_argument("--ringtail", help="the program, to compare what it prints")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    datasets.disable_progress_bars()
    if not (a.out / "rows").exists():
        write_rows(a.out / "rows", random.Random(a.seed))
        write_types(a.out / "types", random.Random(a.seed + 1))
        print(f"wrote {sum(1 for p in a.out.rglob('*') if p.is_file())} files with datasets {datasets.__version__}, "
              f"pyarrow {pa.__version__}, zstandard {zstandard.__version__}")
    if a.ringtail and compare(a.out, a.ringtail):
        sys.exit(1)


if __name__ == "__main__":
    main()
