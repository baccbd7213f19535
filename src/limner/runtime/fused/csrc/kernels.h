// What a kernel of one instruction set must provide. Everything else (plans, rows, threads) is in the other files.
//
// Layouts shared by all instruction sets:
//   quad   4 consecutive input bytes of one pixel, multiplied and summed into one int32 lane.
//   pair   2 quads.
//   unit   16 output channels of a matrix product; lane l holds the channel that unit_channel(l) says, so that merging
//          the low halves of two 32-byte vectors and packing them gives 16 bytes in channel order. Where a vector is a
//          whole unit, two or four units lie together: lanes hold channels such that merging and packing all of them does.
//   block  32 channels of a depthwise layer; vector j (0..3) holds channel block_channel(j, l) in lane l, the order that
//          interleaving four rows of bytes in 16-byte halves gives. Its result lies at block_place(j, l).
//
// Sums start at bias + kMagicBits. Read as a float that is 1.5 * 2^23 + sum, exactly, while |sum| < 2^22: the conversion
// to float costs nothing, and one fused multiply-add with a multiplier that is a multiple of 2^-22 and an addend of
// 1.5 * 2^23 * (1 - multiplier) + zero, an integer, rounds sum * multiplier + zero to an integer in the low bits.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lf {

constexpr int kUnit = 16;
constexpr int kBlock = 32;
constexpr int kChunk = 160;     // pixels a depthwise call works on at most, whatever the kernels
constexpr int kOvershoot = 16;  // pixels a kernel may read or write beyond those asked for

constexpr int32_t kMagicBits = 0x4B400000;
constexpr float kMagic = 12582912.0f;
constexpr float kBound = 16384.0f;  // beyond any byte, and still 16 bits

inline int unit_channel(int lane) { return lane < 8 ? 2 * lane : 2 * (lane - 8) + 1; }

// The channel, from the first unit on, in a lane of unit `unit` of `units`, for kernels whose units lie together.
inline int joined_channel(int unit, int units, int lane) {
  const int rest = unit % 4, first = unit - rest, left = units - first;
  if (left >= 4) return first * kUnit + lane / 4 * 16 + lane % 4 * 2 + rest % 2 + rest / 2 * 8;
  if (left >= 2 && rest < 2) return first * kUnit + lane / 4 * 8 + lane % 4 * 2 + rest;
  return unit * kUnit + unit_channel(lane);
}

inline int block_channel(int j, int lane) { return (lane & 3) + 4 * j + ((lane & 4) << 2); }
inline int block_place(int j, int lane) { return 2 * (lane & 3) + (j & 1) + 8 * (j >> 1) + ((lane & 4) << 2); }

// How products may be summed without leaving 16 bits (instruction sets with 32-bit dot products ignore it).
enum Sum : uint8_t {
  kSumAll = 0,    // matrix: both quads of a pair; depthwise: all columns
  kSumPairs = 1,  // matrix: each quad by itself; depthwise: columns i and n - 1 - i
  kSumEach = 2,   // depthwise only: each column by itself
  kSumWide = 3,   // not even two products: widen first
};

struct Requant {
  int32_t zero, lo, hi;
};

// out[p][u * 16 + c] for p < pixels: all quads of pixel p times the weights of unit u.
struct Matrix {
  const uint8_t *const *quads;  // [2 * pairs], of pixel 0
  bool consecutive;             // quads[i] is quads[0] + 4 i
  int64_t pixel_stride;
  int32_t pixels, pairs, units;
  int32_t filled;           // quads before those that only fill a pair
  const int8_t *weights;    // [units][pairs in the unit's order][2][16 lanes][4]
  const uint16_t *order;    // [units][pairs]: which pairs; first those of kSumAll, then kSumPairs, then kSumWide
  const uint16_t *ends;     // [units][3]: where those end
  const int32_t *bias;      // [units][16 lanes], plus kMagicBits
  const float *multiplier;  // [units][16 lanes]
  const float *addend;      // [units][16 lanes]; null when the multiply-add above would not be exact
  bool bounded;             // tail: no sum reaches 2^22, and no result with its centre leaves 16 bits
  const float *shift;       // [units][16 lanes] or null
  Requant requant;
  uint8_t *out;
  int64_t out_stride;
  const uint8_t *residual;  // [pixel][unit][16] or null
  int64_t residual_stride;
  float residual_scale;
  int32_t residual_zero;
  const uint8_t *centre;        // tail: 16 readable bytes for each pixel, or null
  int64_t centre_stride;
  const uint8_t *centre_index;  // [units][16 channels]: which of them is added to the rounded product
};

// Two output rows of a depthwise layer, requantized.
struct Depthwise {
  const uint8_t *rows[6];  // kernel + 1 input rows, at the first pixel's leftmost tap
  int64_t pixel_stride;
  int32_t pixels, blocks, kernel;
  const int8_t *weights;    // [blocks][4 j][2 rows][groups of 4 input rows][kernel columns][8 lanes][4]
  const uint8_t *sums;      // [blocks][4 j][2 rows] Sum
  const int32_t *bias;      // [blocks][4 j][8 lanes], plus kMagicBits
  const float *multiplier;  // the same
  const float *addend;      // the same, or null as above
  const float *shift;       // the same, or null
  Requant requant;
  uint8_t *out[2];
  int64_t out_stride;
  uint8_t *scratch;  // kDepthwiseScratch bytes
};

constexpr int kNarrowChunk = 80;  // ... of kernels with vectors of 32 bytes
// Of those dwords of up to eight rows and two vectors of words; of kernels with longer vectors four for each row.
constexpr int kDepthwiseScratch =
    std::max((2 * 4 + 2) * (kNarrowChunk + kOvershoot) * kBlock, 8 * (kChunk + kOvershoot) * kBlock);

struct Kernels {
  void (*matrix)(const Matrix &);
  void (*depthwise)(const Depthwise &);
  double (*peak)(double seconds);  // multiply-accumulates per second
  bool joins_units;                // see joined_channel
  int32_t chunk, chunk_beyond;     // pixels for a depthwise call, of up to 32 channels and of more
};

extern const Kernels kScalar;
#if defined(__x86_64__) || defined(_M_X64)
#define LF_X86 1
extern const Kernels kAvx2, kAvxVnni, kAvx512Vnni;
#elif defined(__aarch64__)
#define LF_ARM 1
extern const Kernels kNeon;
#endif

}  // namespace lf
