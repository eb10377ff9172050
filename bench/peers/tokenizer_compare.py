#!/usr/bin/env python3
"""Compares encoding with Hugging Face's tokenizers in one run, on one thread, interleaved: ours, peer, ours, peer, ...

    python3 tokenizer_compare.py [--rounds 9] TOKENIZER.json... -- TEXT...
    python3 tokenizer_compare.py --train DIR TEXT...   # first makes tokenizers of 32k and 128k tokens in DIR, from TEXT

TEXT are files: .json with a list of strings (many short texts), others one long text each. Needs Go and the package
tokenizers. The peer encodes with encode_batch_fast, which keeps no offsets, and with its own threads off. Prints a JSON
line a tokenizer and text: bytes, MB/s of both (medians, by processor time), and the median ratio ours/peer with
quartiles; above 1 Ringtail is faster. Ids are compared as well.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile, time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

root = pathlib.Path(__file__).resolve().parents[2]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train(folder, texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("llama3_128k", 128256), ("llama3_32k", 32000)):
        if (folder / f"{name}.json").exists():
            continue
        t = Tokenizer(models.BPE(ignore_merges=True))
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        t.decoder = decoders.ByteLevel()
        t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=["<|begin_of_text|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=1))
        t.save(str(folder / f"{name}.json"))
    if not (folder / "llama2_32k.json").exists():
        t = Tokenizer(models.BPE(unk_token="<unk>"))
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=32000, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], show_progress=False, limit_alphabet=4000))
        d = json.loads(t.to_str())
        d["model"].update(byte_fallback=True, fuse_unk=True)
        d["added_tokens"] = d["added_tokens"][:3]
        t = Tokenizer.from_str(json.dumps(d))
        t.normalizer, t.pre_tokenizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]), None
        t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        t.save(str(folder / "llama2_32k.json"))
    return sorted(folder.glob("*.json"))


def read(path):
    if path.suffix == ".json":
        return [s for s in json.loads(path.read_text()) if s]
    return [path.read_text(encoding="utf-8")]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rounds", type=int, default=9)
    a.add_argument("--least", type=float, default=0.15, help="seconds a measurement takes at least")
    a.add_argument("--train", type=pathlib.Path)
    a.add_argument("files", nargs="*")
    args, rest = a.parse_known_args([x for x in sys.argv[1:]] if "--" not in sys.argv else sys.argv[1 : sys.argv.index("--")])
    texts = [pathlib.Path(p) for p in (sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else args.files)]
    files = [pathlib.Path(p) for p in args.files] if "--" in sys.argv else []
    if args.train:
        files += train(args.train, [s for p in texts for s in read(p)])
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run(["go", "build", "-o", f"{tmp}/ours", "./bench/tokenizercompare"], cwd=root, check=True, env=os.environ | {"CGO_ENABLED": "0"})
        peer = subprocess.Popen([f"{tmp}/ours"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(line):
            peer.stdin.write(line + "\n")
            peer.stdin.flush()
            answer = peer.stdout.readline().strip()
            assert not answer.startswith("error"), answer
            return answer

        print(json.dumps({"tokenizers": tokenizers.__version__, "python": sys.version.split()[0]}))
        for f in files:
            theirs = Tokenizer.from_file(str(f))
            ask(f"load {f.resolve()}")
            for p in texts:
                batch = read(p)
                (pathlib.Path(tmp) / "texts.json").write_text(json.dumps(batch))
                ask(f"texts {tmp}/texts.json")
                size = sum(len(s.encode()) for s in batch)
                equal = [e.ids for e in theirs.encode_batch_fast(batch)] == json.loads(ask("ids"))

                def ours(reps):
                    return float(ask(f"run {reps}").split()[1]) / reps

                def other(reps):
                    start = time.process_time()
                    for _ in range(reps):
                        theirs.encode_batch_fast(batch)
                    return (time.process_time() - start) / reps

                reps = [max(1, int(args.least / max(1e-6, f(1)))) for f in (ours, other)]
                rows = []
                for r in range(args.rounds):
                    x, y = (ours(reps[0]), other(reps[1])) if r % 2 == 0 else (other(reps[1]), ours(reps[0]))[::-1]
                    rows.append((size / x / 1e6, size / y / 1e6, y / x))
                q = statistics.quantiles([r[2] for r in rows], n=4)
                print(json.dumps({
                    "tokenizer": f.stem, "text": p.name, "texts": len(batch), "bytes": size, "ids_equal": equal,
                    "ringtail_mb_s": round(statistics.median(r[0] for r in rows), 1), "tokenizers_mb_s": round(statistics.median(r[1] for r in rows), 1),
                    "ratio": round(statistics.median(r[2] for r in rows), 2), "quartiles": [round(q[0], 2), round(q[2], 2)],
                }), flush=True)


main()
