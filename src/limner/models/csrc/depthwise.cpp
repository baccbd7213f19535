// Gradients of depthwise convolutions on channels-last memory: what kernel and bias get (models/depthwise.py).
//
// A weight of a depthwise kernel gets the product of two pictures, its input shifted and the gradient of its output,
// summed over all pixels. That is one multiply-add for each weight and pixel, so everything else must be cheap: rows
// are widened to float once, a cache line of channels at a time, and stay in the L1 cache, the sums in registers.
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
// One loop for each level of x86-64, chosen when it is first called.
#if defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__x86_64__)
#define LD_LEVELS
#endif
#if defined(__GNUC__)
#define LD_INLINE inline __attribute__((always_inline))
#else
#define LD_INLINE inline
#endif

namespace {

constexpr int kChannels = 16;  // a layer's channels come in so many

#if defined(__GNUC__)
template <int Lanes>
struct Register {
  typedef float Type __attribute__((vector_size(4 * Lanes)));
};
template <int Lanes>
using Vector = typename Register<Lanes>::Type;
#else
template <int Lanes>
struct Vector {
  float lane[Lanes];
  Vector &operator+=(const Vector &other) {
    for (int i = 0; i < Lanes; ++i) lane[i] += other.lane[i];
    return *this;
  }
  friend Vector operator*(Vector a, const Vector &b) {
    for (int i = 0; i < Lanes; ++i) a.lane[i] *= b.lane[i];
    return a;
  }
};
#endif

// bfloat16 is the upper half of a float.
template <int Lanes>
LD_INLINE void widen(const uint16_t *from, float *to) {
  uint32_t bits[Lanes];
  for (int i = 0; i < Lanes; ++i) bits[i] = uint32_t(from[i]) << 16;
  std::memcpy(to, bits, sizeof bits);
}
template <int Lanes>
LD_INLINE void widen(const float *from, float *to) {
  std::memcpy(to, from, sizeof(float) * Lanes);
}
template <int Lanes>
LD_INLINE Vector<Lanes> load(const float *from) {
  Vector<Lanes> values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

// Kernel x kernel sums of a row of gradients with the rows of input around it, and the sum of the gradients.
// rows[i]: the input's row i - Kernel / 2 beside it, with Kernel / 2 pixels of zeros at both ends.
template <int Kernel, int Lanes>
LD_INLINE void add_row(const float *const *rows, const float *gradient, int64_t width, Vector<Lanes> *sums) {
  Vector<Lanes> total = sums[Kernel * Kernel];
  for (int64_t x = 0; x < width; ++x) total += load<Lanes>(gradient + Lanes * x);
  sums[Kernel * Kernel] = total;
  for (int i = 0; i < Kernel; ++i) {
    Vector<Lanes> own[Kernel];
    for (int j = 0; j < Kernel; ++j) own[j] = sums[Kernel * i + j];
    const float *row = rows[i];
    for (int64_t x = 0; x < width; ++x) {
      const Vector<Lanes> factor = load<Lanes>(gradient + Lanes * x);
      for (int j = 0; j < Kernel; ++j) own[j] += factor * load<Lanes>(row + Lanes * (x + j));
    }
    for (int j = 0; j < Kernel; ++j) sums[Kernel * i + j] = own[j];
  }
}

// One picture and the channels of `Parts` vectors, whose pixels lie side by side: a cache line holds 32 of bfloat16.
// `ring`: for each part Kernel rows of input, one of zeros, one of gradients.
template <int Kernel, int Lanes, int Parts, typename Value>
LD_INLINE void add_picture(const Value *input, const Value *gradient, int64_t height, int64_t width, int64_t channels,
                           float *ring, Vector<Lanes> (*sums)[Kernel * Kernel + 1]) {
  constexpr int kReach = Kernel / 2;
  const int64_t length = Lanes * (width + 2 * kReach), stride = width * channels, size = (Kernel + 2) * length;
  for (int64_t y = -kReach; y < height; ++y) {
    if (y + kReach < height) {
      float *to = ring + (y + kReach) % Kernel * length + Lanes * kReach;
      const Value *from = input + (y + kReach) * stride;
      for (int64_t x = 0; x < width; ++x)
        for (int part = 0; part < Parts; ++part)
          widen<Lanes>(from + x * channels + Lanes * part, to + Lanes * x + part * size);
    }
    if (y < 0) continue;
    float *factors = ring + (Kernel + 1) * length;
    const Value *from = gradient + y * stride;
    for (int64_t x = 0; x < width; ++x)
      for (int part = 0; part < Parts; ++part)
        widen<Lanes>(from + x * channels + Lanes * part, factors + Lanes * x + part * size);
    for (int part = 0; part < Parts; ++part) {
      const float *rows[Kernel];
      for (int i = 0; i < Kernel; ++i) {
        const int64_t row = y + i - kReach;
        rows[i] = ring + (row < 0 || row >= height ? Kernel : row % Kernel) * length + part * size;
      }
      add_row<Kernel, Lanes>(rows, factors + part * size, width, sums[part]);
    }
  }
}

template <int Kernel, int Lanes, int Parts, typename Value>
LD_INLINE void add_channels(const Value *input, const Value *gradient, int64_t height, int64_t width, int64_t channels,
                            float *ring, float *out) {
  Vector<Lanes> sums[Parts][Kernel * Kernel + 1];
  for (int part = 0; part < Parts; ++part)
    for (int k = 0; k <= Kernel * Kernel; ++k) sums[part][k] = load<Lanes>(out + k * channels + Lanes * part);
  add_picture<Kernel, Lanes, Parts>(input, gradient, height, width, channels, ring, sums);
  for (int part = 0; part < Parts; ++part)
    for (int k = 0; k <= Kernel * Kernel; ++k)
      std::memcpy(out + k * channels + Lanes * part, &sums[part][k], sizeof(Vector<Lanes>));
}

// Picture by picture, which fits in the L2 cache with all its channels.
template <int Kernel, int Lanes, typename Value>
LD_INLINE void add_all(const Value *input, const Value *gradient, int64_t pictures, int64_t height, int64_t width,
                       int64_t channels, float *ring, float *out) {
  constexpr int kLine = 64 / sizeof(Value);  // channels in a cache line
  std::fill(out, out + (Kernel * Kernel + 1) * channels, 0.0f);
  for (int64_t n = 0; n < pictures; ++n, input += height * width * channels, gradient += height * width * channels) {
    int64_t at = 0;
    for (; at + kLine <= channels; at += kLine)
      add_channels<Kernel, Lanes, kLine / Lanes>(input + at, gradient + at, height, width, channels, ring, out + at);
    if (at < channels)
      add_channels<Kernel, Lanes, kChannels / Lanes>(input + at, gradient + at, height, width, channels, ring, out + at);
  }
}

// What is asked of a loop; `ring` holds the rows at work.
struct Task {
  bool half;
  int kernel;
  const void *input, *gradient;
  int64_t pictures, height, width, channels;
  float *ring, *out;
};

template <int Kernel, int Lanes>
LD_INLINE void add_any(const Task &t) {
  if (t.half)
    add_all<Kernel, Lanes>(static_cast<const uint16_t *>(t.input), static_cast<const uint16_t *>(t.gradient), t.pictures,
                           t.height, t.width, t.channels, t.ring, t.out);
  else
    add_all<Kernel, Lanes>(static_cast<const float *>(t.input), static_cast<const float *>(t.gradient), t.pictures,
                           t.height, t.width, t.channels, t.ring, t.out);
}

template <int Lanes>
LD_INLINE void run(const Task &task) {
  if (task.kernel == 3) add_any<3, Lanes>(task);
  if (task.kernel == 5) add_any<5, Lanes>(task);
  if (task.kernel == 7) add_any<7, Lanes>(task);
}

// Vectors wider than the processor's go through memory: four times as slow.
void run_anywhere(const Task &task) { run<8>(task); }
#if defined(LD_LEVELS)
__attribute__((target("arch=x86-64-v3"))) void run_avx2(const Task &task) { run<8>(task); }
__attribute__((target("arch=x86-64-v4"))) void run_avx512(const Task &task) { run<16>(task); }
void run_here(const Task &task) {
  static const auto loop = __builtin_cpu_supports("x86-64-v4")   ? run_avx512
                           : __builtin_cpu_supports("x86-64-v3") ? run_avx2
                                                                 : run_anywhere;
  loop(task);
}
#else
void run_here(const Task &task) { run_anywhere(task); }
#endif

}  // namespace

extern "C" {

LD_EXPORT int32_t ld_abi() { return 1; }

// out: kernel * kernel + 1 rows of `channels` sums, those of the kernel's weights and that of the bias. Input and
// gradient: (pictures, height, width, channels), bfloat16 where `half` is not 0, else float. Returns 1 where there is no
// memory, 2 for other kernels and for channels that are no multiple of 16.
LD_EXPORT int32_t ld_gradient(const void *input, const void *gradient, int32_t half, int32_t kernel, int64_t pictures,
                              int64_t height, int64_t width, int64_t channels, float *out) {
  if ((kernel != 3 && kernel != 5 && kernel != 7) || channels % kChannels) return 2;
  try {
    std::vector<float> ring(2 * size_t(kernel + 2) * kChannels * size_t(width + kernel - 1));
    run_here({half != 0, kernel, input, gradient, pictures, height, width, channels, ring.data(), out});
    return 0;
  } catch (const std::exception &) {
    return 1;
  }
}

}  // extern "C"
