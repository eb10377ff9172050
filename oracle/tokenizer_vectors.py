"""Makes tokenizers of every kind that tokenizer.json can hold, and what the tokenizers library makes of many texts.

    python oracle/tokenizer_vectors.py OUT [TEXT...]
    RINGTAIL_GOLDEN=OUT go test ./tokenizer -run Golden

writes OUT/tokenizers/NAME.json and NAME.vectors.json, in the form of golden data. Needs tokenizers 0.23.3. TEXT are
files of plain text; the vocabularies are trained on them, and parts of them are among the texts. With --small it
writes what tokenizer/testdata/vectors holds: few small tokenizers, few texts.
"""

import argparse
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, trainers
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P
from tokenizers import processors as X

SAMPLE = """The model answers the question, and the person asks another question. It's the model's answer that we'd like to
rate: 1, 2 or 3 of 10, said the person. I'm sure you're WE'LL they've done; don't!
模型回答问题,然后这个人再问另一个问题。模型的回答很好!今天的天气怎么样?
Das Modell fragt, ob es größer sein soll. Où est le modèle ? ¿Dónde está? Ça alors, l'été.
\tfor (int i = 0; i < 100; i++) { total += values[i]; }  // sum\r\n
def f(x):\n    return x**2 + 3.14159\n\n\nclass CamelCaseName(HTTPServer):\n        pass
日本語のテキストとカタカナ、ひらがな。 한국어 텍스트 اللغة العربية עברית ไทย हिन्दी Ελληνικά Русский язык
"""

NASTY = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r", "\r\n", "\t", " \n ", "\n \n", "a", " a", "a ", " a ", "  a  b   c    ", "Hello world", "Hello, world!",
    "I'm you're WE'LL it's I'D 'S 'sS ''s '", "don\u2019t \u201cquote\u201d \u2014 dash\u2026", "3.14159 1234567890 12 345 6789 \u2460\u2461\u00bd\u0664\u0665",
    "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m e\u0301 A\u030a \u1e9b\u0323 \u0344", "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e8\U0001f1f3\U0001f1e9 \U0001f600\U0001f600\U0001f3fd\u200d\u2642\ufe0f",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629\u064e\u0651 \u05e9\u05b8\u05dc\u05d5\u05b9\u05dd \u202eRTL\u202c", "\u0e44\u0e17\u0e22\u0e17\u0e33 \u0e19\u0e49\u0e33", "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uae00 \u3131\u314f \u1100\uac00\u11a8",
    "\u4f60\u597d,\u4e16\u754c!\u4e2d\u6587English\u6df7\u6392123", "\u30ab\u30bf\u30ab\u30ca\u3072\u3089\u304c\u306a\u30fc\u3001\u3002\uff76\uff80\uff9e", "\x00\x01\x02control\x7f\x80\x9f\ufffd\ufeff\u200b\u200c\u200d\u00ad",
    "\ufb01 \ufb02 \u2167 \u338f \u00b2 \u2126 \u212b \ufdfa", "\u0130I\u0131i \u00dfSS\u1e9e \u03a3\u03c3\u03c2 \u01c4\u01c5\u01c6 \U00010400", "\ud7ff\ue000\uffff\U0010ffff\U000fffff\U00020bb7",
    "\u3000\u00a0\u2003\u2028\u2029\u0085\u180e\u205f space", "a\rb\rc\r\nd\n\re", "<s>not special</s>", "<|im_start|>user\nhi<|im_end|>\n", "[CLS] a [SEP] [MASK][UNK] [mask]", "<pad><unk><s> <s>x</s >",
    "x<mask>y  <mask>  z<mask>", "un<word>un <word> <word>s <word>", "   <|im_end|>   ", "NewTok newtok NEWTOK xNewToky \u00c9t\u00e9 \u00e9t\u00e9 e\u0301te\u0301", "\u2581underscore\u2581 \u2581\u2581x", "a|b||c| d", "x_y-z__w--v",
    "def f(x):\n    return x**2  # \u5e73\u65b9\n\tif x:\n\t\tpass\n", "{\"k\": [1, 2.5, -3e10, null]}", "https://example.com/a/b?c=d&e=%20#f", "HTTPServer camelCase PascalCase SCREAMING_CASE iPhone \u01c5abc \u00c9COLE",
    "a" * 200, "ab" * 150, " " * 100, "\n" * 40, "\u6a21" * 120, "\u0301" * 40, "e" + "\u0301\u0323" * 20, "!" * 70, "1" * 50, "\U0001f600" * 30, ("x" * 99 + " ") * 2 + "y" * 101, "\u0e01" * 50, "'" * 30, "a\u0308\u0323" * 20,
    "\u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f \u0b95\u0bcd\u0bb7", "\u0344\u0f71\u0f72\u0f74 \u0f77 \u1100\u1161\u11a8", "\U0001d518\U0001d52b\U0001d526 \U00016ea0 \u1c89 \ua7cb \U00010d50 \U00011938 \U00011935\U00011930 \u32ff", "tail\ufffd", "\ufffd\ufffd",
    "do not do n't 's 've 're . ? ! , ' x ' .", "..., !? ;: -- () [] {} <> \u00ab\u00bb \u3010\u3011 \u00a1\u00bf \u2020 \u20ac$+=^`~", "A\u0300\u0301 \u0300x \u0345\u0301", "\u1e0b\u0323 q\u0307\u0323 \u03d3\u0301", "\uac00\u11a8\u0301 \u115f\u1160",
]


