// The layers' kernel for bf16 weights, and which one takes a call.
#include "kernels/cuda/decode_layers.cuh"

namespace mantissa::cuda {

std::string decode_layers_sm90_why_not(const DecodeArgs& d) {
  const int dim = d.cache.head_dim, group = d.attention.heads / std::max(1, d.cache.kv_heads);
  if (dim != 64 && dim != 128) return text("head size ", dim, ", not 64 or 128");
  if (d.cache.kind != CellKind::kRunDtype) return "an 8-bit KV cache";
  if (d.cache.page_tokens != kKeys || d.cache.page_bytes % 16 != 0) return "pages of other sizes";
  if (group > kGroupMax) return text("more than ", kGroupMax, " query heads a KV head");
  if (d.cache.kv_heads > multiprocessors()) return "more KV heads than multiprocessors";
  if (d.rope_half % kUnitCols != 0) return "a rotated part of a head of no whole units";
  for (const RoleShape& s : d.roles) {
    if (s.k > kRowMax) return text("rows of more than ", kRowMax, " columns");
    if (s.k % kUnitCols != 0 || s.row_bytes % 16 != 0) return "rows of no whole units";
    if (s.n % kRows != 0) return "outputs of no whole tiles";
    if (d.weight == GemvWeight::kE4M3Tiles && s.k <= kLine) return "rows of one group";
    if (d.weight == GemvWeight::kS4 && (s.group_cols == 0 || s.group_cols % 128 != 0))
      return "int4 groups of other sizes than multiples of 128";
    if ((d.weight == GemvWeight::kS4 || d.weight == GemvWeight::kMini4) && s.k % 128 != 0)
      return "4-bit rows of no whole blocks";
  }
  if (d.roles[kDecodeGateUp].n % (2 * kRows) != 0) return "gates of no whole tiles";
  if (d.weight == GemvWeight::kS8 && d.input == GemvInput::kE4M3) return "int8 with e4m3";
  if (d.weight == GemvWeight::kS4 && d.input == GemvInput::kS8) return "int4 with int8";
  return {};
}

void decode_layers__sm90(const DecodeArgs& d, cudaStream_t stream) {
  switch (d.weight) {
    case GemvWeight::kRun:
      return launch_format<Format<GemvWeight::kRun, __nv_bfloat16>>(d, stream);
    case GemvWeight::kE4M3:
      return decode_layers_e4m3__sm90(d, stream);
    case GemvWeight::kE4M3Tiles:
      return decode_layers_tiles__sm90(d, stream);
    case GemvWeight::kS8:
      return decode_layers_s8__sm90(d, stream);
    case GemvWeight::kS4:
      return decode_layers_s4__sm90(d, stream);
    case GemvWeight::kMini4:
      return decode_layers_fp4__sm90(d, stream);
    default:
      check(false, "decode_layers: weights that decode_layers_sm90_why_not takes");
  }
}

}  // namespace mantissa::cuda
