// AVX2: no dot-product instruction. vpmaddubsw multiplies bytes and sums two products in 16 bits, vpmaddwd widens.
// Where the weights prove that more products fit 16 bits, they are summed there first: the multiplier units, which
// both instructions use, are what limits this code.
#include "kernels.h"

#ifdef LF_X86
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx2,fma")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#endif
#include <immintrin.h>

#include <chrono>

#include "simd_common.h"

namespace lf {
namespace {
#include "simd_x86.inc"

struct I : SimdAvx2 {
  LF_INLINE static B products(B a, B w) { return _mm256_maddubs_epi16(a, w); }
  LF_INLINE static B add16(B a, B b) { return _mm256_add_epi16(a, b); }
  LF_INLINE static B sum_pairs(B a) { return _mm256_madd_epi16(a, _mm256_set1_epi16(1)); }
  // Exact for any weights: even and odd bytes as 16-bit numbers.
  LF_INLINE static B wide(B a, B w) {
    const B even = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
    return add32(even, _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(w, 8)));
  }
};

#define LF_OWN_SUMS
using V = I::B;
constexpr int kPairBytes = 2 * kUnit * 4;
#if defined(__GNUC__)
struct __attribute__((packed, may_alias)) Four { uint8_t bytes[4]; };
struct __attribute__((packed, may_alias)) Vector { uint8_t bytes[32]; };
#endif

// One pixel of add_pair. Left to itself the compiler spills sums: 8 of them, 3 weights, 1 constant and 4 temporaries are
// all the registers there are, so the fourth weight stays in memory.
LF_INLINE void add_pair_to_pixel(const uint8_t *first, const uint8_t *second, V w0, V w1, V w2, const int8_t *w3, V ones,
                                 V (&acc)[2]) {
#if defined(__GNUC__)
  V s, t, u, v;
  __asm__ volatile(
      "vpbroadcastd %[first], %[s]\n\t"
      "vpbroadcastd %[second], %[t]\n\t"
      "vpmaddubsw %[w0], %[s], %[u]\n\t"
      "vpmaddubsw %[w2], %[t], %[v]\n\t"
      "vpmaddubsw %[w1], %[s], %[s]\n\t"
      "vpmaddubsw %[w3], %[t], %[t]\n\t"
      "vpaddw %[v], %[u], %[u]\n\t"
      "vpaddw %[t], %[s], %[s]\n\t"
      "vpmaddwd %[ones], %[u], %[u]\n\t"
      "vpmaddwd %[ones], %[s], %[s]\n\t"
      "vpaddd %[u], %[x], %[x]\n\t"
      "vpaddd %[s], %[y], %[y]"
      : [x] "+x"(acc[0]), [y] "+x"(acc[1]), [s] "=&x"(s), [t] "=&x"(t), [u] "=&x"(u), [v] "=&x"(v)
      : [first] "m"(*reinterpret_cast<const Four *>(first)), [second] "m"(*reinterpret_cast<const Four *>(second)),
        [w0] "x"(w0), [w1] "x"(w1), [w2] "x"(w2), [w3] "m"(*reinterpret_cast<const Vector *>(w3)), [ones] "x"(ones));
#else
  (void)ones;
  const V a = I::splat(first), b = I::splat(second);
  acc[0] = I::add32(acc[0], I::sum_pairs(I::add16(I::products(a, w0), I::products(b, w2))));
  acc[1] = I::add32(acc[1], I::sum_pairs(I::add16(I::products(a, w1), I::products(b, I::load(w3)))));
#endif
}

// Both quads of a pair summed in 16 bits.
LF_INLINE void add_pair(const uint8_t *first, const uint8_t *second, int64_t stride, const int8_t *weights,
                        V (&acc)[4][2]) {
  const V w0 = I::load(weights), w1 = I::load(weights + 32), w2 = I::load(weights + 64);
  const V ones = _mm256_set1_epi16(1);
  LF_UNROLL for (int p = 0; p < 4; ++p)
    add_pair_to_pixel(first + p * stride, second + p * stride, w0, w1, w2, weights + 96, ones, acc[p]);
}

LF_INLINE void add_quad(const uint8_t *at, int64_t stride, const int8_t *weights, V (&acc)[4][2]) {
  const V w0 = I::load(weights), w1 = I::load(weights + 32);
  const V ones = _mm256_set1_epi16(1);
  LF_UNROLL for (int p = 0; p < 4; ++p) {
#if defined(__GNUC__)
    V s, t;
    __asm__ volatile(
        "vpbroadcastd %[at], %[s]\n\t"
        "vpmaddubsw %[w0], %[s], %[t]\n\t"
        "vpmaddubsw %[w1], %[s], %[s]\n\t"
        "vpmaddwd %[ones], %[t], %[t]\n\t"
        "vpmaddwd %[ones], %[s], %[s]\n\t"
        "vpaddd %[t], %[x], %[x]\n\t"
        "vpaddd %[s], %[y], %[y]"
        : [x] "+x"(acc[p][0]), [y] "+x"(acc[p][1]), [s] "=&x"(s), [t] "=&x"(t)
        : [at] "m"(*reinterpret_cast<const Four *>(at + p * stride)), [w0] "x"(w0), [w1] "x"(w1), [ones] "x"(ones));
#else
    (void)ones;
    const V a = I::splat(at + p * stride);
    acc[p][0] = I::add32(acc[p][0], I::sum_pairs(I::products(a, w0)));
    acc[p][1] = I::add32(acc[p][1], I::sum_pairs(I::products(a, w1)));
#endif
  }
}

LF_INLINE void add_quad_wide(const uint8_t *at, int64_t stride, const int8_t *weights, V (&acc)[4][2]) {
  for (int v = 0; v < 2; ++v) {
    const V w = I::load(weights + 32 * v);
    LF_UNROLL for (int p = 0; p < 4; ++p) acc[p][v] = I::add32(acc[p][v], I::wide(I::splat(at + p * stride), w));
  }
}

struct Sums {
  const uint8_t *const *quads;
  const uint16_t *order, *ends;
  const int8_t *weights;
  int64_t stride;

