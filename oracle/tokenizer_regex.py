"""Cuts random texts by random regular expressions with the tokenizers library, and writes OUT/regex/split.json.

    python oracle/tokenizer_regex.py OUT [COUNT [SEED]]
    RINGTAIL_GOLDEN=OUT go test ./tokenizer -run OracleRegex

Needs tokenizers (0.23.3). The expressions are of the syntax that tokenizer/regexparse.go reads; those that the library
refuses are left out. The file is a list of [expression, [[text, pieces], ...]].
"""

import json
import pathlib
import random
import sys

from tokenizers import Regex
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import Split

CHARS = "aabbcAB12 \n-_é\u0301"
SETS = [r"\s", r"\S", r"\d", r"\D", r"\w", r"\W", r"\p{L}", r"\p{Lu}", r"\P{L}", r"\p{^N}", r"\h", ".", "[ab]", "[^ab]", "[a-c1]", r"[^\s\p{L}\p{N}]", r"[\r\n]", "[[:alpha:]]", "[[:^digit:]]",
        r"[a-z&&[^b]]", r"[\p{L}&&\p{Ll}]", "[[ab][12]]", r"\p{Han}", r"[\w\-]", "[-a]", "[]a]", r"\x61", r"\u00e9", r"\n", r"\R", r"\N", r"\O", r"\t", r"\ "]
ASSERTIONS = ["^", "$", r"\A", r"\z", r"\Z", r"\b", r"\B", r"(?=a)", r"(?!\S)", r"(?<=a)", r"(?<!b)", r"(?<=\s|^)", r"(?!b.)", r"(?=(?:ab|c)*1)", r"(?<![a-z\d])"]


def atom(r, depth):
    k = r.random()
    if k < 0.35:
        return r.choice(["a", "b", "c", "ab", "1", " ", "é", "A", "'s", "-"])
    if k < 0.7 or depth <= 0:
        return r.choice(SETS)
    inner = alternatives(r, depth - 1)
    return r.choice(["(?:%s)", "(%s)", "(?i:%s)", "(?m:%s)", "(?<n>%s)", "(?i-m:%s)", "(?:%s)", "(?=%s)", "(?!%s)"]) % inner


def nullable(expr):
    try:
        return Replace(Regex(r"\A(?:%s)(?=\x02)" % expr), "X").normalize_str("\x02") != "\x02"
    except BaseException:
        return True


def quantified(r, depth):
    a = atom(r, depth)
    if a.startswith(("(?=", "(?!")) or r.random() < 0.5:
        return a
    if len(a) > 1 and not a.startswith(("(", "[", "\\")):
        a = "(?:%s)" % a
    if nullable(a):  # how loops over nothing end is not followed to the last turn
        return a + r.choice(["?", "??"])
    q = r.choice(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{2,}", "{,2}", "{1,2}?", "{1,2}+", "{0}", "{2}?"])
    if a in SETS and r.random() < 0.25:
        q = r.choice(["*+", "++", "?+"])
    return a + q


def alternatives(r, depth):
    out = []
    for _ in range(r.choice([1, 1, 2, 3])):
        parts = [quantified(r, depth) for _ in range(r.choice([0, 1, 1, 2, 3]))]
        if r.random() < 0.2:
            parts.insert(r.randrange(len(parts) + 1), r.choice(ASSERTIONS))
        out.append("".join(parts))
    return "|".join(out)


def main():
    out, count, seed = pathlib.Path(sys.argv[1]) / "regex", int((sys.argv + ["", "2000"])[2 if len(sys.argv) > 2 else -1]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    r = random.Random(seed)
    cases = []
    while len(cases) < count:
        expr = alternatives(r, 2)
        try:
            split = Split(Regex(expr), "isolated")
        except BaseException:
            continue
        texts = ["".join(r.choice(CHARS) for _ in range(r.randrange(1, 14))) for _ in range(12)]
        try:
            cases.append([expr, [[s, [s[a:b] for _, (a, b) in split.pre_tokenize_str(s)]] for s in texts]])
        except BaseException as e:  # the library panics where backtracking takes too long
            if type(e).__name__ != "PanicException":
                raise
    out.mkdir(parents=True, exist_ok=True)
    (out / "split.json").write_text(json.dumps(cases))


main()
