// AVX512-VNNI: the dot-product instruction on 64-byte vectors; a unit is one vector, a depthwise vector two pixels.
#include "kernels.h"

#ifdef LF_X86
#if defined(LF_EMULATED)  // by a test: the instructions as plain C++
#elif defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,prefer-vector-width=512")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#endif
#include <immintrin.h>

#include <chrono>

#include "simd_common.h"

namespace lf {
namespace {
#include "simd_x86.inc"

struct I : HalfX86 {
  using B = __m512i;
  using F = __m512;
  static constexpr int kBytes = 64, kPixels = 8;
  struct Limits {
    B lo, hi;
    LF_INLINE explicit Limits(const Requant &r)
        : lo(_mm512_set1_epi8(static_cast<char>(r.lo))), hi(_mm512_set1_epi8(static_cast<char>(r.hi))) {}
  };
  LF_INLINE static B load(const void *p) { return _mm512_loadu_si512(p); }
  LF_INLINE static void store(void *p, B a) { _mm512_storeu_si512(p, a); }
  LF_INLINE static B load_half(const void *p) { return _mm512_broadcast_i64x4(half(p)); }
  LF_INLINE static B splat(const uint8_t *p) { return _mm512_set1_epi32(read32(p)); }
  LF_INLINE static B splat_int(int32_t a) { return _mm512_set1_epi32(a); }
  LF_INLINE static B sub32(B a, B b) { return _mm512_sub_epi32(a, b); }
  LF_INLINE static F splatf(float a) { return _mm512_set1_ps(a); }
  LF_INLINE static F loadf(const float *p) { return _mm512_loadu_ps(p); }
  LF_INLINE static F loadf_half(const float *p) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(p)); }
  LF_INLINE static F to_float(B a) { return _mm512_cvtepi32_ps(a); }
  LF_INLINE static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  LF_INLINE static F add(F a, F b) { return _mm512_add_ps(a, b); }
  LF_INLINE static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  LF_INLINE static F min(F a, F b) { return _mm512_min_ps(a, b); }
  LF_INLINE static F max(F a, F b) { return _mm512_max_ps(a, b); }
  LF_INLINE static B bits(F a) { return _mm512_castps_si512(a); }
  LF_INLINE static F floats(B a) { return _mm512_castsi512_ps(a); }
  LF_INLINE static B add32(B a, B b) { return _mm512_add_epi32(a, b); }
  LF_INLINE static B dot(B sum, B a, B w) { return _mm512_dpbusd_epi32(sum, a, w); }
  // 16 bytes in channel order to int32 lanes.
  LF_INLINE static void widen(__m128i bytes, B (&to)[1]) {
    bytes = pick16(bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    to[0] = _mm512_cvtepu8_epi32(bytes);
  }
  template <bool clamp>
  LF_INLINE static B narrow(B low, B high, const Limits &limits) {
    const B bytes = _mm512_packus_epi16(low, high);
    return clamp ? _mm512_min_epu8(_mm512_max_epu8(bytes, limits.lo), limits.hi) : bytes;
  }
  // Low halves of a and b, in turn.
  LF_INLINE static B merge(B a, B b) { return _mm512_mask_blend_epi16(0xAAAAAAAA, a, _mm512_slli_epi32(b, 16)); }
  // What the tail adds: for each of four pixels 16 numbers, in the order of `merge`.
  struct Centre {
    const uint8_t *from;
    int64_t stride;
    __m128i index;
    LF_INLINE Centre(const Matrix &m, int unit, int pixel, bool used)
        : from(used ? m.centre + pixel * m.centre_stride : nullptr),
          stride(m.centre_stride),
          index(used ? load16(m.centre_index + unit * kUnit) : _mm_setzero_si128()) {}
    LF_INLINE B add(B words, int p) const {
      if (!from) return words;
      B lanes[2][1];
      for (int i = 0; i < 2; ++i) widen(pick16(load16(from + (p + i) * stride), index), lanes[i]);
      return _mm512_adds_epi16(words, merge(lanes[0][0], lanes[1][0]));
    }
  };
  // Four pixels of a unit. Byte 4 i + k of 16-byte half h, of pixel 2 (i / 2) + k % 2, is lane 4 h + 2 (i % 2) + k / 2:
  // gathered to pixels within the halves, the halves are then exchanged, and last come lanes to channels.
  template <bool clamp>
  LF_INLINE static void store_unit(const B (*acc)[1], const Limits &limits, const Centre &centre, uint8_t *out,
                                   int64_t stride) {
    const B split = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    const B order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const B channels = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    const B first = centre.add(merge(acc[0][0], acc[1][0]), 0), second = centre.add(merge(acc[2][0], acc[3][0]), 2);
    B bytes = narrow<clamp>(first, second, limits);
    bytes = _mm512_permutexvar_epi32(order, _mm512_shuffle_epi8(bytes, split));
    bytes = _mm512_shuffle_epi8(bytes, channels);
    __m128i *to[4];
    for (int p = 0; p < 4; ++p) to[p] = reinterpret_cast<__m128i *>(out + p * stride);
    _mm_storeu_si128(to[0], _mm512_castsi512_si128(bytes));
    _mm_storeu_si128(to[1], _mm512_extracti32x4_epi32(bytes, 1));
    _mm_storeu_si128(to[2], _mm512_extracti32x4_epi32(bytes, 2));
    _mm_storeu_si128(to[3], _mm512_extracti32x4_epi32(bytes, 3));
  }
  template <bool clamp>
  LF_INLINE static void store_block(B low, B high, const Limits &limits, uint8_t *out, int64_t stride) {
    const B bytes = narrow<clamp>(low, high, limits);
    put(out, _mm512_castsi512_si256(bytes));
    put(out + stride, _mm512_extracti64x4_epi64(bytes, 1));
  }
};

#include "kernels_simd.inc"

constexpr int kPeakSums = 16;
LF_INLINE void peak_round(B (&sums)[kPeakSums], B &a, B w) {
  LF_UNROLL for (int i = 0; i < kPeakSums; ++i) {
    LF_OPAQUE(a);
    sums[i] = I::dot(sums[i], a, w);
  }
}
#include "peak.inc"
}  // namespace

const Kernels kAvx512Vnni = {matrix, depthwise, peak};

}  // namespace lf

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