def texts(corpus, count, seed):
    r = random.Random(seed)
    out = list(NASTY)
    pieces = NASTY[5:] + SAMPLE.split("\n")
    letters = "aAbBeEsStT'\"  \t\n\r.,!?-_()<>|[]/0129\u00e9e\u0301\u0308\u4e2d\u6587\u3042\u30ab\uac00\u0e01\u0634\u05d0\U0001f600\u200d\u2581\u00df\u0130"
    for i in range(count):
        if i % 3 == 0 and corpus:
            text = r.choice(corpus)
            at = r.randrange(max(1, len(text) - 200))
            out.append(text[at : at + r.randrange(1, 200)])
        elif i % 3 == 1:
            out.append("".join(r.choice(letters) for _ in range(r.randrange(1, 60))))
        else:
            a, b = r.choice(pieces), r.choice(pieces)
            out.append(a[: r.randrange(len(a) + 1)] + r.choice(["", " ", "  ", "\n", "<s>", "<mask>", "NewTok", "[MASK]"]) + b[r.randrange(len(b) + 1) :])
    return out


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
DEEPSEEK3 = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def split(pattern, behavior="isolated", invert=False):
    return P.Split(Regex(pattern), behavior, invert)


def byte_level(prefix=False, regex=False):
    return P.ByteLevel(add_prefix_space=prefix, use_regex=regex)


class Maker:
    def __init__(self, corpus, size, seed):
        self.corpus, self.size, self.seed = corpus, size, seed
        self.made = {}

    def add(self, name, t):
        assert name not in self.made, name
        self.made[name] = json.loads(t.to_str()) if isinstance(t, Tokenizer) else t

    def edit(self, name, base, **changes):
        d = json.loads(json.dumps(self.made[base]))
        for path, v in changes.items():
            at = d
            *heads, last = path.split("__")
            for h in heads:
                at = at[h]
            at[last] = v
        self.made[name] = d

    def bytes(self, name, pre, normalizer=None, post=None, special=SPECIAL, added=(), size=None, **model):
        t = Tokenizer(models.BPE(**model))
        if normalizer:
            t.normalizer = normalizer
        t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=size or self.size, special_tokens=list(special), initial_alphabet=P.ByteLevel.alphabet(), show_progress=False,
                                      **{k: v for k, v in model.items() if k in ("end_of_word_suffix", "continuing_subword_prefix")})
        t.train_from_iterator(self.corpus, trainer)
        if added:
            t.add_tokens(list(added))
        if post:
            t.post_processor = post(t)
        self.add(name, t)

    def spm(self, name, normalizer=None, pre=None, decoder=None, post=None, added=(), fallback=True, size=None, **model):
        """BPE over characters with bytes to fall back to, as of sentencepiece."""
        t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        t.normalizer = N.Replace(" ", "\u2581")
        t.pre_tokenizer = P.Metaspace(prepend_scheme="always")
        trainer = trainers.BpeTrainer(vocab_size=(size or self.size) - 256, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] * fallback,
                                      show_progress=False, limit_alphabet=300)
        t.train_from_iterator(self.corpus, trainer)
        d = json.loads(t.to_str())
        d["added_tokens"] = d["added_tokens"][:3]
        d["model"].update({"byte_fallback": fallback, "fuse_unk": True, "unk_token": "<unk>"} | model)
        t = Tokenizer.from_str(json.dumps(d))
        t.normalizer, t.pre_tokenizer, t.decoder = normalizer, pre, decoder
        if added:
            t.add_tokens(list(added))
        if post:
            t.post_processor = post(t)
        self.add(name, t)

    def words(self, name, normalizer=None, pre=None, decoder=None, added=(), known=None):
        """WordLevel that knows the pieces of the texts, so that ids show what they are."""
        t = Tokenizer(models.WordLevel(unk_token="<unk>"))
        t.normalizer, t.pre_tokenizer, t.decoder = normalizer, pre, decoder
        t.train_from_iterator(known if known is not None else texts(self.corpus, 150, self.seed), trainers.WordLevelTrainer(vocab_size=100000, special_tokens=["<unk>"], show_progress=False))
        if added:
            t.add_tokens(list(added))
        self.add(name, t)

    def wordpiece(self, name, normalizer, pre, post=True, prefix="##", decoder=None, **model):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        t.normalizer, t.pre_tokenizer = normalizer, pre
        t.train_from_iterator(self.corpus, trainers.WordPieceTrainer(vocab_size=self.size, special_tokens=special, continuing_subword_prefix=prefix, show_progress=False))
        d = json.loads(t.to_str())
        d["model"].update(model)
        d["model"]["continuing_subword_prefix"] = prefix
        t = Tokenizer.from_str(json.dumps(d))
        t.decoder = decoder or decoders.WordPiece(prefix=prefix)
        if post:
            t.post_processor = X.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        self.add(name, t)


