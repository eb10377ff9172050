#!/usr/bin/env python3
"""Compares `ringtail bench sft 15m` with PyTorch in one run, interleaved: ours, peer, ours, peer, ...

    python3 sft_compare.py --ringtail bin/ringtail [--rounds 9] [--threads 2]
Needs the packages of requirements.txt. Prints a JSON line a round and, last, the median ratio ours/peer with quartiles.
"""
import argparse, json, os, statistics, subprocess, sys

ap = argparse.ArgumentParser()
ap.add_argument("--ringtail", default="bin/ringtail")
ap.add_argument("--rounds", type=int, default=9)
ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
here = os.path.dirname(os.path.abspath(__file__))
peer = subprocess.Popen([sys.executable, os.path.join(here, "torch_sft_cpu.py"), "--threads", str(a.threads)], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
assert json.loads(peer.stdout.readline())["ready"]
ratios = []
for r in range(a.rounds):
    def ours():
        out = subprocess.run([a.ringtail, "bench", "sft", "15m", "--threads", str(a.threads), "--rounds", "3", "--json"], check=True, capture_output=True, text=True)
        return json.loads(out.stdout)["tok_per_s"]
    def theirs():
        peer.stdin.write("go\n"); peer.stdin.flush()
        return json.loads(peer.stdout.readline())["tok_per_s"]
    x, y = (ours(), theirs()) if r % 2 == 0 else (theirs(), ours())[::-1]
    ratios.append(x / y)
    print(json.dumps({"round": r, "ringtail": x, "torch": y, "ratio": round(x / y, 3)}), flush=True)
peer.stdin.close()
q = statistics.quantiles(ratios, n=4)
print(json.dumps({"bench": "sft 15m", "threads": a.threads, "rounds": a.rounds, "median_ratio": round(statistics.median(ratios), 3), "quartiles": [round(q[0], 3), round(q[2], 3)]}))
