// Running a network: workspaces, tiles, threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "network.h"

namespace lf {

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

// Rings of rows for one tile at a time.
class Workspace {
 public:
  Workspace(const Network &net, int32_t columns);
  ~Workspace();
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  void run(const Call &call, const Tile &tile, double *seconds);
  int32_t columns() const { return columns_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Rows {
    uint8_t *ring, *outside;  // `outside` stands for rows beyond the picture
    int64_t row_bytes;
    int32_t start, next;               // first row if the picture had no borders; next row to make
    int32_t top, bottom, left, right;  // what is made
  };
  void place(const Call &call, const Tile &tile);
  void modulate(const float *film);
  void advance(int tensor, int32_t row);
  void enter_row(int32_t row);
  void make_pair(const Stage &stage, int32_t row);
  void run_depthwise(int layer, int32_t row, int32_t column, int32_t pixels, uint8_t *const (&out)[2], int64_t stride);
  void run_matrix(int layer, int32_t row, int32_t column, int32_t pixels, const uint8_t *pointwise, int64_t stride);
  void deliver(int layer, int32_t row, int32_t column, int32_t pixels);
  uint8_t *row_of(int tensor, int32_t row) const;
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
  int64_t between_stride_ = 0, staged_stride_ = 0;
  const Call *call_ = nullptr;
  double *seconds_ = nullptr;
  double mark_ = 0;
};

// Threads shared by all calls of a net; started when first needed. The caller of `share` works too.
class Pool {
 public:
  ~Pool();
  template <class Work>
  void share(int32_t tiles, int32_t threads, Work &&work);

 private:
  struct Job {
    void (*work)(void *, int32_t);
    void *context;
    int32_t tiles, helpers;  // helpers: how many more threads may join
    std::atomic<int32_t> next{0};
    int32_t active = 0;
  };
  void run(Job &job, int32_t threads);
  void start(int32_t workers);
  void serve();
  static void drain(Job &job);

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<Job *> jobs_;
  std::vector<std::thread> workers_;
  bool stop_ = false;
  int64_t owner_ = 0;  // process that started the workers; a forked child has none of them
};

}  // namespace lf
