// Small helpers every instruction set's file uses.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(_MSC_VER) && !defined(__clang__)
#define LF_INLINE __forceinline
#define LF_NOINLINE __declspec(noinline)
#define LF_UNROLL
#define LF_INLINE_LAMBDA
#define LF_OPAQUE(vector)
#else
#define LF_NOINLINE __attribute__((noinline))
#if defined(LF_EMULATED)
#define LF_OPAQUE(vector)
#elif defined(__aarch64__)
#define LF_OPAQUE(vector) __asm__ volatile("" : "+w"(vector))
#else
#define LF_OPAQUE(vector) __asm__ volatile("" : "+x"(vector))
#endif
#define LF_INLINE_LAMBDA __attribute__((always_inline))
#define LF_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define LF_UNROLL _Pragma("unroll")
#else
#define LF_UNROLL _Pragma("GCC unroll 16")
#endif
#endif

#if defined(__GNUC__)
// Keeps the compiler from moving loads across it: hoisted weights would spill the sums.
#define LF_BARRIER() __asm__ volatile("" ::: "memory")
#define LF_LIKELY(condition) __builtin_expect(condition, 1)
#else
#define LF_BARRIER() _ReadWriteBarrier()
#define LF_LIKELY(condition) (condition)
#endif

namespace lf {
namespace {

LF_INLINE int32_t read32(const void *p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

}  // namespace
}  // namespace lf
