// Random plans and pictures through the engine, compared byte by byte with plain loops that share no code with it; and
// broken plans, which must be refused. Built with sanitizers by test_driver.py, also for other processors.
//
//   driver SEED COUNT    exit 0 and "ok", or 1 and what differed
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "limner_fused.h"

namespace {

using Bytes = std::vector<uint8_t>;

struct Random {
  std::mt19937 engine;
  int operator()(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine); }
  bool chance(int percent) { return (*this)(0, 99) < percent; }
  template <class T>
  T of(std::initializer_list<T> values) {
    return values.begin()[(*this)(0, int(values.size()) - 1)];
  }
};

struct Case {
  lf_plan plan{};
  std::vector<lf_layer> layers;
  std::vector<std::vector<int8_t>> weights;
  std::vector<std::vector<int32_t>> biases;
  std::vector<std::vector<float>> multipliers;
  std::vector<float> film;
  int height = 0, width = 0;  // of cells
  Bytes picture;

  void link() {
    for (size_t i = 0; i < layers.size(); ++i) {
      layers[i].weight = weights[i].data();
      layers[i].bias = biases[i].data();
      layers[i].multiplier = multipliers[i].data();
    }
    plan.layers = int(layers.size());
    plan.layer = layers.data();
  }
  bool tail() const { return layers.back().kind == LF_TAIL; }
  int side() const { return plan.scale * plan.unshuffle; }
  int64_t row_bytes() const {
    return tail() ? int64_t(width) * side() * plan.picture_channels : int64_t(width) * layers.back().out_channels;
  }
  int rows() const { return tail() ? height * side() : height; }
};

void add_layer(Case &c, Random &random, lf_layer l) {
  const int64_t taps = int64_t(l.in_channels / l.groups) * l.kernel * l.kernel;
  const int peak = random.of({1, 31, 63, 63, 127});
  const int style = random(0, 3);  // all extreme, mostly small, or anything
  std::vector<int8_t> weights(l.out_channels * taps);
  for (int8_t &w : weights)
    w = int8_t(style == 0 ? random.of({-peak, peak}) : style == 1 ? random(-peak, peak) / random(1, 8) : random(-peak, peak));
  std::vector<int32_t> bias(l.out_channels);
  std::vector<float> multiplier(l.out_channels);
  const double reach = 255.0 * peak * double(taps);
  const bool grid = random.chance(70);
  for (int o = 0; o < l.out_channels; ++o) {
    int64_t sum = 0;
    for (int64_t i = 0; i < taps; ++i) sum += weights[o * taps + i];
    bias[o] = int32_t(random(-20000, 20000) - l.in_zero * sum);
    double m = random(1, 1000) / 1000.0 * 2000 / std::sqrt(reach * 255);
    m = grid ? std::rint(m * (1 << 22)) / (1 << 22) : m;
    multiplier[o] = float(m * random.of({1, 1, 1, 4}) / random.of({1, 1, 4}));
  }
  if (l.film)
    for (int i = 0; i < 2 * l.out_channels; ++i)
      c.film.push_back(i < l.out_channels ? float(random(-1500, 1500)) / 1000 : float(random(-90000, 90000)) / 1000);
  c.layers.push_back(l);
  c.weights.push_back(std::move(weights));
  c.biases.push_back(std::move(bias));
  c.multipliers.push_back(std::move(multiplier));
}

lf_layer describe(Random &random, int kernel, int groups, int in, int out, int input, int in_zero) {
  lf_layer l{};
  l.kind = LF_CONV;
  l.kernel = kernel;
  l.groups = groups;
  l.in_channels = in;
  l.out_channels = out;
  l.input = input;
  l.residual = LF_NONE;
  l.in_zero = in_zero;
  l.out_zero = random.of({0, 0, 128, 128, 77});
  l.lo = random.chance(70) ? 0 : random(0, 120);
  l.hi = random.chance(70) ? 255 : random(121, 255);
  return l;
}

