"""Ringtail and huggingface_hub share one cache: each reads what the other downloaded.

    python oracle/hub_cache.py      (from the repository's root; needs huggingface_hub and Go)

A hub of our own (hub/hubtest/serve) stands in for the real one.
"""
import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

work = Path(tempfile.mkdtemp(prefix="ringtail-hub-"))
binary = work / "ringtail"
subprocess.run(["go", "build", "-o", binary, "./cmd/ringtail"], check=True)
subprocess.run(["go", "build", "-o", work / "serve", "./hub/hubtest/serve"], check=True)

# Two repositories.
random.seed(3)
root = work / "served"
model, data = root / "models/acme/tiny", root / "datasets/acme/rows"
(model / "sub").mkdir(parents=True)
data.mkdir(parents=True)
(model / "config.json").write_text('{"model_type": "llama"}')
(model / "model.safetensors").write_bytes(random.randbytes(70_000_000))
(model / "tokenizer.json").write_bytes(random.randbytes(5000))
(model / "pytorch_model.bin").write_bytes(random.randbytes(3000))
(model / "sub/more.json").write_text("{}")
(data / "rows.jsonl").write_bytes(random.randbytes(2000))
(data / "empty.txt").write_bytes(b"")
server = subprocess.Popen([work / "serve", root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
endpoint = server.stdout.readline().strip()

os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=str(work / "home"), HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_XET="1")
os.environ.pop("HF_TOKEN", None)
import huggingface_hub as hf  # after the variables, which it reads once
from huggingface_hub.errors import LocalEntryNotFoundError


def ringtail(cache, *args, offline=False):
    env = dict(os.environ, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1" if offline else "0")
    r = subprocess.run([binary, *args], env=env, capture_output=True, text=True)
    if r.returncode != 0:
        sys.exit(f"ringtail {args}: {r.stderr}")
    return r.stdout.strip(), r.stderr


def same(folder, source, names):
    for n in names:
        assert filecmp.cmp(Path(folder) / n, source / n, shallow=False), n
        assert os.path.islink(Path(folder) / n), n


def tree(folder):
    """Names, links and contents, without what either leaves of its own."""
    out = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] in ("trees",) or path.is_dir() and not path.is_symlink():
            continue
        out[name] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return out


def check(name, ok):
    print(("ok    " if ok else "WRONG ") + name)
    if not ok:
        sys.exit(1)


wanted = ["config.json", "model.safetensors", "tokenizer.json"]
every = wanted + ["pytorch_model.bin", "sub/more.json"]

# 1. Ringtail downloads, huggingface_hub reads without a network.
a = work / "a"
snapshot, _ = ringtail(a, "pull", "acme/tiny")
check("snapshot_download(local_files_only) finds what ringtail pulled", hf.snapshot_download("acme/tiny", cache_dir=a, local_files_only=True) == snapshot)
for n in wanted:
    assert hf.hf_hub_download("acme/tiny", n, cache_dir=a, local_files_only=True) == f"{snapshot}/{n}"
    assert hf.try_to_load_from_cache("acme/tiny", n, cache_dir=a) == f"{snapshot}/{n}"
same(snapshot, model, wanted)
check("hf_hub_download(local_files_only) finds each file", True)
try:
    hf.hf_hub_download("acme/tiny", "pytorch_model.bin", cache_dir=a, local_files_only=True)
    check("what was left out is not there", False)
except LocalEntryNotFoundError:
    check("what was left out is not there", True)
try:
    import transformers
except ImportError:
    print("skip  transformers is not installed")
else:
    check("transformers loads by name, offline", transformers.AutoConfig.from_pretrained("acme/tiny", cache_dir=a, local_files_only=True).model_type == "llama")
ringtail(a, "pull", "acme/rows", "--dataset")
info = hf.scan_cache_dir(a)
check("scan_cache_dir has no warnings", not info.warnings and not info.incomplete_files)
repos = {(r.repo_type, r.repo_id): r for r in info.repos}
check("scan_cache_dir sees both repositories", set(repos) == {("model", "acme/tiny"), ("dataset", "acme/rows")})
r = repos["model", "acme/tiny"]
check("refs, files and sizes agree", r.refs.keys() == {"main"} and r.nb_files == 3 and r.size_on_disk == sum((model / n).stat().st_size for n in wanted))

# 2. huggingface_hub downloads the rest: what Ringtail has is not downloaded again.
before = (Path(snapshot) / "model.safetensors").resolve().stat()
hf.snapshot_download("acme/tiny", cache_dir=a)
after = (Path(snapshot) / "model.safetensors").resolve().stat()
check("snapshot_download keeps ringtail's blobs", (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns))
same(snapshot, model, every)

# 3. huggingface_hub downloads, Ringtail reads.
b = work / "b"
snapshot = hf.snapshot_download("acme/tiny", cache_dir=b)
out, err = ringtail(b, "pull", "acme/tiny", offline=True)
check("ringtail finds offline what snapshot_download left", out == snapshot)
out, err = ringtail(b, "pull", "acme/tiny")
check("ringtail downloads nothing again", out == snapshot and "already" in err)
listed = json.loads(ringtail(b, "list", "--json")[0])
check("ringtail list agrees", [(x["name"], x["bytes"], x["snapshots"][0]["refs"]) for x in listed] == [("acme/tiny", sum((model / n).stat().st_size for n in every), ["main"])])

# 4. The same repository, downloaded whole by either, is the same cache.
c = work / "c"
ringtail(c, "pull", "acme/tiny", "--include", "*")
check("both leave the same names, links and contents", tree(b / "models--acme--tiny") == tree(c / "models--acme--tiny"))
check("locks have the same names", sorted(p.name for p in (b / ".locks/models--acme--tiny").iterdir()) == sorted(p.name for p in (c / ".locks/models--acme--tiny").iterdir()))

# 5. Both at once, and a file that is not there.
d = work / "d"
threads = [threading.Thread(target=lambda: ringtail(d, "pull", "acme/tiny", "--include", "*")), threading.Thread(target=lambda: hf.snapshot_download("acme/tiny", cache_dir=d))]
for t in threads:
    t.start()
for t in threads:
    t.join()
same(d / "models--acme--tiny/snapshots" / os.path.basename(snapshot), model, every)
check("both at once leave a whole cache", tree(d / "models--acme--tiny") == tree(b / "models--acme--tiny") and not hf.scan_cache_dir(d).warnings)

# 6. What huggingface_hub removes is gone for Ringtail, and the reverse.
commit = os.path.basename(snapshot)
hf.scan_cache_dir(b).delete_revisions(commit).execute()
check("ringtail list sees a removal", json.loads(ringtail(b, "list", "--json")[0]) == [])
ringtail(a, "rm", "acme/tiny", "--yes")
check("scan_cache_dir sees a removal", {r.repo_id for r in hf.scan_cache_dir(a).repos} == {"acme/rows"} and not hf.scan_cache_dir(a).warnings)

server.stdin.close()
server.wait()
print("huggingface_hub", hf.__version__)
