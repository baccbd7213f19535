// A compiled plan: layers packed for the kernels, tensors with their consumers, stages in the order they run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"
#include "limner_fused.h"

namespace lf {

// A place of the input that a quad reads: kernel row and bytes from the leftmost tap of the pixel.
struct Place {
  int32_t row;
  int64_t offset;
};

struct Layer {
  lf_layer plan;  // pointers cleared
  int32_t radius = 0;
  bool depthwise = false;
  // Matrix layers. Groups run one after the other, each reading `group_bytes` further along the channels.
  std::vector<Place> places;
  bool consecutive = false;  // every place is 4 bytes from the one before
  int32_t filled = 0, pairs = 0, units = 0, units_of_group = 0, blocks = 0;
  int64_t group_bytes = 0;
  // Packed for the kernels, see kernels.h; `channel[i]` is the output channel of packed value i, or -1 (padding).
  std::vector<int8_t> weights;
  std::vector<uint8_t> sums;          // depthwise
  std::vector<uint16_t> order, ends;  // matrix
  std::vector<int32_t> bias, channel;
  std::vector<float> multiplier, addend;  // addend: empty when the general way of rounding is needed
  std::vector<uint8_t> centre_index;
  bool bounded = false;  // see Matrix
  int32_t film_at = -1;  // first float of this layer in lf_run's film
};

// What layers read and write. Tensor 0 is the picture in cells, tensor i + 1 the output of layer i.
struct Tensor {
  int32_t channels = 0;
  int64_t stride = 0;     // bytes of a pixel
  int32_t pad = 0;        // pixels beside a row that hold `zero`
  uint8_t zero = 0;
  int32_t halo = -1;      // rows and columns needed beyond the output's; -1: nothing reads it
  int32_t depth = 0;      // rows kept
  bool shared = false;    // more than one reader
  std::vector<int32_t> order;  // the plan's channel at each place
};

// One step over the rows: a depthwise layer, a matrix layer, or both fused; -1 where there is none.
struct Stage {
  int32_t depthwise, matrix;
  int32_t first() const { return depthwise >= 0 ? depthwise : matrix; }
  int32_t last() const { return matrix >= 0 ? matrix : depthwise; }
};

struct Network {
  int32_t picture_channels, unshuffle, scale, isa;
  const Kernels *kernels;
  std::vector<Layer> layers;
  std::vector<Tensor> tensors;
  std::vector<Stage> stages;  // stage_of[tensor] writes it
  std::vector<int32_t> stage_of;
  int32_t film_floats = 0;

  bool has_tail() const { return layers.back().plan.kind == LF_TAIL; }
  int32_t side() const { return scale * unshuffle; }
};

// Check and pack; throws std::string with one sentence.
Network compile(const lf_plan &plan, int32_t isa);

const Kernels *kernels_of(int32_t isa);  // null when this processor or this build has them not

}  // namespace lf
