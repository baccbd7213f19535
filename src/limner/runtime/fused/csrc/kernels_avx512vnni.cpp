// AVX512-VNNI: the dot-product instruction on 64-byte vectors, with loops of its own (loops_wide.inc). No VBMI: not every
// processor with VNNI has it.
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
#include <type_traits>

#include "simd_common.h"

namespace lf {
namespace {
#include "simd_x86.inc"

#define LF_WIDE

struct I : HalfX86 {
  using B = __m512i;
  using F = __m512;
  static constexpr int kBytes = 64;
  struct Limits {
    B lo, hi;
    LF_INLINE explicit Limits(const Requant &r)
        : lo(_mm512_set1_epi8(static_cast<char>(r.lo))), hi(_mm512_set1_epi8(static_cast<char>(r.hi))) {}
  };
  LF_INLINE static B load(const void *p) { return _mm512_loadu_si512(p); }
  LF_INLINE static void store(void *p, B a) { _mm512_storeu_si512(p, a); }
  LF_INLINE static B join(Half a, Half b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }
  LF_INLINE static B splat(const uint8_t *p) { return _mm512_set1_epi32(read32(p)); }
  LF_INLINE static B splat_int(int32_t a) { return _mm512_set1_epi32(a); }
  LF_INLINE static B sub32(B a, B b) { return _mm512_sub_epi32(a, b); }
  LF_INLINE static F splatf(float a) { return _mm512_set1_ps(a); }
  LF_INLINE static F loadf(const float *p) { return _mm512_loadu_ps(p); }
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
  // 32 bytes as the low bytes of words.
  LF_INLINE static B words_of(const uint8_t *p, B high) {
    const B twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), _mm512_castsi256_si512(half(p)));
    return _mm512_unpacklo_epi8(twice, high);
  }
  // Bytes of units that lie together, in channel order, to int32 lanes.
  LF_INLINE static void widen(const uint8_t *p, B (&to)[4]) {
    const B bytes = load(p), every = _mm512_set1_epi32(255);
    const B halves[2] = {_mm512_unpacklo_epi64(bytes, bytes), _mm512_unpackhi_epi64(bytes, bytes)};
    for (int i = 0; i < 2; ++i) {
      const B words = _mm512_unpacklo_epi8(halves[i], _mm512_setzero_si512());
      to[2 * i] = _mm512_and_si512(words, every);
      to[2 * i + 1] = _mm512_srli_epi32(words, 16);
    }
  }
  LF_INLINE static void widen(const uint8_t *p, B (&to)[2]) {
    const B words = words_of(p, _mm512_setzero_si512());
    to[0] = _mm512_and_si512(words, _mm512_set1_epi32(255));
    to[1] = _mm512_srli_epi32(words, 16);
  }
  LF_INLINE static B widen(__m128i bytes) {
    return _mm512_cvtepu8_epi32(pick16(bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
  }
  LF_INLINE static void widen(const uint8_t *p, B (&to)[1]) { to[0] = widen(load16(p)); }
  LF_INLINE static void widen(const uint8_t *p, B (&to)[3]) {
    B two[2];
    widen(p, two);
    to[0] = two[0], to[1] = two[1], to[2] = widen(load16(p + 2 * kUnit));
  }
  template <bool clamp>
  LF_INLINE static B narrow(B low, B high, const Limits &limits) {
    const B bytes = _mm512_packus_epi16(low, high);
    return clamp ? _mm512_min_epu8(_mm512_max_epu8(bytes, limits.lo), limits.hi) : bytes;
  }
  // Low halves of a and b, in turn.
  LF_INLINE static B merge(B a, B b) { return _mm512_mask_blend_epi16(0xAAAAAAAA, a, _mm512_slli_epi32(b, 16)); }
  // Two of the four dwords of a 16-byte part, of two vectors in turn.
  template <int half>
  LF_INLINE static B interleave8(B a, B b) { return half ? _mm512_unpackhi_epi8(a, b) : _mm512_unpacklo_epi8(a, b); }
  LF_INLINE static B interleave16(B a, B b, int half) {
    return half ? _mm512_unpackhi_epi16(a, b) : _mm512_unpacklo_epi16(a, b);
  }
  // The second half of a and the first of b.
  LF_INLINE static B middle(B a, B b) { return _mm512_shuffle_i32x4(a, b, 0x4E); }
  LF_INLINE static void store_apart(uint8_t *out, B bytes, int64_t stride) {
    put(out, _mm512_castsi512_si256(bytes));
    put(out + stride, _mm512_extracti64x4_epi64(bytes, 1));
  }

  // What the tail adds to a pixel's units that lie together, in the order of `merge`; for one unit to two pixels at once.
  template <int units>
  struct Centre {
    static constexpr int kParts = units == 4 ? 2 : 1;
    const uint8_t *from;
    int64_t stride;
    B index[kParts];
    LF_INLINE Centre(const Matrix &m, int unit, bool used) : from(m.centre), stride(m.centre_stride) {
      if (!used) return;
      const uint8_t *at = m.centre_index + unit * kUnit;
      const B none = _mm512_set1_epi8(-128);  // makes a shuffle leave zero
      if (units == 4) {
        index[0] = _mm512_unpacklo_epi8(load(at), none);
        index[kParts - 1] = _mm512_unpackhi_epi8(load(at), none);
      } else if (units == 2) index[0] = words_of(at, none);
      else index[0] = _mm512_castsi128_si512(load16(at));
    }
    LF_INLINE B of(int pixel, int part) const {
      return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load16(from + pixel * stride)), index[part]);
    }
    LF_INLINE B of_two(int pixel) const {
      B lanes[2];
      for (int i = 0; i < 2; ++i)
        lanes[i] = widen(pick16(load16(from + (pixel + i) * stride), _mm512_castsi512_si128(index[0])));
      return merge(lanes[0], lanes[1]);
    }
  };

