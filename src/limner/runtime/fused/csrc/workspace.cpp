// One side of a tile of the output: rows of all layers, made on demand in pairs and kept in rings.
//
// A layer's rows are made when the next layer first needs them. Rows and columns beyond the tile that later layers
// look at (the halo) are made too; beyond the picture there is nothing to make, and pads hold the zero point.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "engine.h"

namespace lf {
namespace {

constexpr int64_t kAlign = 64;

int64_t round_up(int64_t a, int64_t to) { return (a + to - 1) / to * to; }

// Pixels at a time where no depthwise layer takes part: what is read of a row fits a quarter of the L1 cache.
constexpr int32_t kWideChunk = 256;

int32_t chunk_of(int64_t stride) { return int32_t(std::max<int64_t>(64, std::min<int64_t>(kWideChunk, 8192 / stride / 8 * 8))); }

// `columns` in equal parts of at most `most`, a multiple of 8.
int32_t even_part(int32_t columns, int32_t most) {
  const int32_t parts = (columns + most - 1) / most;
  return int32_t(round_up((columns + parts - 1) / parts, 8));
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Workspace::Workspace(const Network &net, int32_t columns) : net_(net), columns_(columns), rows_(net.tensors.size()) {
  std::vector<int64_t> at;  // where each piece begins
  const auto piece = [&](int64_t size) {
    at.push_back(bytes_);
    bytes_ += round_up(size, kAlign) + kAlign;
  };
  int64_t widest = kBlock, staged = kUnit, quads = 0;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const Tensor &t = net.tensors[i];
    // Odd multiples of a cache line, so that the rows of a ring do not fall into the same sets.
    const int64_t pixels = columns + 2 * t.halo + 2 * t.pad + kOvershoot;
    rows_[i].row_bytes = round_up(pixels * t.stride + kAlign, 2 * kAlign) + kAlign;
    widest = std::max(widest, t.stride);
    const bool kept = t.halo >= 0;
    piece(kept ? rows_[i].row_bytes * t.depth : 0);
    piece(kept ? rows_[i].row_bytes : 0);
  }
  for (const Layer &layer : net.layers) {
    staged = std::max<int64_t>(staged, int64_t(layer.units) * kUnit);
    quads = std::max<int64_t>(quads, int64_t(layer.places.size()));
  }
  staged_stride_ = std::max(staged, widest);
  piece(kDepthwiseScratch);
  piece(widest * (kChunk + kOvershoot));
  piece(widest * (kChunk + kOvershoot));
  piece(staged_stride_ * (kWideChunk + kOvershoot));
  quads_.resize(quads);
  for (const Layer &layer : net.layers) {
    multiplier_.emplace_back(layer.plan.film ? layer.channel.size() : 0);
    shift_.emplace_back(layer.plan.film ? layer.channel.size() : 0);
  }
  // Zeroed, because kernels read a few bytes beyond what was written (and ignore what comes of them).
  memory_ = static_cast<uint8_t *>(std::calloc(1, bytes_ + kAlign));
  if (!memory_) throw std::bad_alloc();
  uint8_t *base = memory_ + (kAlign - reinterpret_cast<uintptr_t>(memory_) % kAlign) % kAlign;
  for (size_t i = 0; i < rows_.size(); ++i) {
    rows_[i].ring = base + at[2 * i];
    rows_[i].outside = base + at[2 * i + 1];
    if (net.tensors[i].halo >= 0) std::memset(rows_[i].outside, net.tensors[i].zero, rows_[i].row_bytes);
  }
  const size_t rest = 2 * rows_.size();
  interleaved_ = base + at[rest];
  between_[0] = base + at[rest + 1];
  between_[1] = base + at[rest + 2];
  staged_ = base + at[rest + 3];
}

Workspace::~Workspace() { std::free(memory_); }

void Workspace::enter(const Call &call, Meeting &meeting, int side) {
  call_ = &call;
  meeting_ = &meeting;
  side_ = side;
  const Tile &tile = meeting.tile();
  const int32_t first = side ? call.rows - tile.bottom : tile.top, end = side ? call.rows - tile.top : tile.bottom;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const int32_t halo = net_.tensors[i].halo;
    if (halo < 0) continue;
    Rows &r = rows_[i];
    r.next = first - halo;
    r.top = std::max(0, first - halo);
    r.bottom = r.end = std::min(call.rows, end + halo);
    r.left = std::max(0, tile.left - halo);
    r.right = std::min(call.columns, tile.right + halo);
    r.made.store(r.top, std::memory_order_relaxed);
  }
  rows_[0].next = rows_[0].top;
  modulate(call.film);
  meeting.enter(side, *this);
}

// The output's rows pull those of the tensors before it. A side that ends above the output's rows has rows left that the
// other side looks at.
void Workspace::run(double *seconds) {
  seconds_ = seconds;
  if (seconds_) mark_ = now();
  for (int tensor = int(rows_.size()) - 1; tensor >= 0; --tensor)
    if (net_.tensors[tensor].halo >= 0) advance(tensor, rows_[tensor].bottom - 1);
  meeting_->leave(side_);
}

// Where the two sides meet, all tensors of this one end.
void Workspace::find_seam() {
  const int32_t seam = rows_[0].top + meeting_->claimed(side_);
  for (Rows &r : rows_) r.bottom = std::min(r.bottom, seam);
}

void Workspace::modulate(const float *film) {
  for (size_t i = 0; i < net_.layers.size(); ++i) {
    const Layer &layer = net_.layers[i];
    if (!layer.plan.film) continue;
    const float *scale = film + layer.film_at, *shift = scale + layer.plan.out_channels;
    for (size_t at = 0; at < layer.channel.size(); ++at) {
      const int32_t channel = layer.channel[at];
      multiplier_[i][at] = channel < 0 ? 0 : layer.multiplier[at] * scale[channel];
      shift_[i][at] = channel < 0 ? 0 : shift[channel];
    }
  }
}

uint8_t *Workspace::row_of(int tensor, int32_t row) const {
  const Rows &r = rows_[tensor];
  if (row < r.top || row >= r.end) return r.outside;
  if (row >= r.bottom) return row_of_other(tensor, row);
  return r.ring + row % net_.tensors[tensor].depth * r.row_bytes;
}

// A row beyond the seam. The other side makes it before it needs the row of this side that is made of it, and keeps it
// until this side has left.
uint8_t *Workspace::row_of_other(int tensor, int32_t row) const {
  const Workspace &other = meeting_->side(1 - side_);
  const Rows &r = other.rows_[tensor];
  row = call_->rows - 1 - row;
  wait_until([&] { return r.made.load(std::memory_order_acquire) > row; });
  return r.ring + row % net_.tensors[tensor].depth * r.row_bytes;
}

uint8_t *Workspace::pixel_of(int tensor, int32_t row, int32_t column) const {
  const Tensor &t = net_.tensors[tensor];
  return row_of(tensor, row) + int64_t(column - rows_[tensor].left + t.pad) * t.stride;
}

void Workspace::advance(int tensor, int32_t row) {
  Rows &r = rows_[tensor];
  while (r.next <= std::min(row, r.bottom - 1)) {  // on the way there the seam may be found, and the bottom rises
    if (tensor > 0) {
      make_pair(net_.stages[net_.stage_of[tensor]], r.next);
      r.next += 2;
    } else if (meeting_->claim(side_)) {
      enter_row(r.next++);
    } else {
      find_seam();
    }
    r.made.store(std::min(r.next, r.bottom), std::memory_order_release);
  }
}

// A row of the picture into cells, channels ordered (row, column, colour).
void Workspace::enter_row(int32_t row) {
  const Rows &r = rows_[0];
  const int64_t cell = net_.unshuffle, run = cell * net_.picture_channels;
  uint8_t *to = pixel_of(0, row, r.left);
  for (int64_t y = 0; y < cell; ++y) {
    const uint8_t *from = call_->in + (turned(row) * cell + y) * call_->in_stride + r.left * run;
    if (cell == 1) {
      std::memcpy(to, from, size_t(r.right - r.left) * run);
      break;
    }
    for (int32_t x = r.left; x < r.right; ++x, from += run)
      std::memcpy(to + (x - r.left) * net_.tensors[0].stride + y * run, from, run);
  }
  pad_row(0, row);
  account(0);
}

void Workspace::pad_row(int tensor, int32_t row) {
  const Tensor &t = net_.tensors[tensor];
  const Rows &r = rows_[tensor];
  std::memset(pixel_of(tensor, row, r.left - t.pad), t.zero, t.pad * t.stride);
  std::memset(pixel_of(tensor, row, r.right), t.zero, t.pad * t.stride);
}

// Rows `row` and `row + 1` of what a stage makes, as far as they lie in the tile and before the seam.
void Workspace::make_pair(const Stage &stage, int32_t row) {
  const Layer &first = net_.layers[stage.first()], &last = net_.layers[stage.last()];
  const int tensor = stage.last() + 1;
  const Rows &made = rows_[tensor];
  if (row + 1 < made.top) return;
  const int32_t bottom = std::min(row + 1, made.bottom - 1);
  advance(first.plan.input + 1, bottom + first.radius);
  if (last.plan.residual >= 0) advance(last.plan.residual + 1, bottom);
  if (last.plan.kind == LF_TAIL) advance(0, bottom);
  const bool wanted[2] = {row >= made.top && row < made.bottom, row + 1 < made.bottom};
  if (!wanted[0] && !wanted[1]) return;
  const bool leaves = tensor == int(rows_.size()) - 1;
  const int64_t stride = net_.tensors[first.plan.input + 1].stride;
  const int32_t most = stage.depthwise < 0  ? chunk_of(stride)
                       : stride > kBlock    ? net_.kernels->chunk_beyond
                                            : net_.kernels->chunk;
  const int32_t chunk = even_part(made.right - made.left, most);
  const int64_t between = stage.depthwise >= 0 ? net_.tensors[stage.depthwise + 1].stride : 0;
  for (int32_t column = made.left; column < made.right; column += chunk) {
    const int32_t pixels = std::min(chunk, made.right - column);
    if (stage.depthwise >= 0 && stage.matrix >= 0) {
      run_depthwise(stage.depthwise, row, column, pixels, between_, between);
    } else if (stage.depthwise >= 0) {
      uint8_t *out[2];
      for (int i = 0; i < 2; ++i) out[i] = wanted[i] && !leaves ? pixel_of(tensor, row + i, column) : between_[i];
      run_depthwise(stage.depthwise, row, column, pixels, out, net_.tensors[tensor].stride);
    }
    for (int i = 0; i < 2; ++i) {
      if (!wanted[i]) continue;
      if (stage.matrix >= 0)
        run_matrix(stage.matrix, row + i, column, pixels, stage.depthwise >= 0 ? between_[i] : nullptr, between);
      else if (leaves)
        for (int32_t p = 0; p < pixels; ++p)
          std::memcpy(staged_ + p * staged_stride_, between_[i] + p * between, net_.tensors[tensor].channels);
      if (leaves) deliver(stage.last(), row + i, column, pixels);
    }
  }
  for (int i = 0; i < 2; ++i)
    if (wanted[i] && !leaves) pad_row(tensor, row + i);
}

void Workspace::run_depthwise(int index, int32_t row, int32_t column, int32_t pixels, uint8_t *const (&out)[2],
                              int64_t stride) {
  const Layer &layer = net_.layers[index];
  const int input = layer.plan.input + 1;
  Depthwise d;
  for (int i = 0; i <= layer.plan.kernel; ++i)
    d.rows[i] = pixel_of(input, side_ ? row + 1 + layer.radius - i : row - layer.radius + i, column - layer.radius);
  d.pixel_stride = net_.tensors[input].stride;
  d.pixels = pixels;
  d.blocks = layer.blocks;
  d.kernel = layer.plan.kernel;
  d.weights = layer.weights.data();
  d.sums = layer.sums.data();
  d.bias = layer.bias.data();
  d.multiplier = layer.plan.film ? multiplier_[index].data() : layer.multiplier.data();
  d.addend = layer.addend.empty() ? nullptr : layer.addend.data();
  d.shift = layer.plan.film ? shift_[index].data() : nullptr;
  d.requant = {layer.plan.out_zero, layer.plan.lo, layer.plan.hi};
  d.out[0] = out[side_];
  d.out[1] = out[1 - side_];
  d.out_stride = stride;
  d.scratch = interleaved_;
  net_.kernels->depthwise(d);
  account(index);
}

// `pointwise`: the input where a depthwise layer has just left it, or null to read the tensor's rows.
void Workspace::run_matrix(int index, int32_t row, int32_t column, int32_t pixels, const uint8_t *pointwise,
                           int64_t stride) {
  const Layer &layer = net_.layers[index];
  const lf_layer &plan = layer.plan;
  const int input = plan.input + 1, output = index + 1;
  const bool leaves = output == int(rows_.size()) - 1;
  Matrix m{};
  m.pixel_stride = pointwise ? stride : net_.tensors[input].stride;
  m.pixels = pixels;
  m.filled = layer.filled;
  m.pairs = layer.pairs;
  m.units = layer.units_of_group;
  m.requant = plan.kind == LF_TAIL ? Requant{0, 0, 255} : Requant{plan.out_zero, plan.lo, plan.hi};
  m.out_stride = leaves ? staged_stride_ : net_.tensors[output].stride;
  m.residual_scale = plan.residual_scale;
  m.residual_zero = plan.residual_zero;
  m.residual_stride = plan.residual >= 0 ? net_.tensors[plan.residual + 1].stride : 0;
  if (plan.kind == LF_TAIL) {
    m.centre = pixel_of(0, row, column);
    m.centre_stride = net_.tensors[0].stride;
    m.centre_index = layer.centre_index.data();
  }
  m.bounded = layer.bounded;
  m.quads = quads_.data();
  m.consecutive = layer.consecutive;
  uint8_t *out = leaves ? staged_ : pixel_of(output, row, column);
  for (int group = 0; group < plan.groups; ++group) {
    const int64_t unit = int64_t(group) * layer.units_of_group;
    const uint8_t *source[5];
    for (int y = 0; y < plan.kernel; ++y)
      source[y] = (pointwise ? pointwise : pixel_of(input, side_ ? row + layer.radius - y : row - layer.radius + y,
                                                    column - layer.radius)) +
                  group * layer.group_bytes;
    for (size_t i = 0; i < layer.places.size(); ++i) quads_[i] = source[layer.places[i].row] + layer.places[i].offset;
    m.weights = layer.weights.data() + unit * layer.pairs * 2 * kUnit * 4;
    m.order = layer.order.data() + unit * layer.pairs;
    m.ends = layer.ends.data() + unit * 3;
    m.bias = layer.bias.data() + unit * kUnit;
    m.multiplier = (plan.film ? multiplier_[index].data() : layer.multiplier.data()) + unit * kUnit;
    m.addend = layer.addend.empty() ? nullptr : layer.addend.data() + unit * kUnit;
    m.shift = plan.film ? shift_[index].data() + unit * kUnit : nullptr;
    m.residual = plan.residual >= 0 ? pixel_of(plan.residual + 1, row, column) + unit * kUnit : nullptr;
    m.out = out + unit * kUnit;
    net_.kernels->matrix(m);
  }
  account(index);
}

// From the staging buffer to the caller's memory, where nothing beyond these pixels may be touched.
void Workspace::deliver(int index, int32_t row, int32_t column, int32_t pixels) {
  const Layer &layer = net_.layers[index];
  const int64_t side = net_.side();
  const bool tail = layer.plan.kind == LF_TAIL;
  const int64_t run = tail ? side * net_.picture_channels : layer.plan.out_channels;
  if (!tail) {
    const std::vector<int32_t> &order = net_.tensors[index + 1].order;
    uint8_t *to = call_->out + turned(row) * call_->out_stride + column * run;
    for (int32_t p = 0; p < pixels; ++p)
      for (int64_t c = 0; c < run; ++c) to[p * run + order[c]] = staged_[p * staged_stride_ + c];
    return account(index);
  }
  for (int64_t y = 0; y < side; ++y) {
    const uint8_t *from = staged_ + y * run;
    uint8_t *to = call_->out + (turned(row) * side + y) * call_->out_stride + column * run;
    int32_t p = 0;
    // 16 bytes at a time, the excess overwritten by the next pixel.
    if (run <= 16)
      for (; p * run + 16 <= pixels * run; ++p) std::memcpy(to + p * run, from + p * staged_stride_, 16);
    for (; p < pixels; ++p) std::memcpy(to + p * run, from + p * staged_stride_, run);
  }
  account(index);
}

void Workspace::account(int layer) {
  if (!seconds_) return;
  const double time = now();
  seconds_[layer] += time - mark_;
  mark_ = time;
}

}  // namespace lf
