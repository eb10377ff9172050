#!/usr/bin/env python3
"""Makes small sentencepiece models and tiktoken files, and vectors of what these libraries compute, in the form of shared/golden.

    python3 sentencepiece_models.py OUT [TEXT...]
    RINGTAIL_GOLDEN=OUT go test ./tokenizer -run Golden

TEXT are files that models are trained on and whose lines are encoded; without any, a text is made up.
"""
import argparse, base64, io, json, os, random, re, unicodedata
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
a.add_argument("out"); a.add_argument("texts", nargs="*"); a.add_argument("--seed", type=int, default=1)
a.add_argument("--vocab", type=int, default=600); a.add_argument("--lines", type=int, default=150)
a.add_argument("--only", default="", help="regular expression on the names")
a.add_argument("--small", action="store_true", help="rules for a few characters only, instead of NFKC: for tokenizer/testdata")
a = a.parse_args()
rnd = random.Random(a.seed)
folder = os.path.join(a.out, "tokenizers"); os.makedirs(folder, exist_ok=True)

SYLLABLES = "ka to mi ren so lu ba the ing er 中 国 人 的 我们 は です ё ща ñ é ü 한 국".split()
def word(): return "".join(rnd.choice(SYLLABLES) for _ in range(rnd.randint(1, 4)))
def made_up():
    words = [word() for _ in range(400)]
    return [" ".join(rnd.choice(words) if rnd.random() < .8 else str(rnd.randint(0, 9999)) for _ in range(rnd.randint(3, 20))) + rnd.choice(".!?,") for _ in range(600)]
lines = [l for f in a.texts for l in open(f, encoding="utf-8").read().split("\n") if l.strip()] or made_up()
rnd.shuffle(lines)
lines = [l[:2000] for l in lines]

ODD = ["", " ", "  ", "   a", "a   ", " a  b ", "\u2581", "\u2581\u2581", "a\u2581", "\u2581a", " \u2581 ", "\n", "a\nb", "a\r\nb", "\t\ta", "a\u3000b", "\u00a0a", "e\u0301", "é", "ﬁ", "①", "ＡＢＣ", "ｶﾞ",
       "ﷺ", "a\u0000b", "\u200b", "a\u200bb", "\ufeffx", "😀", "👨‍👩‍👧", "🇩🇪", "�", "<s>", "</s>", "<unk>", "<pad>", "<0x41>", "x<s>y</s>z", "aaaaaaaaaaaaaaaaaaaaaaaa", "AAAA", "0123456789", "12 345", "ﾊﾟ", "각", "각",
       "İ", "ß", "Straße", "Å", "Ω", "½", "x²", "ｱ ｲ", "…", "don't", "ÀÉ", "a\u0301\u0302b", "<user>", "a<user>b", " <user> ", "<user><user>", "@@x", "the@@", "@@ @@", "@@@", "\u0600a", "a\u0600b", "ᾳ", "㍍", "𝒜", "\u0345", "\u1e9b\u0323"]
