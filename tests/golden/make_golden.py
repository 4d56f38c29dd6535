#!/usr/bin/env python3
"""Makes tests/data/golden: tiny random Llama folders, their logits by transformers in float32, GGUF twins,
StreamingLLM logits by an independent float64 implementation, and probes of the real model.

usage: make_golden.py [--real DIR FILE.gguf]      needs: torch transformers gguf numpy safetensors
"""
import json
import os
import shutil
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "golden")
N_TOKENS = 56

# name: (heads, kv heads, head_dim, hidden, tied, rope, dtype, shards)
MODELS = {
    "gqa1-default": (4, 4, 16, 32, False, None, torch.float32, 1),
    "gqa2-linear": (4, 2, 16, 48, True, {"rope_type": "linear", "factor": 4.0}, torch.bfloat16, 1),
    "gqa4-llama3": (4, 1, 32, 64, True,
                    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
                    torch.bfloat16, 2),
    "gqa8-yarn": (8, 1, 16, 32, False,
                  {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
                  torch.bfloat16, 1),
    "wide-head": (2, 1, 128, 32, True, None, torch.bfloat16, 1),
}


def tokens(vocab):
    return np.random.default_rng(7).integers(0, vocab, N_TOKENS).tolist()


def build(name, spec):
    heads, kv, head_dim, hidden, tied, rope, dtype, shards = spec
    config = LlamaConfig(
        vocab_size=128, hidden_size=hidden, intermediate_size=hidden + (32 if heads == kv else 24), num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=kv, head_dim=head_dim,
        max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=tied, rope_theta=10000.0,
        rope_scaling=rope, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(1234)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            wide = 0.35 if "q_proj" in key or "k_proj" in key else 0.15
            value.copy_(1 + 0.2 * torch.randn_like(value) if "norm" in key
                        else wide * torch.randn_like(value))
    model = model.to(dtype)
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model.save_pretrained(folder, max_shard_size="20KB" if shards > 1 else "1GB")
    path = os.path.join(folder, "config.json")
    config_json = json.load(open(path))
    # Two models keep the older spelling of rope settings.
    if name in ("gqa2-linear", "gqa8-yarn"):
        scaling = config_json.pop("rope_parameters", config_json.pop("rope_scaling", None))
        config_json["rope_theta"] = scaling.pop("rope_theta", 10000.0)
        config_json["rope_scaling"] = scaling
    json.dump(config_json, open(path, "w"), indent=1)
    reference = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = reference(torch.tensor([tokens(128)])).logits[0].numpy()
    np.save(os.path.join(folder, "logits.npy"), logits.astype(np.float32))
    return reference


def permute(weight, heads):
    """Rows for rotary pairs (2i, 2i+1), as converters to GGUF do."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def write_gguf(path, model, quant, rope_freqs=None):
    c = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    layer = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    decoded = {}
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and c.tie_word_embeddings:
            continue
        stem = key.removesuffix(".weight")
        if stem in names:
            name = names[stem]
        else:
            _, _, index, rest = stem.split(".", 3)
            name = f"blk.{index}.{layer[rest]}"
        data = value.numpy().astype(np.float32)
        if quant is not None and data.ndim == 2 and data.shape[1] % 32 == 0:
            packed = gguf.quants.quantize(data, quant)
            decoded[key] = torch.tensor(gguf.quants.dequantize(packed, quant))
            if "q_proj" in key or "k_proj" in key:
                heads = c.num_attention_heads if "q_proj" in key else c.num_key_value_heads
                packed = permute(packed, heads)
            writer.add_tensor(name + ".weight", packed, raw_dtype=quant)
            continue
        if "q_proj" in key or "k_proj" in key:
            data = permute(data, c.num_attention_heads if "q_proj" in key else c.num_key_value_heads)
        if data.ndim == 2 and quant is None:  # bfloat16 weights are stored as such
            data = gguf.quants.quantize(data, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(name + ".weight", data, raw_dtype=gguf.GGMLQuantizationType.BF16)
            continue
        writer.add_tensor(name + ".weight", np.ascontiguousarray(data))
    if rope_freqs is not None:
        writer.add_tensor("rope_freqs.weight", rope_freqs.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return decoded


def llama3_divisors(spec):
    _, _, head_dim, _, _, rope, _, _ = spec
    i = np.arange(0, head_dim, 2) / head_dim
    wavelength = 2 * np.pi * 10000.0 ** i
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / wavelength - low) / (high - low)
    middle = 1 / ((1 - smooth) / factor + smooth)
    return np.where(wavelength < original / high, 1.0,
                    np.where(wavelength > original / low, factor, middle))


def streaming(model, ids, sinks, window):
    """Llama in float64 where every query meets its visible keys re-rotated by their index in the cache,
    as StreamingLLM does: no query trick, no paging."""
    c = model.config
    w = {k: v.double().numpy() for k, v in model.state_dict().items()}
    d, heads, kv = c.head_dim, c.num_attention_heads, c.num_key_value_heads
    inverse = 10000.0 ** (-np.arange(0, d, 2) / d)

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + c.rms_norm_eps) * weight

    def rotate(x, position):
        angle = np.concatenate([inverse, inverse]) * position
        half = np.concatenate([-x[d // 2:], x[:d // 2]])
        return x * np.cos(angle) + half * np.sin(angle)

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(c.num_hidden_layers):
        p = f"model.layers.{layer}."
        h = norm(x, w[p + "input_layernorm.weight"])
        q = (h @ w[p + "self_attn.q_proj.weight"].T).reshape(-1, heads, d)
        k = (h @ w[p + "self_attn.k_proj.weight"].T).reshape(-1, kv, d)
        v = (h @ w[p + "self_attn.v_proj.weight"].T).reshape(-1, kv, d)
        out = np.zeros_like(q)
        for t in range(len(ids)):
            seen = [i for i in range(t + 1) if i < sinks or i > t - window]
            place = {i: n for n, i in enumerate(seen)}
            for head in range(heads):
                g = head // (heads // kv)
                query = rotate(q[t, head], place[t])
                scores = np.array([query @ rotate(k[i, g], place[i]) for i in seen]) / np.sqrt(d)
                weights = np.exp(scores - scores.max())
                out[t, head] = (weights / weights.sum()) @ v[seen, g]
        x = x + out.reshape(len(ids), -1) @ w[p + "self_attn.o_proj.weight"].T
        h = norm(x, w[p + "post_attention_layernorm.weight"])
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "mlp.up_proj.weight"].T)) @ \
            w[p + "mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


def real(folder, name):
    """Ids, and for every position a fixed set of logits, the largest and the log of the sum."""
    from transformers import AutoTokenizer
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    text = open(os.path.join(os.path.dirname(__file__), "prose.txt")).read()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = (ids * (1024 // len(ids) + 1))[:1024]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().numpy()
    probes = np.random.default_rng(3).integers(0, logits.shape[1], 22)
    top = logits.max(1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(1))
    rows = np.concatenate([logits[:, probes], top[:, None], total[:, None]], 1).astype(np.float32)
    np.save(os.path.join(OUT, "real_probes.npy"), np.ascontiguousarray(rows))
    json.dump({"tokens": ids, "probes": probes.tolist(), "largest": float(np.abs(logits).max())},
              open(os.path.join(OUT, "real.json"), "w"))


def main():
    os.makedirs(OUT, exist_ok=True)
    json.dump(tokens(128), open(os.path.join(OUT, "tokens.json"), "w"))
    models = {name: build(name, spec) for name, spec in MODELS.items()}
    write_gguf(os.path.join(OUT, "gqa4-llama3.gguf"), models["gqa4-llama3"], None,
               llama3_divisors(MODELS["gqa4-llama3"]))
    for quant in ("Q8_0", "Q4_0", "Q4_1"):
        model = models["gqa1-default"]
        path = os.path.join(OUT, f"gqa1-{quant}.gguf")
        decoded = write_gguf(path, model, gguf.GGMLQuantizationType[quant])
        state = {k: decoded.get(k, v) for k, v in model.state_dict().items()}
        twin = LlamaForCausalLM(model.config).eval()
        twin.load_state_dict(state)
        with torch.no_grad():
            logits = twin(torch.tensor([tokens(128)])).logits[0].numpy()
        np.save(os.path.join(OUT, f"gqa1-{quant}.npy"), logits.astype(np.float32))
    for sinks, window in ((0, 8), (4, 12), (1, 1), (5, 7)):
        logits = streaming(models["gqa1-default"], tokens(128), sinks, window)
        np.save(os.path.join(OUT, f"gqa1-sink{sinks}+{window}.npy"), logits.astype(np.float32))
    if len(sys.argv) == 4 and sys.argv[1] == "--real":
        real(sys.argv[2], sys.argv[3])


main()
