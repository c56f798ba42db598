#!/bin/bash
# Decoding on a GPU machine, in a folder with bin/ and lib/ (tools/gpu.sh packs both) and shape
# configs in shapes/: the sampler's tests, the same greedy tokens with graphs, without, and with
# the host's arithmetic, then decode speed with graphs and without. JSON lines under results/.
#   tools/decode_job.sh [MODEL FOLDER]
set -u
model=${1:-/tmp/w/wiki-29m}
mkdir -p results
export LD_LIBRARY_PATH=$PWD/lib
mantissa=bin/mantissa

timeout 30 bin/test_cuda --gtest_filter='SamplingCuda*' --gtest_brief=1 2>&1 | tail -15

latency() { # name, seconds, options
  name=$1 limit=$2
  shift 2
  printf '{"name":"%s","result":' "$name"
  timeout "$limit" $mantissa bench latency "$@" --device cuda --load-format dummy --input-len 32 \
    --iterations 3 --warmup 1 --json 2>results/err | tail -1 | tr -d '\n'
  printf '}\n'
  grep -E 'captured|fix|error' results/err >&2
}

# Tokens of 61 prompts that end at a full stop: as they do, captured batches get padding.
tokens() {
  timeout 20 $mantissa generate "$model" --prompts-file prompts.txt --max-tokens 48 --json \
    --stop . "$@" 2>results/err | sed 's/.*"token_ids": *\(\[[^]]*\]\).*/\1/'
  grep -E 'captured|error|fix' results/err >&2
}
if [ -d "$model" ]; then
  for scheme in bf16 ptpc_fp8 fp8; do
    tokens --device cuda -q $scheme --temperature 0 >graph.txt
    tokens --device cuda -q $scheme --temperature 0 --enforce-eager >eager.txt
    wc -l graph.txt
    echo "$scheme: rows that differ: $(diff graph.txt eager.txt | grep -c '^<')"
  done
  sampling="--temperature 0.8 --top-p 0.9 --top-k 50 --repetition-penalty 1.1"
  # shellcheck disable=SC2086  # options
  tokens --device cuda -q bf16 $sampling >a.txt
  # shellcheck disable=SC2086
  tokens --device cuda -q bf16 $sampling --enforce-eager >b.txt
  echo "sampled: rows that differ: $(diff a.txt b.txt | grep -c '^<')"
fi

{
  for run in ptpc_fp8 bf16 int4_weight_only int8_weight_only; do
    latency "8b-$run-graph" 30 shapes/Llama-3.1-8B -q $run --output-len 128
    latency "8b-$run-eager" 30 shapes/Llama-3.1-8B -q $run --output-len 64 --enforce-eager
  done
  latency 8b-ptpc_fp8-128 40 shapes/Llama-3.1-8B -q ptpc_fp8 --output-len 256 --batch-size 128
} | tee results/latency.jsonl