def texts():
    out = list(ODD)
    for _ in range(a.lines):
        l = rnd.choice(lines)
        i = rnd.randrange(len(l)); out.append(l[i:i + rnd.randint(1, 120)])
    for _ in range(a.lines // 2):  # pieces of the odd ones and of text, joined
        out.append("".join(rnd.choice(ODD) if rnd.random() < .5 else rnd.choice(lines)[:rnd.randint(0, 9)] for _ in range(rnd.randint(2, 6))))
    for c in ["a", " ", "中", "ab", "x ", "the "]: out.append(c * 300)
    out.append(" ".join(rnd.choice(lines) for _ in range(12)))
    return [t.encode("utf-8", "replace").decode() for t in out]

RULES = os.path.join(a.out, "rules.tsv")
open(RULES, "w").write("".join("\t".join(" ".join(f"{ord(c):X}" for c in part) for part in rule) + "\n" for rule in
    [("\t", " "), ("\n", " "), ("\r", " "), ("\u3000", " "), ("\u200b", " "), ("ﬁ", "fi"), ("Ａ", "A"), ("Ｂ", "B"), ("½", "1⁄2"), ("e\u0301", "é"), ("a\u0301", "á"),
     ("ｶﾞ", "ガ"), ("ｶ", "カ"), ("ﷺ", "صلى الله"), ("\u00ad", ""), ("\u0345", ""), ("…", "..."), ("\u212b", "Å")]))

def save(name, proto):
    data = proto.SerializeToString()
    sp = spm.SentencePieceProcessor(model_proto=data)
    open(os.path.join(folder, name + ".model"), "wb").write(data)
    vectors = []
    for t in texts():
        ids = sp.encode(t)
        vectors.append({"text": t, "ids": ids, "decoded": sp.decode(ids)})
    json.dump(vectors, open(os.path.join(folder, name + ".vectors.json"), "w", encoding="utf-8"), ensure_ascii=False, indent=0)
    print(f"{name}: {len(proto.pieces)} pieces, {len(vectors)} texts")

def train(name, change=None, **o):
    if not re.search(a.only, name): return
    model = io.BytesIO()
    if a.small and o.get("normalization_rule_name") != "identity": o = o | {"normalization_rule_name": "", "normalization_rule_tsv": RULES}
    o = {"vocab_size": a.vocab, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1, "character_coverage": .995, "max_sentence_length": 10000} | o
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines[:3000]), model_writer=model, **o)
    proto = pb.ModelProto.FromString(model.getvalue())
    if change: change(proto)
    save(name, proto)

def unused(proto):
    """Some pieces out of use, as SetVocabulary does."""
    for p in proto.pieces:
        if p.type == 1 and rnd.random() < .3: p.type = 5
def ties(proto):
    """Few different scores."""
    for p in proto.pieces:
        if p.type == 1: p.score = float(int(p.score / 40) if proto.trainer_spec.model_type == 2 else round(p.score))
def no_characters(proto):
    """Pieces made of characters that are no piece."""
    keep = [p for p in proto.pieces if not (p.type == 1 and len(p.piece) == 1 and rnd.random() < .3)]
    keep = [pb.ModelProto.SentencePiece.FromString(p.SerializeToString()) for p in keep]
    del proto.pieces[:]; proto.pieces.extend(keep)

USER = ["<user>", "@@", "@@@", "the@@", "▁@@", "ﬁ"]
for kind in ("bpe", "unigram"):
    t = {"model_type": kind}
    train(f"{kind}_nmt_nfkc", **t)
    train(f"{kind}_llama", **t, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True)
    train(f"{kind}_gemma", **t, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=USER + ["\n", "\n\n", "▁▁", "▁▁▁"], pad_id=0, eos_id=1, bos_id=2, unk_id=3)
    train(f"{kind}_user", **t, user_defined_symbols=USER, control_symbols=["<ctl>"])
    train(f"{kind}_user_bytes", **t, user_defined_symbols=USER, byte_fallback=True, normalization_rule_name="identity")
    train(f"{kind}_nfkc_cf", **t, normalization_rule_name="nfkc_cf", byte_fallback=True)
    train(f"{kind}_nfkc", **t, normalization_rule_name="nfkc", remove_extra_whitespaces=False)
    train(f"{kind}_nmt_nfkc_cf", **t, normalization_rule_name="nmt_nfkc_cf", add_dummy_prefix=False)
    train(f"{kind}_suffix", **t, treat_whitespace_as_suffix=True)
    train(f"{kind}_suffix_bytes", **t, treat_whitespace_as_suffix=True, byte_fallback=True, remove_extra_whitespaces=False, normalization_rule_name="identity", allow_whitespace_only_pieces=True)
    train(f"{kind}_across", **t, split_by_whitespace=False, split_by_unicode_script=False, split_by_number=False, byte_fallback=True)
    train(f"{kind}_names", **t, pad_id=3, unk_id=0, bos_id=-1, eos_id=1, unk_piece="[UNK]", eos_piece="[END]", pad_piece="[PAD]", unk_surface="[?]")
    train(f"{kind}_unused", unused, **t, byte_fallback=True)
    train(f"{kind}_ties", ties, **t)
    train(f"{kind}_no_characters", no_characters, **t)

