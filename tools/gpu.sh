#!/bin/sh
# GPU tests and benchmarks in two halves, for a GPU machine that has no compiler set-up of ours.
#   tools/gpu.sh pack [BUILD]   here: builds with CUDA and packs programs, the libraries that such a
#                               machine may lack and models/wiki-6m into out/gpu.tar.xz
#   tools/gpu.sh test           there: unpacks, runs the GPU tests, and perplexity cuda against cpu
#   tools/gpu.sh bench          there: the benchmarks
# Both of the latter write JSON lines and logs to $OUT (default: out/results) and end within 9
# minutes. On the lent machine: out/gpu.tar.xz is carried, the command is `tools/gpu.sh test`.
set -eu
cd "$(dirname "$0")/.."
programs="mantissa test_cuda gemm_bench gemv_bench attention_bench"

pack() {
  build=${1:-build/cuda}
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMANTISSA_CUDA=ON >/dev/null
  # shellcheck disable=SC2086  # a list of targets
  nice ninja -C "$build" $programs
  rm -rf out/gpu
  mkdir -p out/gpu/bin out/gpu/lib out/gpu/models
  for program in $programs; do
    strip -o "out/gpu/bin/$program" "$(find -L "$build" -type f -name "$program" | head -1)"
  done
  # Everything beyond the C library, which a machine with a newer one must not be given.
  ldd out/gpu/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libpthread|librt|libdl)\.so' | xargs -I{} cp -L {} out/gpu/lib/
  cp -r models/wiki-6m out/gpu/models/
  tar -C out -cf - gpu | xz -T0 -3 >out/gpu.tar.xz
  ls -l out/gpu.tar.xz
}

unpack() {
  results=${OUT:-out/results}
  mkdir -p "$results"
  place=$(mktemp -d)
  tar -C "$place" -xJf out/gpu.tar.xz
  bin=$place/gpu/bin
  model=$place/gpu/models/wiki-6m
  export LD_LIBRARY_PATH="$place/gpu/lib"
}

run_tests() {
  unpack
  status=0
  timeout 240 "$bin/test_cuda" --gtest_output="json:$results/test_cuda.json" \
    >"$results/test_cuda.log" 2>&1 || status=1
  tail -25 "$results/test_cuda.log"
  head -c 60000 README.md >"$place/text.txt"
  for scheme in bf16 fp8 ptpc_fp8 int8 fp8_weight_only int8_weight_only int4_weight_only; do
    for device in cuda cpu; do
      printf '{"scheme":"%s","device":"%s","result":' "$scheme" "$device"
      timeout 60 "$bin/mantissa" perplexity "$model" --file "$place/text.txt" --ctx 512 \
        -q "$scheme" --device "$device" --json 2>"$place/err" | tail -1 | tr -d '\n' || status=1
      printf '}\n'
    done
  done | tee "$results/perplexity.jsonl" | cut -c1-200
  return $status
}

run_benches() {
  unpack
  for bench in gemv_bench attention_bench gemm_bench; do
    timeout 170 "$bin/$bench" | tee "$results/$bench.jsonl"
  done
}

case ${1:-} in
  pack) shift && pack "$@" ;;
  test) run_tests ;;
  bench) run_benches ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
