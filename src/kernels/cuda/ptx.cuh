// Every PTX instruction of this project, one small function each. Names follow the PTX ISA manual
// (CUDA 13.0). Device code only; what needs sm_90a says so.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace mantissa::cuda::ptx {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// ---- programmatic dependent launch (launch.cuh); nothing below sm_90
// Returns once the kernels before this one in the stream are complete and their writes visible.
__device__ inline void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The kernel after this one may start once every block called this or ended.
__device__ inline void grid_dependency_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- mbarrier: a phase completes when its arrivals and its expected bytes are in
__device__ inline void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
__device__ inline void mbarrier_expect_bytes(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
__device__ inline void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
// The same barrier of another block of the cluster. At block scope: it says that reads of shared
// memory are done, which orders no global memory (cluster scope would cost a GPU-wide fence).
__device__ inline void mbarrier_arrive_cluster(uint64_t* barrier, uint32_t block_rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(block_rank)
      : "memory");
}
__device__ inline bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(done)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return done != 0;
}
// The same without any wait.
__device__ inline bool mbarrier_test_wait(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(done)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return done != 0;
}
// Returns once the phase of this parity is complete.
__device__ inline void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

// On to the next of `stages` stages of a ring; their barriers' phases turn with each round.
__device__ inline void next_stage(int& stage, uint32_t& parity, int stages) {
  if (++stage < stages) return;
  stage = 0;
  parity ^= 1;
}

// ---- clusters
constexpr int kClusterMax = 8;  // blocks, on any GPU that has them
// To the same address of another block of the cluster; visible after cluster_sync. sm_90.
__device__ inline void store_cluster(float* to, float value, uint32_t block_rank) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "st.shared::cluster.f32 [remote], %2;\n"
      "}" ::"r"(shared_address(to)),
      "r"(block_rank), "f"(value)
      : "memory");
#endif
}
__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// 16 bytes that another block of the cluster has at the same address. sm_90.
__device__ inline uint4 load_cluster(const void* from, uint32_t block_rank) {
  uint4 v{};
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %4, %5;\n"
      "ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [remote];\n"
      "}"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "r"(shared_address(from)), "r"(block_rank)
      : "memory");
#endif
  return v;
}
__device__ inline void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
#endif
}
// mbarrier inits become visible to the cluster and to the copy engine.
__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Ordinary shared-memory writes become visible to the copy engine and the tensor cores.
__device__ inline void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- the bulk tensor copy engine (TMA)
__device__ inline void tensor_prefetch(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}
// x: fastest dimension.
__device__ inline void tensor_load(void* to, const CUtensorMap* map, int32_t x, int32_t y,
                                   uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(x), "r"(y), "r"(shared_address(barrier))
      : "memory");
}
// The same with an L2 eviction policy.
__device__ inline void tensor_load(void* to, const CUtensorMap* map, int32_t x, int32_t y,
                                   uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(x), "r"(y), "r"(shared_address(barrier)),
      "l"(policy)
      : "memory");
}
// To the same address of every block in `blocks` (a bit per rank); each one's barrier counts it.
__device__ inline void tensor_load_multicast(void* to, const CUtensorMap* map, int32_t x, int32_t y,
                                             uint64_t* barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(x), "r"(y), "r"(shared_address(barrier)),
      "h"(blocks)
      : "memory");
}
__device__ inline void tensor_store(const CUtensorMap* map, const void* from, int32_t x,
                                    int32_t y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(
                   reinterpret_cast<uint64_t>(map)),
               "r"(x), "r"(y), "r"(shared_address(from))
               : "memory");
}
__device__ inline void store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// At most `kPending` of this thread's stores still read shared memory.
template <int kPending>
__device__ inline void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
template <int kPending>
__device__ inline void store_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- warp-group matrix multiply (sm_90a)
__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// clang-format off
#define MANTISSA_R16(d, c, i) \
  "+" c((d)[(i)]), "+" c((d)[(i) + 1]), "+" c((d)[(i) + 2]), "+" c((d)[(i) + 3]), \
  "+" c((d)[(i) + 4]), "+" c((d)[(i) + 5]), "+" c((d)[(i) + 6]), "+" c((d)[(i) + 7]), \
  "+" c((d)[(i) + 8]), "+" c((d)[(i) + 9]), "+" c((d)[(i) + 10]), "+" c((d)[(i) + 11]), \
  "+" c((d)[(i) + 12]), "+" c((d)[(i) + 13]), "+" c((d)[(i) + 14]), "+" c((d)[(i) + 15])
