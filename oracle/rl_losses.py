#!/usr/bin/env python3
"""Makes a rl_losses.json of the form of shared/golden, with another seed and other shapes.

    python3 rl_losses.py OUT [SEED]
    RINGTAIL_GOLDEN=OUT go test ./train -run TestGoldenRLLosses

Everything is computed in float64 from the definitions in shared/golden/README.md, and gradients by autograd. On
top of that form it has the gradients of the losses over pairs, of the KL estimates and of the entropy.
"""
import json, os, random, sys
import torch
import torch.nn.functional as F

out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
rnd = random.Random(seed)
torch.manual_seed(seed)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
case = {}


def leaf(name, *shape, scale=1.0):
    x = (torch.randn(*shape) * scale).requires_grad_()
    case[name] = x
    return x


def gradient(loss, by):
    return torch.autograd.grad(loss, by, retain_graph=True)[0]


# PPO: rows of unequal length, at least one of them full and one of a single token.
B, T, V = rnd.randint(2, 6), rnd.randint(4, 12), rnd.randint(3, 20)
lengths = [T, 1] + [rnd.randint(1, T) for _ in range(B - 2)]
rnd.shuffle(lengths)
mask = (torch.arange(T)[None] < torch.tensor(lengths)[:, None]).double()
n = mask.sum()
logits = leaf("logits", B, T, V, scale=rnd.uniform(0.5, 3))
old_logits = logits.detach() + 0.3 * torch.randn(B, T, V)
ref_logits = logits.detach() + 0.4 * torch.randn(B, T, V)
actions = torch.randint(V, (B, T))
values = leaf("values", B, T)
old_values = values.detach() + 0.3 * torch.randn(B, T)
score = 2 * torch.randn(B)
kl_coef, gamma, lam = rnd.uniform(0.01, 0.5), rnd.uniform(0.9, 1), rnd.uniform(0.5, 1)
eps, value_clip, reward_clip = rnd.uniform(0.1, 0.3), rnd.uniform(0.1, 0.5), rnd.uniform(0.5, 3)


def chosen_log_probs(z):
    return z.log_softmax(-1).gather(-1, actions[..., None])[..., 0]


new, old, ref = chosen_log_probs(logits), chosen_log_probs(old_logits), chosen_log_probs(ref_logits)
rewards = -kl_coef * (old - ref) * mask
for b, length in enumerate(lengths):
    rewards[b, length - 1] += score[b].clamp(-reward_clip, reward_clip)
rewards = rewards.detach()
advantages = torch.zeros(B, T)
for b, length in enumerate(lengths):  # the definition, term by term
    v = torch.cat([old_values[b, :length], torch.zeros(1)])
    delta = rewards[b, :length] + gamma * v[1:] - v[:-1]
    for t in range(length):
        advantages[b, t] = sum((gamma * lam) ** (l - t) * delta[l] for l in range(t, length))
returns = advantages + old_values * mask
mean = (advantages * mask).sum() / n
var = (((advantages - mean) ** 2) * mask).sum() / (n - 1)
whitened = (advantages - mean) / (var.sqrt() + 1e-8) * mask
ratio = (new - old.detach()).exp()
policy_loss = (-torch.minimum(ratio * whitened, ratio.clamp(1 - eps, 1 + eps) * whitened) * mask).sum() / n
clipped = old_values + (values - old_values).clamp(-value_clip, value_clip)
value_loss = 0.5 * (torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) * mask).sum() / n
entropy = (-(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1) * mask).sum() / n
new_leaf = new.detach().clone().requires_grad_()
log_ratio = new_leaf - ref
k1, k2, k3 = log_ratio, log_ratio**2 / 2, (-log_ratio).exp() + log_ratio - 1
case.update(
    old_logits=old_logits, ref_logits=ref_logits, actions=actions, mask=mask, logprob_new=new, logprob_old=old, logprob_ref=ref,
    old_values=old_values, score=score, kl_coef=kl_coef, gamma=gamma, lam=lam, eps_clip=eps, value_clip=value_clip,
    reward_clip=reward_clip, token_rewards=rewards, advantages=advantages, returns=returns, whitened_advantages=whitened,
    policy_loss=policy_loss, value_loss=value_loss, entropy_mean=entropy, grad_logits_policy_loss=gradient(policy_loss, logits),
    grad_logits_entropy_mean=gradient(entropy, logits), grad_values_value_loss=gradient(value_loss, values), kl_k1=k1, kl_k2=k2,
    kl_k3=k3, grad_logprob_kl_k2=gradient(k2.sum(), new_leaf), grad_logprob_kl_k3=gradient(k3.sum(), new_leaf))

# The reward model's pairs.
P = rnd.randint(3, 9)
chosen, rejected = leaf("rm_chosen", P, scale=2), leaf("rm_rejected", P, scale=2)
logsig = -F.logsigmoid(chosen - rejected).mean()
case.update(rm_logsig_loss=logsig, rm_logexp_loss=torch.log1p((rejected - chosen).exp()).mean(),
            grad_chosen_rm_logsig_loss=gradient(logsig, chosen))

# Preference losses, β large enough for the hinge to have both sides.
P, beta = rnd.randint(3, 9), rnd.uniform(0.05, 0.6)
chosen, rejected, ref_chosen, ref_rejected = (leaf("dpo_" + k, P, scale=2) for k in ("chosen", "rejected", "ref_chosen", "ref_rejected"))
d = (chosen - rejected) - (ref_chosen - ref_rejected)
losses = {
    "dpo_sigmoid_loss": -F.logsigmoid(beta * d).mean(),
    "dpo_ipo_loss": ((d - 1 / (2 * beta)) ** 2).mean(),
    "dpo_hinge_loss": (1 - beta * d).relu().mean(),
    "simpo_loss_beta2_gamma05": -F.logsigmoid(2 * (chosen - rejected) - 0.5).mean(),
}
case.update(losses, dpo_beta=beta, **{"grad_chosen_" + k: gradient(v, chosen) for k, v in losses.items()})

# Groups, one of them without a spread.
G, K = rnd.randint(2, 5), rnd.randint(2, 8)
group = torch.randint(0, 5, (G, K)).double() / 2
group[0] = 0.5
case.update(grpo_rewards=group, grpo_advantages=(group - group.mean(-1, keepdim=True)) / (group.std(-1, keepdim=True) + 1e-4))

os.makedirs(out, exist_ok=True)
with open(os.path.join(out, "rl_losses.json"), "w") as f:
    json.dump({k: v.detach().tolist() if torch.is_tensor(v) else v for k, v in case.items()}, f)