Case make_case(Random &random) {
  Case c;
  c.plan.picture_channels = random.of({3, 3, 3, 4, 1});
  c.plan.unshuffle = random.of({1, 1, 1, 2});
  c.plan.scale = random.of({1, 2, 3, 4});
  const int cells = c.plan.picture_channels * c.plan.unshuffle * c.plan.unshuffle;
  int width = 16 * random.of({1, 2, 2, 3, 4});
  add_layer(c, random, describe(random, random.of({1, 3, 3, 5}), 1, cells, width, LF_PICTURE, 0));
  const int depth = random(0, 5);
  for (int i = 0; i < depth; ++i) {
    const int input = int(c.layers.size()) - 1, zero = c.layers[input].out_zero, kind = random(0, 5);
    if (kind <= 2) {  // separable, sometimes wider, sometimes with a residual
      lf_layer d = describe(random, random.of({3, 3, 5}), width, width, width, input, zero);
      d.film = random.chance(10);
      add_layer(c, random, d);
      const int out = random.chance(30) ? 16 * random.of({1, 2, 3, 4}) : width;
      lf_layer p = describe(random, 1, 1, width, out, input + 1, d.out_zero);
      p.film = random.chance(10);
      if (out == width && random.chance(30)) {
        p.residual = input;
        p.residual_zero = zero;
        p.residual_scale = float(random(-2000, 2000)) / 1000;
      }
      add_layer(c, random, p);
      width = out;
    } else if (kind == 3) {
      add_layer(c, random, describe(random, random.of({1, 3, 5}), 1, width, width, input, zero));
    } else if (kind == 4 && width >= 32) {
      add_layer(c, random, describe(random, random.of({1, 3}), width / 16, width, width, input, zero));
    } else {
      add_layer(c, random, describe(random, random.of({3, 5}), width, width, width, input, zero));
    }
  }
  const int last = int(c.layers.size()) - 1;
  if (random.chance(70) && cells <= 16) {
    lf_layer t = describe(random, 1, 1, width, c.plan.picture_channels * c.side() * c.side(), last, c.layers[last].out_zero);
    t.kind = LF_TAIL;
    t.out_zero = t.lo = t.hi = 0;
    add_layer(c, random, t);
  }
  c.height = random.chance(15) ? 1 : random(1, 40);
  c.width = random.chance(15) ? 1 : random(1, random.chance(10) ? 300 : 70);
  c.picture.resize(size_t(c.height) * c.width * cells);
  const int style = random(0, 2);
  for (uint8_t &byte : c.picture) byte = uint8_t(style == 0 ? random.of({0, 255}) : random(0, 255));
  c.link();
  return c;
}

// The arithmetic of limner_fused.h, one output at a time.
int32_t sum_at(const lf_layer &l, const Bytes &in, int height, int width, int y, int x, int o) {
  const int inputs = l.in_channels / l.groups, first = o / (l.out_channels / l.groups) * inputs, margin = l.kernel / 2;
  int32_t acc = l.bias[o];
  for (int i = 0; i < inputs; ++i)
    for (int ky = 0; ky < l.kernel; ++ky)
      for (int kx = 0; kx < l.kernel; ++kx) {
        const int row = y + ky - margin, column = x + kx - margin;
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        const int byte = inside ? in[(size_t(row) * width + column) * l.in_channels + first + i] : l.in_zero;
        acc += byte * l.weight[((o * inputs + i) * l.kernel + ky) * l.kernel + kx];
      }
  return acc;
}

uint8_t clamp(double value, int low, int high) { return uint8_t(value < low ? low : value > high ? high : value); }

uint8_t value_at(const lf_layer &l, int32_t acc, int o, const float *film, int residual) {
  const float sum = float(acc);
  if (!film && l.residual == LF_NONE)
    return clamp(std::nearbyint(double(sum) * double(l.multiplier[o])) + l.out_zero, l.lo, l.hi);
  volatile float multiplier = film ? l.multiplier[o] * film[o] : l.multiplier[o];
  volatile float t = sum * multiplier;
  if (film) t = t + film[l.out_channels + o];
  if (l.residual != LF_NONE) {
    volatile float more = l.residual_scale * float(residual - l.residual_zero);
    t = t + more;
  }
  return clamp(std::nearbyint(double(t)) + l.out_zero, l.lo, l.hi);
}

Bytes expected(const Case &c) {
  const int cell = c.plan.unshuffle, colours = c.plan.picture_channels, height = c.height, width = c.width;
  std::vector<Bytes> tensors(1, Bytes(c.picture.size()));
  for (int y = 0; y < height * cell; ++y)
    for (int x = 0; x < width * cell; ++x)
      for (int k = 0; k < colours; ++k)
        tensors[0][((size_t(y / cell) * width + x / cell) * cell * cell + y % cell * cell + x % cell) * colours + k] =
            c.picture[(size_t(y) * width * cell + x) * colours + k];
  const float *film = c.film.data();
  for (const lf_layer &l : c.layers) {
    const Bytes &in = tensors[l.input + 1];
    Bytes out(size_t(c.rows()) * c.row_bytes());
    if (l.kind == LF_CONV) out.resize(size_t(height) * width * l.out_channels);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int o = 0; o < l.out_channels; ++o) {
          const int32_t acc = sum_at(l, in, height, width, y, x, o);
          const size_t at = (size_t(y) * width + x) * l.out_channels + o;
          if (l.kind == LF_CONV) {
            out[at] = value_at(l, acc, o, l.film ? film : nullptr, l.residual >= 0 ? tensors[l.residual + 1][at] : 0);
            continue;
          }
          const int side = c.side(), row = y * side + o / colours / side, column = x * side + o / colours % side;
          const int centre = c.picture[(size_t(row / c.plan.scale) * width * cell + column / c.plan.scale) * colours + o % colours];
          out[(size_t(row) * width * side + column) * colours + o % colours] =
              clamp(std::nearbyint(double(float(acc)) * double(l.multiplier[o])) + centre, 0, 255);
        }
    if (l.film) film += 2 * l.out_channels;
    tensors.push_back(std::move(out));
  }
  return tensors.back();
}

