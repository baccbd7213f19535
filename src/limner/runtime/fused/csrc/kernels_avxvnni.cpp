// AVX-VNNI: the dot-product instruction on 32-byte vectors (Alder Lake, Sierra Forest, Zen 5).
#include "kernels.h"

#ifdef LF_X86
#if defined(LF_EMULATED)  // by a test: the instructions as plain C++
#elif defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx2,fma,avxvnni")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#endif
#include <immintrin.h>

#include <chrono>

#include "simd_common.h"

namespace lf {
namespace {
#include "simd_x86.inc"

struct I : SimdAvx2 {
  LF_INLINE static B dot(B sum, B a, B w) { return _mm256_dpbusd_avx_epi32(sum, a, w); }
};

#include "kernels_simd.inc"

constexpr int kPeakSums = 12;
LF_INLINE void peak_round(B (&sums)[kPeakSums], B &a, B w) {
  LF_UNROLL for (int i = 0; i < kPeakSums; ++i) {
    LF_OPAQUE(a);
    sums[i] = I::dot(sums[i], a, w);
  }
}
#include "peak.inc"
}  // namespace

const Kernels kAvxVnni = {matrix, depthwise, peak, false, kNarrowChunk, 64};

}  // namespace lf

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