  LF_INLINE Sums(const Matrix &m, int unit)
      : quads(m.quads),
        order(m.order + int64_t(unit) * m.pairs),
        ends(m.ends + unit * 3),
        weights(m.weights + int64_t(unit) * m.pairs * kPairBytes),
        stride(m.pixel_stride) {}

  LF_INLINE void operator()(int pixel, V (&acc)[4][2]) const {
    const int64_t offset = pixel * stride;
    const int8_t *w = weights;
    int at = 0;
    for (; at < ends[0]; ++at, w += kPairBytes)
      add_pair(quads[2 * order[at]] + offset, quads[2 * order[at] + 1] + offset, stride, w, acc);
    for (; at < ends[1]; ++at, w += kPairBytes)
      for (int i = 0; i < 2; ++i) add_quad(quads[2 * order[at] + i] + offset, stride, w + kPairBytes / 2 * i, acc);
    for (; at < ends[2]; ++at, w += kPairBytes)
      for (int i = 0; i < 2; ++i) add_quad_wide(quads[2 * order[at] + i] + offset, stride, w + kPairBytes / 2 * i, acc);
  }
};

// All pairs summed in 16 bits: their order is the given one.
struct SumsOfAll {
  const uint8_t *const *quads;
  const int8_t *weights;
  int64_t stride;
  int pairs;

  LF_INLINE SumsOfAll(const Matrix &m, int unit)
      : quads(m.quads),
        weights(m.weights + int64_t(unit) * m.pairs * kPairBytes),
        stride(m.pixel_stride),
        pairs(m.pairs) {}

  LF_INLINE void operator()(int pixel, V (&acc)[4][2]) const {
    const int64_t offset = pixel * stride;
    const int8_t *w = weights;
    for (int i = 0; i < pairs; ++i, w += kPairBytes)
      add_pair(quads[2 * i] + offset, quads[2 * i + 1] + offset, stride, w, acc);
  }
};

// The common case without loops: quads side by side, all pairs summed in 16 bits.
template <int pairs>
struct SumsOfPairs {
  const uint8_t *from;
  const int8_t *weights;
  int64_t stride;

  LF_INLINE SumsOfPairs(const Matrix &m, int unit)
      : from(m.quads[0]), weights(m.weights + int64_t(unit) * pairs * kPairBytes), stride(m.pixel_stride) {}

  LF_INLINE void operator()(int pixel, V (&acc)[4][2]) const {
    const uint8_t *at = from + pixel * stride;
    LF_UNROLL for (int i = 0; i < pairs; ++i) add_pair(at + 8 * i, at + 8 * i + 4, stride, weights + i * kPairBytes, acc);
  }
};

// acc[p] = bias + products of the columns of pixel p: a[g][c] holds column c of row group g of the first pixel.
template <int kernel, int groups, Sum kind, int vectors, int width>
LF_INLINE void columns(const V (&a)[groups][width], const V (&w)[groups * kernel], V bias, V (&acc)[vectors]) {
  constexpr int n = groups * kernel;
  LF_UNROLL for (int p = 0; p < vectors; ++p) {
    V total = bias;
    const auto at = [&](int i) LF_INLINE_LAMBDA { return a[i / kernel][p + i % kernel]; };
    if (kind == kSumAll) {
      V sum = I::products(at(0), w[0]);
      LF_UNROLL for (int i = 1; i < n; ++i) sum = I::add16(sum, I::products(at(i), w[i]));
      total = I::add32(total, I::sum_pairs(sum));
    } else if (kind == kSumPairs) {
      LF_UNROLL for (int i = 0; i < n / 2; ++i) {
        const V sum = I::add16(I::products(at(i), w[i]), I::products(at(n - 1 - i), w[n - 1 - i]));
        total = I::add32(total, I::sum_pairs(sum));
      }
      if (n % 2) total = I::add32(total, I::sum_pairs(I::products(at(n / 2), w[n / 2])));
    } else {
      LF_UNROLL for (int i = 0; i < n; ++i)
        total = I::add32(total, kind == kSumWide ? I::wide(at(i), w[i]) : I::sum_pairs(I::products(at(i), w[i])));
    }
    acc[p] = total;
  }
}

#include "kernels_simd.inc"

constexpr int kPeakSums = 8;
LF_INLINE void peak_round(V (&sums)[kPeakSums], V &a, V w) {
  LF_UNROLL for (int i = 0; i < kPeakSums; ++i) {
    LF_OPAQUE(a);
    sums[i] = I::add32(sums[i], I::sum_pairs(I::products(a, w)));
  }
}
#include "peak.inc"
}  // namespace

const Kernels kAvx2 = {matrix, depthwise, peak, false, kNarrowChunk, 64};

}  // namespace lf

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
