// From the plan's arrays to packed layers: checks, the order of weights in memory, which layers fuse, rows to keep.
#include "network.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "channels.h"

namespace lf {
namespace {

int64_t round_up(int64_t a, int64_t to) { return (a + to - 1) / to * to; }

std::string at_layer(int index, const std::string &what) { return "layer " + std::to_string(index) + ": " + what; }

void require(bool holds, int index, const std::string &what) {
  if (!holds) throw at_layer(index, what);
}

void check_plan(const lf_plan &plan) {
  if (plan.layers < 1 || plan.layers > 4096 || !plan.layer) throw std::string("the plan has no layers.");
  if (plan.picture_channels < 1 || plan.picture_channels > 64)
    throw "picture_channels=" + std::to_string(plan.picture_channels) + " is outside 1..64.";
  if (plan.unshuffle < 1 || plan.unshuffle > 4)
    throw "unshuffle=" + std::to_string(plan.unshuffle) + " is outside 1..4.";
  if (plan.scale < 1 || plan.scale > 8) throw "scale=" + std::to_string(plan.scale) + " is outside 1..8.";
}

void check_tail(const lf_plan &plan, int index) {
  const lf_layer &l = plan.layer[index];
  const int side = plan.scale * plan.unshuffle;
  require(index == plan.layers - 1, index, "only the last layer can be the tail.");
  require(l.kernel == 1 && l.groups == 1, index, "the tail must be a plain pointwise layer.");
  require(l.residual == LF_NONE && !l.film, index, "the tail takes neither residual nor FiLM.");
  require(l.out_channels == plan.picture_channels * side * side, index,
          "the tail must have picture_channels * (scale * unshuffle)^2 outputs.");
  require(plan.picture_channels * plan.unshuffle * plan.unshuffle <= 16, index,
          "the tail needs cells of 16 channels or fewer.");
}

void check_shape(const lf_plan &plan, int index) {
  const lf_layer &l = plan.layer[index];
  const bool from_picture = l.input == LF_PICTURE;
  require(l.kernel == 1 || l.kernel == 3 || l.kernel == 5, index, "the kernel must be 1, 3 or 5.");
  require(from_picture || (l.input >= 0 && l.input < index), index, "the input must be the picture or an earlier layer.");
  const int cells = plan.picture_channels * plan.unshuffle * plan.unshuffle;
  const int inputs = from_picture ? cells : plan.layer[l.input].out_channels;
  require(l.in_channels == inputs, index, "in_channels differs from the channels of its input.");
  require(from_picture || (l.in_channels % kUnit == 0 && l.in_channels <= 1024), index,
          "in_channels=" + std::to_string(l.in_channels) + " is no multiple of 16 up to 1024.");
  require(l.kind == LF_TAIL || (l.out_channels > 0 && l.out_channels % kUnit == 0 && l.out_channels <= 1024), index,
          "out_channels=" + std::to_string(l.out_channels) + " is no multiple of 16 up to 1024.");
  const int groups = l.groups;
  require(groups >= 1 && l.in_channels % groups == 0 && l.out_channels % groups == 0, index,
          "groups must divide the channels.");
  if (groups == 1) return;
  require(!from_picture, index, "a grouped layer cannot read the picture.");
  if (groups == l.in_channels) {
    require(l.out_channels == l.in_channels && l.kernel > 1, index,
            "a depthwise layer has as many outputs as inputs and a kernel of 3 or 5.");
  } else {
    require(l.in_channels / groups % kUnit == 0 && l.out_channels / groups % kUnit == 0, index,
            "groups must hold multiples of 16 channels.");
  }
}

void check_numbers(const lf_layer &l, int index) {
  require(l.weight && l.bias && l.multiplier, index, "weight, bias or multiplier is missing.");
  require(l.in_zero >= 0 && l.in_zero <= 255, index, "in_zero is outside 0..255.");
  if (l.kind == LF_CONV) {
    require(l.out_zero >= 0 && l.out_zero <= 255, index, "out_zero is outside 0..255.");
    require(0 <= l.lo && l.lo <= l.hi && l.hi <= 255, index, "lo and hi must be ordered and within 0..255.");
  }
  const int64_t taps = int64_t(l.in_channels / l.groups) * l.kernel * l.kernel;
  for (int o = 0; o < l.out_channels; ++o) {
    int64_t reach = std::abs(int64_t(l.bias[o]));
    for (int64_t i = 0; i < taps; ++i) {
      require(l.weight[o * taps + i] != -128, index, "a weight is -128; the range is -127..127.");
      reach += 255 * std::abs(int(l.weight[o * taps + i]));
    }
    require(reach < (int64_t(1) << 31), index, "its sums do not fit 32 bits.");
    require(std::isfinite(l.multiplier[o]) && l.multiplier[o] >= 0, index, "a multiplier is negative or not finite.");
    require(double(reach) * l.multiplier[o] < double(1 << 30), index, "a multiplier is so large that results overflow.");
  }
}

void check_layer(const lf_plan &plan, int index) {
  const lf_layer &l = plan.layer[index];
  require(l.kind == LF_CONV || l.kind == LF_TAIL, index, "its kind is unknown.");
  check_shape(plan, index);
  if (l.kind == LF_TAIL) check_tail(plan, index);
  if (l.residual != LF_NONE) {
    require(l.residual >= 0 && l.residual < index, index, "the residual must be an earlier layer.");
    require(plan.layer[l.residual].out_channels == l.out_channels, index, "the residual has other channels.");
    require(l.groups != l.in_channels || l.groups == 1, index, "a depthwise layer takes no residual.");
    require(std::isfinite(l.residual_scale), index, "residual_scale is not finite.");
    require(l.residual_zero >= 0 && l.residual_zero <= 255, index, "residual_zero is outside 0..255.");
  }
  check_numbers(l, index);
}

// The weight that multiplies byte i of a quad, in the coordinates of the plan.
struct Tap {
  int32_t channel = -1, y = 0, x = 0;  // channel within the group; -1: none, weight 0
};

void place_quads(Layer &layer, int64_t stride, std::vector<Tap> &taps) {
  const lf_layer &l = layer.plan;
  const int inputs = l.in_channels / l.groups;
  const bool dense_rows = l.groups == 1 && stride == inputs;  // the taps of a kernel row are neighbours in memory
  for (int y = 0; y < l.kernel; ++y)
    for (int x = 0; x < (dense_rows ? 1 : l.kernel); ++x) {
      const int bytes = dense_rows ? l.kernel * inputs : inputs;
      for (int at = 0; at < bytes; at += 4) {
        layer.places.push_back({y, x * stride + at});
        for (int i = at; i < at + 4; ++i)
          taps.push_back(i < bytes ? Tap{i % inputs, y, dense_rows ? i / inputs : x} : Tap{});
      }
    }
  layer.filled = int(layer.places.size());
  if (layer.places.size() % 2) {
    layer.places.push_back({0, 0});
    taps.resize(taps.size() + 4);
  }
}

bool fits16(int up, int down) { return 255 * up <= 32767 && 255 * down <= 32768; }

// How far sums of `count` pairs of products can go: each pair of lanes apart, as vpmaddubsw leaves them.
struct Reach {
  int up[2] = {0, 0}, down[2] = {0, 0};
  void add(const int8_t *quad) {
    for (int i = 0; i < 4; ++i) (quad[i] > 0 ? up[i / 2] : down[i / 2]) += std::abs(int(quad[i]));
  }
  bool fits() const { return fits16(up[0], down[0]) && fits16(up[1], down[1]); }
};

Sum sum_of_pair(const int8_t *weights) {  // [2 quads][16 lanes][4]
  Sum sum = kSumAll;
  for (int lane = 0; lane < kUnit; ++lane) {
    Reach both;
    for (int quad = 0; quad < 2; ++quad) {
      const int8_t *at = weights + (quad * kUnit + lane) * 4;
      Reach one;
      one.add(at);
      both.add(at);
      if (!one.fits()) return kSumWide;
    }
    if (!both.fits()) sum = kSumPairs;
  }
  return sum;
}

Sum sum_of_columns(const int8_t *weights, int n) {  // [n][8 lanes][4]
  Sum sum = kSumAll;
  for (int lane = 0; lane < 8; ++lane) {
    Reach all;
    for (int i = 0; i < n; ++i) {
      Reach one, two;
      one.add(weights + (i * 8 + lane) * 4);
      two = one;
      if (n - 1 - i != i) two.add(weights + ((n - 1 - i) * 8 + lane) * 4);
      all.add(weights + (i * 8 + lane) * 4);
      if (!one.fits()) return kSumWide;
      if (!two.fits()) sum = std::max(sum, kSumEach);
    }
    if (!all.fits()) sum = std::max(sum, kSumPairs);
  }
  return sum;
}

// Whether sums stay below 2^22 and, scaled and with a tail's centre added, within 16 bits.
bool stays_small(const lf_layer &l, int64_t taps) {
  for (int o = 0; o < l.out_channels; ++o) {
    int64_t reach = std::abs(int64_t(l.bias[o]));
    for (int64_t i = 0; i < taps; ++i) reach += 255 * std::abs(int(l.weight[o * taps + i]));
    if (reach >= 1 << 22 || double(reach) * l.multiplier[o] + 255 >= 32767) return false;
  }
  return true;
}

// Whether one multiply-add rounds exactly (see kernels.h), for a layer that stays small.
bool rounds_exactly(const lf_layer &l) {
  if (l.film || l.residual != LF_NONE || (l.kind == LF_CONV && l.out_zero % 2)) return false;
  for (int o = 0; o < l.out_channels; ++o) {
    const double steps = std::ldexp(double(l.multiplier[o]), 22);
    if (steps != std::rint(steps) || l.multiplier[o] > 1) return false;
  }
  return true;
}

void pack_values(Layer &layer, const lf_layer &l, const Order &order) {
  layer.bounded = stays_small(l, int64_t(l.in_channels / l.groups) * l.kernel * l.kernel);
  const bool exact = layer.bounded && rounds_exactly(l);
  const int32_t zero = l.kind == LF_TAIL ? 0 : l.out_zero;
  for (int32_t channel : order) {
    const float multiplier = channel < 0 ? 0 : l.multiplier[channel];
    layer.channel.push_back(channel);
    layer.bias.push_back(int32_t(uint32_t(channel < 0 ? 0 : l.bias[channel]) + uint32_t(kMagicBits)));
    layer.multiplier.push_back(multiplier);
    if (exact) layer.addend.push_back(float(double(kMagic) * (1 - double(multiplier)) + zero));
  }
}

void keep_pairs(Layer &layer) {
  for (int unit = 0; unit < layer.units; ++unit) {
    for (int pair = 0; pair < layer.pairs; ++pair) layer.order.push_back(uint16_t(pair));
    layer.ends.insert(layer.ends.end(), 3, uint16_t(layer.pairs));
  }
}

// Pairs of a unit in the order of their Sum, so that the kernel has one loop for each kind.
void sort_pairs(Layer &layer, int unit) {
  const int64_t pair_bytes = 2 * kUnit * 4;
  int8_t *weights = layer.weights.data() + unit * layer.pairs * pair_bytes;
  const std::vector<int8_t> before(weights, weights + layer.pairs * pair_bytes);
  for (Sum kind : {kSumAll, kSumPairs, kSumWide}) {
    for (int pair = 0; pair < layer.pairs; ++pair) {
      const int8_t *from = before.data() + pair * pair_bytes;
      if (sum_of_pair(from) != kind) continue;
      weights = std::copy(from, from + pair_bytes, weights);
      layer.order.push_back(uint16_t(pair));
    }
    layer.ends.push_back(uint16_t(int(layer.order.size()) - unit * layer.pairs));
  }
}

// Where the weight of output channel `out` and a tap lies in the plan, or -1. `in`: the plan's channel at each place.
int64_t weight_at(const lf_layer &l, const Order &in, int out, const Tap &tap) {
  if (tap.channel < 0) return -1;
  const int inputs = l.in_channels / l.groups, first = out / (l.out_channels / l.groups) * inputs;
  const int64_t channel = in[first + tap.channel] - first;
  return ((out * int64_t(inputs) + channel) * l.kernel + tap.y) * l.kernel + tap.x;
}

// Pairs quads such that few pairs need more than 16 bits: by swaps, kept when they do no harm.
class QuadMatch {
 public:
  QuadMatch(const lf_layer &l, const Order &in, std::vector<Place> &places, std::vector<Tap> &taps)
      : l_(l), in_(in), places_(places), taps_(taps) {}

