// Premultiplied alpha made straight, byte for byte as `straight` in runtime/alpha.py does it in numpy.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <vector>

#include "limner_fused.h"

namespace lf {
namespace {

constexpr int kReach = 2;  // of the square whose mean a sheer pixel takes
constexpr int kRows = 2 * kReach + 1;

// The rows around one row, colours cut to alpha, and their sums over each column; columns beyond the border are zero.
class Square {
 public:
  Square(const uint8_t *in, int32_t height, int32_t width)
      : in_(in), height_(height), width_(width), rows_(kRows * 4 * int64_t(width)), sums_(4 * (int64_t(width) + 2 * kReach)) {
    for (int32_t row = 0; row < std::min(kReach, height); ++row) enter(row);
  }

  // Call for every row in order.
  void move_to(int32_t row) {
    if (row > kReach) leave(row - kReach - 1);
    if (row + kReach < height_) enter(row + kReach);
  }
  const uint8_t *cut(int32_t row) const { return rows_.data() + row % kRows * 4 * int64_t(width_); }
  // Four channels at once: they are 16 bits each, and their sums fit.
  void sum(int32_t column, uint16_t (&channels)[4]) const {
    uint64_t sum = 0, next;
    for (int x = 0; x < kRows; ++x, sum += next) std::memcpy(&next, sums_.data() + 4 * (int64_t(column) + x), 8);
    std::memcpy(channels, &sum, 8);
  }

 private:
  void enter(int32_t row) {
    const uint8_t *from = in_ + row * 4 * int64_t(width_);
    uint8_t *to = rows_.data() + row % kRows * 4 * int64_t(width_);
    for (int64_t x = 0; x < width_; ++x)
      for (int c = 0; c < 4; ++c) to[4 * x + c] = std::min(from[4 * x + c], from[4 * x + 3]);
    uint16_t *sums = sums_.data() + 4 * kReach;
    for (int64_t i = 0; i < 4 * int64_t(width_); ++i) sums[i] = uint16_t(sums[i] + to[i]);
  }
  void leave(int32_t row) {
    const uint8_t *from = cut(row);
    uint16_t *sums = sums_.data() + 4 * kReach;
    for (int64_t i = 0; i < 4 * int64_t(width_); ++i) sums[i] = uint16_t(sums[i] - from[i]);
  }

  const uint8_t *in_;
  int32_t height_, width_;
  std::vector<uint8_t> rows_;
  std::vector<uint16_t> sums_;
};

uint8_t straightened(uint32_t colour, float factor) { return uint8_t(int32_t(float(int32_t(colour)) * factor + 0.5f)); }

void take_mean(const Square &square, int32_t column, uint8_t *colours) {
  uint16_t sums[4];
  square.sum(column, sums);
  if (!sums[3]) return;
  const float factor = 255.0f / float(int32_t(sums[3]));
  for (int c = 0; c < 3; ++c) colours[c] = straightened(sums[c], factor);
}

}  // namespace
}  // namespace lf

extern "C" int32_t lf_straight(const uint8_t *in, int32_t height, int32_t width, int32_t sheer, uint8_t *colours,
                               int32_t colours_step, uint8_t *alpha, int32_t alpha_step) {
  float factors[256];
  for (int a = 0; a < 256; ++a) factors[a] = 255.0f / float(std::max(a, 1));
  try {
    lf::Square square(in, height, width);
    for (int32_t row = 0; row < height; ++row) {
      square.move_to(row);
      const uint8_t *from = square.cut(row);
      for (int32_t x = 0; x < width; ++x, from += 4, colours += colours_step, alpha += alpha_step) {
        if (from[3] == 255) std::memcpy(colours, from, 3);
        else for (int c = 0; c < 3; ++c) colours[c] = lf::straightened(from[c], factors[from[3]]);
        if (from[3] < sheer) lf::take_mean(square, x, colours);
        *alpha = from[3];
      }
    }
    return 0;
  } catch (const std::exception &) {
    return 1;
  }
}
