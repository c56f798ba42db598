#!/usr/bin/env python3
"""Writes tests/golden/models/*: tiny random checkpoints with logits from transformers.

Each folder holds config.json, safetensors (Llama's in float32, the others in bfloat16) and
golden.json: what the family's causal language model (float32, eager attention) answers:
  sequences: [{ids, first, logits}]  logits after ids[first:], base64 of little-endian float32
                                     [len(ids) - first, vocabulary]; with "context": where the RoPE
                                     depends on it, the context (max_model_len) it was made for
  schemes:   {name: {ids, first, logits}}  the same with the linears quantized, not the head
  greedy:    {prompt, ids, margin}   64 tokens by argmax, end-of-text ignored; margin is the
                                     smallest gap of the best two logits / the largest |logit|
tests/golden/logits/*.json is the same for trained models, at a few positions of a fixed prompt:
  {model, ids, positions, logits [len(positions), vocabulary], nll: [-log p(ids[i+1] | ids[..i])]}

Run: python3 tools/make_model_goldens.py [--models DIR] [--only PART OF A NAME]
(torch, transformers, safetensors, numpy, ml_dtypes)
"""
import argparse
import base64
import json
import pathlib
import shutil

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

import make_scheme_goldens as recipes

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



# The other families: bfloat16 weights, a small vocabulary. Sequences of 77 and 150 tokens pass
# every window and every original context.
SMALL = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 67, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0,
    "torch_dtype": "bfloat16",
}


def family(model_type, class_name, **keys):
    return {**SMALL, "model_type": model_type, "architectures": [class_name], **keys}


def llama(**keys):
    return family("llama", "LlamaForCausalLM", hidden_act="silu", attention_bias=False,
                  mlp_bias=False, rope_theta=10000.0, tie_word_embeddings=True, head_dim=16, **keys)


def gemma3_text(**keys):
    return family("gemma3_text", "Gemma3ForCausalLM", num_hidden_layers=4, head_dim=16,
                  hidden_activation="gelu_pytorch_tanh", sliding_window=24,
                  query_pre_attn_scalar=20, attention_bias=False, **keys)


LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.1, 1.25, 1.5],
            "long_factor": [1.0, 2.0, 4.5, 9.0]}
VISION = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8,
          "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28, "patch_size": 14}
