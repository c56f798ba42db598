#!/bin/sh
# GPU tests and benchmarks in two halves, for a GPU machine that has no compiler set-up of ours.
#   tools/gpu.sh pack [BUILD]         here: builds with CUDA, all but libc static, and packs
#                                     the programs into out/gpu/programs.tar.xz
#   tools/gpu.sh pack-model DIR TEXT  here: packs a model folder and a text into out/gpu-model/1
#                                     and 2, for two calls (one carries 64 MiB with the tree)
#   tools/gpu.sh model 1|2            there, in this order: /tmp/mantissa-model from both
#   tools/gpu.sh test                 there: the GPU tests, memcheck and racecheck on the kernels,
#                                     and perplexity cuda against cpu
#   tools/gpu.sh bench                there: the benchmarks
# `test` and `bench` run from a tree with the tracked files, write JSON lines and logs to $OUT
# (default: out/results) and end within 9 minutes. On the lent machine: carry out/gpu (before it
# out/gpu-model/1, then 2).
set -eu
cd "$(dirname "$0")/.."
programs="mantissa test_cuda gemm_bench gemv_bench attention_bench"

pack() {
  build=${1:-build/static}
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMANTISSA_CUDA=ON \
    -DMANTISSA_STATIC=ON >/dev/null
  # shellcheck disable=SC2086  # a list of targets
  nice ninja -C "$build" $programs
  rm -rf out/gpu
  mkdir -p out/gpu/bin
  for program in $programs; do
    strip -o "out/gpu/bin/$program" "$(find -L "$build" -type f -name "$program" | head -1)"
  done
  # The programs hold the same kernels, so the window is over all of them.
  tar -C out/gpu -cf - bin | xz -T1 --lzma2=preset=2,dict=512MiB >out/gpu/programs.tar.xz
  rm -r out/gpu/bin
  ls -l out/gpu/programs.tar.xz
}

pack_model() {
  rm -rf out/gpu-model
  mkdir -p out/gpu-model/1 out/gpu-model/2
  place=$(mktemp -d)
  cp -rL "$1" "$place/model" && cp "$2" "$place/text"
  tar -C "$place" -cf - model text | xz -T0 -3 >"$place/all"
  half=$((($(stat -c %s "$place/all") + 1) / 2))
  head -c "$half" "$place/all" >out/gpu-model/1/part
  tail -c +"$((half + 1))" "$place/all" >out/gpu-model/2/part
  rm -r "$place"
  ls -l out/gpu-model/*/part
}

take_model() {
  mkdir -p /tmp/mantissa-model
  cp "out/gpu-model/$1/part" "/tmp/mantissa-model/part$1"
  [ "$1" = 1 ] || cat /tmp/mantissa-model/part1 /tmp/mantissa-model/part2 |
    tar -C /tmp/mantissa-model -xJf -
}

unpack() {
  results=${OUT:-out/results}
  mkdir -p "$results"
  place=$(mktemp -d)
  tar -C "$place" -xJf out/gpu/programs.tar.xz
  bin=$place/bin
  # PyTorch's cuBLASLt where the toolkit has none: gemm_bench's peer.
  LD_LIBRARY_PATH=/usr/local/cuda/lib64:$(python3 -c 'import nvidia, os
for p in nvidia.__path__:
    for d in os.listdir(p):
        print(os.path.join(p, d, "lib"), end=":")' 2>/dev/null || true)${LD_LIBRARY_PATH:-}
  export LD_LIBRARY_PATH
}

# sanitize TOOL FILTER: compute-sanitizer over those tests; its summary on standard output. The
# tool's table of mbarriers is too small for kernels with rings of them unless told.
sanitize() {
  timeout 170 compute-sanitizer --error-exitcode 1 --tool "$1" --num-cuda-barriers 256 \
    "$bin/test_cuda" --gtest_filter="$2" \
    >"$results/$1.log" 2>&1 || status=1
  printf '%s %s: %s\n' "$1" "$2" "$(grep SUMMARY "$results/$1.log" | tail -1)"
}

run_tests() {
  unpack
  status=0
  timeout 200 "$bin/test_cuda" --gtest_brief=1 --gtest_output="json:$results/test_cuda.json" \
    >"$results/test_cuda.log" 2>&1 || status=1
  tail -25 "$results/test_cuda.log"
  layers='DecodeLayersCuda.Nan*:DecodeLayersCuda.Small*'
  sanitize memcheck "AttentionCuda.*:LinearExactCuda.*:BlockRowsCuda.*:RowsCuda.*:$layers"
  # Longer tests with 8-bit caches: docs/kernels/cuda-attention.md, racecheck.
  sanitize racecheck "AttentionCuda.OneOfEach:LinearExactCuda.*:$layers"
  model=models/wiki-6m
  head -c 60000 README.md >"$place/text"
  if [ -d /tmp/mantissa-model/model ]; then
    model=/tmp/mantissa-model/model
    head -c 60000 /tmp/mantissa-model/text >"$place/text"
  fi
  for scheme in bf16 fp8 ptpc_fp8 int8 fp8_weight_only int8_weight_only int4_weight_only; do
    for device in cuda cpu; do
      printf '{"scheme":"%s","device":"%s","result":' "$scheme" "$device"
      timeout 60 "$bin/mantissa" perplexity "$model" --file "$place/text" --ctx 512 \
        -q "$scheme" --device "$device" --json 2>"$place/err" | tail -1 | tr -d '\n' || status=1
      printf '}\n'
    done
  done | tee "$results/perplexity.jsonl" | cut -c1-200
  return $status
}

# measure NAME SECONDS COMMAND...: its lines to NAME.jsonl and standard output.
measure() {
  name=$1 seconds=$2
  shift 2
  timeout "$seconds" "$@" >"$results/$name.jsonl" || status=1
  cat "$results/$name.jsonl"
}

run_benches() {
  unpack
  status=0
  for bench in gemm_bench attention_bench gemv_bench; do
    measure $bench 130 "$bin/$bench"
  done
  measure roofline 60 "$bin/mantissa" bench roofline --device cuda --json \
    --sizes 1024,2048,4096,8192
  if python3 -c 'import torch' 2>/dev/null; then
    measure gemm_peers 60 python3 tools/gemm_peers.py
    measure attention_peers 60 python3 tools/attention_peers.py
  fi
  return $status
}

case ${1:-} in
  pack) shift && pack "$@" ;;
  pack-model) pack_model "${2:?a model folder}" "${3:?a text file}" ;;
  model) take_model "${2:?1 or 2}" ;;
  test) run_tests ;;
  bench) run_benches ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
