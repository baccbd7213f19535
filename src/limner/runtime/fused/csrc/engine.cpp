// The C interface: networks, workspaces kept between calls, tiles shared among threads.
#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#include "limner_fused.h"

namespace lf {

// Rings of about this many bytes for one tile: wider pictures are cut into strips.
constexpr int64_t kRingBytes = int64_t(3) << 20;
constexpr int32_t kStripLeast = 64, kBandLeast = 16;

int64_t process() {
#if defined(_WIN32)
  return 1;
#else
  return getpid();
#endif
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread &worker : workers_) owner_ == process() ? worker.join() : worker.detach();
}

template <class Work>
void Pool::share(int32_t tiles, int32_t threads, Work &&work) {
  Job job;
  job.work = [](void *context, int32_t tile) { (*static_cast<std::remove_reference_t<Work> *>(context))(tile); };
  job.context = &work;
  job.tiles = tiles;
  job.helpers = std::min(threads, tiles) - 1;
  run(job, threads);
}

void Pool::run(Job &job, int32_t threads) {
  if (job.helpers < 1) return drain(job);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    start(threads - 1);
    jobs_.push_back(&job);
  }
  wake_.notify_all();
  drain(job);
  std::unique_lock<std::mutex> lock(mutex_);
  jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
  done_.wait(lock, [&] { return job.active == 0; });
}

// As many workers as asked for, or as the system allows: the caller can do all the work itself.
void Pool::start(int32_t workers) {
  owner_ = workers_.empty() ? process() : owner_;
  try {
    while (int32_t(workers_.size()) < workers) workers_.emplace_back([this] { serve(); });
  } catch (const std::system_error &) {
  }
}

void Pool::serve() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    const auto open = [](const Job *job) { return job->helpers > 0; };
    auto found = jobs_.end();
    wake_.wait(lock, [&] { return stop_ || (found = std::find_if(jobs_.begin(), jobs_.end(), open)) != jobs_.end(); });
    if (stop_) return;
    Job &job = **found;
    --job.helpers;
    ++job.active;
    lock.unlock();
    drain(job);
    lock.lock();
    --job.active;
    done_.notify_all();
  }
}

void Pool::drain(Job &job) {
  for (int32_t tile; (tile = job.next.fetch_add(1)) < job.tiles;) job.work(job.context, tile);
}

}  // namespace lf

struct lf_net {
  lf::Network network;
  lf::Pool pool;
  std::mutex mutex;
  std::vector<std::unique_ptr<lf::Workspace>> idle;
  int64_t bytes = 0;
  bool profiling = false;
  std::vector<double> seconds;
};

namespace lf {
namespace {

// A workspace of at least `columns`, from those idle when one is wide enough.
std::unique_ptr<Workspace> take(lf_net &net, int32_t columns) {
  {
    std::lock_guard<std::mutex> lock(net.mutex);
    if (!net.idle.empty()) {
      std::unique_ptr<Workspace> found = std::move(net.idle.back());
      net.idle.pop_back();
      if (found->columns() >= columns) return found;
      net.bytes -= found->bytes();
    }
  }
  auto made = std::make_unique<Workspace>(net.network, columns);
  std::lock_guard<std::mutex> lock(net.mutex);
  net.bytes += made->bytes();
  return made;
}

void give_back(lf_net &net, std::unique_ptr<Workspace> workspace) {
  std::lock_guard<std::mutex> lock(net.mutex);
  net.idle.push_back(std::move(workspace));
}

int32_t strip_columns(const Network &net) {
  int64_t column = 1;
  for (const Tensor &t : net.tensors) column += t.halo >= 0 ? t.depth * t.stride : 0;
  const int64_t fit = std::min<int64_t>(kRingBytes / column, 1 << 16);
  return std::max<int32_t>({kStripLeast, 8 * net.tensors[0].halo, int32_t(fit)});
}

struct Grid {
  int32_t strips, bands, rows, columns;
  Tile tile(int32_t index) const {
    const int64_t x = index % strips, y = index / strips;
    return {int32_t(rows * y / bands), int32_t(rows * (y + 1) / bands), int32_t(columns * x / strips),
            int32_t(columns * (x + 1) / strips)};
  }
  int32_t widest() const { return (columns + strips - 1) / strips; }
};

// Strips so that rings stay small; bands so that every thread has work.
Grid divide(const Network &net, int32_t rows, int32_t columns, int32_t threads) {
  const int32_t widest = strip_columns(net);
  const int32_t strips = columns / widest + (columns % widest > 0);
  const int32_t wanted = threads == 1 || strips >= 4 * threads ? 1 : (threads + strips - 1) / strips;
  return {strips, std::max(1, std::min(wanted, rows / kBandLeast)), rows, columns};
}

std::string check(const Network &net, const Call &call, int32_t height, int32_t width, int32_t threads) {
  if (!call.in || !call.out) return "the input or output buffer is missing.";
  if (height < 1 || width < 1 || height % net.unshuffle || width % net.unshuffle)
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
  const Grid grid = divide(net.network, call.rows, call.columns, threads);
  // Allocated before any thread starts, so that running out of memory is an error here.
  std::vector<std::unique_ptr<Workspace>> ready;
  const int32_t tiles = grid.strips * grid.bands;
  for (int32_t i = 0; i < std::min(threads, tiles); ++i) ready.push_back(take(net, grid.widest()));
  std::mutex mutex;
  net.pool.share(tiles, threads, [&](int32_t index) {
    std::unique_ptr<Workspace> mine;
    {
      std::lock_guard<std::mutex> lock(mutex);
      mine = std::move(ready.back());
      ready.pop_back();
    }
    std::vector<double> seconds(net.profiling ? net.network.layers.size() : 0);
    mine->run(call, grid.tile(index), seconds.empty() ? nullptr : seconds.data());
    std::lock_guard<std::mutex> lock(mutex);
    ready.push_back(std::move(mine));
    for (size_t i = 0; i < seconds.size(); ++i) net.seconds[i] += seconds[i];
  });
  for (auto &workspace : ready) give_back(net, std::move(workspace));
}

void say(char *error, size_t size, const std::string &text) {
  if (error && size) std::snprintf(error, size, "%s", text.c_str());
}

int32_t choose_isa(int32_t isa) {
  const char *forced = isa == LF_AUTO ? std::getenv("LIMNER_FUSED_ISA") : nullptr;
  if (forced && *forced) {
    for (isa = 0; isa < LF_ISAS && std::strcmp(forced, lf_isa_name(isa)); ++isa) continue;
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