  void run() {
    const int quads = int(places_.size());
    std::vector<int> costs;
    for (int pair = 0; pair < quads / 2; ++pair) costs.push_back(cost(pair));
    for (int64_t i = 0, tries = (1 << 18) / l_.out_channels; i < tries; ++i) {
      const int a = random_.below(quads), b = random_.below(quads);
      if (a / 2 == b / 2 || costs[a / 2] + costs[b / 2] == 0) continue;
      swap(a, b);
      const int first = cost(a / 2), second = cost(b / 2);
      if (first + second > costs[a / 2] + costs[b / 2]) {
        swap(a, b);
      } else {
        costs[a / 2] = first;
        costs[b / 2] = second;
      }
    }
  }

 private:
  int cost(int pair) const {
    int excess = 0;
    for (int out = 0; out < l_.out_channels; ++out)
      for (int half = 0; half < 2; ++half) {
        int up = 0, down = 0;
        for (int i : {0, 1, 4, 5}) {
          const int64_t at = weight_at(l_, in_, out, taps_[pair * 8 + half * 2 + i]);
          const int w = at < 0 ? 0 : l_.weight[at];
          (w > 0 ? up : down) += std::abs(w);
        }
        excess += std::max(0, up - 128) + std::max(0, down - 128);
      }
    return excess;
  }

