#!/usr/bin/env bash
# Builds Mantissa and shows its main job on the model that comes with it: one checkpoint, quantized
# on the way in by each scheme, with size, perplexity and speed; then a text as it is generated.
set -euo pipefail
cd "$(dirname "$0")"
tools/setup.sh
cmake --preset release >/dev/null
cmake --build --preset release --target mantissa

mantissa=build/release/mantissa
model=models/wiki-6m
text=data/wikitext-2-test-4-articles.txt
schemes=(bf16 fp8 ptpc_fp8 int8 int8_weight_only int4_weight_only)
log=build/demo.log # plans and notes of the table's runs

measure() {
  "$mantissa" "$@" --json 2>"$log" || { cat "$log" >&2; exit 1; }
}

echo
"$mantissa" --version | head -n 1
echo "$model: perplexity on four articles of WikiText-2 ($text), decoding one sequence"
echo
printf '%-18s %12s %10s %12s %12s\n' scheme weights "of bf16" perplexity "tokens/s"
for scheme in "${schemes[@]}"; do
  quality=$(measure perplexity "$model" --file "$text" --ctx 512 -q "$scheme")
  speed=$(measure bench latency "$model" -q "$scheme" --iterations 5 --warmup 2)
  [[ "$scheme" != bf16 ]] || bf16=$speed
  python3 - "$scheme" "$quality" "$speed" "$bf16" <<'PY'
import json
import sys

scheme, (quality, speed, bf16) = sys.argv[1], map(json.loads, sys.argv[2:])
size = speed["weights_bytes"]
print(f"{scheme:<18} {size / 1e6:>9.2f} MB {100 * size / bf16['weights_bytes']:>8.1f} % "
      f"{quality['perplexity']:>12.3f} {speed['decode_tok_s']:>12.0f}")
PY
done

prompt=" = History of the lighthouse = "
echo
echo "mantissa generate $model -q ptpc_fp8 --prompt '$prompt' --max-tokens 160 --seed 3"
echo
"$mantissa" generate "$model" -q ptpc_fp8 --prompt "$prompt" --max-tokens 160 --seed 3
