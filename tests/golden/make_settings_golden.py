"""Makes tests/data/rope_settings.json: what transformers makes of variants of a config.json.

    python make_settings_golden.py OUTPUT

Each case: the members that a plain configuration gets, and either the inverse frequencies with the
factor on cos and sin, or the kind of exception. Needs torch and transformers.
"""

import json
import os
import sys
import tempfile

import transformers
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

PLAIN = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96,
    "max_position_embeddings": 128,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def yarn(**more):
    return {"rope_scaling": {**YARN, **more}}


CASES = [
    {},
    {"rope_theta": 500.0},
    # Two spellings.
    {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rope_scaling": LINEAR},
    {"rope_parameters": LINEAR, "rope_scaling": {"rope_type": "default"}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_scaling": LINEAR},
    {"rope_parameters": {}, "rope_scaling": LINEAR},
    {"rope_parameters": LINEAR, "rope_scaling": {}},
    {"rope_parameters": LINEAR, "rope_scaling": None},
    {"rope_parameters": {}, "rope_scaling": {}, "rope_theta": 500.0},
    {"rope_parameters": LINEAR},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_scaling": {"factor": 2.0}},
    {"rope_scaling": {"rope_type": "default", "factor": 4.0}},
    {"rope_scaling": {**LINEAR, "attention_factor": 1.5}},
    # Two levels.
    {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}},
    {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default"}},
    {"original_max_position_embeddings": 64, "rope_scaling": LLAMA3},
    {"original_max_position_embeddings": 64, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32}},
    {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64}},
    {"rope_scaling": LLAMA3},
    {"original_max_position_embeddings": 64, "rope_scaling": YARN},
    {"original_max_position_embeddings": 64, "rope_scaling": LINEAR},
    # Yarn's own.
    yarn(),
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    yarn(factor=None),
    yarn(beta_fast=0, beta_slow=0),
    yarn(beta_fast=16, beta_slow=2),
    yarn(truncate=False),
    yarn(truncate=None),
    yarn(attention_factor=1.5),
    yarn(mscale=0.7, mscale_all_dim=1.2),
    yarn(mscale=0.7),
    # What it refuses.
    {"rope_scaling": {"rope_type": "linear"}},
    {"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 32}},
    {"rope_scaling": "linear"},
]


def measure(edits):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump({**PLAIN, **edits}, file)
        try:
            rope = LlamaRotaryEmbedding(AutoConfig.from_pretrained(folder))
        except Exception as error:
            return {"edits": edits, "refused": type(error).__name__}
        return {
            "edits": edits,
            "inverse_frequencies": [float(f"{x:.9g}") for x in rope.inv_freq.tolist()],
            "attention_factor": float(rope.attention_scaling),
        }


def main():
    transformers.logging.set_verbosity_error()
    cases = ",\n".join(json.dumps(measure(edits)) for edits in CASES)
    version = f"transformers {transformers.__version__}"
    with open(sys.argv[1], "w") as file:
        file.write(f'{{"made_by": "{version}", "plain": {json.dumps(PLAIN)}, "cases": [\n{cases}\n]}}\n')


main()
