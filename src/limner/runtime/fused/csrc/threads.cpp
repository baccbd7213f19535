// How the rows of a picture are shared among threads. Nothing here changes a byte of the result.
#include <algorithm>
#include <system_error>

#include "engine.h"

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace lf {
namespace {

// Rings of about this many bytes for one tile: wider pictures are cut into strips.
constexpr int64_t kRingBytes = int64_t(3) << 20;
constexpr int32_t kStripLeast = 64, kBandLeast = 16;
// A second side with fewer rows than this costs more than it helps.
constexpr int32_t kHelpLeast = 6;

int64_t process() {
#if defined(_WIN32)
  return 1;
#else
  return getpid();
#endif
}

int32_t strip_columns(const Network &net) {
  int64_t column = 1;
  for (const Tensor &t : net.tensors) column += t.halo >= 0 ? t.depth * t.stride : 0;
  const int64_t fit = std::min<int64_t>(kRingBytes / column, 1 << 16);
  return std::max<int32_t>({kStripLeast, 8 * net.tensors[0].halo, int32_t(fit)});
}

}  // namespace

Tile Grid::tile(int32_t index) const {
  const int64_t x = index % strips, y = index / strips;
  return {int32_t(rows * y / bands), int32_t(rows * (y + 1) / bands), int32_t(columns * x / strips),
          int32_t(columns * (x + 1) / strips)};
}

Grid divide(const Network &net, int32_t rows, int32_t columns, int32_t threads) {
  const int32_t widest = strip_columns(net);
  const int32_t strips = columns / widest + (columns % widest > 0), pairs = threads / 2 + threads % 2;
  const int32_t wanted = strips >= 2 * threads ? 1 : (pairs + strips - 1) / strips;
  return {strips, std::max(1, std::min(wanted, rows / kBandLeast)), rows, columns};
}

void Meeting::open(const Tile &tile, int32_t rows) {
  tile_ = tile;
  rows_ = rows;
  claims_.store(0, std::memory_order_relaxed);
  for (int side = 0; side < 2; ++side) {
    left_[side].store(false, std::memory_order_relaxed);
    sides_[side] = nullptr;
  }
}

// Whoever fails here sees everything that the other side did before its first claim.
bool Meeting::claim(int side) {
  const uint64_t one = side ? 1 : uint64_t(1) << 32;
  for (uint64_t now = claims_.load(std::memory_order_acquire);;) {
    if (int64_t(now >> 32) + int64_t(now & UINT32_MAX) >= rows_) return false;
    if (claims_.compare_exchange_weak(now, now + one, std::memory_order_acq_rel, std::memory_order_acquire)) return true;
  }
}

int32_t Meeting::claimed(int side) const {
  const uint64_t now = claims_.load(std::memory_order_acquire);
  return int32_t(side ? now & UINT32_MAX : now >> 32);
}

void Meeting::leave(int side) {
  left_[side].store(true, std::memory_order_release);
  if (claimed(0) && claimed(1)) wait_until([&] { return left_[1 - side].load(std::memory_order_acquire); });
}

void Crew::prepare(const Network &net, const Grid &grid, int32_t threads) {
  grid_ = grid;
  halo_ = net.tensors[0].halo;
  threads_ = std::min(threads, 2 * grid.tiles());
  arrived_ = begun_ = 0;
  if (capacity_ < grid.tiles()) {
    meetings_.reset(new Meeting[grid.tiles()]);
    capacity_ = grid.tiles();
  }
  const auto narrow = [&](const auto &workspace) { return workspace->columns() < grid.widest(); };
  workspaces_.erase(std::remove_if(workspaces_.begin(), workspaces_.end(), narrow), workspaces_.end());
  while (int32_t(workspaces_.size()) < threads_) workspaces_.push_back(std::make_unique<Workspace>(net, grid.widest()));
}

void Crew::work(const Call &call, double *seconds) {
  std::unique_lock<std::mutex> lock(mutex_);
  Workspace &mine = *workspaces_[arrived_++];
  while (enter_next(call, mine)) {
    lock.unlock();
    mine.run(seconds);
    lock.lock();
  }
}

bool Crew::enter_next(const Call &call, Workspace &mine) {
  if (begun_ < grid_.tiles()) {
    Meeting &next = meetings_[begun_];
    const Tile tile = grid_.tile(begun_++);
    next.open(tile, std::min(call.rows, tile.bottom + halo_) - std::max(0, tile.top - halo_));
    mine.enter(call, next, 0);
    return true;
  }
  Meeting *slowest = nullptr;
  for (int32_t i = 0; i < begun_; ++i)
    if (meetings_[i].has_place() && (!slowest || meetings_[i].unclaimed() > slowest->unclaimed())) slowest = &meetings_[i];
  if (!slowest || slowest->unclaimed() < kHelpLeast) return false;
  mine.enter(call, *slowest, 1);
  return true;
}

int64_t Crew::bytes() const {
  int64_t sum = 0;
  for (const auto &workspace : workspaces_) sum += workspace->bytes();
  return sum;
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread &worker : workers_) owner_ == process() ? worker.join() : worker.detach();
}

void Pool::run(Job &job) {
  const int32_t helpers = job.helpers;
  if (helpers < 1) return job.work(job.context);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    start(helpers);
    jobs_.push_back(&job);
  }
  for (int32_t i = 0; i < helpers; ++i) wake_.notify_one();
  job.work(job.context);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
  }
  wait_until([&] { return job.active.load(std::memory_order_acquire) == 0; });
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
    job.active.fetch_add(1, std::memory_order_relaxed);
    lock.unlock();
    job.work(job.context);
    job.active.fetch_sub(1, std::memory_order_release);
    lock.lock();
  }
}

}  // namespace lf
