// What this processor can run, and how fast it could go.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "network.h"

#if defined(LF_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(LF_X86) && defined(_MSC_VER)
#include <intrin.h>
#elif defined(LF_X86)
#include <cpuid.h>
#endif

namespace lf {
namespace {

#ifdef LF_X86
struct Registers {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(uint32_t leaf, uint32_t sub) {
  Registers r;
#ifdef _MSC_VER
  int out[4];
  __cpuidex(out, int(leaf), int(sub));
  r = {uint32_t(out[0]), uint32_t(out[1]), uint32_t(out[2]), uint32_t(out[3])};
#else
  if (!__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d)) r = {};
#endif
  return r;
}

// Which vector registers the operating system saves.
uint64_t saved_state() {
  if (!(cpuid(1, 0).c >> 27 & 1)) return 0;
#ifdef _MSC_VER
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
#endif
}

bool usable_x86(int32_t isa) {
#if defined(LF_EMULATED)
  if (isa != LF_AVX2) return true;
#endif
  const Registers seven = cpuid(7, 0);
  const uint64_t saved = saved_state();
  const bool avx2 = (saved & 6) == 6 && (seven.b >> 5 & 1) && (cpuid(1, 0).c >> 12 & 1);  // and FMA
  if (isa == LF_AVX2) return avx2;
  if (isa == LF_AVXVNNI) return avx2 && seven.a >= 1 && (cpuid(7, 1).a >> 4 & 1);
  const uint32_t wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // AVX512 F, DQ, BW, VL
  return isa == LF_AVX512VNNI && avx2 && (saved & 0xE6) == 0xE6 && (seven.b & wanted) == wanted && (seven.c >> 11 & 1);
}
#endif

#ifdef LF_ARM
bool usable_neon() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
  return true;  // every 64-bit Mac has the dot product
#else
  return false;
#endif
}
#endif

}  // namespace

const Kernels *kernels_of(int32_t isa) {
  if (isa == LF_SCALAR) return &kScalar;
#ifdef LF_X86
  if (isa < LF_AVX2 || isa > LF_AVX512VNNI || !usable_x86(isa)) return nullptr;
  return isa == LF_AVX2 ? &kAvx2 : isa == LF_AVXVNNI ? &kAvxVnni : &kAvx512Vnni;
#elif defined(LF_ARM)
  return isa == LF_NEON && usable_neon() ? &kNeon : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace lf

extern "C" {

const char *lf_isa_name(int32_t isa) {
  static const char *const names[LF_ISAS] = {"scalar", "avx2", "avxvnni", "avx512vnni", "neon"};
  return isa >= 0 && isa < LF_ISAS ? names[isa] : nullptr;
}

int32_t lf_isa_usable(int32_t isa) { return lf::kernels_of(isa) != nullptr; }

double lf_peak_macs(int32_t isa, double seconds) {
  const lf::Kernels *kernels = lf::kernels_of(isa);
  return kernels ? kernels->peak(seconds) : 0;
}

double lf_peak_read(size_t bytes, double seconds) {
  using clock = std::chrono::steady_clock;
  const size_t words = std::max<size_t>(bytes / 8, 64) / 8 * 8;
  std::vector<uint64_t> buffer(words, 1);
  uint64_t sums[8] = {};
  double best = 0, took = 0;
  while (took < seconds) {
    const auto start = clock::now();
    for (size_t i = 0; i < words; i += 8)
      for (size_t k = 0; k < 8; ++k) sums[k] += buffer[i + k];
    const double window = std::chrono::duration<double>(clock::now() - start).count();
    best = std::max(best, double(words) * 8 / window);
    took += window;
  }
  volatile uint64_t sink = 0;
  for (uint64_t sum : sums) sink = sink + sum;
  return best;
}

}  // extern "C"