#define MANTISSA_REGS_32(d, c) MANTISSA_R16(d, c, 0), MANTISSA_R16(d, c, 16)
#define MANTISSA_REGS_48(d, c) MANTISSA_REGS_32(d, c), MANTISSA_R16(d, c, 32)
#define MANTISSA_REGS_64(d, c) MANTISSA_REGS_48(d, c), MANTISSA_R16(d, c, 48)
#define MANTISSA_REGS_96(d, c) MANTISSA_REGS_64(d, c), MANTISSA_R16(d, c, 64), MANTISSA_R16(d, c, 80)
#define MANTISSA_REGS_128(d, c) MANTISSA_REGS_96(d, c), MANTISSA_R16(d, c, 96), MANTISSA_R16(d, c, 112)
#define MANTISSA_NAMES_32 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define MANTISSA_NAMES_48 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47}"
#define MANTISSA_NAMES_64 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63}"
#define MANTISSA_NAMES_96 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, " \
  "%74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, " \
  "%92, %93, %94, %95}"
#define MANTISSA_NAMES_128 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, " \
  "%74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, " \
  "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, " \
  "%108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, " \
  "%123, %124, %125, %126, %127}"

// D [64, 2 REGS] (+)= A [64, K] B [2 REGS, K]^T, both K-major in shared memory (descriptors);
// `accumulate` 0 overwrites D. K is 32 bytes: 32 8-bit floats or integers, 16 bf16.
#define MANTISSA_WGMMA(NAME, TYPE, C, SHAPE, KINDS, SCALES, REGS, A, B, P)                              \
  __device__ inline void NAME(TYPE (&d)[REGS], uint64_t a, uint64_t b, uint32_t accumulate) {            \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned." SHAPE "." KINDS " " MANTISSA_NAMES_##REGS ", %" #A      \
                 ", %" #B ", p" SCALES ";\n}"                                                            \
                 : MANTISSA_REGS_##REGS(d, C) : "l"(a), "l"(b), "r"(accumulate));                        \
  }
MANTISSA_WGMMA(wgmma_e4m3, float, "f", "m64n64k32", "f32.e4m3.e4m3", ", 1, 1", 32, 32, 33, 34)
MANTISSA_WGMMA(wgmma_e4m3, float, "f", "m64n96k32", "f32.e4m3.e4m3", ", 1, 1", 48, 48, 49, 50)
MANTISSA_WGMMA(wgmma_e4m3, float, "f", "m64n128k32", "f32.e4m3.e4m3", ", 1, 1", 64, 64, 65, 66)
MANTISSA_WGMMA(wgmma_e4m3, float, "f", "m64n192k32", "f32.e4m3.e4m3", ", 1, 1", 96, 96, 97, 98)
MANTISSA_WGMMA(wgmma_e4m3, float, "f", "m64n256k32", "f32.e4m3.e4m3", ", 1, 1", 128, 128, 129, 130)
MANTISSA_WGMMA(wgmma_bf16, float, "f", "m64n128k16", "f32.bf16.bf16", ", 1, 1, 0, 0", 64, 64, 65, 66)
MANTISSA_WGMMA(wgmma_bf16, float, "f", "m64n192k16", "f32.bf16.bf16", ", 1, 1, 0, 0", 96, 96, 97, 98)
MANTISSA_WGMMA(wgmma_bf16, float, "f", "m64n256k16", "f32.bf16.bf16", ", 1, 1, 0, 0", 128, 128, 129, 130)
MANTISSA_WGMMA(wgmma_s8, int32_t, "r", "m64n128k32", "s32.s8.s8", "", 64, 64, 65, 66)
MANTISSA_WGMMA(wgmma_s8, int32_t, "r", "m64n192k32", "s32.s8.s8", "", 96, 96, 97, 98)
MANTISSA_WGMMA(wgmma_s8, int32_t, "r", "m64n256k32", "s32.s8.s8", "", 128, 128, 129, 130)
#undef MANTISSA_WGMMA

// Attention's products. ss: both operands K-major in shared memory. rs: A [64, 16] in registers (a
// lane's fragment as mma_16 has it, a warp's 16 rows), B [16, 2 REGS] with its columns contiguous in
// shared memory; adds to D.
#define MANTISSA_WGMMA_SS(TYPE, KINDS, N, REGS, A, B, P)                                                 \
  __device__ inline void wgmma_ss(float (&d)[REGS], uint64_t a, uint64_t b, uint32_t accumulate, TYPE) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." KINDS " " MANTISSA_NAMES_##REGS      \
                 ", %" #A ", %" #B ", p, 1, 1, 0, 0;\n}"                                                \
                 : MANTISSA_REGS_##REGS(d, "f") : "l"(a), "l"(b), "r"(accumulate));                      \
  }
