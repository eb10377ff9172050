#!/usr/bin/env python3
"""Checks, with transformers itself, what Ringtail reads and writes of each family:

  load    transformers' random model → Ringtail: logits equal
  copy    … loaded and saved by Ringtail → transformers: every tensor equal, bit for bit, none missing
  export  Ringtail's random model → transformers: none missing or left over, logits equal; in bfloat16 too
  scalar  the same of a reward model's folder
  train   that model fine-tuned by `ringtail train sft` → transformers: logits equal
  pickle  transformers' model saved by torch.save as pytorch_model.bin → Ringtail: logits equal

and for mixtures of experts the load-balancing loss, for Gemma 3 the text model of one that sees pictures.

    python3 transformers_check.py [SEED]         from the repository's root, with Go

Logits are compared as the golden data is: to 2e-4 of their largest.
"""
import json, os, subprocess, sys, tempfile, torch
import transformers as tf
from safetensors.torch import load_file
import families

torch.set_num_threads(1)
tf.logging.set_verbosity_error(); tf.logging.disable_progress_bar()
seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
work = tempfile.mkdtemp()
tool, product = os.path.join(work, "tool"), os.path.join(work, "ringtail")
subprocess.run(["go", "build", "-o", tool, "./oracle/ringtail"], check=True)
subprocess.run(["go", "build", "-o", product, "./cmd/ringtail"], check=True)

def go(*args, **kw):
    r = subprocess.run(args, capture_output=True, text=True, **kw)
    if r.returncode: raise RuntimeError(f"{args[1:4]}: {r.stderr.strip()}")
    return r.stdout

def ours(path, ids): return torch.tensor(json.loads(go(tool, "logits", path, input=json.dumps(ids))))

def theirs(m, ids):
    with torch.no_grad(): return m(input_ids=torch.tensor([ids])).logits[0]

def differ(a, b, most=2e-4):
    d = (a - b).abs().max() / b.abs().max()
    return f"logits differ by {d:.1e}" if not d <= most else ""

