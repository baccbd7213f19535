// Premultiplied alpha made straight, byte for byte as `straight` in runtime/alpha.py does it in numpy.
//
// A pixel is one 32-bit number here, red lowest, so that every loop below is one over numbers that lie side by side: a
// compiler makes vectors of that, whatever the instruction set.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <vector>

#include "limner_fused.h"

// One function for each level of x86-64, chosen when the library is loaded.
#if defined(LF_CLONES)  // by a test
#elif defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define LF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LF_CLONES
#endif

namespace lf {
namespace {

constexpr int kReach = 2;  // of the square whose mean a sheer pixel takes
constexpr int kRows = 2 * kReach + 1;

inline uint32_t merged(uint32_t red, uint32_t green, uint32_t blue, uint32_t alpha) {
  return red | green << 8 | blue << 16 | alpha << 24;
}
inline uint32_t straightened(uint32_t colour, float factor) {
  return uint32_t(int32_t(float(int32_t(colour)) * factor + 0.5f));
}

// No colour above alpha: there is no such picture.
LF_CLONES void cut(const uint32_t *from, uint32_t *to, int64_t width) {
  for (int64_t x = 0; x < width; ++x) {
    const uint32_t pixel = from[x], alpha = pixel >> 24;
    to[x] = merged(std::min(pixel & 255, alpha), std::min(pixel >> 8 & 255, alpha),
                   std::min(pixel >> 16 & 255, alpha), alpha);
  }
}

LF_CLONES void divide(const uint32_t *from, uint32_t *to, int64_t width) {
  for (int64_t x = 0; x < width; ++x) {
    const uint32_t pixel = from[x], alpha = pixel >> 24;
    const float factor = 255.0f / float(int32_t(std::max(alpha, uint32_t(1))));
    to[x] = merged(straightened(pixel & 255, factor), straightened(pixel >> 8 & 255, factor),
                   straightened(pixel >> 16 & 255, factor), alpha);
  }
}

LF_CLONES void add(const uint8_t *from, uint16_t *sums, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sums[i] = uint16_t(sums[i] + from[i]);
}
LF_CLONES void subtract(const uint8_t *from, uint16_t *sums, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sums[i] = uint16_t(sums[i] - from[i]);
}
// From the sums of columns, four numbers a pixel, those of squares.
LF_CLONES void add_columns(const uint16_t *columns, uint16_t *squares, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    squares[i] = uint16_t(columns[i] + columns[i + 4] + columns[i + 8] + columns[i + 12] + columns[i + 16]);
}
LF_CLONES uint32_t least_alpha(const uint32_t *row, int64_t width) {
  uint32_t least = 255;
  for (int64_t x = 0; x < width; ++x) least = std::min(least, row[x] >> 24);
  return least;
}

// The rows around one row, colours cut to alpha, and their sums over each column; columns beyond the border are zero.
class Square {
 public:
  Square(const uint8_t *in, int32_t height, int32_t width)
      : in_(in), height_(height), width_(width), rows_(kRows * int64_t(width)),
        sums_(4 * (int64_t(width) + 2 * kReach)), squares_(4 * int64_t(width)), whole_(width) {
    for (int32_t row = 0; row < std::min(kReach, height); ++row) enter(row);
  }

  // Call for every row in order.
  void move_to(int32_t row) {
    if (row > kReach) subtract(bytes(row - kReach - 1), sums_.data() + 4 * kReach, 4 * width_);
    if (row + kReach < height_) enter(row + kReach);
  }
  const uint32_t *cut_row(int32_t row) const { return rows_.data() + row % kRows * width_; }
  // Four sums for each pixel of the row that was moved to: they are 16 bits each, and fit.
  const uint16_t *squares() {
    add_columns(sums_.data(), squares_.data(), 4 * width_);
    return squares_.data();
  }

 private:
  const uint8_t *bytes(int32_t row) const { return reinterpret_cast<const uint8_t *>(cut_row(row)); }
  void enter(int32_t row) {
    std::memcpy(whole_.data(), in_ + row * 4 * width_, 4 * width_);
    cut(whole_.data(), rows_.data() + row % kRows * width_, width_);
    add(bytes(row), sums_.data() + 4 * kReach, 4 * width_);
  }

  const uint8_t *in_;
  int32_t height_;
  int64_t width_;
  std::vector<uint32_t> rows_;
  std::vector<uint16_t> sums_, squares_;
  std::vector<uint32_t> whole_;
};

// Pixels of `out` below `sheer` take the mean colour of their squares, where that has any.
void take_means(const uint16_t *squares, uint32_t sheer, uint32_t *out, int64_t width) {
  for (int64_t x = 0; x < width; ++x, squares += 4) {
    const uint32_t alpha = out[x] >> 24;
    if (alpha >= sheer || !squares[3]) continue;
    const float factor = 255.0f / float(int32_t(squares[3]));
    out[x] = merged(straightened(squares[0], factor), straightened(squares[1], factor),
                    straightened(squares[2], factor), alpha);
  }
}

// Without their alpha. Each is written with a byte too many, which the next one mends.
void write_colours(const uint32_t *row, int64_t width, uint8_t *to) {
  for (int64_t x = 0; x + 1 < width; ++x) std::memcpy(to + 3 * x, row + x, 4);
  std::memcpy(to + 3 * (width - 1), row + width - 1, 3);
}
LF_CLONES void write_alpha(const uint32_t *row, int64_t width, uint8_t *to) {
  for (int64_t x = 0; x < width; ++x) to[x] = uint8_t(row[x] >> 24);
}

}  // namespace
}  // namespace lf

extern "C" int32_t lf_straight(const uint8_t *in, int32_t height, int32_t width, int32_t sheer, uint8_t *colours,
                               uint8_t *alpha) {
  const bool together = alpha == nullptr;
  if (width < 1) return 0;
  try {
    lf::Square square(in, height, width);
    std::vector<uint32_t> out(width);
    for (int32_t row = 0; row < height; ++row) {
      square.move_to(row);
      lf::divide(square.cut_row(row), out.data(), width);
      if (lf::least_alpha(out.data(), width) < uint32_t(sheer))
        lf::take_means(square.squares(), sheer, out.data(), width);
      if (together) {
        std::memcpy(colours, out.data(), 4 * int64_t(width));
      } else {
        lf::write_colours(out.data(), width, colours);
        lf::write_alpha(out.data(), width, alpha + int64_t(row) * width);
      }
      colours += int64_t(together ? 4 : 3) * width;
    }
    return 0;
  } catch (const std::exception &) {
    return 1;
  }
}
