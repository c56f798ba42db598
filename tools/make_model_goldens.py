#!/usr/bin/env python3
"""Writes tests/golden/models/*: tiny random llama checkpoints with logits from transformers.

Each folder holds config.json, float32 safetensors and golden.json: what LlamaForCausalLM
(float32, eager attention) answers. golden.json:
  sequences: [{ids, first, logits}]  logits after ids[first:], base64 of little-endian float32
                                     [len(ids) - first, vocabulary]
  greedy:    {prompt, ids, margin}   64 tokens by argmax, end-of-text ignored; margin is the
                                     smallest gap of the best two logits / the largest |logit|
tests/golden/logits/*.json is the same for trained models, at a few positions of a fixed prompt:
  {model, ids, positions, logits [len(positions), vocabulary], nll: [-log p(ids[i+1] | ids[..i])]}

Run: python3 tools/make_model_goldens.py [--models DIR]   (torch, transformers, safetensors)
"""
import argparse
import base64
import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
GREEDY_TOKENS = 64
MARGIN_LEAST = 2e-3  # greedy tokens must not hang on rounding
EOS = 2
VERSIONS = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}

BASE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 68, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 131,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": EOS,
    "torch_dtype": "float32",
}
# A context of 32 and head size 16 put wavelengths below, between and above the two limits.
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
VARIANTS = {
    "llama-mha-untied": {},
    "llama-gqa-tied": {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 8,
                       "num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama-mqa": {"num_attention_heads": 6, "num_key_value_heads": 1, "num_hidden_layers": 3,
                  "tie_word_embeddings": True, "intermediate_size": 56},
    "llama-attention-bias": {"attention_bias": True, "num_key_value_heads": 2},
    "llama-mlp-bias": {"mlp_bias": True, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama-head-dim": {"head_dim": 20, "num_key_value_heads": 2, "rms_norm_eps": 1e-6},
    "llama-rope-llama3": {"head_dim": 16, "num_key_value_heads": 2, "rope_scaling": LLAMA3_ROPE,
                          "tie_word_embeddings": True},
    "llama-rope-theta": {"rope_theta": 500000.0, "num_key_value_heads": 2, "head_dim": 16,
                         "tie_word_embeddings": True},
    # Everything at once, in two shards, with the config keys of transformers 5.
    "llama-all-sharded": {"attention_bias": True, "mlp_bias": True, "head_dim": 16,
                          "num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 173,
                          "num_hidden_layers": 2, "rope_theta": None, "rope_scaling": None,
                          "torch_dtype": None, "dtype": "float32",
                          "rope_parameters": dict(LLAMA3_ROPE, rope_theta=50000.0)},
}


def config_of(overrides):
    return {k: v for k, v in {**BASE, **overrides}.items()
            if v is not None or (k == "rope_scaling" and "rope_parameters" not in overrides)}


def random_state(model, generator):
    """Spread wide enough that attention and logits are far from uniform."""
    def draw(name, shape):
        noise = torch.randn(shape, generator=generator)
        if "norm" in name:
            return 1 + 0.25 * noise
        return {"bias": 0.2, "embed": 0.5, "head": 0.3}.get(
            "bias" if name.endswith(".bias") else
            "embed" if "embed_tokens" in name else
            "head" if "lm_head" in name else "", 0.2) * noise
    tied = model.config.tie_word_embeddings
    return {name: draw(name, p.shape) for name, p in model.state_dict().items()
            if not (tied and name == "lm_head.weight")}


def write_checkpoint(folder, config, state):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    meta = {"format": "pt"}
    if "sharded" not in folder.name:
        save_file(state, folder / "model.safetensors", metadata=meta)
        return
    names = sorted(state)
    halves = [names[:len(names) // 2], names[len(names) // 2:]]
    weight_map = {}
    for i, half in enumerate(halves):
        file = f"model-{i + 1:05d}-of-{len(halves):05d}.safetensors"
        save_file({n: state[n] for n in half}, folder / file, metadata=meta)
        weight_map |= {n: file for n in half}
    total = sum(t.numel() * t.element_size() for t in state.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n")


def load(folder, dtype=torch.float32):
    model, info = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    lost = [k for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[k]]
    assert not lost, f"{folder}: {lost}"
    return model.eval()


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


@torch.no_grad()
def greedy(model, prompt, count):
    ids, margin = list(prompt), float("inf")
    for _ in range(count):
        last = logits_of(model, ids)[-1]
        best = last.topk(2).values
        margin = min(margin, float((best[0] - best[1]) / last.abs().max()))
        ids.append(int(last.argmax()))
    return ids[len(prompt):], margin


def packed(tensor):
    return base64.b64encode(tensor.float().contiguous().numpy().astype("<f4").tobytes()).decode()


def golden_of(model, generator):
    vocab = model.config.vocab_size
    draw = lambda n: torch.randint(3, vocab, (n,), generator=generator).tolist()
    sequences = []
    for length, kept in ((1, 1), (9, 9), (33, 2), (77, 3), (150, 2)):
        ids = [1] + draw(length - 1)
        logits = logits_of(model, ids)
        sequences.append({"ids": ids, "first": length - kept, "logits": packed(logits[-kept:])})
    prompt = [1] + draw(7)
    ids, margin = greedy(model, prompt, GREEDY_TOKENS)
    return {"about": "LlamaForCausalLM, float32, eager attention; tools/make_model_goldens.py",
            **VERSIONS, "vocab_size": vocab, "sequences": sequences,
            "greedy": {"prompt": prompt, "ids": ids, "margin": round(margin, 6)}}


def float64_gap(folder, golden):
    """Largest |float32 - float64| / largest |logit|: what a tolerance has to leave room for."""
    model, ids = load(folder, torch.float64), golden["sequences"][-1]["ids"]
    exact, single = logits_of(model, ids), logits_of(load(folder), ids)
    return float((exact - single).abs().max() / exact.abs().max())


def make_tiny_models(out):
    for number, (name, overrides) in enumerate(VARIANTS.items()):
        folder, config = out / name, config_of(overrides)
        for seed in range(1000 * number, 1000 * number + 100):
            generator = torch.Generator().manual_seed(seed)
            empty = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{
                k: v for k, v in config.items() if k not in ("torch_dtype", "dtype")}))
            write_checkpoint(folder, config, random_state(empty, generator))
            golden = golden_of(load(folder), generator)
            ids = golden["greedy"]["ids"]
            if golden["greedy"]["margin"] > MARGIN_LEAST and EOS not in ids and len(set(ids)) > 8:
                break
        else:
            raise SystemExit(f"{name}: no seed gives a greedy text that is clear of ties")
        (folder / "golden.json").write_text(json.dumps(golden) + "\n")
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name}: seed {seed}, {size} bytes, margin {golden['greedy']['margin']}, "
              f"distinct {len(set(ids))}, float64 gap {float64_gap(folder, golden):.1e}")


def make_trained_logits(models, out):
    out.mkdir(parents=True, exist_ok=True)
    for name, length, positions in (("wiki-6m", 120, [0, 60, 119]),
                                    ("stories260K", 120, [0, 1, 30, 60, 90, 119])):
        model = load(models / name)
        generator = torch.Generator().manual_seed(7)
        first = 1 if name == "stories260K" else 0  # BOS
        ids, _ = greedy(model, [first], length // 2)
        ids = [first] + ids
        ids += torch.randint(5, model.config.vocab_size, (length - len(ids),),
                             generator=generator).tolist()
        logits = logits_of(model, ids)
        nll = torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:]),
                                                reduction="none")
        (out / f"{name}.json").write_text(json.dumps({
            "about": "LlamaForCausalLM, float32, eager attention; tools/make_model_goldens.py",
            **VERSIONS, "model": name, "ids": ids, "positions": positions,
            "logits": packed(logits[positions]), "nll": [float(f"{x:.9g}") for x in nll]}) + "\n")
        print(f"{name}: mean nll {nll.mean():.6f}, largest |logit| {logits.abs().max():.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=pathlib.Path, default=ROOT.parent / "shared" / "models")
    args = parser.parse_args()
    torch.set_num_threads(1)
    make_tiny_models(ROOT / "tests" / "golden" / "models")
    make_trained_logits(args.models, ROOT / "tests" / "golden" / "logits")


if __name__ == "__main__":
    main()