def load(auto, path, **kw):
    m, info = auto.from_pretrained(path, output_loading_info=True, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", **kw)
    wrong = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    return m.eval(), f"{wrong}" if wrong else ""

text = " ".join("the cat sat on a mat and the dog ran home".split() * 40)
open(os.path.join(work, "text.txt"), "w").write(text)
go(product, "tokenizer", "train", os.path.join(work, "text.txt"), "--vocab-size", "270", "--quiet", "--out", os.path.join(work, "tok"))

failures, results = 0, {}
for name, cls, cfg in families.configurations(seed):
    d = os.path.join(work, name); os.makedirs(d)
    cfg._attn_implementation = "eager"; cfg._experts_implementation = "eager"
    cfg.vocab_size = max(cfg.vocab_size, 300)
    torch.manual_seed(seed)
    m = cls(cfg).float().eval()
    with torch.no_grad():
        for n, q in m.named_parameters(): q.mul_(3) if q.dim() > 1 else q.add_(torch.randn_like(q) * .1)
    m.save_pretrained(d + "/hf")
    ids = torch.randint(3, cfg.vocab_size, (17,)).tolist()
    said = {"load": "", "copy": "", "export": "", "scalar": "", "train": "", "pickle": ""}
    def check(key, f):
        try: said[key] = f() or ""
        except Exception as e: said[key] = f"{type(e).__name__}: {str(e)[:300]}"
    def router():
        if not hasattr(cfg, "router_aux_loss_coef"): return
        with torch.no_grad(): want = m(input_ids=torch.tensor([ids]), output_router_logits=True).aux_loss.item()
        got = json.loads(go(tool, "router", d + "/hf", input=json.dumps(ids)))
        return f"router loss {got}, want {want}" if abs(got - want) > 1e-5 else ""
    check("load", lambda: differ(ours(d + "/hf", ids), theirs(m, ids)) or router())
    def copy():
        go(tool, "copy", d + "/hf", d + "/copy")
        a, b = load_file(d + "/hf/model.safetensors"), load_file(d + "/copy/model.safetensors")
        if a.keys() != b.keys(): return f"names differ: {sorted(a.keys() ^ b.keys())[:4]}"
        bad = [k for k in a if not torch.equal(a[k], b[k])]
        if bad: return f"tensors differ: {bad[:4]}"
        n, wrong = load(tf.AutoModelForCausalLM, d + "/copy")
        return wrong or differ(theirs(n, ids), theirs(m, ids), 0)
    check("copy", copy)
    def export(scalar, dtype):
        c = json.load(open(d + "/hf/config.json")) | {"dtype": dtype}
        json.dump(c, open(d + "/new.json", "w"))
        to = f"{d}/new_{scalar}_{dtype}"
        go(tool, "new", d + "/new.json", to, *(["scalar"] if scalar else []))
        n, wrong = load(tf.AutoModelForSequenceClassification if scalar else tf.AutoModelForCausalLM, to)
        if wrong: return wrong
        if not scalar: return differ(ours(to, ids), theirs(n, ids))
        got, want = ours(to, ids)[-1], theirs(n, ids)
        return f"scores {got} and {want}" if not torch.allclose(got, want, rtol=2e-4, atol=2e-5) else ""
    check("export", lambda: export(False, "float32") or export(False, "bfloat16"))
    check("scalar", lambda: export(True, "float32"))
    def train():
        for f in os.listdir(work + "/tok"): os.link(f"{work}/tok/{f}", f"{d}/hf/{f}")
        open(d + "/r.yaml", "w").write(f"model: {d}/hf\ndata: {{train: [{work}/chats.jsonl], max_tokens: 64}}\ntrain: {{steps: 4, batch: 2, lr: 0.003, micro_tokens: 64}}\nsamples: {{off: true}}\n")
        open(work + "/chats.jsonl", "w").write("\n".join(json.dumps({"instruction": "the cat", "output": "sat on a mat " * i}) for i in range(1, 6)))
        go(product, "train", "sft", d + "/r.yaml", "--dir", d + "/run", "--quiet")
        n, wrong = load(tf.AutoModelForCausalLM, d + "/run/model")
        moved = max((a - b).abs().max() for a, b in zip(n.parameters(), m.parameters()))
        if moved < 1e-4: return f"nothing moved ({moved})"
        return wrong or differ(ours(d + "/run/model", ids), theirs(n, ids))
    check("train", train)
    def pickle():
        os.makedirs(d + "/pt")
        torch.save(load_file(d + "/hf/model.safetensors"), d + "/pt/pytorch_model.bin")
        os.link(d + "/hf/config.json", d + "/pt/config.json")
        return differ(ours(d + "/pt", ids), theirs(m, ids))
    check("pickle", pickle)
    for k, v in said.items():
        if v: failures += 1; print(f"  {name} {k}: {v}")
    fam = name.split("_")[0]
    for k, v in said.items(): results.setdefault(fam, {}).setdefault(k, []).append(not v)
    print(name, " ".join(f"{k}={'no' if v else 'ok'}" for k, v in said.items()), flush=True)

def pictures():
    text = dict(vocab_size=300, hidden_size=48, intermediate_size=66, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=14,
        sliding_window=6, sliding_window_pattern=2, rope_scaling={"rope_type": "linear", "factor": 8.0})
    cfg = tf.Gemma3Config(text_config=text, vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14))
    m = tf.Gemma3ForConditionalGeneration(cfg).float().eval()
    m.save_pretrained(work + "/pictures")
    ids = torch.randint(3, 300, (17,)).tolist()
    bad = differ(ours(work + "/pictures", ids), theirs(m, ids))
    go(tool, "copy", work + "/pictures", work + "/text")
    n, wrong = load(tf.AutoModelForCausalLM, work + "/text")
    return bad or wrong or differ(theirs(n, ids), theirs(m, ids))
try: said = pictures()
except Exception as e: said = f"{type(e).__name__}: {e}"
print("gemma3 with pictures:", said or "ok")
failures += bool(said)

print(f"\ntransformers {tf.__version__}, torch {torch.__version__}; {failures} failures")
for fam, r in results.items(): print(f"| {fam} | " + " | ".join(f"{sum(v)}/{len(v)}" for v in r.values()) + " |")
sys.exit(failures > 0)
