#!/usr/bin/env python3
"""Makes tests/data/golden/policies.json (which positions each eviction rule removes, and the logits that
follow) and gqa1-long-sink*.npy (the last logits of 50,000 tokens under sink:4+12), with a Llama decoder in
float64 NumPy that is fed token by token and keeps its cache one position at a time.

usage: make_policy_golden.py [--kvpress]    needs: numpy torch safetensors transformers
       --kvpress compares knorm, tova and snapkv with NVIDIA's kvpress instead, and writes nothing

The rules, at a length L, in a layer with more than B resident positions; the newest position always stays,
and where scores are equal the higher position leaves first:
  h2o     the newest B//2 stay; lowest sum of attention from all queries so far leaves
  tova    lowest attention from the newest query leaves
  lru     smallest last use leaves: the newest query that gave it n_heads / n_visible or more, or its own
  knorm   highest sum over KV heads of ||key|| leaves
  snapkv  once, at the prompt's end: the newest W = min(32, B//2) stay; lowest attention from those W
          queries, averaged over five neighbours (zeros outside the older positions), leaves
Attention is the softmax over the layer's resident positions, summed over all query heads. Keys keep the
angle of their own position.
"""
import glob
import json
import os
import sys

import numpy as np
from safetensors.torch import load_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "golden")
# In the first layer a key's length depends on its token alone, so a token met twice makes a tie that only
# rounding breaks; these budgets of knorm never have to choose between two such positions.
MODELS = {"gqa1-default": "knorm:7@every:1", "gqa4-llama3": "knorm:14@every:1"}
RULES = ("h2o:16@every:1", "h2o:10@every:4", "tova:12@every:1", "lru:12@every:1", "lru:20@every:8",
         "snapkv:16")
PROMPT = 40                # where snapkv decides
LOGITS_AT = (48, 54, 55)   # positions
SMALLEST_MARGIN = 1e-5     # relative; float32 must decide as float64 does
FLOAT32 = 1e-5             # of the largest logit: how far a model in float32 may be from this one
LONG, SINKS, WINDOW = 50000, 4, 12