  struct CentreOfThree {
    Centre<2> two;
    Centre<1> one;
    LF_INLINE CentreOfThree(const Matrix &m, int unit, bool used) : two(m, unit, used), one(m, unit + 2, used) {}
  };
  template <int units>
  using CentreOf = std::conditional_t<units == 3, CentreOfThree, Centre<units>>;

  template <bool clamp, bool add, int pixels>
  LF_INLINE static void store_tile(const B (&acc)[pixels][4], const Limits &limits, const Centre<4> &centre, int pixel,
                                   uint8_t *out, int64_t stride) {
    LF_UNROLL for (int p = 0; p < pixels; ++p) {
      B words[2] = {merge(acc[p][0], acc[p][1]), merge(acc[p][2], acc[p][3])};
      for (int i = 0; add && i < 2; ++i) words[i] = _mm512_adds_epi16(words[i], centre.of(pixel + p, i));
      store(out + p * stride, narrow<clamp>(words[0], words[1], limits));
    }
  }

  template <bool clamp, bool add, int pixels>
  LF_INLINE static void store_tile(const B (&acc)[pixels][2], const Limits &limits, const Centre<2> &centre, int pixel,
                                   uint8_t *out, int64_t stride) {
    const B order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    LF_UNROLL for (int p = 0; p < pixels; p += 2) {
      B words[2];
      for (int i = 0; i < 2; ++i) {
        words[i] = merge(acc[p + i][0], acc[p + i][1]);
        if (add) words[i] = _mm512_adds_epi16(words[i], centre.of(pixel + p + i, 0));
      }
      store_apart(out + p * stride, _mm512_permutexvar_epi64(order, narrow<clamp>(words[0], words[1], limits)), stride);
    }
  }

  // Four pixels of a unit. Byte 4 i + k of 16-byte part h, of pixel 2 (i / 2) + k % 2, is lane 4 h + 2 (i % 2) + k / 2:
  // gathered to pixels within the parts, the parts are then exchanged, and last come lanes to channels.
  LF_INLINE static void store_four(B bytes, uint8_t *out, int64_t stride) {
    const B split = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    const B order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const B channels = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    bytes = _mm512_permutexvar_epi32(order, _mm512_shuffle_epi8(bytes, split));
    bytes = _mm512_shuffle_epi8(bytes, channels);
    __m128i *to[4];
    for (int p = 0; p < 4; ++p) to[p] = reinterpret_cast<__m128i *>(out + p * stride);
    _mm_storeu_si128(to[0], _mm512_castsi512_si128(bytes));
    _mm_storeu_si128(to[1], _mm512_extracti32x4_epi32(bytes, 1));
    _mm_storeu_si128(to[2], _mm512_extracti32x4_epi32(bytes, 2));
    _mm_storeu_si128(to[3], _mm512_extracti32x4_epi32(bytes, 3));
  }

  template <bool clamp, bool add, int pixels>
  LF_INLINE static void store_tile(const B (&acc)[pixels][1], const Limits &limits, const Centre<1> &centre, int pixel,
                                   uint8_t *out, int64_t stride) {
    LF_UNROLL for (int p = 0; p < pixels; p += 4) {
      B words[2];
      for (int i = 0; i < 2; ++i) {
        words[i] = merge(acc[p + 2 * i][0], acc[p + 2 * i + 1][0]);
        if (add) words[i] = _mm512_adds_epi16(words[i], centre.of_two(pixel + p + 2 * i));
      }
      store_four(narrow<clamp>(words[0], words[1], limits), out + p * stride, stride);
    }
  }

  template <bool clamp, bool add, int pixels>
  LF_INLINE static void store_tile(const B (&acc)[pixels][3], const Limits &limits, const CentreOfThree &centre, int pixel,
                                   uint8_t *out, int64_t stride) {
    B two[pixels][2], one[pixels][1];
    LF_UNROLL for (int p = 0; p < pixels; ++p) two[p][0] = acc[p][0], two[p][1] = acc[p][1], one[p][0] = acc[p][2];
    store_tile<clamp, add>(two, limits, centre.two, pixel, out, stride);
    store_tile<clamp, add>(one, limits, centre.one, pixel, out + 2 * kUnit, stride);
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

const Kernels kAvx512Vnni = {matrix, depthwise, peak, true, kChunk, kChunk};

}  // namespace lf

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
