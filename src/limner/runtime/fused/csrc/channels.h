// In which order the channels of each tensor lie in memory: free to choose, so chosen for the kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "limner_fused.h"

namespace lf {

// A small generator of its own, so that a plan compiles to the same memory everywhere.
struct Random {
  uint64_t state = 88172645463325252u;
  int below(int n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return int((state >> 20) % uint64_t(n));
  }
};

using Order = std::vector<int32_t>;  // the plan's channel at each place

// One order for every tensor (0: the picture). `readers`: the layers that read each tensor. `search`: look for orders
// that let more products be summed in 16 bits, which is what counts without a dot-product instruction.
std::vector<Order> channel_orders(const lf_plan &plan, const std::vector<std::vector<int>> &readers, bool search);

}  // namespace lf
