// The C interface: networks, and what calls keep for the next one.
#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "limner_fused.h"

struct lf_net {
  lf::Network network;
  lf::Pool pool;
  std::mutex mutex;
  std::vector<std::unique_ptr<lf::Crew>> idle;
  int64_t bytes = 0;  // of workspaces
  bool profiling = false;
  std::vector<double> seconds;
};

namespace lf {
namespace {

// The crew that a call has given back last, or a new one; given back at the end.
class Borrowed {
 public:
  explicit Borrowed(lf_net &net) : net_(net) {
    std::lock_guard<std::mutex> lock(net.mutex);
    if (net.idle.empty()) {
      crew_ = std::make_unique<Crew>();
      return;
    }
    crew_ = std::move(net.idle.back());
    net.idle.pop_back();
    before_ = crew_->bytes();
  }
  ~Borrowed() {
    std::lock_guard<std::mutex> lock(net_.mutex);
    net_.bytes += crew_->bytes() - before_;
    net_.idle.push_back(std::move(crew_));
  }
  Borrowed(const Borrowed &) = delete;
  Borrowed &operator=(const Borrowed &) = delete;
  Crew *operator->() const { return crew_.get(); }

 private:
  lf_net &net_;
  std::unique_ptr<Crew> crew_;
  int64_t before_ = 0;
};

std::string check(const Network &net, const Call &call, int32_t height, int32_t width, int32_t threads) {
  if (!call.in || !call.out) return "the input or output buffer is missing.";
  if (height < 1 || width < 1)
    return "a picture of " + std::to_string(width) + " x " + std::to_string(height) + " is empty.";
  if (height % net.unshuffle || width % net.unshuffle)
    return "a picture of " + std::to_string(width) + " x " + std::to_string(height) + " is no multiple of " +
           std::to_string(net.unshuffle) + " along each side.";
  if (int64_t(height) * net.scale > INT32_MAX / 2 || int64_t(width) * net.scale > INT32_MAX / 2)
    return "the picture is too large.";
  if (threads < 1) return "threads=" + std::to_string(threads) + " is below 1.";
  if (net.film_floats && !call.film) return "the FiLM values are missing.";
  for (int32_t i = 0; i < net.film_floats; ++i)
    if (!std::isfinite(call.film[i])) return "a FiLM value is not finite.";
  return "";
}

void run(lf_net &net, const Call &call, int32_t threads) {
  const Borrowed crew(net);
  crew->prepare(net.network, divide(net.network, call.rows, call.columns, threads), threads);
  net.pool.share(crew->threads(), [&] {
    if (!net.profiling) return crew->work(call, nullptr);
    std::vector<double> seconds(net.network.layers.size());
    crew->work(call, seconds.data());
    std::lock_guard<std::mutex> lock(net.mutex);
    for (size_t i = 0; i < seconds.size(); ++i) net.seconds[i] += seconds[i];
  });
}

void say(char *error, size_t size, const std::string &text) {
  if (error && size) std::snprintf(error, size, "%s", text.c_str());
}

int32_t choose_isa(int32_t isa) {
  const char *forced = isa == LF_AUTO ? std::getenv("LIMNER_FUSED_ISA") : nullptr;
  if (forced && *forced) {
    for (isa = 0; isa < LF_ISAS && std::strcmp(forced, lf_isa_name(isa)); ++isa) continue;
    if (!std::strcmp(forced, "none")) throw std::string("LIMNER_FUSED_ISA=none switches it off.");
    if (isa == LF_ISAS)
      throw std::string("LIMNER_FUSED_ISA=") + forced + " is unknown: use scalar, avx2, avxvnni, avx512vnni or neon.";
  } else if (isa == LF_AUTO) {
    for (isa = LF_ISAS - 1; !lf_isa_usable(isa);) --isa;
  }
  if (lf_isa_usable(isa)) return isa;
  const char *name = lf_isa_name(isa);
  throw std::string("this processor cannot run instruction set ") + (name ? name : std::to_string(isa)) + ".";
}

}  // namespace
}  // namespace lf

extern "C" {

int32_t lf_abi(void) { return LF_ABI; }

int32_t lf_isa_chosen(char *error, size_t size) {
  try {
    return lf::choose_isa(LF_AUTO);
  } catch (const std::string &text) {
    lf::say(error, size, text);
    return -1;
  }
}

lf_net *lf_create(const lf_plan *plan, int32_t isa, char *error, size_t size) {
  try {
    isa = lf::choose_isa(isa);
    if (!plan) throw std::string("the plan is missing.");
    std::unique_ptr<lf_net> net(new lf_net{lf::compile(*plan, isa), {}, {}, {}, 0, false, {}});
    net->seconds.resize(net->network.layers.size());
    return net.release();
  } catch (const std::string &text) {
    lf::say(error, size, text);
  } catch (const std::exception &) {
    lf::say(error, size, "out of memory.");
  }
  return nullptr;
}

void lf_destroy(lf_net *net) { delete net; }

int32_t lf_net_isa(const lf_net *net) { return net->network.isa; }

int32_t lf_run(lf_net *net, const uint8_t *in, int32_t height, int32_t width, int64_t in_stride, uint8_t *out,
               int64_t out_stride, int32_t threads, const float *film, char *error, size_t size) {
  const lf::Network &network = net->network;
  const int64_t cell = network.unshuffle;
  const int64_t row = network.has_tail() ? int64_t(width) * network.scale * network.picture_channels
                                         : width / cell * network.layers.back().plan.out_channels;
  const lf::Call call{in,
                      in_stride ? in_stride : int64_t(width) * network.picture_channels,
                      out,
                      out_stride ? out_stride : row,
                      int32_t(height / cell),
                      int32_t(width / cell),
                      film};
  try {
    const std::string wrong = lf::check(network, call, height, width, threads);
    if (!wrong.empty()) throw wrong;
    lf::run(*net, call, threads);
    return 0;
  } catch (const std::string &text) {
    lf::say(error, size, text);
  } catch (const std::exception &) {
    lf::say(error, size, "out of memory.");
  }
  return 1;
}

int64_t lf_workspace_bytes(lf_net *net) {
  std::lock_guard<std::mutex> lock(net->mutex);
  return net->bytes;
}

void lf_profile(lf_net *net, int32_t on) {
  std::lock_guard<std::mutex> lock(net->mutex);
  net->profiling = on != 0;
  std::fill(net->seconds.begin(), net->seconds.end(), 0.0);
}

void lf_profile_read(lf_net *net, double *seconds) {
  std::lock_guard<std::mutex> lock(net->mutex);
  std::copy(net->seconds.begin(), net->seconds.end(), seconds);
}

}  // extern "C"
