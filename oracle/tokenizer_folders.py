#!/usr/bin/env python3
"""Compares Ringtail with transformers on folders that have no tokenizer.json: ids of the folder as it is, and of what Ringtail makes of it.

    python3 tokenizer_folders.py RINGTAIL GOLDEN [TEXT...]

RINGTAIL is the program, GOLDEN a folder that sentencepiece_models.py made with --vocab 3000 or so (models bpe_llama, bpe_gemma, unigram_nmt_nfkc),
TEXT files whose parts are encoded. transformers 5 is known to differ where it leaves sentencepiece: LlamaTokenizer puts no mark before a text that
begins with a space, and T5Tokenizer takes the piece 2 for <unk> whatever the model says; those are counted, the rest must be equal.
"""
import json, os, random, re, shutil, subprocess, sys, tempfile, warnings
warnings.filterwarnings("ignore"); os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
from transformers import AutoTokenizer
ringtail, golden, *files = sys.argv[1:]
rnd = random.Random(1); work = tempfile.mkdtemp()
text = "\n".join(open(f, encoding="utf-8").read() for f in files) or "The quick brown fox, 12345 times. 你好，世界！ Ünïcödé\n\n  def f(x):\n    return x\n" * 50
texts = ["Hello world", "<s>Hi</s> you", "a</s>b", "x\n\ny", " lead", "tail ", "多么美好", "e\u0301"] + [text[i:i + rnd.randrange(1, 200)] for i in (rnd.randrange(len(text)) for _ in range(25))]

def folder(name, files, config, **more):
    d = os.path.join(work, name); os.makedirs(d)
    for n, c in files.items():
        if os.path.isabs(c): shutil.copy(c, os.path.join(d, n))
        else: open(os.path.join(d, n), "w", encoding="utf-8").write(c)
    for n, c in ({"tokenizer_config": config} | more).items(): json.dump(c, open(os.path.join(d, n + ".json"), "w"))
    return d

def ids(d, text, special):
    p = subprocess.run([ringtail, "tokenizer", "encode", "--model", d, "--json"] + ["--special"] * special, input=text.encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(p.stdout) or []

failed = 0
def run(name, d, differ=0):
    global failed
    tok = AutoTokenizer.from_pretrained(d)
    out = d + "_added"
    subprocess.run([ringtail, "tokenizer", "add", "--model", d, "--out", out, "--token", "<|new|>", "--special"], check=True, stdout=subprocess.PIPE)
    saved = AutoTokenizer.from_pretrained(out)
    bad = [t for t in texts if ids(d, t, True) != tok.encode(t)]
    lost = [t for t in texts + ["a<|new|>b"] if ids(out, t, True) != saved.encode(t) or ids(d, t, True) != ids(out, t, True) and "<|new|>" not in t]
    ok = (not bad or differ) and not lost and len(saved) == len(tok) + 1
    failed += not ok
    print(f"{name}: {type(tok).__name__}, of {len(texts)} texts {len(bad)} differ{' (known)' if bad and differ else ''}, as tokenizer.json {len(lost)}: {'ok' if ok else 'FAILED'}", *[repr(t[:40]) for t in (bad + lost)[:4]])

model = lambda n: os.path.abspath(os.path.join(golden, "tokenizers", n + ".model"))
llama = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
run("llama, not legacy", folder("llama", {"tokenizer.model": model("bpe_llama")}, llama | {"legacy": False}))
run("llama, legacy", folder("legacy", {"tokenizer.model": model("bpe_llama")}, llama | {"legacy": True}), differ=1)
size = lambda n: __import__("sentencepiece").SentencePieceProcessor(model_file=model(n)).get_piece_size()
run("llama, added tokens", folder("added", {"tokenizer.model": model("bpe_llama")}, llama | {"legacy": False, "pad_token": "<pad>"}, added_tokens={"<pad>": size("bpe_llama"), "<|im_start|>": size("bpe_llama") + 1}))
run("gemma", folder("gemma", {"tokenizer.model": model("bpe_gemma")}, {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<s>", "add_bos_token": True}), differ=1)
run("t5", folder("t5", {"spiece.model": model("unigram_nmt_nfkc")}, {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<s>"}), differ=1)
run("xlm-roberta", folder("xlmr", {"sentencepiece.bpe.model": model("unigram_nmt_nfkc")}, {"tokenizer_class": "XLMRobertaTokenizer"}))
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
t = Tokenizer(models.BPE()); t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.train_from_iterator(text.split("\n"), trainers.BpeTrainer(vocab_size=1500, special_tokens=["<|endoftext|>", "</s>", "<pad>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
j = json.loads(t.to_str())["model"]
gpt2 = {"vocab.json": json.dumps(j["vocab"]), "merges.txt": "#version: 0.2\n" + "\n".join(" ".join(m) for m in j["merges"]) + "\n"}
run("gpt2", folder("gpt2", gpt2, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}))
run("opt", folder("opt", gpt2, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "add_bos_token": True}))
run("qwen2", folder("qwen2", gpt2, {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": ["<|im_end|>"]}, added_tokens={"<|im_end|>": len(j["vocab"])}))
words = sorted(set(re.findall(r"\w+|[^\w\s]", text[:200000].lower())))[:3000]
run("bert", folder("bert", {"vocab.txt": "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + words + ["##" + c for c in "abcdefghijklmnopqrstuvwxyz0123456789"]) + "\n"}, {"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
shutil.rmtree(work); sys.exit(failed > 0)
