// NEON with the dot-product extension (ARMv8.2). sdot multiplies signed bytes: inputs are taken minus 128, and the packed
// bias has 128 * sum(weights) added.
#include "kernels.h"

#ifdef LF_ARM
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#endif
#include <arm_neon.h>

#include <chrono>

#include "simd_common.h"

namespace lf {
namespace {

struct Bytes32 {
  int32x4_t v[2];
};
struct Floats8 {
  float32x4_t v[2];
};

struct I {
  using B = Bytes32;
  using F = Floats8;
  using Half = Bytes32;
  static constexpr int kBytes = 32, kPixels = 4;
  struct Limits {
    uint8x16_t lo, hi;
    LF_INLINE explicit Limits(const Requant &r)
        : lo(vdupq_n_u8(static_cast<uint8_t>(r.lo))), hi(vdupq_n_u8(static_cast<uint8_t>(r.hi))) {}
  };

  LF_INLINE static int32x4_t quarter(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t *>(p))); }
  LF_INLINE static B load(const void *p) { return {{quarter(p), quarter(static_cast<const uint8_t *>(p) + 16)}}; }
  LF_INLINE static B load_half(const void *p) { return load(p); }
  LF_INLINE static void put(void *p, B a) {
    for (int i = 0; i < 2; ++i) vst1q_u8(static_cast<uint8_t *>(p) + 16 * i, vreinterpretq_u8_s32(a.v[i]));
  }
  LF_INLINE static void store(void *p, B a) { put(p, a); }
  LF_INLINE static B both(int32x4_t a) { return {{a, a}}; }
  LF_INLINE static B splat_int(int32_t a) { return both(vdupq_n_s32(a)); }
  LF_INLINE static B splat(const uint8_t *p) { return splat_int(static_cast<int32_t>(uint32_t(read32(p)) ^ 0x80808080u)); }
  LF_INLINE static Half half(const void *p) {
    const uint8x16_t sign = vdupq_n_u8(0x80);
    Half a;
    for (int i = 0; i < 2; ++i)
      a.v[i] = vreinterpretq_s32_u8(veorq_u8(vld1q_u8(static_cast<const uint8_t *>(p) + 16 * i), sign));
    return a;
  }
  LF_INLINE static Half half_zero() { return splat_int(0); }

#define LF_EACH(type, result) \
  type r;                     \
  for (int i = 0; i < 2; ++i) r.v[i] = result; \
  return r
  LF_INLINE static int8x16_t b8(int32x4_t a) { return vreinterpretq_s8_s32(a); }
  LF_INLINE static int16x8_t b16(int32x4_t a) { return vreinterpretq_s16_s32(a); }
  LF_INLINE static B low8(B a, B b) { LF_EACH(B, vreinterpretq_s32_s8(vzip1q_s8(b8(a.v[i]), b8(b.v[i])))); }
  LF_INLINE static B high8(B a, B b) { LF_EACH(B, vreinterpretq_s32_s8(vzip2q_s8(b8(a.v[i]), b8(b.v[i])))); }
  LF_INLINE static B low16(B a, B b) { LF_EACH(B, vreinterpretq_s32_s16(vzip1q_s16(b16(a.v[i]), b16(b.v[i])))); }
  LF_INLINE static B high16(B a, B b) { LF_EACH(B, vreinterpretq_s32_s16(vzip2q_s16(b16(a.v[i]), b16(b.v[i])))); }
  LF_INLINE static B dot(B sum, B a, B w) { LF_EACH(B, vdotq_s32(sum.v[i], b8(a.v[i]), b8(w.v[i]))); }
  LF_INLINE static B add32(B a, B b) { LF_EACH(B, vaddq_s32(a.v[i], b.v[i])); }
  LF_INLINE static B sub32(B a, B b) { LF_EACH(B, vsubq_s32(a.v[i], b.v[i])); }
  LF_INLINE static F splatf(float a) { return {{vdupq_n_f32(a), vdupq_n_f32(a)}}; }
  LF_INLINE static F loadf(const float *p) { return {{vld1q_f32(p), vld1q_f32(p + 4)}}; }
  LF_INLINE static F loadf_half(const float *p) { return loadf(p); }
  LF_INLINE static F to_float(B a) { LF_EACH(F, vcvtq_f32_s32(a.v[i])); }
  LF_INLINE static F mul(F a, F b) { LF_EACH(F, vmulq_f32(a.v[i], b.v[i])); }
  LF_INLINE static F add(F a, F b) { LF_EACH(F, vaddq_f32(a.v[i], b.v[i])); }
  LF_INLINE static F fma(F a, F b, F c) { LF_EACH(F, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
  LF_INLINE static F min(F a, F b) { LF_EACH(F, vminq_f32(a.v[i], b.v[i])); }
  LF_INLINE static F max(F a, F b) { LF_EACH(F, vmaxq_f32(a.v[i], b.v[i])); }
  LF_INLINE static B bits(F a) { LF_EACH(B, vreinterpretq_s32_f32(a.v[i])); }
  LF_INLINE static F floats(B a) { LF_EACH(F, vreinterpretq_f32_s32(a.v[i])); }
  // Low halves of a and b, in turn.
  LF_INLINE static B merge(B a, B b) { LF_EACH(B, vreinterpretq_s32_s16(vtrn1q_s16(b16(a.v[i]), b16(b.v[i])))); }
#undef LF_EACH

  LF_INLINE static uint8x16_t load16(const void *p) { return vld1q_u8(static_cast<const uint8_t *>(p)); }
  // 16 bytes in channel order to int32 lanes.
  LF_INLINE static void widen(uint8x16_t bytes, B (&to)[2]) {
    const uint8x16_t parts[2] = {vuzp1q_u8(bytes, bytes), vuzp2q_u8(bytes, bytes)};
    for (int i = 0; i < 2; ++i) {
      const uint16x8_t words = vmovl_u8(vget_low_u8(parts[i]));
      to[i].v[0] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
      to[i].v[1] = vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(words)));
    }
  }
  // What the tail adds: for each of four pixels 16 numbers in channel order.
  struct Centre {
    const uint8_t *from;
    int64_t stride;
    uint8x16_t index;
    LF_INLINE Centre(const Matrix &m, int unit, int pixel, bool used)
        : from(used ? m.centre + pixel * m.centre_stride : nullptr),
          stride(m.centre_stride),
          index(used ? load16(m.centre_index + unit * kUnit) : vdupq_n_u8(0)) {}
    LF_INLINE B add(B words, int p) const {
      if (!from) return words;
      const uint8x16_t bytes = vqtbl1q_u8(load16(from + p * stride), index);
      const uint16x8_t more[2] = {vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes))};
      for (int i = 0; i < 2; ++i)
        words.v[i] = vreinterpretq_s32_s16(vqaddq_s16(b16(words.v[i]), vreinterpretq_s16_u16(more[i])));
      return words;
    }
  };
  template <bool clamp>
  LF_INLINE static uint8x16_t limited(uint8x16_t bytes, const Limits &limits) {
    return clamp ? vminq_u8(vmaxq_u8(bytes, limits.lo), limits.hi) : bytes;
  }
  template <bool clamp>
  LF_INLINE static void store_unit(const B (*acc)[2], const Limits &limits, const Centre &centre, uint8_t *out,
                                   int64_t stride) {
    for (int p = 0; p < 4; ++p) {
      const B words = centre.add(merge(acc[p][0], acc[p][1]), p);
      const uint8x16_t bytes = vcombine_u8(vqmovun_s16(b16(words.v[0])), vqmovun_s16(b16(words.v[1])));
      vst1q_u8(out + p * stride, limited<clamp>(bytes, limits));
    }
  }
  template <bool clamp>
  LF_INLINE static void store_block(B low, B high, const Limits &limits, uint8_t *out, int64_t) {
    for (int i = 0; i < 2; ++i) {
      const uint8x16_t bytes = vcombine_u8(vqmovun_s16(b16(low.v[i])), vqmovun_s16(b16(high.v[i])));
      vst1q_u8(out + 16 * i, limited<clamp>(bytes, limits));
    }
  }
};

#include "kernels_simd.inc"

constexpr int kPeakSums = 8;
LF_INLINE void peak_round(B (&sums)[kPeakSums], B &a, B w) {
  LF_UNROLL for (int i = 0; i < kPeakSums; ++i) {
    LF_OPAQUE(a.v[0]);
    sums[i] = I::dot(sums[i], a, w);
  }
}
#include "peak.inc"
}  // namespace

const Kernels kNeon = {matrix, depthwise, peak, false, kNarrowChunk, 64};

}  // namespace lf

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