// Run with gaps between rows and at odd addresses; nothing outside the rows may change.
bool matches(const Case &c, lf_net *net, int threads, Random &random, const Bytes &wanted) {
  const int64_t in_row = int64_t(c.width) * c.plan.unshuffle * c.plan.picture_channels, out_row = c.row_bytes();
  const int64_t in_stride = in_row + random(0, 9), out_stride = out_row + random(0, 9), shift = random(0, 15);
  Bytes in(shift + in_stride * c.height * c.plan.unshuffle, 99), out(shift + out_stride * c.rows(), 171);
  for (int y = 0; y < c.height * c.plan.unshuffle; ++y)
    std::memcpy(&in[shift + y * in_stride], &c.picture[y * in_row], in_row);
  char error[256];
  if (lf_run(net, &in[shift], c.height * c.plan.unshuffle, c.width * c.plan.unshuffle, in_stride, &out[shift], out_stride,
             threads, c.film.empty() ? nullptr : c.film.data(), error, sizeof error)) {
    std::printf("refused: %s\n", error);
    return false;
  }
  Bytes whole(out.size(), 171);
  for (int y = 0; y < c.rows(); ++y) std::memcpy(&whole[shift + y * out_stride], &wanted[y * out_row], out_row);
  for (size_t i = 0; i < out.size(); ++i)
    if (out[i] != whole[i]) {
      std::printf("byte %zu is %d instead of %d\n", i, out[i], whole[i]);
      return false;
    }
  return true;
}

bool check_case(Random &random) {
  Case c = make_case(random);
  const Bytes wanted = expected(c);
  for (int isa = 0; isa < LF_ISAS; ++isa) {
    if (!lf_isa_usable(isa)) continue;
    char error[256] = "";
    lf_net *net = lf_create(&c.plan, isa, error, sizeof error);
    bool good = net != nullptr;
    if (!net) std::printf("not compiled: %s\n", error);
    for (int threads : {1, 3}) good = good && matches(c, net, threads, random, wanted);
    if (good && random.chance(10)) {
      bool others = true;
      std::thread other([&] {
        Random own{std::mt19937(1)};
        others = matches(c, net, 2, own, wanted);
      });
      good = matches(c, net, 2, random, wanted);
      other.join();
      good = good && others;
    }
    if (net) lf_destroy(net);
    if (!good) {
      std::printf("%s, %zu layers, %d x %d cells\n", lf_isa_name(isa), c.layers.size(), c.width, c.height);
      for (const lf_layer &l : c.layers)
        std::printf("  kind %d kernel %d groups %d channels %d -> %d input %d residual %d film %d\n", l.kind, l.kernel,
                    l.groups, l.in_channels, l.out_channels, l.input, l.residual, l.film);
      return false;
    }
  }
  return true;
}

// One field of a good plan set to something else: refused with a sentence, or run without harm.
bool check_broken(Random &random) {
  Case c = make_case(random);
  lf_layer &l = c.layers[random(0, int(c.layers.size()) - 1)];
  const int odd = random.of({-1000000, -2, -1, 0, 1, 2, 7, 17, 48, 256, 1024, 4096, 2147483647});
  // Fields that say how long the arrays are may only shrink: the engine cannot know what lies behind them.
  switch (random(0, 14)) {
    case 0: l.kind = odd; break;
    case 1: l.kernel = std::min(odd, l.kernel); break;
    case 2: l.groups = std::max(odd, l.groups); break;
    case 3: l.in_channels = std::min(odd, l.in_channels); break;
    case 4: l.out_channels = std::min(odd, l.out_channels); break;
    case 5: l.input = odd; break;
    case 6: l.residual = odd; break;
    case 7: l.in_zero = odd; break;
    case 8: l.out_zero = odd; break;
    case 9: l.lo = odd; break;
    case 10: l.weight = nullptr; break;
    case 11: c.multipliers[0][0] = random.of({-1.0f, std::numeric_limits<float>::quiet_NaN(), 1e38f}); break;
    case 12: c.weights[0][0] = -128; break;
    case 13: c.plan.picture_channels = odd; break;
    case 14: c.plan.scale = c.plan.unshuffle = odd; break;
  }
  char error[256] = "";
  lf_net *net = lf_create(&c.plan, LF_AUTO, error, sizeof error);
  if (net) lf_destroy(net);
  if (!net && !error[0]) std::printf("refused without a sentence\n");
  return net || error[0];
}

}  // namespace

int main(int arguments, char **argument) {
  if (arguments != 3) return std::printf("usage: driver SEED COUNT\n"), 2;
  const int seed = std::atoi(argument[1]), count = std::atoi(argument[2]);
  for (int i = 0; i < count; ++i) {
    Random random{std::mt19937(unsigned(seed + i))};
    if (!check_case(random) || !check_broken(random)) {
      std::printf("seed %d\n", seed + i);
      return 1;
    }
  }
  std::string isas;
  for (int isa = 0; isa < LF_ISAS; ++isa)
    if (lf_isa_usable(isa)) isas += std::string(" ") + lf_isa_name(isa);
  std::printf("ok%s\n", isas.c_str());
  return 0;
}
