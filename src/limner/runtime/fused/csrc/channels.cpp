#include "channels.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "kernels.h"

namespace lf {
namespace {

constexpr int kSumLimit = 128;      // weights of one sign whose products with bytes fit 16 bits when summed
constexpr int64_t kWork = 3 << 20;  // steps of the search for one tensor
constexpr int kNone = -1;

Order identity(int channels) {
  Order order(channels);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

bool is_depthwise(const lf_layer &l) { return l.groups > 1 && l.groups == l.in_channels; }
bool is_pointwise(const lf_layer &l) { return l.groups == 1 && l.kernel == 1; }

// Where a depthwise kernel leaves what was at `place`. The last block may hold 16 channels; those stay in the first
// half of its places, because places move within halves of 16 only.
int place_after_depthwise(int place) {
  const int at = place % kBlock;
  return place - at + block_place(at % 16 / 4, at % 4 + at / 16 * 4);
}

// Sixteen-bit lanes of a pair of quads: each sums the products of four places.
int lane_of(int place) { return place / 8 * 2 + place % 4 / 2; }

// Distribution of input channels of a pointwise layer over lanes such that few sums leave 16 bits. By swaps of two
// channels, kept when they do no harm.
class LaneSearch {
 public:
  LaneSearch(const lf_layer &pointwise, const lf_layer *depthwise)
      : layer_(pointwise), order_(identity(pointwise.in_channels)), strain_(pointwise.in_channels, 0) {
    const int lanes = pointwise.in_channels / 4;
    up_.assign(size_t(lanes) * pointwise.out_channels, 0);
    down_ = up_;
    for (int place = 0; place < pointwise.in_channels; ++place) add(lane_of(place), place, 1);
    if (depthwise)
      for (int c = 0; c < pointwise.in_channels; ++c) strain_[c] = strain_of(*depthwise, c);
  }

  const Order &run() {
    const int n = int(order_.size());
    int excess = 0;
    for (int lane = 0; lane < n / 4; ++lane) excess += excess_of(lane);
    const int64_t tries = kWork / layer_.out_channels;
    for (int64_t i = 0; i < tries && excess > 0; ++i) {
      const int a = random_.below(n), b = random_.below(n);
      if (excess_of(lane_of(a)) + excess_of(lane_of(b)) > 0) excess += try_swap(a, b);
    }
    for (int i = 0; i < 64 * n; ++i) try_strain(random_.below(n), random_.below(n));
    return order_;
  }

 private:
  int weight(int out, int channel) const { return layer_.weight[out * layer_.in_channels + channel]; }

  void add(int lane, int channel, int sign) {
    for (int o = 0; o < layer_.out_channels; ++o) {
      const int w = weight(o, channel);
      (w > 0 ? up_ : down_)[size_t(lane) * layer_.out_channels + o] += sign * std::abs(w);
    }
  }

  int excess_of(int lane) const {
    int excess = 0;
    for (int o = 0; o < layer_.out_channels; ++o) {
      const size_t at = size_t(lane) * layer_.out_channels + o;
      excess += std::max(0, up_[at] - kSumLimit) + std::max(0, down_[at] - kSumLimit);
    }
    return excess;
  }

  void swap(int a, int b) {
    add(lane_of(a), order_[a], -1);
    add(lane_of(b), order_[b], -1);
    std::swap(order_[a], order_[b]);
    add(lane_of(a), order_[a], 1);
    add(lane_of(b), order_[b], 1);
  }

  int try_swap(int a, int b) {
    const int first = lane_of(a), second = lane_of(b);
    if (first == second) return 0;
    const int before = excess_of(first) + excess_of(second);
    swap(a, b);
    const int change = excess_of(first) + excess_of(second) - before;
    if (change <= 0) return change;
    swap(a, b);
    return 0;
  }

  // How many sums a depthwise channel needs: 0 all columns in one, 1 in pairs, 2 each by itself.
  static int strain_of(const lf_layer &l, int channel) {
    const int k = l.kernel, groups = (k + 4) / 4, n = groups * k;
    int strain = 0;
    for (int row = 0; row < 2; ++row)
      for (int half = 0; half < 2; ++half)
        for (int sign = -1; sign < 2; sign += 2) {
          int all = 0, pairs = 0;
          for (int i = 0; i < n; ++i) {
            const int one = reach(l, channel, row, half, sign, i), other = reach(l, channel, row, half, sign, n - 1 - i);
            all += one;
            pairs = std::max(pairs, i == n - 1 - i ? one : one + other);
          }
          strain = std::max(strain, pairs > kSumLimit ? 2 : all > kSumLimit ? 1 : 0);
        }
    return strain;
  }

  // Sum of weights of one sign that meet in a 16-bit lane: rows 2 half and 2 half + 1 of row group i / kernel.
  static int reach(const lf_layer &l, int channel, int row, int half, int sign, int i) {
    int sum = 0;
    for (int tap = i / l.kernel * 4 + 2 * half; tap < i / l.kernel * 4 + 2 * half + 2; ++tap) {
      const int y = tap - row;
      if (y < 0 || y >= l.kernel) continue;
      sum += std::max(0, sign * l.weight[(channel * l.kernel + y) * l.kernel + i % l.kernel]);
    }
    return sum;
  }

  // The places that one vector of the depthwise kernel makes.
  static int vector_of(int place) { return place / kBlock * 4 + place % 2 + place % 16 / 8 * 2; }

  int strain_at(int vector) const {
    static const int cost[3] = {0, 1, 6};
    int worst = 0;
    for (int lane = 0; lane < 8; ++lane) {
      const size_t place = size_t(vector / 4 * kBlock + block_place(vector % 4, lane));
      if (place < order_.size()) worst = std::max(worst, strain_[order_[place]]);
    }
    return cost[worst];
  }

  void try_strain(int a, int b) {
    const int first = vector_of(a), second = vector_of(b);
    if (first == second || strain_[order_[a]] == strain_[order_[b]]) return;
    const int before = strain_at(first) + strain_at(second);
    const int lanes = lane_of(a) == lane_of(b) ? 0 : excess_of(lane_of(a)) + excess_of(lane_of(b));
    swap(a, b);
    const int excess = lane_of(a) == lane_of(b) ? 0 : excess_of(lane_of(a)) + excess_of(lane_of(b));
    if (excess > lanes || strain_at(first) + strain_at(second) > before) swap(a, b);
  }

  const lf_layer &layer_;
  Order order_;
  std::vector<int> strain_, up_, down_;
  Random random_;
};

// The pointwise layer whose sums profit from an order of layer `index`'s outputs, and the depthwise one between.
struct Reader {
  int pointwise = kNone, depthwise = kNone;
};

Reader reader_of(const lf_plan &plan, const std::vector<std::vector<int>> &readers, int index) {
  Reader found;
  if (readers[index + 1].size() != 1) return found;
  int next = readers[index + 1][0];
  if (is_depthwise(plan.layer[next])) {
    if (readers[next + 1].size() != 1) return found;
    found.depthwise = next;
    next = readers[next + 1][0];
  }
  const lf_layer &l = plan.layer[next];
  const int input = found.depthwise == kNone ? index : found.depthwise;
  if (is_pointwise(l) && l.input == input) found.pointwise = next;
  return found;
}

Order best_order(const lf_plan &plan, const Reader &reader) {
  const lf_layer *between = reader.depthwise == kNone ? nullptr : &plan.layer[reader.depthwise];
  LaneSearch search(plan.layer[reader.pointwise], between);
  const Order wanted = search.run();
  if (!between) return wanted;
  Order before(wanted.size());
  for (int place = 0; place < int(before.size()); ++place) before[place] = wanted[place_after_depthwise(place)];
  return before;
}

}  // namespace

std::vector<Order> channel_orders(const lf_plan &plan, const std::vector<std::vector<int>> &readers, bool search) {
  std::vector<Order> orders = {identity(plan.picture_channels * plan.unshuffle * plan.unshuffle)};
  for (int i = 0; i < plan.layers; ++i) {
    const lf_layer &l = plan.layer[i];
    const Reader reader = reader_of(plan, readers, i);
    if (is_depthwise(l)) {
      Order out = orders[l.input + 1];
      for (int place = 0; place < int(out.size()); ++place)
        out[place_after_depthwise(place)] = orders[l.input + 1][place];
      orders.push_back(out);
    } else if (l.residual >= 0) {
      orders.push_back(orders[l.residual + 1]);
    } else if (search && l.groups == 1 && reader.pointwise != kNone) {
      orders.push_back(best_order(plan, reader));
    } else {
      orders.push_back(identity(l.out_channels));
    }
  }
  return orders;
}

}  // namespace lf