# The tokenizers library's Unigram and Precompiled, with pieces and rules of a sentencepiece model.
def hf(name, source, scheme, split, words=False, post=None):
    path = os.path.join(folder, source + ".model")
    if not re.search(a.only, name) or not os.path.exists(path): return
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    proto = pb.ModelProto.FromString(open(path, "rb").read())
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=proto.trainer_spec.unk_id, byte_fallback=proto.trainer_spec.byte_fallback))
    rules = proto.normalizer_spec.precompiled_charsmap
    if rules: t.normalizer = normalizers.Sequence([normalizers.Precompiled(rules), normalizers.Replace(Regex(" {2,}"), " ")])
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace]) if words else metaspace
    t.decoder = decoders.Metaspace(prepend_scheme=scheme, split=split)
    t.add_special_tokens([p.piece for p in proto.pieces if p.type == 3])
    if post: t.post_processor = processors.TemplateProcessing(single=post, special_tokens=[("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))])
    t.save(os.path.join(folder, name + ".json"))
    vectors = []
    for text in texts():
        ids = t.encode(text).ids
        vectors.append({"text": text, "ids": ids, "ids_no_special": t.encode(text, add_special_tokens=False).ids, "decoded": t.decode(ids), "decoded_with_special": t.decode(ids, skip_special_tokens=False)})
    json.dump(vectors, open(os.path.join(folder, name + ".vectors.json"), "w", encoding="utf-8"), ensure_ascii=False, indent=0)
    print(f"{name}: {len(vectors)} texts")
hf("hf_unigram_t5", "unigram_nmt_nfkc", "always", True, words=True, post="$A </s>")
hf("hf_unigram_first", "unigram_user_bytes", "first", True, post="<s> $A </s>")
hf("hf_unigram_whole", "unigram_nfkc_cf", "always", False)

# tiktoken: ranks from a byte-level BPE of the tokenizers library.
import tiktoken
from tiktoken_ext import openai_public
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

def pattern(name):
    """The expression of an encoding, without loading its ranks."""
    load = openai_public.load_tiktoken_bpe, openai_public.data_gym_to_mergeable_bpe_ranks
    openai_public.load_tiktoken_bpe = openai_public.data_gym_to_mergeable_bpe_ranks = lambda *a, **k: {}
    try: return openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"]
    finally: openai_public.load_tiktoken_bpe, openai_public.data_gym_to_mergeable_bpe_ranks = load

QWEN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
for name in ("r50k_base", "gpt2", "p50k_base", "cl100k_base", "o200k_base", "qwen", "llama3"):
    if not re.search(a.only, "tiktoken_" + name): continue
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(lines[:3000], trainers.BpeTrainer(vocab_size=a.vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    letters = [c for c in range(256) if 33 <= c <= 126 or 161 <= c <= 172 or 174 <= c <= 255]
    byte = {chr(c): c for c in letters} | {chr(256 + i): c for i, c in enumerate(c for c in range(256) if c not in letters)}
    ranks = {bytes(byte[c] for c in s): i for s, i in t.get_vocab().items()}
    enc = tiktoken.Encoding(name, pat_str={"qwen": QWEN, "llama3": LLAMA3}.get(name) or pattern(name), mergeable_ranks=ranks, special_tokens={})
    with open(os.path.join(folder, f"tiktoken_{name}.tiktoken"), "w") as f:
        for b, i in sorted(ranks.items(), key=lambda x: x[1]): f.write(f"{base64.b64encode(b).decode()} {i}\n")
    vectors = []
    for text in texts():
        ids = enc.encode_ordinary(unicodedata.normalize("NFC", text) if name == "qwen" else text)
        vectors.append({"text": text, "ids": ids, "decoded": enc.decode(ids)})
    json.dump(vectors, open(os.path.join(folder, f"tiktoken_{name}.vectors.json"), "w", encoding="utf-8"), ensure_ascii=False, indent=0)
    print(f"tiktoken_{name}: {len(ranks)} ranks, {len(vectors)} texts")
