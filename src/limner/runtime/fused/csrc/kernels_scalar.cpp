// The slow reference: the arithmetic of limner_fused.h in plain loops. Built without vectorization, which has given
// wrong sums in trials, and checked against the numpy reference.
#include <chrono>
#include <cmath>

#include "kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-vectorize")
#endif

namespace lf {
namespace {

uint8_t requantize(double t, const Requant &r) {
  const double low = r.lo - r.zero, high = r.hi - r.zero;
  t = std::nearbyint(t);
  t = t < low ? low : t > high ? high : t;
  return static_cast<uint8_t>(static_cast<int32_t>(t) + r.zero);
}

void finish(const Matrix &m, int pixel, int unit, int lane, int32_t acc) {
  const int at = unit * kUnit + lane, channel = unit * kUnit + unit_channel(lane);
  acc -= kMagicBits;
  uint8_t *out = m.out + pixel * m.out_stride + channel;
  if (!m.shift && !m.residual) {  // the product is exact in double
    const int32_t centre = m.centre ? m.centre[pixel * m.centre_stride + m.centre_index[channel]] : 0;
    const double t = std::nearbyint(static_cast<double>(static_cast<float>(acc)) * static_cast<double>(m.multiplier[at]));
    *out = requantize(t + centre, m.requant);
    return;
  }
  volatile float product = static_cast<float>(acc) * m.multiplier[at];  // volatile: never fused with the addition
  float t = product;
  if (m.shift) t = t + m.shift[at];
  if (m.residual) {
    volatile float scaled =
        m.residual_scale * static_cast<float>(m.residual[pixel * m.residual_stride + channel] - m.residual_zero);
    t = t + scaled;
  }
  *out = requantize(t, m.requant);
}

void matrix(const Matrix &m) {
  for (int pixel = 0; pixel < m.pixels; ++pixel)
    for (int unit = 0; unit < m.units; ++unit)
      for (int lane = 0; lane < kUnit; ++lane) {
        const int8_t *weights = m.weights + int64_t(unit) * m.pairs * 2 * kUnit * 4 + lane * 4;
        int32_t acc = m.bias[unit * kUnit + lane];
        for (int quad = 0; quad < 2 * m.pairs; ++quad) {
          const uint8_t *from = m.quads[2 * m.order[unit * m.pairs + quad / 2] + quad % 2] + pixel * m.pixel_stride;
          for (int i = 0; i < 4; ++i) acc += int32_t(from[i]) * weights[quad * kUnit * 4 + i];
        }
        finish(m, pixel, unit, lane, acc);
      }
}

void depthwise(const Depthwise &d) {
  const int groups = (d.kernel + 4) / 4;
  for (int at = 0; at < d.blocks * kBlock; ++at) {
    const int block = at / kBlock, j = at % kBlock / 8, lane = at % 8;
    const int from = block * kBlock + block_channel(j, lane), to = block * kBlock + block_place(j, lane);
    for (int row = 0; row < 2; ++row)
      for (int pixel = 0; pixel < d.pixels; ++pixel) {
        int32_t acc = d.bias[at];
        for (int y = 0; y <= d.kernel; ++y)
          for (int x = 0; x < d.kernel; ++x) {
            const int64_t place = ((((block * 4 + j) * 2 + row) * groups + y / 4) * d.kernel + x) * 32 + lane * 4 + y % 4;
            acc += int32_t(d.rows[y][(pixel + x) * d.pixel_stride + from]) * d.weights[place];
          }
        acc -= kMagicBits;
        double t = static_cast<double>(static_cast<float>(acc)) * static_cast<double>(d.multiplier[at]);
        if (d.shift) {
          volatile float product = static_cast<float>(t);
          t = product + d.shift[at];
        }
        d.out[row][pixel * d.out_stride + to] = requantize(t, d.requant);
      }
  }
}

double peak(double seconds) {
  using clock = std::chrono::steady_clock;
  volatile uint8_t byte = 3;
  volatile int8_t weight = 5;
  uint32_t sums[8] = {};
  double best = 0, took = 0;
  while (took < seconds) {
    const auto start = clock::now();
    for (int i = 0; i < 10000; ++i) {
      const uint32_t a = byte, b = uint32_t(weight);
      for (int k = 0; k < 8; ++k) sums[k] += (a + k) * (b + sums[k]);
    }
    const double window = std::chrono::duration<double>(clock::now() - start).count();
    best = window > 0 && 80000 / window > best ? 80000 / window : best;
    took += window;
  }
  volatile uint32_t sink = sums[0] + sums[7];
  (void)sink;
  return best;
}

}  // namespace

const Kernels kScalar = {matrix, depthwise, peak, false, kNarrowChunk, 64};

}  // namespace lf
