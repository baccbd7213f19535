// Gradients of depthwise convolutions on channels-last memory: what kernel and bias get (models/depthwise.py).
//
// A weight of a depthwise kernel gets the product of two pictures, its input shifted and the gradient of its output,
// summed over all pixels. That is one multiply-add for each weight and pixel, so everything else must be cheap: rows
// are widened to float once, 32 channels at a time, and stay in the L1 cache while the sums stay in registers.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <vector>

#if defined(_MSC_VER)
#define LD_EXPORT __declspec(dllexport)
#else
#define LD_EXPORT __attribute__((visibility("default")))
#endif
// One function for each level of x86-64, chosen when the library is loaded.
#if defined(LD_CLONES)  // by a test
#elif defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define LD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LD_CLONES
#endif
#if defined(__GNUC__)
#define LD_INLINE inline __attribute__((always_inline))
#else
#define LD_INLINE inline
#endif

namespace {

constexpr int kLanes = 16;

#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
#else
struct Lanes {
  float lane[kLanes];
  Lanes &operator+=(const Lanes &other) {
    for (int i = 0; i < kLanes; ++i) lane[i] += other.lane[i];
    return *this;
  }
  friend Lanes operator*(Lanes a, const Lanes &b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] *= b.lane[i];
    return a;
  }
};
#endif

