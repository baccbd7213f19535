// Plans and pictures with the bytes that reference.py made of them (a file of emulator_kit.record), on every instruction
// set that this machine can run and must be named on the command line.
//
//   recorded FILE ISA...    exit 0, or 1 and what differed or is missing
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "limner_fused.h"

namespace {

struct File {
  std::vector<char> bytes;
  size_t at = 0;

  template <class T>
  std::vector<T> take(size_t count) {
    std::vector<T> values(count);
    if (count * sizeof(T) > bytes.size() - at) std::printf("the file ends too early\n"), std::exit(1);
    std::memcpy(values.data(), &bytes[at], count * sizeof(T));
    at += count * sizeof(T);
    return values;
  }
  int number() { return take<int32_t>(1)[0]; }
};

struct Case {
  lf_plan plan;
  std::vector<lf_layer> layers;
  std::vector<std::vector<int8_t>> weights;
  std::vector<std::vector<int32_t>> biases;
  std::vector<std::vector<float>> multipliers;
  std::vector<float> film;
  int height, width;
  std::vector<uint8_t> picture, wanted;
};

Case read(File &file) {
  Case c;
  c.plan = file.take<lf_plan>(1)[0];
  for (int i = 0; i < c.plan.layers; ++i) {
    lf_layer l = file.take<lf_layer>(1)[0];
    c.weights.push_back(file.take<int8_t>(size_t(l.in_channels / l.groups) * l.kernel * l.kernel * l.out_channels));
    c.biases.push_back(file.take<int32_t>(l.out_channels));
    c.multipliers.push_back(file.take<float>(l.out_channels));
    l.weight = c.weights.back().data();
    l.bias = c.biases.back().data();
    l.multiplier = c.multipliers.back().data();
    c.layers.push_back(l);
  }
  c.plan.layer = c.layers.data();
  c.film = file.take<float>(file.number());
  c.height = file.number();
  c.width = file.number();
  c.picture = file.take<uint8_t>(size_t(c.height) * c.width * c.plan.picture_channels);
  c.wanted = file.take<uint8_t>(c.picture.size() * c.plan.scale * c.plan.scale);
  return c;
}

bool same(const Case &c, int isa) {
  char error[256] = "";
  lf_net *net = lf_create(&c.plan, isa, error, sizeof error);
  if (!net) return std::printf("not compiled: %s\n", error), false;
  bool alike = lf_net_isa(net) == isa;
  const float *film = c.film.empty() ? nullptr : c.film.data();
  for (int threads : {1, 3}) {
    std::vector<uint8_t> out(c.wanted.size());
    if (lf_run(net, c.picture.data(), c.height, c.width, 0, out.data(), 0, threads, film, error, sizeof error))
      std::printf("refused: %s\n", error);
    alike = alike && out == c.wanted;
  }
  lf_destroy(net);
  return alike;
}

int number_of(const std::string &isa) {
  for (int i = 0; i < LF_ISAS; ++i)
    if (isa == lf_isa_name(i) && lf_isa_usable(i)) return i;
  return -1;
}

}  // namespace

int main(int arguments, char **argument) {
  if (arguments < 3) return std::printf("usage: recorded FILE ISA...\n"), 2;
  std::ifstream stream(argument[1], std::ios::binary);
  File file{{std::istreambuf_iterator<char>(stream), {}}};
  std::vector<Case> cases;
  for (int left = file.number(); left > 0; --left) cases.push_back(read(file));
  for (int i = 2; i < arguments; ++i) {
    const int isa = number_of(argument[i]);
    if (isa < 0) return std::printf("%s cannot run here\n", argument[i]), 1;
    for (size_t k = 0; k < cases.size(); ++k)
      if (!same(cases[k], isa)) return std::printf("%s: case %zu differs\n", argument[i], k), 1;
    std::printf("%s: %zu cases, byte for byte\n", argument[i], cases.size());
  }
  return 0;
}