#define MANTISSA_WGMMA_RS(TYPE, KINDS, N, REGS, A0, A1, A2, A3, B)                                       \
  __device__ inline void wgmma_rs(float (&d)[REGS], const uint32_t* a, uint64_t b, TYPE) {               \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." KINDS " " MANTISSA_NAMES_##REGS      \
                 ", {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", 1, 1, 1, 1;"                      \
                 : MANTISSA_REGS_##REGS(d, "f") : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));   \
  }
#define MANTISSA_WGMMA_BOTH(TYPE, KINDS)                             \
  MANTISSA_WGMMA_SS(TYPE, KINDS, 64, 32, 32, 33, 34)                 \
  MANTISSA_WGMMA_SS(TYPE, KINDS, 128, 64, 64, 65, 66)                \
  MANTISSA_WGMMA_RS(TYPE, KINDS, 64, 32, 32, 33, 34, 35, 36)         \
  MANTISSA_WGMMA_RS(TYPE, KINDS, 96, 48, 48, 49, 50, 51, 52)         \
  MANTISSA_WGMMA_RS(TYPE, KINDS, 128, 64, 64, 65, 66, 67, 68)        \
  MANTISSA_WGMMA_RS(TYPE, KINDS, 256, 128, 128, 129, 130, 131, 132)
MANTISSA_WGMMA_BOTH(__nv_bfloat16, "bf16.bf16")
MANTISSA_WGMMA_BOTH(__half, "f16.f16")
#undef MANTISSA_WGMMA_BOTH
#undef MANTISSA_WGMMA_SS
#undef MANTISSA_WGMMA_RS

// The same with A in registers: lane l of warp w holds rows 16 w + l / 4 and 8 more, of each 4
// bytes from 4 (l % 4) on and 16 later (a: row, row + 8, row, row + 8).
#define MANTISSA_REGS_8(d, c) \
  "+" c((d)[0]), "+" c((d)[1]), "+" c((d)[2]), "+" c((d)[3]), "+" c((d)[4]), "+" c((d)[5]), \
  "+" c((d)[6]), "+" c((d)[7])
#define MANTISSA_NAMES_8 "{%0, %1, %2, %3, %4, %5, %6, %7}"
#define MANTISSA_WGMMA_ROWS(NAME, TYPE, C, SHAPE, KINDS, SCALES, REGS, A0, A1, A2, A3, B, P)             \
  __device__ inline void NAME(TYPE (&d)[REGS], const uint32_t (&a)[4], uint64_t b, uint32_t accumulate) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\n"                                        \
                 "wgmma.mma_async.sync.aligned." SHAPE "." KINDS " " MANTISSA_NAMES_##REGS                \
                 ", {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", p" SCALES ";\n}"                   \
                 : MANTISSA_REGS_##REGS(d, C)                                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                 \
  }
MANTISSA_WGMMA_ROWS(wgmma_rows_bf16, float, "f", "m64n16k16", "f32.bf16.bf16", ", 1, 1, 0", 8, 8, 9, 10, 11, 12, 13)
MANTISSA_WGMMA_ROWS(wgmma_rows_bf16, float, "f", "m64n64k16", "f32.bf16.bf16", ", 1, 1, 0", 32, 32, 33, 34, 35, 36, 37)
MANTISSA_WGMMA_ROWS(wgmma_rows_bf16, float, "f", "m64n128k16", "f32.bf16.bf16", ", 1, 1, 0", 64, 64, 65, 66, 67, 68, 69)
MANTISSA_WGMMA_ROWS(wgmma_rows_e4m3, float, "f", "m64n16k32", "f32.e4m3.e4m3", ", 1, 1", 8, 8, 9, 10, 11, 12, 13)
MANTISSA_WGMMA_ROWS(wgmma_rows_e4m3, float, "f", "m64n64k32", "f32.e4m3.e4m3", ", 1, 1", 32, 32, 33, 34, 35, 36, 37)
MANTISSA_WGMMA_ROWS(wgmma_rows_e4m3, float, "f", "m64n128k32", "f32.e4m3.e4m3", ", 1, 1", 64, 64, 65, 66, 67, 68, 69)
MANTISSA_WGMMA_ROWS(wgmma_rows_s8, int32_t, "r", "m64n16k32", "s32.s8.s8", "", 8, 8, 9, 10, 11, 12, 13)
MANTISSA_WGMMA_ROWS(wgmma_rows_s8, int32_t, "r", "m64n64k32", "s32.s8.s8", "", 32, 32, 33, 34, 35, 36, 37)
MANTISSA_WGMMA_ROWS(wgmma_rows_s8, int32_t, "r", "m64n128k32", "s32.s8.s8", "", 64, 64, 65, 66, 67, 68, 69)
#undef MANTISSA_WGMMA_ROWS
// clang-format on

// Keeps the compiler from moving uses of an accumulator over the wait (or start) that stands beside
// this.
template <int kRegs>
__device__ inline void fence_registers(float (&d)[kRegs]) {
#pragma unroll
  for (int i = 0; i < kRegs; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// ---- warp matrix multiply (sm_80): D [16, 8] += A [16, K] B [8, K]^T. Lane l holds of A rows l /
// 4 and l / 4 + 8 (a: row, row + 8, row, row + 8), of B column l / 4, of D columns 2 (l % 4) and
// the next.
__device__ inline void mma_16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                              __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void mma_16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                              __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// K is 32.
__device__ inline void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- arithmetic
// (a & mask) ^ flip, in one instruction.
__device__ inline uint32_t and_xor(uint32_t a, uint32_t mask, uint32_t flip) {
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(out) : "r"(a), "r"(mask), "r"(flip));
  return out;
}

// What the compiler takes for unknown from here on: a constant that shall stay in its register.
__device__ inline void keep(uint32_t& word) {
  asm("" : "+r"(word));
}

// Bytes of low (0 to 3) and high (4 to 7) by the lowest four nibbles of `selector`; one whose top
// bit is set gives the chosen byte's sign, eight times.
__device__ inline uint32_t permute(uint32_t low, uint32_t high, uint32_t selector) {
  uint32_t out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(low), "r"(high), "r"(selector));
  return out;
}

// ---- global memory
// What other blocks write while this kernel runs: each word whole, no order among words.
__device__ inline uint4 load_relaxed(const uint4* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
__device__ inline void store_relaxed(uint32_t* to, uint32_t v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(v));
}
__device__ inline void store_relaxed(uint2* to, uint2 v) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(v.x), "r"(v.y));
}
// 16 bytes that this kernel reads once: not kept in L1.
__device__ inline uint4 load_streamed(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
// 16 bytes to shared memory in the background; zeros beyond `bytes`.
__device__ inline void copy_async(void* to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
}
__device__ inline void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ inline void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// The larger magnitudes of two pairs of bf16, with any signs; NaN where one is. From sm_86 on.
__device__ inline uint32_t max_magnitudes(uint32_t a, uint32_t b) {
  uint32_t out;
  asm("max.NaN.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

// Two e4m3 codes in the upper half of a word -> f16; from sm_89 on.
__device__ inline uint32_t halves_of_upper_e4m3(uint32_t word) {
  uint32_t out;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "mov.b32 {low, high}, %1;\n"
      "cvt.rn.f16x2.e4m3x2 %0, high;\n"
      "}"
      : "=r"(out)
      : "r"(word));
  return out;
}

template <int kRegisters>
__device__ inline void registers_raise() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void registers_lower() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- bulk copies: `bytes` and both addresses are multiples of 16; `barrier` counts the bytes
__device__ inline void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}
// The same with an L2 eviction policy.
__device__ inline void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier,
                                 uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}