def bos(t, single="<s> $A"):
    return X.TemplateProcessing(single=single, pair=single + " $B", special_tokens=[(s, t.token_to_id(s)) for s in ("<s>", "</s>") if s in single])


def make(m, small):
    flags = [
        AddedToken("<mask>", lstrip=True, special=True), AddedToken("<word>", single_word=True), AddedToken("NewTok", normalized=True), AddedToken("\u00c9t\u00e9", normalized=True),
        AddedToken("<r>", rstrip=True, normalized=False), AddedToken("<lr>", lstrip=True, rstrip=True, normalized=False), AddedToken("  ", normalized=False), AddedToken("[MASK]", special=True, normalized=False),
    ]
    spaces = [AddedToken(" " * n, normalized=False) for n in range(2, 25)] + [AddedToken("\n" * n, normalized=True) for n in range(2, 8)]
    ident = P.Split("\u0000never\u0000", "isolated")  # no cut at all

    # Byte-level BPE, as of families on the hub.
    m.bytes("gpt2", byte_level(regex=True))
    m.bytes("llama3", P.Sequence([split(LLAMA3), byte_level()]), post=lambda t: X.Sequence([X.ByteLevel(trim_offsets=False), bos(t)]), ignore_merges=True)
    m.bytes("gpt4o", P.Sequence([split(O200K), byte_level()]))
    m.bytes("deepseek_v3", P.Sequence([split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK3), byte_level()]), post=bos)
    m.spm("llama2", N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")]), None, decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]), bos, flags)
    bert = lambda lower: N.BertNormalizer(lowercase=lower)
    m.wordpiece("bert_uncased", bert(True), P.BertPreTokenizer())
    m.words("pre_bert_flags", N.Sequence([N.NFD(), N.Lowercase(), N.StripAccents()]), P.BertPreTokenizer(), added=flags)
    if small:
        return
    m.bytes("gpt2_prefix_space", byte_level(prefix=True, regex=True), added=flags)
    m.bytes("roberta", byte_level(regex=True), post=lambda t: X.RobertaProcessing(("</s>", 2), ("<s>", 1), add_prefix_space=False), added=[AddedToken("<mask>", lstrip=True, special=True)])
    m.bytes("opt", byte_level(prefix=False, regex=True), post=lambda t: bos(t, "</s> $A"))
    m.bytes("gpt_neox", byte_level(regex=True), N.NFC(), added=spaces)
    m.bytes("phi2", byte_level(regex=True), added=[AddedToken(" " * n, normalized=True) for n in range(31, 1, -1)] + [AddedToken("\t" * n, normalized=True) for n in range(9, 1, -1)])
    m.bytes("starcoder", P.Sequence([P.Digits(True), byte_level(regex=True)]))
    m.bytes("bloom", P.Sequence([split(BLOOM), byte_level()]))
    m.bytes("bloom_metaspace_rest", P.Sequence([split(BLOOM, "removed", True), byte_level()]))
    m.bytes("falcon", P.Sequence([P.Punctuation("contiguous"), byte_level(regex=True), P.Digits(False), P.Split(Regex("[0-9][0-9][0-9]"), "isolated")]))
    m.bytes("deepseek_llm", P.Sequence([split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), P.Digits(True), byte_level()]), post=bos)
    m.bytes("qwen2", P.Sequence([split(QWEN2), byte_level()]), N.NFC())
    m.bytes("qwen2_removed", P.Sequence([split(QWEN2, "removed", True), byte_level()]), N.NFC())
    m.bytes("cl100k_possessive", P.Sequence([split(CL100K), byte_level()]))
    m.bytes("digits_from_the_right", P.Sequence([split(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"), split(GPT2), byte_level()]))
    m.bytes("clip", P.Sequence([P.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", True), byte_level()]),
            N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()]), lambda t: X.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=False), end_of_word_suffix="</w>")
    m.bytes("bytes_as_normalizer", split(r"\u0120|\u010a+"), N.Sequence([N.NFC(), N.ByteLevel()]), added=flags)
    m.bytes("bytes_no_cut", byte_level())
    m.bytes("bytes_unknown", byte_level(regex=True), unk_token="<unk>", fuse_unk=True)
    m.edit("merges_as_strings", "gpt2", model__merges=[" ".join(p) for p in m.made["gpt2"]["model"]["merges"]])
    m.edit("gpt2_bert_processing", "gpt2", post_processor={"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]})
    m.edit("gpt2_no_decoder", "gpt2", decoder=None)
    m.edit("ignore_merges", "gpt2", model__ignore_merges=True)
    some = dict(list(m.made["gpt2"]["model"]["vocab"].items())[:180])  # lacks bytes
    m.edit("lacks_bytes", "bytes_unknown", model__vocab=some, model__merges=[])
    m.edit("lacks_bytes_no_unknown", "gpt2", model__vocab=some, model__merges=[])

    # BPE over characters.
    fallback = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    m.spm("mistral", None, P.Metaspace(prepend_scheme="first", split=False), decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]), bos)
    m.spm("gemma", N.Replace(" ", "\u2581"), P.Split(" ", "merged_with_previous"), fallback, bos, [AddedToken("\n" * n, normalized=False) for n in range(2, 32)] + [AddedToken("\u2581" * n, normalized=False) for n in range(2, 32)])
    m.spm("metaspace_always", None, P.Metaspace(prepend_scheme="always"), decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]), None, flags)
    m.spm("metaspace_never", None, P.Metaspace(prepend_scheme="never"), decoders.Metaspace(prepend_scheme="never"), lambda t: bos(t, "$A </s>"))
    m.spm("metaspace_first_flags", None, P.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first"), None, flags)
    m.spm("no_fallback_fused", N.Prepend("\u2581"), P.Metaspace(prepend_scheme="never"), decoders.Metaspace(), fallback=False)
    m.spm("no_fallback", None, P.Metaspace(), decoders.Metaspace(), fallback=False, fuse_unk=False)
    m.edit("no_unknown", "no_fallback", model__unk_token=None)
    part = {k: v for k, v in m.made["llama2"]["model"]["vocab"].items() if not (k.startswith("<0x8") or k.startswith("<0xE"))}
    part = {k: i for i, k in enumerate(part)}  # no gaps: the library would number the added tokens anew
    keep = [p for p in m.made["llama2"]["model"]["merges"] if all(x in part for x in (p[0], p[1], p[0] + p[1]))]
    m.edit("fallback_incomplete", "llama2", model__vocab=part, model__merges=keep)
    m.add("fallback_incomplete", Tokenizer.from_str(json.dumps(m.made.pop("fallback_incomplete"))))
    m.edit("fallback_incomplete_fused", "fallback_incomplete", model__fuse_unk=False)
    m.bytes("openai_gpt", P.BertPreTokenizer(), bert(True), end_of_word_suffix="</w>", unk_token="<unk>")
    m.made["openai_gpt"]["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}
    m.bytes("bpe_prefix", P.Whitespace(), N.NFC(), continuing_subword_prefix="##", unk_token="<unk>")
    m.made["bpe_prefix"]["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    m.bytes("bpe_prefix_suffix", P.WhitespaceSplit(), continuing_subword_prefix="@@", end_of_word_suffix="</w>", unk_token="<unk>", fuse_unk=True)
    m.made["bpe_prefix_suffix"]["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "@@"}, "content": ""}, {"type": "BPEDecoder", "suffix": "</w>"}]}

    # WordPiece.
    m.wordpiece("bert_cased", bert(False), P.BertPreTokenizer())
    m.wordpiece("bert_chinese", N.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=True), P.BertPreTokenizer(), max_input_chars_per_word=20)
    m.wordpiece("bert_accents", N.BertNormalizer(clean_text=False, strip_accents=True, lowercase=False), P.Sequence([P.Whitespace(), P.Punctuation()]), decoder=decoders.WordPiece(cleanup=False))
    m.wordpiece("wordpiece_whole", N.NFKC(), None, post=False, prefix="_", max_input_chars_per_word=5000)
    m.wordpiece("wordpiece_no_prefix", N.Lowercase(), P.WhitespaceSplit(), prefix="")

    # Pre-tokenizers.
    for behavior in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"):
        m.words(f"punctuation_{behavior}", None, P.Punctuation(behavior))
        m.words(f"split_string_{behavior}", None, P.Split(" ", behavior))
        for invert in (False, True):
            m.words(f"split_{behavior}_{invert}", None, P.Split(Regex(r"\s+|[aeiou]"), behavior, invert))
        m.words(f"split_empty_matches_{behavior}", None, P.Split(Regex(r"[0-9]*|\b"), behavior, False))
    for name, p in {
        "bert": P.BertPreTokenizer(), "whitespace": P.Whitespace(), "whitespace_split": P.WhitespaceSplit(), "digits": P.Digits(False), "digits_each": P.Digits(True),
        "delimiter": P.CharDelimiterSplit("|"), "scripts": P.UnicodeScripts(), "fixed": P.FixedLength(4), "metaspace": P.Metaspace(), "metaspace_mark": P.Metaspace("_", "first"),
        "bytes": byte_level(regex=True), "bytes_prefix": byte_level(prefix=True), "sequence": P.Sequence([P.WhitespaceSplit(), P.Punctuation(), P.Digits(True)]),
        "xlmr": P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), "two_metaspaces": P.Sequence([P.Metaspace("_"), P.Metaspace("a")]), "look_behind": split(r"(?<=[a-z])(?=[A-Z])|(?<![^\s])\p{L}+"),
        "lines": split(r"^.*$|[\r\n]+"), "words": split(r"\b\w+\b|\W"), "nested_class": split(r"[[a-z]&&[^aeiou]]+|[^[:alnum:]\s]"), "any_case": split(r"(?i)the|m[a-o]+|é|σ"),
        "linebreak": split(r"\R|\h+"), "lazy": split(r"a.*?e|\s{2,}?|(?m:t.{1,3}?)"), "atomic": split(r"(?>\s+)\S|(?:'s)?+[a-z]++|\d{2}+"), "o200k": split(O200K), "cl100k": split(CL100K), "bloom": split(BLOOM),
        "deepseek": split(DEEPSEEK3), "gpt2": split(GPT2), "llama3": split(LLAMA3), "qwen2": split(QWEN2), "punct_regex": split(r"[[:punct:]]|\p{Punct}{2}|[[:^ascii:]&&[:upper:]]"), "kelvin": split(r"(?i:k|s|å)+"),
    }.items():
        m.words("pre_" + name, None, p)

    # Normalizers: a text is one token.
    for name, n in {
        "nfc": N.NFC(), "nfd": N.NFD(), "nfkc": N.NFKC(), "nfkd": N.NFKD(), "nmt": N.Nmt(), "lowercase": N.Lowercase(), "strip": N.Strip(), "strip_left": N.Strip(True, False), "strip_right": N.Strip(False, True),
        "accents": N.StripAccents(), "nfd_accents": N.Sequence([N.NFD(), N.StripAccents()]), "replace": N.Replace("a", "[A]"), "replace_regex": N.Replace(Regex(r"\s{2,}|(?<=e)r"), "~"), "replace_empty": N.Replace("", "-"),
        "replace_remove": N.Replace(Regex(r"[aeiou ]"), ""), "prepend": N.Prepend("x\u2581"), "bytes": N.ByteLevel(), "bert": N.BertNormalizer(), "bert_false": N.BertNormalizer(False, False, False, False), "bert_accents": N.BertNormalizer(strip_accents=False),
        "sequence": N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " "), N.Strip(), N.Lowercase(), N.Prepend("\u2581")]), "strip_prepend": N.Sequence([N.Strip(), N.Prepend("a"), N.Prepend("bc")]),
    }.items():
        m.words("normalizer_" + name, n, ident)
        m.words("normalizer_flags_" + name, n, P.WhitespaceSplit(), None, flags)

    # Decoders.
    for name, d in {
        "ctc": decoders.CTC("a", "t", True), "ctc_plain": decoders.CTC("e", "t", False), "strip": decoders.Strip("a", 1, 0), "strip_ends": decoders.Strip("e", 2, 0), "replace": decoders.Replace(Regex("[a-c]+"), "_"), "replace_string": decoders.Replace("e", ""),
        "fuse": decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "X")]), "wordpiece": decoders.WordPiece("a", True), "bpe": decoders.BPEDecoder("e"), "metaspace": decoders.Metaspace("t", "always"), "metaspace_never": decoders.Metaspace("t", "never"),
        "sequence": decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 3, 0)]), "bytes_strip": decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)]), "wordpiece_fuse": decoders.Sequence([decoders.WordPiece("##", False), decoders.Fuse(), decoders.Strip("T", 1, 0)]),
        "bytes_twice": decoders.Sequence([decoders.ByteFallback(), decoders.ByteLevel()]), "fallback_wordpiece": decoders.Sequence([decoders.ByteFallback(), decoders.WordPiece("e", True)]),
    }.items():
        t = Tokenizer.from_str(json.dumps(m.made["llama2"]))
        t.decoder = d
        m.add("decoder_" + name, t)

    # Unigram.
    for name, pre, norm, post in (
        ("xlmr", P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " ")]), "<s> $A </s>"), ("t5", P.Metaspace(), N.NFKC(), "$A </s>")):
        t = Tokenizer(models.Unigram())
        t.pre_tokenizer, t.normalizer, t.decoder = pre, norm, decoders.Metaspace()
        t.train_from_iterator(m.corpus, trainers.UnigramTrainer(vocab_size=5000, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
        t.add_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        t.post_processor = bos(t, post)
        m.add(name, t)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("out")
    a.add_argument("text", nargs="*")
    a.add_argument("--small", action="store_true")
    a.add_argument("--size", type=int, default=2000)
    a.add_argument("--texts", type=int, default=200)
    a.add_argument("--seed", type=int, default=1)
    a = a.parse_args()
    corpus = [pathlib.Path(f).read_text(encoding="utf-8")[:60000] for f in a.text]
    if a.small:
        a.size, a.texts = 620, 20
    m = Maker((corpus or [SAMPLE]) + [SAMPLE], a.size, a.seed)
    make(m, a.small)
    out = pathlib.Path(a.out) if a.small else pathlib.Path(a.out) / "tokenizers"
    out.mkdir(parents=True, exist_ok=True)
    all_texts = [s for s in texts(corpus, a.texts, a.seed) if not a.small or len(s) <= 70]
    for name, doc in m.made.items():
        t = Tokenizer.from_str(json.dumps(doc))
        vectors = []
        for text in all_texts:
            try:
                ids, plain = t.encode(text).ids, t.encode(text, add_special_tokens=False).ids
                vectors.append({"text": text, "ids": ids, "ids_no_special": plain, "decoded": t.decode(ids), "decoded_with_special": t.decode(ids, skip_special_tokens=False)})
            except BaseException as e:  # the library panics where a decoder is given no token
                if type(e).__name__ != "PanicException":
                    raise
        (out / f"{name}.json").write_text(json.dumps(doc, ensure_ascii=False), encoding="utf-8")
        (out / f"{name}.vectors.json").write_text(json.dumps(vectors), encoding="utf-8")
    print(len(m.made), "tokenizers,", len(all_texts), "texts")


main()
