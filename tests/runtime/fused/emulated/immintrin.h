// AVX-512 and AVX-VNNI intrinsics as plain C++ (SIMDe), for processors that lack them. Included instead of the
// compiler's header by test_driver.py. What SIMDe lacks, and multiply-adds that round once, are added here.
#pragma once
#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

template <class V, class Lane>
inline V lanes(Lane lane) {
  float values[sizeof(V) / 4];
  for (unsigned i = 0; i < sizeof(V) / 4; ++i) values[i] = lane(i);
  V result;
  __builtin_memcpy(&result, values, sizeof result);
  return result;
}

template <class T, class V>
inline T lane_of(const V &vector, unsigned i) {
  T value;
  __builtin_memcpy(&value, reinterpret_cast<const char *>(&vector) + i * sizeof(T), sizeof value);
  return value;
}

template <class V>
inline V fused(const V &a, const V &b, const V &c) {
  return lanes<V>([&](unsigned i) {
    return __builtin_fmaf(lane_of<float>(a, i), lane_of<float>(b, i), lane_of<float>(c, i));
  });
}

inline __m512 to_floats(const __m512i &a) {
  return lanes<__m512>([&](unsigned i) { return float(lane_of<int>(a, i)); });
}

inline __m512i bytes_to_dwords(const __m128i &a) {
  __m512i result;
  int values[16];
  for (unsigned i = 0; i < 16; ++i) values[i] = lane_of<unsigned char>(a, i);
  __builtin_memcpy(&result, values, sizeof result);
  return result;
}

#undef _mm256_fmadd_ps
#undef _mm512_fmadd_ps
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepu8_epi32
#undef _mm256_dpbusd_avx_epi32
#define _mm256_fmadd_ps fused
#define _mm512_fmadd_ps fused
#define _mm512_cvtepi32_ps to_floats
#define _mm512_cvtepu8_epi32 bytes_to_dwords
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