class Llama:
    """Weights and the steps without state. Shapes: x [n, hidden], q [n, heads, d], k and v [n, kv, d]."""

    def __init__(self, name, dtype=np.float64):
        folder = os.path.join(OUT, name)
        with open(os.path.join(folder, "config.json")) as file:
            c = json.load(file)
        self.w = {}
        for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
            self.w.update({k: v.double().numpy().astype(dtype) for k, v in load_file(path).items()})
        self.layers, self.heads = c["num_hidden_layers"], c["num_attention_heads"]
        self.kv, self.d = c["num_key_value_heads"], c["head_dim"]
        self.eps, self.dtype = c["rms_norm_eps"], dtype
        head = "model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"
        self.head = self.w[head]
        self.inverse = self.frequencies(c["rope_parameters"])

    def frequencies(self, rope):
        """Radians per position of each rotary pair, float64 [d / 2]."""
        base = rope["rope_theta"] ** (-np.arange(0, self.d, 2) / self.d)
        if rope["rope_type"] == "default":
            return base
        assert rope["rope_type"] == "llama3"
        turns = rope["original_max_position_embeddings"] * base / (2 * np.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        keep = np.clip((turns - low) / (high - low), 0, 1)  # 1: unscaled, 0: divided by the factor
        return base * keep + base / rope["factor"] * (1 - keep)

    def rotate(self, x, positions):
        """x [..., heads, d] at positions [...]."""
        angle = np.asarray(positions, np.float64)[..., None, None] * self.inverse
        cos, sin = np.cos(angle).astype(self.dtype), np.sin(angle).astype(self.dtype)
        a, b = x[..., :self.d // 2], x[..., self.d // 2:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def norm(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.dtype(self.eps)) * self.w[weight]

    def embed(self, ids):
        return self.w["model.embed_tokens.weight"][ids]

    def qkv(self, layer, x):
        p = f"model.layers.{layer}."
        h = self.norm(x, p + "input_layernorm.weight")
        return tuple((h @ self.w[f"{p}self_attn.{part}_proj.weight"].T).reshape(len(x), -1, self.d)
                     for part in "qkv")

    def after_attention(self, layer, x, attended):
        p = f"model.layers.{layer}."
        x = x + attended.reshape(len(x), -1) @ self.w[p + "self_attn.o_proj.weight"].T
        h = self.norm(x, p + "post_attention_layernorm.weight")
        gate = h @ self.w[p + "mlp.gate_proj.weight"].T
        gate = gate / (1 + np.exp(-gate)) * (h @ self.w[p + "mlp.up_proj.weight"].T)
        return x + gate @ self.w[p + "mlp.down_proj.weight"].T

    def logits(self, x):
        return self.norm(x, "model.norm.weight") @ self.head.T


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Layer:
    """What one layer holds and remembers of its sequence."""

    def __init__(self, model, n):
        self.keys = np.zeros((n, model.kv, model.d), model.dtype)
        self.values = np.zeros_like(self.keys)
        self.given = np.zeros((n, n), model.dtype)  # [query, position] attention summed over heads
        self.last_use = np.arange(n)
        self.resident = []
        self.share_margin = np.inf  # nearest that an attention came to the fair share, relative

    def attend(self, model, t, q):
        """q [heads, d] of position t, already resident; returns [heads, d]."""
        seen = np.array(self.resident)
        group = np.arange(model.heads) // (model.heads // model.kv)
        keys, values = self.keys[seen][:, group], self.values[seen][:, group]  # [n, heads, d]
        p = softmax(np.einsum("hd,nhd->hn", q, keys) / model.dtype(np.sqrt(model.d)))
        self.given[t, seen] = p.sum(0)
        share = model.heads / len(seen)
        self.last_use[seen[self.given[t, seen] >= share]] = t
        if len(seen) > 1:  # of its own query a position is used either way
            self.share_margin = min(self.share_margin, np.abs(self.given[t, seen[:-1]] / share - 1).min())
        return np.einsum("hn,nhd->hd", p, values)

    def scores(self, rule, budget, length):
        """Of every position ever, the smallest leaves first; and how many newest positions stay."""
        if rule == "h2o":
            return self.given[:length].sum(0), max(1, budget // 2)
        if rule == "tova":
            return self.given[length - 1], 1
        if rule == "lru":
            return self.last_use, 1
        if rule == "knorm":
            return -np.sqrt((self.keys * self.keys).sum(-1)).sum(-1), 1
        assert rule == "snapkv"
        window = min(32, budget // 2)
        older = self.given[length - window:length, :length - window].sum(0)
        return np.convolve(older, np.ones(5, older.dtype) / 5, "same"), window

    def evict(self, rule, budget, length):
        """Victims, worst first, and the smallest relative distance of one to the next in rank."""
        excess = len(self.resident) - budget
        if excess <= 0:
            return [], np.inf
        score, protected = self.scores(rule, budget, length)
        ranked = sorted((i for i in self.resident if i < length - protected), key=lambda i: (score[i], -i))
        margin = np.inf
        if rule == "lru":  # whole numbers: what could differ is who used what
            margin = self.share_margin
        else:
            for one, other in list(zip(ranked, ranked[1:]))[:excess]:
                margin = min(margin, abs(score[one] - score[other]) / max(abs(score[one]), abs(score[other])))
        victims = ranked[:excess]
        self.resident = [i for i in self.resident if i not in victims]
        return victims, float(margin)


def parse(spec):
    """NAME:B or NAME:B@every:N as (name, budget, every); snapkv decides once and has no interval."""
    rule, _, every = spec.partition("@every:")
    name, budget = rule.split(":")
    return name, int(budget), int(every or 1)


def simulate(model, ids, spec, prompt=0):
    """Feeds ids one by one. Returns victims [(layer, length, position)], logits [n, vocab], the smallest
    margin, and what is resident per layer in the end. A spec of None removes nothing."""
    name, budget, every = parse(spec) if spec else ("full", len(ids) + 1, 1)
    layers = [Layer(model, len(ids)) for _ in range(model.layers)]
    victims, rows, smallest = [], [], np.inf
    for t, token in enumerate(ids):
        x = model.embed([token])
        for index, layer in enumerate(layers):
            q, k, v = model.qkv(index, x)
            layer.keys[t], layer.values[t] = model.rotate(k[0], t), v[0]
            layer.resident.append(t)
            x = model.after_attention(index, x, layer.attend(model, t, model.rotate(q[0], t))[None])
        rows.append(model.logits(x)[0])
        length = t + 1
        if length == prompt if name == "snapkv" else length % every == 0:
            for index, layer in enumerate(layers):
                gone, margin = layer.evict(name, budget, length)
                victims += [(index, length, i) for i in gone]
                smallest = min(smallest, margin)
    return victims, np.array(rows), smallest, [layer.resident for layer in layers]


def masked_by_transformers(name, ids, gone_at):
    """Logits by transformers over the whole sequence, where layer l's queries from position gone_at[l, i] on
    do not see position i. The weights are float64, but angles, norms and softmax stay float32 in there."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging
    logging.disable_progress_bar()
    model = LlamaForCausalLM.from_pretrained(
        os.path.join(OUT, name), dtype=torch.float64, attn_implementation="eager").eval()
    query, position = np.arange(len(ids))[:, None], np.arange(len(ids))[None]

    def hook(index):
        seen = (position <= query) & (query < gone_at[index][None])
        mask = torch.where(torch.tensor(seen), 0.0, -torch.inf).double()[None, None]

        def set_mask(_module, args, kwargs):
            assert "attention_mask" in kwargs
            return args, {**kwargs, "attention_mask": mask}
        return set_mask

    for index, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_pre_hook(hook(index), with_kwargs=True)
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0].numpy()


def relative(a, b):
    return float(np.abs(a - b).max() / np.abs(a).max())


def windowed(model, ids, compact, last, chunk=2048):
    """Logits of the last positions under sink:SINKS+WINDOW. Slot j of a query's cache holds a sink or a
    position of its window; compact: keys and query turn by slot, otherwise by position."""
    n, size = len(ids), SINKS + WINDOW
    slot = np.arange(size)
    group = np.arange(model.heads) // (model.heads // model.kv)
    x = model.embed(ids)
    for index in range(model.layers):
        q, k, v = model.qkv(index, x)
        attended = np.zeros_like(q)
        for begin in range(0, n, chunk):
            t = np.arange(begin, min(begin + chunk, n))
            held = np.where(slot < SINKS, slot, np.maximum(t - size + 1, 0)[:, None] + slot)  # [c, size]
            seen, held = held <= t[:, None], np.minimum(held, t[:, None])
            keys = model.rotate(k[held], np.broadcast_to(slot, held.shape) if compact else held)
            query = model.rotate(q[t], np.minimum(t, size - 1) if compact else t)
            scores = np.einsum("chd,cnhd->chn", query, keys[:, :, group]) / np.sqrt(model.d)
            p = softmax(np.where(seen[:, None], scores, -np.inf))
            attended[t] = np.einsum("chn,cnhd->chd", p, v[held][:, :, group])
        x = model.after_attention(index, x, attended)
    return model.logits(x[-last:])


def make_long(ids):
    name = "gqa1-default"
    model = Llama(name)
    # The same code on the short ids: against the loop of make_golden.py, and against a mask.
    stored = np.load(os.path.join(OUT, f"gqa1-sink{SINKS}+{WINDOW}.npy"))
    assert relative(stored, windowed(model, ids, True, len(ids))) < 1e-6
    at = np.arange(len(ids))
    gone_at = np.where(at < SINKS, len(ids), at + WINDOW)[None].repeat(model.layers, 0)
    assert relative(masked_by_transformers(name, ids, gone_at),
                    windowed(model, ids, False, len(ids))) < FLOAT32
    i = np.arange(LONG)
    long = (i * 7919 + i // 13) % 128
    compact, original = (windowed(model, long, c, 2) for c in (True, False))
    # In-cache positions do not know the length: the sinks and the window's reach through all layers suffice.
    tail = np.concatenate([long[:SINKS], long[-(model.layers + 1) * WINDOW:]])
    assert relative(compact, windowed(model, tail, True, 2)) < 1e-12
    for rows, file in ((compact, "gqa1-long-sink.npy"), (original, "gqa1-long-sink-original.npy")):
        np.save(os.path.join(OUT, file), rows.astype(np.float32))
    print(f"sink:{SINKS}+{WINDOW} over {LONG} tokens: compact and original differ by "
          f"{relative(compact, original):.2g} of the largest logit")


def make_policies(ids):
    cases = []
    for name, knorm in MODELS.items():
        model, single = Llama(name), Llama(name, np.float32)
        full = simulate(model, ids, None)[1]
        stored = np.load(os.path.join(OUT, name, "logits.npy"))
        print(f"{name:13} full             unlike the stored logits {relative(full, stored):.1e}")
        assert relative(full, stored) < FLOAT32
        for spec in (*RULES, knorm):
            prompt = 0 if "@" in spec else PROMPT
            victims, logits, margin, _ = simulate(model, ids, spec, prompt)
            victims32, logits32, _, _ = simulate(single, ids, spec, prompt)
            gone_at = np.full((model.layers, len(ids)), len(ids))
            for layer, length, position in victims:
                gone_at[layer, position] = length
            by_mask = relative(logits, masked_by_transformers(name, ids, gone_at))
            print(f"{name:13} {spec:16} victims {len(victims):3}  margin {margin:.1e}  float32 "
                  f"{relative(logits, logits32):.1e}  transformers {by_mask:.1e}  "
                  f"unlike full {relative(full, logits):.1e}")
            assert victims == victims32 and margin > SMALLEST_MARGIN and by_mask < FLOAT32
            cases.append({"model": name, "policy": spec, "prompt": prompt, "victims": victims,
                          "logits": {"positions": LOGITS_AT,
                                     "values": [[float(f"{x:.7g}") for x in logits[i]] for i in LOGITS_AT]}})
    with open(os.path.join(OUT, "policies.json"), "w") as file:
        rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        file.write(f"[\n{rows}\n]\n")


def compare_with_kvpress(ids):
    """One compression where a prompt ends keeps the same positions as one decision there. One KV head, since
    kvpress ranks every KV head by itself."""
    import kvpress
    import torch
    import transformers
    from transformers import DynamicCache, LlamaForCausalLM
    transformers.utils.logging.disable_progress_bar()
    name = "gqa4-llama3"
    model, compared, forced = Llama(name), 0, 0
    for implementation in ("eager", "sdpa"):
        theirs = LlamaForCausalLM.from_pretrained(
            os.path.join(OUT, name), dtype=torch.float32, attn_implementation=implementation).eval()

        def keys(n, press=None):
            cache = DynamicCache()
            with torch.no_grad():
                if press is None:
                    theirs(torch.tensor([ids[:n]]), past_key_values=cache)
                else:
                    with press(theirs):
                        theirs(torch.tensor([ids[:n]]), past_key_values=cache)
            return [layer.keys[0, 0].numpy() for layer in cache.layers]

        for n in (24, 40, 41, 56):
            whole = keys(n)
            for budget in (6, 8, 12, 16, 20):
                ratio = 1 - (budget + 0.5) / n  # int(n * (1 - ratio)) is the budget
                window = min(32, budget // 2)
                for spec, press in (
                        (f"knorm:{budget}@every:{n}", kvpress.KnormPress(ratio)),
                        (f"tova:{budget}@every:{n}", kvpress.TOVAPress(ratio)),
                        (f"snapkv:{budget}", kvpress.SnapKVPress(ratio, window_size=window, kernel_size=5))):
                    ours = simulate(model, ids[:n], spec, n)[3]
                    for layer, (kept, everything) in enumerate(zip(keys(n, press), whole)):
                        where = (kept[:, None] == everything[None]).all(-1)
                        assert (where.sum(1) == 1).all() and len(kept) == budget
                        mine, other = set(ours[layer]), set(where.argmax(1).tolist())
                        compared += 1
                        if spec.startswith("knorm") and n - 1 not in other:
                            # kvpress may drop the newest position, which we keep in place of one more.
                            forced += 1
                            assert mine - other == {n - 1}, (spec, n, layer, mine ^ other)
                        else:
                            assert mine == other, (spec, n, layer, mine ^ other)
    print(f"kvpress under transformers {transformers.__version__}: {compared} decisions compared, all keep "
          f"the same positions; in {forced} of them knorm's newest position is kept by us alone")


def main():
    with open(os.path.join(OUT, "tokens.json")) as file:
        ids = json.load(file)
    if sys.argv[1:] == ["--kvpress"]:
        compare_with_kvpress(ids)
        return
    make_policies(ids)
    make_long(ids)


main()
