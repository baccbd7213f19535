// Running a network: workspaces, tiles, threads.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "network.h"

#if defined(_MSC_VER) && defined(LF_X86)
#include <intrin.h>
#endif

namespace lf {

inline void pause_processor() {
#if defined(_MSC_VER) && defined(LF_X86)
  _mm_pause();
#elif defined(LF_X86)
  __builtin_ia32_pause();
#elif defined(LF_ARM) && defined(__GNUC__)
  __asm__ volatile("yield");
#endif
}

// What one call to lf_run asks for.
struct Call {
  const uint8_t *in;
  int64_t in_stride;
  uint8_t *out;
  int64_t out_stride;
  int32_t rows, columns;  // of cells
  const float *film;
};

// Part of the output, in cells.
struct Tile {
  int32_t top, bottom, left, right;
};

class Workspace;

// One tile, made by one thread from the top, or by two: the second from the bottom, until they meet. Rows of the picture
// are claimed one by one; where none is left is the seam, for all tensors. Across it each side reads the rows that the
// other has made.
class Meeting {
 public:
  void open(const Tile &tile, int32_t rows);
  void enter(int side, Workspace &workspace) { sides_[side] = &workspace; }
  bool claim(int side);
  int32_t claimed(int side) const;
  int32_t unclaimed() const { return rows_ - claimed(0) - claimed(1); }
  // `side` has made all its rows: returns when the other side needs them no more.
  void leave(int side);
  const Tile &tile() const { return tile_; }
  const Workspace &side(int side) const { return *sides_[side]; }
  bool has_place() const { return !sides_[1]; }

 private:
  Tile tile_{};
  int32_t rows_ = 0;
  std::atomic<uint64_t> claims_{0};  // of the first side in the upper half
  std::atomic<bool> left_[2] = {{false}, {false}};
  Workspace *sides_[2] = {nullptr, nullptr};
};

// Rings of rows for one side of a tile at a time. The second side sees the picture upside down: it counts rows from the
// bottom, and only what enters, leaves and meets kernels is turned.
class Workspace {
 public:
  Workspace(const Network &net, int32_t columns);
  ~Workspace();
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  void enter(const Call &call, Meeting &meeting, int side);
  void run(double *seconds);
  int32_t columns() const { return columns_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Rows {
    uint8_t *ring, *outside;  // `outside` stands for rows beyond the picture
    int64_t row_bytes;
    int32_t next;                  // next row to make
    int32_t top, left, right;      // what is made
    int32_t bottom, end;           // ... down to `bottom`: the tile's `end`, or the seam once it is known
    std::atomic<int32_t> made{0};  // rows before this one are there, for the other side to read
  };
  void find_seam();
  void modulate(const float *film);
  void advance(int tensor, int32_t row);
  void enter_row(int32_t row);
  void make_pair(const Stage &stage, int32_t row);
  void run_depthwise(int layer, int32_t row, int32_t column, int32_t pixels, uint8_t *const (&out)[2], int64_t stride);
  void run_matrix(int layer, int32_t row, int32_t column, int32_t pixels, const uint8_t *pointwise, int64_t stride);
  void deliver(int layer, int32_t row, int32_t column, int32_t pixels);
  uint8_t *row_of(int tensor, int32_t row) const;
  uint8_t *row_of_other(int tensor, int32_t row) const;
  int32_t turned(int32_t row) const { return side_ ? call_->rows - 1 - row : row; }
  uint8_t *pixel_of(int tensor, int32_t row, int32_t column) const;
  void pad_row(int tensor, int32_t row);
  void account(int layer);

  const Network &net_;
  int32_t columns_;
  int64_t bytes_ = 0;
  uint8_t *memory_ = nullptr;
  std::vector<Rows> rows_;
  std::vector<const uint8_t *> quads_;
  std::vector<std::vector<float>> multiplier_, shift_;  // of film layers, for this call
  uint8_t *interleaved_, *between_[2], *staged_;
  int64_t staged_stride_ = 0;
  const Call *call_ = nullptr;
  Meeting *meeting_ = nullptr;
  int side_ = 0;
  double *seconds_ = nullptr;
  double mark_ = 0;
};

// Workers shared by all calls of a net; started when first needed. The caller of `share` works too.
class Pool {
 public:
  ~Pool();
  // Runs `work` in the calling thread, and in up to `threads` - 1 workers that are free before it has ended there.
  template <class Work>
  void share(int32_t threads, Work &&work);

 private:
  struct Job {
    void (*work)(void *);
    void *context;
    int32_t helpers;  // how many more workers may join
    std::atomic<int32_t> active{0};
  };
  void run(Job &job);
  void start(int32_t workers);
  void serve();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Job *> jobs_;
  std::vector<std::thread> workers_;
  bool stop_ = false;
  int64_t owner_ = 0;  // process that started the workers; a forked child has none of them
};

// Strips so that rings stay small, bands so that every two threads have a tile.
struct Grid {
  int32_t strips, bands, rows, columns;
  int32_t tiles() const { return strips * bands; }
  Tile tile(int32_t index) const;
  int32_t widest() const { return (columns + strips - 1) / strips; }
};

Grid divide(const Network &net, int32_t rows, int32_t columns, int32_t threads);

// The tiles and workspaces of one call, kept for the next one.
class Crew {
 public:
  // Everything is allocated here, so that running out of memory is an error before a thread starts.
  void prepare(const Network &net, const Grid &grid, int32_t threads);
  // What each thread of a call does: tiles while there are any, then the second sides of those not yet done.
  // `seconds`: per layer, or null.
  void work(const Call &call, double *seconds);
  int32_t threads() const { return threads_; }
  int64_t bytes() const;

 private:
  bool enter_next(const Call &call, Workspace &mine);

  std::mutex mutex_;
  Grid grid_{};
  int32_t threads_ = 0, arrived_ = 0, begun_ = 0, capacity_ = 0;
  int32_t halo_ = 0;
  std::unique_ptr<Meeting[]> meetings_;
  std::vector<std::unique_ptr<Workspace>> workspaces_;
};

// Returns when `condition` holds, which another thread is about to see to, unless it does not run just now.
template <class Condition>
void wait_until(Condition &&condition) {
  constexpr int kSpins = 1 << 10, kYields = 1 << 8;
  for (int tries = 0; !condition(); ++tries) {
    if (tries < kSpins) pause_processor();
    else if (tries < kSpins + kYields) std::this_thread::yield();
    else std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

template <class Work>
void Pool::share(int32_t threads, Work &&work) {
  Job job;
  job.work = [](void *context) { (*static_cast<std::remove_reference_t<Work> *>(context))(); };
  job.context = &work;
  job.helpers = threads - 1;
  run(job);
}

}  // namespace lf
