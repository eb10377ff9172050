"""Asks the tokenizers library about every character, and writes what it says to OUT/unicode/tokenizers.json.

    python oracle/tokenizer_unicode.py OUT
    RINGTAIL_GOLDEN=OUT go test ./tokenizer -run OracleUnicode

Needs tokenizers (0.23.3 is what tokenizer/unicodetables.go was made for). Sets of characters are lists of ranges,
both ends included; maps have only the characters that change.
"""

import json
import pathlib
import sys

from tokenizers import Regex
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P

ALL = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
CATEGORIES = "C Cc Cf Cn Co L LC Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs".split()
POSIX = "Alnum Alpha Blank Cntrl Digit Graph Lower Print Punct Space Upper XDigit Word ASCII".split()
DERIVED = "Alphabetic White_Space Uppercase Lowercase Any Assigned".split()
SCRIPTS = "Latin Greek Cyrillic Armenian Hebrew Arabic Devanagari Bengali Thai Lao Tibetan Georgian Hangul Hiragana Katakana Han Common Inherited Todhri Kirat_Rai".split()


def ranges(chars):
    out = []
    for c in sorted(set(map(ord, chars))):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def regex_set(body):
    return ranges(N.Replace(Regex("[^%s]+" % body), "").normalize_str(ALL))


def blocks(n=20000):
    for i in range(0, len(ALL), n):
        yield ALL[i : i + n]


def isolated(p):
    """The characters that stand alone between letters."""
    out = set()
    for cs in blocks():
        t = "a" + "a".join(cs) + "a"
        for s, (a, b) in p.pre_tokenize_str(t):
            if b - a == 1 and a % 2 == 1:
                out.add(t[a])
    return ranges(out)


def whole(p):
    """The characters that leave a word in one piece."""
    out = set()
    for cs in blocks():
        for s, (a, b) in p.pre_tokenize_str(" ".join("a" + c + "a" for c in cs)):
            if b - a == 3:
                out.add(s[1])
    return ranges(out)


def changes(n):
    out = {}
    for c in ALL:
        x = n.normalize_str(c)
        if x != c:
            out[ord(c)] = x
    return out


def marks():
    """Words with every character before and after marks of several classes, where something changes."""
    cases = []
    for name in "NFC NFD NFKC NFKD".split():
        n = getattr(N, name)()
        for c in ALL:
            for text in ("a" + c + "\u0334\u0301", "e\u0345" + c + "\u0323"):
                x = n.normalize_str(text)
                if x != text:
                    cases.append([name, text, x])
    return cases[::400]


def scripts():
    p = P.UnicodeScripts()
    sample = ALL[0:0x30000:1]
    out = []
    for i in range(0, len(sample), 997):
        text = sample[i : i + 997]
        out.append([text, [s for s, _ in p.pre_tokenize_str(text)]])
    return out


onig = {}
for name in CATEGORIES + POSIX + DERIVED + SCRIPTS:
    onig[r"\p{%s}" % name] = regex_set(r"\p{%s}" % name)
for name in ("[:%s:]" % p.lower() for p in POSIX):
    onig[name] = regex_set(name)
for name in (r"\w", r"\d", r"\s", r"\h"):
    onig[name] = regex_set(name)
result = {
    "regex": onig,
    "Digits": isolated(P.Digits(True)),
    "Punctuation": isolated(P.Punctuation()),
    "BertPreTokenizer": isolated(P.BertPreTokenizer()),
    "Whitespace": whole(P.Whitespace()),
    "Lowercase": changes(N.Lowercase()),
    "StripAccents": changes(N.StripAccents()),
    "Nmt": changes(N.Nmt()),
    "NFC": changes(N.NFC()),
    "NFD": changes(N.NFD()),
    "NFKC": changes(N.NFKC()),
    "NFKD": changes(N.NFKD()),
    "BertNormalizer": changes(N.BertNormalizer()),
    "marks": marks(),
    "UnicodeScripts": scripts(),
}
out = pathlib.Path(sys.argv[1]) / "unicode"
out.mkdir(parents=True, exist_ok=True)
(out / "tokenizers.json").write_text(json.dumps(result))