// bfloat16 is the upper half of a float.
LD_INLINE void widen(const uint16_t *from, float *to) {
  uint32_t bits[kLanes];
  for (int i = 0; i < kLanes; ++i) bits[i] = uint32_t(from[i]) << 16;
  std::memcpy(to, bits, sizeof bits);
}
LD_INLINE void widen(const float *from, float *to) { std::memcpy(to, from, sizeof(float) * kLanes); }
LD_INLINE Lanes load(const float *from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

// Kernel x kernel sums of a row of gradients with the rows of input around it, and the sum of the gradients.
// rows[i]: the input's row i - Kernel / 2 beside it, with Kernel / 2 pixels of zeros at both ends.
template <int Kernel>
LD_INLINE void add_row(const float *const *rows, const float *gradient, int64_t width, Lanes *sums) {
  Lanes total = sums[Kernel * Kernel];
  for (int64_t x = 0; x < width; ++x) total += load(gradient + kLanes * x);
  sums[Kernel * Kernel] = total;
  for (int i = 0; i < Kernel; ++i) {
    Lanes own[Kernel];
    for (int j = 0; j < Kernel; ++j) own[j] = sums[Kernel * i + j];
    const float *row = rows[i];
    for (int64_t x = 0; x < width; ++x) {
      const Lanes factor = load(gradient + kLanes * x);
      for (int j = 0; j < Kernel; ++j) own[j] += factor * load(row + kLanes * (x + j));
    }
    for (int j = 0; j < Kernel; ++j) sums[Kernel * i + j] = own[j];
  }
}

// One picture and the 16 channels of each of `Parts`, whose pixels lie side by side: a cache line holds 32 of bfloat16.
// `ring`: for each part Kernel rows of input, one of zeros, one of gradients.
template <int Kernel, int Parts, typename Value>
LD_INLINE void add_picture(const Value *input, const Value *gradient, int64_t height, int64_t width, int64_t channels,
                           float *ring, Lanes (*sums)[Kernel * Kernel + 1]) {
  constexpr int kReach = Kernel / 2;
  const int64_t length = kLanes * (width + 2 * kReach), stride = width * channels, size = (Kernel + 2) * length;
  for (int64_t y = -kReach; y < height; ++y) {
    if (y + kReach < height) {
      float *to = ring + (y + kReach) % Kernel * length + kLanes * kReach;
      const Value *from = input + (y + kReach) * stride;
      for (int64_t x = 0; x < width; ++x)
        for (int part = 0; part < Parts; ++part)
          widen(from + x * channels + kLanes * part, to + kLanes * x + part * size);
    }
    if (y < 0) continue;
    float *factors = ring + (Kernel + 1) * length;
    const Value *from = gradient + y * stride;
    for (int64_t x = 0; x < width; ++x)
      for (int part = 0; part < Parts; ++part)
        widen(from + x * channels + kLanes * part, factors + kLanes * x + part * size);
    for (int part = 0; part < Parts; ++part) {
      const float *rows[Kernel];
      for (int i = 0; i < Kernel; ++i) {
        const int64_t row = y + i - kReach;
        rows[i] = ring + (row < 0 || row >= height ? Kernel : row % Kernel) * length + part * size;
      }
      add_row<Kernel>(rows, factors + part * size, width, sums[part]);
    }
  }
}

template <int Kernel, int Parts, typename Value>
LD_INLINE void add_channels(const Value *input, const Value *gradient, int64_t height, int64_t width, int64_t channels,
                            float *ring, float *out) {
  Lanes sums[Parts][Kernel * Kernel + 1];
  for (int part = 0; part < Parts; ++part)
    for (int k = 0; k <= Kernel * Kernel; ++k) sums[part][k] = load(out + k * channels + kLanes * part);
  add_picture<Kernel, Parts>(input, gradient, height, width, channels, ring, sums);
  for (int part = 0; part < Parts; ++part)
    for (int k = 0; k <= Kernel * Kernel; ++k)
      std::memcpy(out + k * channels + kLanes * part, &sums[part][k], sizeof(Lanes));
}

// Picture by picture, which fits in the L2 cache with all its channels.
template <int Kernel, typename Value>
LD_INLINE void add_all(const Value *input, const Value *gradient, int64_t pictures, int64_t height, int64_t width,
                       int64_t channels, float *ring, float *out) {
  std::fill(out, out + (Kernel * Kernel + 1) * channels, 0.0f);
  for (int64_t n = 0; n < pictures; ++n, input += height * width * channels, gradient += height * width * channels) {
    int64_t at = 0;
    for (; at + 2 * kLanes <= channels; at += 2 * kLanes)
      add_channels<Kernel, 2>(input + at, gradient + at, height, width, channels, ring, out + at);
    if (at < channels) add_channels<Kernel, 1>(input + at, gradient + at, height, width, channels, ring, out + at);
  }
}

template <typename Value>
LD_INLINE void add_any(int kernel, const void *input, const void *gradient, int64_t pictures, int64_t height,
                       int64_t width, int64_t channels, float *ring, float *out) {
  const auto *x = static_cast<const Value *>(input), *g = static_cast<const Value *>(gradient);
  if (kernel == 3) add_all<3>(x, g, pictures, height, width, channels, ring, out);
  if (kernel == 5) add_all<5>(x, g, pictures, height, width, channels, ring, out);
  if (kernel == 7) add_all<7>(x, g, pictures, height, width, channels, ring, out);
}

LD_CLONES void run_half(int kernel, const void *input, const void *gradient, int64_t pictures, int64_t height,
                        int64_t width, int64_t channels, float *ring, float *out) {
  add_any<uint16_t>(kernel, input, gradient, pictures, height, width, channels, ring, out);
}
LD_CLONES void run_float(int kernel, const void *input, const void *gradient, int64_t pictures, int64_t height,
                         int64_t width, int64_t channels, float *ring, float *out) {
  add_any<float>(kernel, input, gradient, pictures, height, width, channels, ring, out);
}

}  // namespace

extern "C" {

LD_EXPORT int32_t ld_abi() { return 1; }

// out: kernel * kernel + 1 rows of `channels` sums, those of the kernel's weights and that of the bias. Input and
// gradient: (pictures, height, width, channels), bfloat16 where `half` is not 0, else float. Returns 1 where there is no
// memory, 2 for other kernels and for channels that are no multiple of 16.
LD_EXPORT int32_t ld_gradient(const void *input, const void *gradient, int32_t half, int32_t kernel, int64_t pictures,
                              int64_t height, int64_t width, int64_t channels, float *out) {
  if ((kernel != 3 && kernel != 5 && kernel != 7) || channels % kLanes) return 2;
  try {
    std::vector<float> ring(2 * size_t(kernel + 2) * kLanes * size_t(width + kernel - 1));
    (half ? run_half : run_float)(kernel, input, gradient, pictures, height, width, channels, ring.data(), out);
    return 0;
  } catch (const std::exception &) {
    return 1;
  }
}

}  // extern "C"