  void swap(int a, int b) {
    std::swap(places_[a], places_[b]);
    std::swap_ranges(taps_.begin() + 4 * a, taps_.begin() + 4 * a + 4, taps_.begin() + 4 * b);
  }

  const lf_layer &l_;
  const Order &in_;
  std::vector<Place> &places_;
  std::vector<Tap> &taps_;
  Random random_;
};

// `in`, `out`: the plan's channel at each place of the input and output tensor.
// `search`: products are summed in 16 bits where they fit.
// `joins`: see joined_channel.
void pack_matrix(Layer &layer, const lf_layer &l, int64_t stride, const Order &in, const Order &out, bool search,
                 bool joins) {
  std::vector<Tap> taps;
  place_quads(layer, stride, taps);
  const int quads = int(layer.places.size());
  layer.consecutive = true;
  for (int i = 0; i < quads; ++i)
    layer.consecutive = layer.consecutive && layer.places[i].row == 0 && layer.places[i].offset == 4 * i;
  if (search && !layer.consecutive) QuadMatch(l, in, layer.places, taps).run();
  layer.pairs = quads / 2;
  layer.units = int(round_up(l.out_channels, kUnit) / kUnit);
  layer.units_of_group = layer.units / l.groups;
  layer.group_bytes = l.in_channels / l.groups;
  layer.weights.assign(size_t(layer.units) * quads * kUnit * 4, 0);
  std::vector<int32_t> order;
  for (int unit = 0; unit < layer.units; ++unit) {
    const int first = unit / layer.units_of_group * layer.units_of_group * kUnit;
    for (int lane = 0; lane < kUnit; ++lane) {
      const int place = joins ? first + joined_channel(unit % layer.units_of_group, layer.units_of_group, lane)
                              : unit * kUnit + unit_channel(lane);
      order.push_back(place < l.out_channels ? out[place] : -1);
      if (order.back() < 0) continue;
      for (int i = 0; i < quads * 4; ++i) {
        const int64_t from = weight_at(l, in, order.back(), taps[i]);
        if (from >= 0) layer.weights[((int64_t(unit) * quads + i / 4) * kUnit + lane) * 4 + i % 4] = l.weight[from];
      }
    }
  }
  pack_values(layer, l, order);
  if (!search) return keep_pairs(layer);
  for (int unit = 0; unit < layer.units; ++unit) sort_pairs(layer, unit);
}

// For kernels that take inputs minus 128: what that takes from the sums.
void correct_bias(Layer &layer, const lf_layer &l) {
  const int64_t taps = int64_t(l.in_channels / l.groups) * l.kernel * l.kernel;
  for (size_t at = 0; at < layer.channel.size(); ++at) {
    int64_t sum = 0;
    for (int64_t i = 0; layer.channel[at] >= 0 && i < taps; ++i) sum += l.weight[layer.channel[at] * taps + i];
    layer.bias[at] = int32_t(uint32_t(layer.bias[at]) + uint32_t(128 * sum));
  }
}

void pack_depthwise(Layer &layer, const lf_layer &l, const Order &in) {
  const int k = l.kernel, groups = (k + 4) / 4, n = groups * k;
  layer.blocks = int(round_up(l.in_channels, kBlock) / kBlock);
  layer.weights.assign(size_t(layer.blocks) * 4 * 2 * n * kBlock, 0);
  std::vector<int32_t> order;
  for (int at = 0; at < layer.blocks * kBlock; ++at) {
    const int place = at / kBlock * kBlock + block_channel(at % kBlock / 8, at % 8);
    order.push_back(place < l.in_channels ? in[place] : -1);
    if (order.back() < 0) continue;
    for (int row = 0; row < 2; ++row)
      for (int y = 0; y < k; ++y)
        for (int x = 0; x < k; ++x) {
          const int tap = y + row;
          const int64_t to = ((int64_t(at / 8) * 2 + row) * groups + tap / 4) * k + x;
          layer.weights[to * kBlock + at % 8 * 4 + tap % 4] = l.weight[(order.back() * k + y) * k + x];
        }
  }
  pack_values(layer, l, order);
  for (int at = 0; at < layer.blocks * 4 * 2; ++at)
    layer.sums.push_back(sum_of_columns(layer.weights.data() + int64_t(at) * n * kBlock, n));
}

void index_centre(Layer &layer, const lf_plan &plan) {
  const int side = plan.scale * plan.unshuffle, colours = plan.picture_channels;
  for (int o = 0; o < layer.units * kUnit; ++o) {
    if (o >= plan.layer[plan.layers - 1].out_channels) {
      layer.centre_index.push_back(0);
      continue;
    }
    const int row = o / colours / side, column = o / colours % side;
    const int index = ((row / plan.scale) * plan.unshuffle + column / plan.scale) * colours + o % colours;
    layer.centre_index.push_back(uint8_t(index));
  }
}

void describe_tensors(Network &net, const lf_plan &plan) {
  net.tensors.resize(net.layers.size() + 1);
  net.tensors[0].channels = plan.picture_channels * plan.unshuffle * plan.unshuffle;
  net.tensors[0].stride = net.tensors[0].channels;
  for (size_t i = 0; i < net.layers.size(); ++i) {
    Tensor &t = net.tensors[i + 1];
    t.channels = net.layers[i].plan.out_channels;
    t.stride = round_up(t.channels, kBlock);
  }
}

// A depthwise layer whose only reader is a pointwise layer runs inside that layer's stage.
void find_stages(Network &net, const std::vector<std::vector<int>> &readers) {
  net.stage_of.assign(net.tensors.size(), -1);
  for (int i = 0; i < int(net.layers.size()); ++i) {
    const auto &next = readers[i + 1];
    if (net.layers[i].depthwise && next.size() == 1) {
      const Layer &reader = net.layers[next[0]];
      if (reader.plan.input == i && reader.plan.kernel == 1 && reader.plan.groups == 1) continue;
    }
    const int input = net.layers[i].plan.input;
    const bool fused = !net.layers[i].depthwise && input >= 0 && net.layers[input].depthwise &&
                       net.stage_of[input + 1] < 0;
    net.stage_of[i + 1] = int(net.stages.size());
    if (fused) net.stages.push_back({input, i});
    else if (net.layers[i].depthwise) net.stages.push_back({i, -1});
    else net.stages.push_back({-1, i});
  }
}

// Layers that read a tensor, once for each use; the tail reads the picture too.
std::vector<std::vector<int>> find_readers(const Network &net) {
  std::vector<std::vector<int>> readers(net.tensors.size());
  for (int i = 0; i < int(net.layers.size()); ++i) {
    const lf_layer &l = net.layers[i].plan;
    readers[l.input + 1].push_back(i);
    if (l.residual >= 0) readers[l.residual + 1].push_back(i);
    if (l.kind == LF_TAIL && l.input != LF_PICTURE) readers[0].push_back(i);
  }
  return readers;
}

// Backwards from the output: how far beyond it every tensor is needed, and how many of its rows must be kept.
void find_halos(Network &net) {
  const int last = int(net.tensors.size()) - 1;
  std::vector<int> ahead(net.tensors.size(), 0), taken(net.tensors.size(), 0);
  net.tensors[last].halo = 0;
  const auto reads = [&](int tensor, int by, int radius, int zero) {
    Tensor &t = net.tensors[tensor];
    t.shared = taken[tensor]++ > 0;
    t.halo = std::max(t.halo, net.tensors[by].halo + radius);
    t.pad = std::max(t.pad, radius);
    ahead[tensor] = std::max(ahead[tensor], ahead[by] + radius + 1);
    if (radius > 0) t.zero = uint8_t(zero);
  };
  for (int s = int(net.stages.size()) - 1; s >= 0; --s) {
    const Stage &stage = net.stages[s];
    const Layer &first = net.layers[stage.first()], &end = net.layers[stage.last()];
    const int out = stage.last() + 1;
    require(net.tensors[out].halo >= 0, stage.last(), "nothing reads its output.");
    reads(first.plan.input + 1, out, first.radius, first.plan.in_zero);
    if (end.plan.residual >= 0) reads(end.plan.residual + 1, out, 0, -1);
    if (end.plan.kind == LF_TAIL) reads(0, out, 0, -1);
  }
  for (size_t i = 0; i < net.tensors.size(); ++i) {
    Tensor &t = net.tensors[i];
    t.depth = t.shared ? ahead[i] + t.pad + 4 : 2 * t.pad + 2;
  }
}

void check_zero_points(const Network &net) {
  std::vector<int> zero(net.tensors.size(), -1);
  for (int i = 0; i < int(net.layers.size()); ++i) {
    const lf_layer &l = net.layers[i].plan;
    int &known = zero[l.input + 1];
    require(l.kernel == 1 || known < 0 || known == l.in_zero, i, "two readers of its input pad with different zero points.");
    if (l.kernel > 1) known = l.in_zero;
  }
}

void pack(Layer &layer, const lf_plan &plan, int index, const Network &net) {
  const lf_layer &l = plan.layer[index];
  const Order &in = net.tensors[l.input + 1].order, &out = net.tensors[index + 1].order;
  if (layer.depthwise) pack_depthwise(layer, l, in);
  else pack_matrix(layer, l, net.tensors[l.input + 1].stride, in, out, net.isa == LF_AVX2, net.kernels->joins_units);
  if (net.isa == LF_NEON) correct_bias(layer, l);
  if (l.kind == LF_TAIL) index_centre(layer, plan);
  layer.plan.weight = nullptr;
  layer.plan.bias = nullptr;
  layer.plan.multiplier = nullptr;
}

}  // namespace

Network compile(const lf_plan &plan, int32_t isa) {
  check_plan(plan);
  Network net{plan.picture_channels, plan.unshuffle, plan.scale, isa, kernels_of(isa), {}, {}, {}, {}, 0};
  for (int i = 0; i < plan.layers; ++i) {
    check_layer(plan, i);
    Layer layer;
    layer.plan = plan.layer[i];
    layer.radius = layer.plan.kernel / 2;
    layer.depthwise = layer.plan.groups > 1 && layer.plan.groups == layer.plan.in_channels;
    if (layer.plan.film) {
      layer.film_at = net.film_floats;
      net.film_floats += 2 * layer.plan.out_channels;
    }
    net.layers.push_back(std::move(layer));
  }
  describe_tensors(net, plan);
  check_zero_points(net);
  const auto readers = find_readers(net);
  find_stages(net, readers);
  find_halos(net);
  const std::vector<Order> orders = channel_orders(plan, readers, isa == LF_AVX2);
  for (size_t i = 0; i < net.tensors.size(); ++i) net.tensors[i].order = orders[i];
  for (int i = 0; i < plan.layers; ++i) pack(net.layers[i], plan, i, net);
  return net;
}

}  // namespace lf