FAMILIES = {
    "llama-rope-linear": llama(rope_scaling={"type": "linear", "factor": 4.0}),
    # Up to 96 tokens plain, then by length.
    "llama-rope-dynamic": {**llama(rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
                           "max_position_embeddings": 96},
    "llama-rope-yarn": llama(rope_scaling={"rope_type": "yarn", "factor": 8.0,
                                           "original_max_position_embeddings": 32}),
    "llama-rope-yarn-mscale": {
        k: v for k, v in llama(rope_parameters={
            "rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "beta_fast": 16.0,
            "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 0.4, "truncate": False,
            "original_max_position_embeddings": 64}).items() if k != "rope_theta"},
    "mistral-window": family("mistral", "MistralForCausalLM", sliding_window=20, head_dim=12,
                             hidden_act="silu", rope_theta=10000.0, tie_word_embeddings=False),
    "qwen2-tied": family("qwen2", "Qwen2ForCausalLM", hidden_act="silu", rope_theta=1e6,
                         use_sliding_window=False, sliding_window=16, max_window_layers=1,
                         tie_word_embeddings=True),
    "qwen2-window": family("qwen2", "Qwen2ForCausalLM", hidden_act="silu", rope_theta=1e6,
                           num_hidden_layers=3, use_sliding_window=True, sliding_window=16,
                           max_window_layers=1, tie_word_embeddings=False),
    "qwen3": family("qwen3", "Qwen3ForCausalLM", hidden_act="silu", rope_theta=1e6, head_dim=16,
                    attention_bias=False, use_sliding_window=False, sliding_window=None,
                    max_window_layers=2, tie_word_embeddings=True),
    "qwen3-layer-types": family("qwen3", "Qwen3ForCausalLM", hidden_act="silu", head_dim=8,
                                attention_bias=True, use_sliding_window=True, sliding_window=24,
                                layer_types=["sliding_attention", "full_attention"],
                                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
                                tie_word_embeddings=False),
    "phi3-longrope": family("phi3", "Phi3ForCausalLM", hidden_act="silu", rope_theta=10000.0,
                            original_max_position_embeddings=24, rope_scaling=LONGROPE,
                            sliding_window=None, tie_word_embeddings=False),
    "phi3-partial-window": family("phi3", "Phi3ForCausalLM", hidden_act="silu", rope_theta=10000.0,
                                  num_attention_heads=2, num_key_value_heads=2,
                                  partial_rotary_factor=0.75, original_max_position_embeddings=256,
                                  rope_scaling=None, sliding_window=32,
                                  tie_word_embeddings=True),
    "gemma2": family("gemma2", "Gemma2ForCausalLM", head_dim=16, query_pre_attn_scalar=24,
                     hidden_activation="gelu_pytorch_tanh", sliding_window=20, rope_theta=10000.0,
                     attn_logit_softcapping=2.0, final_logit_softcapping=4.0,
                     attention_bias=False, tie_word_embeddings=False),
    "gemma3-text": gemma3_text(sliding_window_pattern=2, rope_theta=1e6,
                               rope_local_base_freq=10000.0,
                               rope_scaling={"rope_type": "linear", "factor": 8.0}),
    # As gemma-3-4b and larger are: the language model in a section, the towers beside it.
    "gemma3-section": {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "torch_dtype": "bfloat16", "eos_token_id": [EOS], "vision_config": VISION,
        "mm_tokens_per_image": 4, "boi_token_index": 64, "eoi_token_index": 65,
        "image_token_index": 66,
        "text_config": {k: v for k, v in gemma3_text(
            layer_types=["sliding_attention", "full_attention"] * 2,
            rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
        ).items() if k not in ("torch_dtype", "architectures")}},
    "olmo2": family("olmo2", "Olmo2ForCausalLM", hidden_act="silu", rope_theta=500000.0,
                    attention_bias=False, tie_word_embeddings=False),
    "granite": family("granite", "GraniteForCausalLM", hidden_act="silu", rope_theta=10000.0,
                      attention_bias=False, mlp_bias=False, embedding_multiplier=3.0,
                      residual_multiplier=0.4, attention_multiplier=0.4, logits_scaling=3.0,
                      tie_word_embeddings=False),
    "smollm3": family("smollm3", "SmolLM3ForCausalLM", hidden_act="silu", num_hidden_layers=4,
                      rope_theta=50000.0, no_rope_layers=[1, 0, 1, 0], no_rope_layer_interval=2,
                      use_sliding_window=False, sliding_window=None, attention_bias=False,
                      mlp_bias=False, tie_word_embeddings=True),
    "smollm3-window": family("smollm3", "SmolLM3ForCausalLM", hidden_act="silu",
                             rope_theta=50000.0, no_rope_layer_interval=2, use_sliding_window=True,
                             sliding_window=20, attention_bias=False, mlp_bias=False),
    "olmo3": family("olmo3", "Olmo3ForCausalLM", hidden_act="silu", rope_theta=500000.0,
                    attention_bias=False, sliding_window=24, tie_word_embeddings=False,
                    layer_types=["sliding_attention", "full_attention"],
                    rope_scaling={"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.2,
                                  "original_max_position_embeddings": 64}),
}


def config_of(overrides):
    return {k: v for k, v in {**BASE, **overrides}.items()
            if v is not None or (k == "rope_scaling" and "rope_parameters" not in overrides)}


def random_state(model, generator):
    """Spread wide enough that attention and logits are far from uniform."""
    centre = 0 if "gemma" in model.config.model_type else 1  # Gemma's gains are 1 + the tensor

    def draw(name, shape):
        noise = torch.randn(shape, generator=generator)
        if "norm" in name:
            return centre + 0.25 * noise
        return {"bias": 0.2, "embed": 0.5 if centre else 0.12, "head": 0.3}.get(
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
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, name).from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    foreign = ("vision_tower", "multi_modal_projector")
    lost = [key for k in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[k]
            if not any(part in key for part in foreign)]
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


def about(model):
    return f"{type(model).__name__}, float32, eager attention; tools/make_model_goldens.py"


def golden_of(model, generator):
    vocab = model.config.get_text_config().vocab_size
    draw = lambda n: torch.randint(3, vocab, (n,), generator=generator).tolist()
    sequences = []
    for length, kept in ((1, 1), (9, 9), (33, 2), (77, 3), (150, 2)):
        ids = [1] + draw(length - 1)
        logits = logits_of(model, ids)
        sequences.append({"ids": ids, "first": length - kept, "logits": packed(logits[-kept:])})
    prompt = [1] + draw(7)
    ids, margin = greedy(model, prompt, GREEDY_TOKENS)
    return {"about": about(model),
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


# ---- families beside Llama's base form


def context_of(config, length):
    """The context that makes our frequencies those of transformers for this length, or None."""
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "dynamic" and length > config["max_position_embeddings"]:
        return length
    if kind == "longrope" and length <= config["original_max_position_embeddings"]:
        return config["original_max_position_embeddings"]
    return None


QUANTIZED = {
    "int8_weight_only": recipes.spec("int", (1, None), "vllm", "f32", bits=8, scale="f32"),
    "int4_weight_only": recipes.spec("int", (1, 128), "vllm", "f32", bits=4, scale="bf16"),
    "ptpc_fp8": recipes.spec("fp8", (1, None), "vllm", "f32"),
}


def dequantized(x, spec):
    """Codes times scales, as float32."""
    x = np.ascontiguousarray(x.detach().numpy(), np.float32)
    codes, scales, _, _, _ = recipes.quantize(x, spec)
    if spec["family"] == "fp8":
        values = recipes.float_value("e4m3fn", codes)
    else:
        values = codes.view(np.int8).astype(np.float32) if spec["bits"] == 8 else \
            ((codes.astype(np.int16) ^ 8) - 8).astype(np.float32)
    blocks = list(recipes.tiles(x.shape, spec["block"]))
    for at, scale in zip(blocks, scales):
        values[at] *= scale
    return torch.from_numpy(values)


class PerToken(torch.nn.Module):
    """A linear with activations quantized for each token."""

    noise = 0.0  # relative, of each activation before it is quantized

    def __init__(self, linear, spec):
        super().__init__()
        self.linear, self.spec = linear, spec

    def forward(self, x):
        x = x * (1 + PerToken.noise * (2 * torch.rand(x.shape) - 1))
        flat = dequantized(x.reshape(-1, x.shape[-1]), self.spec)
        return self.linear(flat.reshape(x.shape))


def with_scheme(folder, name):
    model, spec = load(folder), QUANTIZED[name]
    for path, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or "layers." not in path or "vision" in path:
            continue
        module.weight.data = dequantized(module.weight, spec)
        if name == "ptpc_fp8":
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, PerToken(module, spec))
    return model


def is_clear(folder, ids):
    """Whether no activation lies so near a rounding boundary that its code hangs on float32."""
    model, torch_state = with_scheme(folder, "ptpc_fp8"), torch.get_rng_state()
    expected = logits_of(model, ids)
    PerToken.noise = 5e-7
    gaps = [float((logits_of(model, ids) - expected).abs().max()) for _ in range(6)]
    PerToken.noise = 0.0
    torch.set_rng_state(torch_state)
    return max(gaps) < 1e-4 * float(expected.abs().max())


def family_golden(folder, config, generator):
    """None where the greedy text hangs on ties or says too little."""
    vocab = config.get("text_config", config)["vocab_size"]
    draw = lambda n: torch.randint(3, vocab, (n,), generator=generator).tolist()
    model, sequences = load(folder), []
    for length, kept in ((1, 1), (9, 5), (77, 3), (150, 3)):
        ids = [1] + draw(length - 1)
        context = context_of(config, length)
        sequences.append({"ids": ids, "first": length - kept,
                          **({"context": context} if context else {}),
                          "logits": packed(logits_of(model, ids)[-kept:])})
    # Beyond an original context from the start: transformers would change RoPE while it generates.
    prompt = [1] + draw(29)
    ids, margin = greedy(model, prompt, GREEDY_TOKENS)
    if margin <= MARGIN_LEAST or EOS in ids or len(set(ids)) <= 8:
        return None
    quantized_ids = [1] + draw(25)
    while not is_clear(folder, quantized_ids):
        quantized_ids = [1] + draw(25)
    schemes = {name: {"ids": quantized_ids, "first": 24,
                      "logits": packed(logits_of(with_scheme(folder, name), quantized_ids)[24:])}
               for name in QUANTIZED}
    return {"about": about(model),
            **VERSIONS, "vocab_size": vocab, "sequences": sequences, "schemes": schemes,
            "greedy": {"prompt": prompt, "ids": ids, "margin": round(margin, 6)}}


def family_state(config, generator):
    """Tensors by their names in the checkpoint."""
    text = {"architectures": ["Gemma3ForCausalLM"], **config.get("text_config", config)}
    name = text.pop("architectures")[0]
    config_name = {"Gemma3ForCausalLM": "Gemma3TextConfig"}.get(
        name, name.replace("ForCausalLM", "Config"))
    keys = {k: v for k, v in text.items() if k not in ("torch_dtype", "model_type")}
    empty = getattr(transformers, name)(
        getattr(transformers, config_name)(**json.loads(json.dumps(keys))))
    prefix = "language_model." if "text_config" in config else ""
    return {prefix + k: v.to(torch.bfloat16)
            for k, v in random_state(empty, generator).items()}


def make_families(out, only):
    for number, (name, config) in enumerate(FAMILIES.items()):
        if only not in name:
            continue
        folder = out / name
        for seed in range(100_000 + 1000 * number, 100_000 + 1000 * number + 300):
            generator = torch.Generator().manual_seed(seed)
            write_checkpoint(folder, config, family_state(config, generator))
            golden = family_golden(folder, config, generator)
            if golden is not None:
                break
        else:
            raise SystemExit(f"{name}: no seed gives a greedy text that is clear of ties")
        (folder / "golden.json").write_text(json.dumps(golden) + "\n")
        size, ids = sum(f.stat().st_size for f in folder.iterdir()), golden["greedy"]["ids"]
        largest = max(float(np.abs(np.frombuffer(base64.b64decode(s["logits"]), "<f4")).max())
                      for s in golden["sequences"])
        print(f"{name}: seed {seed}, {size} bytes, margin {golden['greedy']['margin']}, distinct "
              f"{len(set(ids))}, largest |logit| {largest:.1f}, "
              f"float64 gap {float64_gap(folder, golden):.1e}", flush=True)


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
    parser.add_argument("--only", default="", help="a part of the names of folders to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    make_families(ROOT / "tests" / "golden" / "models", args.only)
    if args.only:
        return
    make_tiny_models(ROOT / "tests" / "golden" / "models")
    make_trained_logits(args.models, ROOT / "tests" / "golden" / "logits")


if __name__ == "__main__":
    main()