// What is read once leaves L2 before what is read again.
__device__ inline uint64_t cache_policy_evict_first() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline uint64_t cache_policy_evict_last() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// x: fastest dimension.
__device__ inline void tensor_load_3d(void* to, const CUtensorMap* map, int3 at,
                                      uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(to)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(at.x), "r"(at.y), "r"(at.z),
      "r"(shared_address(barrier))
      : "memory");
}

// ---- matrices of 8 x 8 16-bit elements: lane l holds elements 2 (l % 4) and the next of row l / 4
// Four of them; lane l gives the (shared) address of row l % 8 of matrix l / 8.
__device__ inline void load_matrix_x4(uint32_t (&m)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
// The same, each matrix transposed.
__device__ inline void load_matrix_x4_transposed(uint32_t (&m)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ inline uint32_t transpose_matrix(uint32_t m) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(m));
  return out;
}

// 2^x and 1 / x to about 2^-22, 0 where the result is no normal number.
__device__ inline float exp2_approx(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
__device__ inline float reciprocal_approx(float x) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

// ---- within a block
// True in one lane of a whole warp. The compiler knows that it is one: copies that only this lane
// starts need no loop over lanes (90 cycles each) and keep their addresses in uniform registers.
__device__ inline bool elect_one() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(elected));
  return elected != 0;
}
// Arrives at barrier `id` of `threads` threads without waiting: those that named_barrier() there.
__device__ inline void named_barrier_arrive(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Barrier `id` (1..15) among `threads` threads: their shared-memory writes are visible to each
// other.
__device__ inline void named_barrier(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void store_matrix_x4(void* row, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
      "r"(a), "r"(b), "r"(c), "r"(d)
      : "memory");
}

}  // namespace mantissa::cuda::ptx
