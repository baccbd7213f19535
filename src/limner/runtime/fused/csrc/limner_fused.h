// The fused integer engine: C interface (see native.py for the ctypes side, ../reference.py for the same in numpy).
//
// A network is a list of convolution layers in the order they run. Activations are uint8 NHWC. The engine fuses a
// depthwise layer with the pointwise layer that reads it, and streams the rows of all layers through small rings.
//
// Arithmetic of a layer, exact (every instruction set gives the same bytes):
//   acc  = bias[o] + sum(weight * input)       int32; places outside the picture hold in_zero; the caller folded
//                                              -in_zero * sum(weight[o]) into bias[o], so `input` is the plain byte
//   CONV:  t = float32(acc) * multiplier[o]    the exact product; fastest where multipliers are multiples of 2^-22
//          film:     t = float32(acc) * (multiplier[o] * scale[o]) + shift[o]
//          residual: t = t + residual_scale * float32(residual byte - residual_zero)
//          byte = clamp(round_half_to_even(t) + out_zero, lo, hi)
//          with film or a residual every operation, that product too, is rounded to float32 on its own
//   TAIL:  byte = clamp(round_half_to_even(float32(acc) * multiplier[o]) + centre, 0, 255), the exact product again
//          `centre` is the picture's byte of the same colour below that output pixel (nearest neighbour). Output
//          channel o = (row * side + column) * picture_channels + colour with side = scale * unshuffle; the pixel
//          shuffle is part of the layer.
#ifndef LIMNER_FUSED_H
#define LIMNER_FUSED_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define LF_API __declspec(dllexport)
#else
#define LF_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define LF_ABI 2

enum { LF_CONV = 0, LF_TAIL = 1 };
enum { LF_PICTURE = -1, LF_NONE = -2 };  // values of lf_layer.input and lf_layer.residual besides layer indices
enum { LF_SCALAR = 0, LF_AVX2 = 1, LF_AVXVNNI = 2, LF_AVX512VNNI = 3, LF_NEON = 4, LF_ISAS = 5, LF_AUTO = -1 };

typedef struct {
  int32_t kind;          // LF_CONV or LF_TAIL (only the last layer, kernel 1, groups 1)
  int32_t kernel;        // 1, 3 or 5; stride 1, "same" padding with in_zero
  int32_t groups;        // 1: dense; in_channels: depthwise (out = in); else in/groups and out/groups multiples of 16
  int32_t in_channels;   // picture_channels * unshuffle^2 when input is LF_PICTURE, else a multiple of 16, <= 1024
  int32_t out_channels;  // multiple of 16 (LF_TAIL: picture_channels * (scale * unshuffle)^2), <= 1024
  int32_t input;         // LF_PICTURE or the index of an earlier CONV layer
  int32_t residual;      // LF_NONE or the index of an earlier CONV layer with the same out_channels
  int32_t residual_zero; // zero point of the residual's bytes
  float residual_scale;  // scale(residual) / scale(output)
  int32_t in_zero;       // 0..255
  int32_t out_zero;      // 0..255, CONV only
  int32_t lo, hi;        // 0 <= lo <= hi <= 255, CONV only
  int32_t film;          // 1: lf_run gets out_channels scales, then out_channels shifts for this layer; CONV only
  const int8_t *weight;     // [out][in / groups][kernel][kernel], -127..127
  const int32_t *bias;      // [out]
  const float *multiplier;  // [out], finite, >= 0
} lf_layer;

typedef struct {
  int32_t layers;            // length of `layer`
  int32_t picture_channels;  // 1..64; with a TAIL and unshuffle > 1, picture_channels * unshuffle^2 <= 16
  int32_t unshuffle;         // 1..4: layers run on cells of unshuffle x unshuffle pixels, channels (row, column, colour)
  int32_t scale;             // output pixels per picture pixel along one side, 1..8; used by TAIL
  const lf_layer *layer;
} lf_plan;

typedef struct lf_net lf_net;

// Version of this interface; native.py refuses a library with another one.
LF_API int32_t lf_abi(void);

// Name of an instruction set: scalar, avx2, avxvnni, avx512vnni, neon (NULL outside 0..LF_ISAS-1).
LF_API const char *lf_isa_name(int32_t isa);
// 1 when this processor and this build can run it.
LF_API int32_t lf_isa_usable(int32_t isa);
// What LF_AUTO means: the one environment variable LIMNER_FUSED_ISA names, else the fastest usable one. -1 on error
// (an unknown name, or one this processor cannot run), with one sentence in `error`.
LF_API int32_t lf_isa_chosen(char *error, size_t size);

// Compile a plan; nothing of it is needed afterwards. `isa`: an LF_ value or LF_AUTO.
// NULL on error, with one sentence in `error` (cut to `size` bytes).
LF_API lf_net *lf_create(const lf_plan *plan, int32_t isa, char *error, size_t size);
LF_API void lf_destroy(lf_net *net);
LF_API int32_t lf_net_isa(const lf_net *net);

// Run on one picture: `in` is [height][width][picture_channels], rows in_stride bytes apart; height and width are
// multiples of unshuffle. `out` is [height * scale][width * scale][picture_channels], or, when the last layer is
// CONV, [height / unshuffle][width / unshuffle][out_channels]; rows out_stride bytes apart. A stride of 0: no gaps.
// `film`: for every film layer in order its scales, then its shifts; NULL without film layers.
// `threads` >= 1; the result does not depend on it. Any number of calls may run at once on one net. 0 on success, else
// 1 with a sentence in `error`. The first call of a width allocates, later ones do not.
LF_API int32_t lf_run(lf_net *net, const uint8_t *in, int32_t height, int32_t width, int64_t in_stride, uint8_t *out,
                      int64_t out_stride, int32_t threads, const float *film, char *error, size_t size);

// Bytes held by the workspaces of a net so far.
LF_API int64_t lf_workspace_bytes(lf_net *net);

// Switch the profile on (clears it) or off. While on, every layer's time is summed over threads and calls.
LF_API void lf_profile(lf_net *net, int32_t on);
// Seconds per layer since it was switched on, `layers` values: where rows enter (copy of the picture) counts for
// layer 0, the pixel shuffle for the tail.
LF_API void lf_profile_read(lf_net *net, double *seconds);

// Premultiplied alpha, [height][width][4] without gaps, as straight alpha. Where alpha is below `sheer`, the colour is
// the mean of the 5 x 5 pixels around, weighted by alpha. Colours [height][width][3] and alpha [height][width]; or, where
// `alpha` is null, `colours` is [height][width][4] and takes both. 0 on success, 1 when memory runs out.
LF_API int32_t lf_straight(const uint8_t *in, int32_t height, int32_t width, int32_t sheer, uint8_t *colours,
                           uint8_t *alpha);

// Measured limits of one core; each takes about `seconds` and gives the best of many short windows.
// int8 multiply-accumulates per second of the instruction set (2 operations each), best loop it allows without
// relying on small weights: avx2 vpmaddubsw + vpmaddwd + vpaddd, VNNI vpdpbusd, NEON sdot; 0 when not usable.
LF_API double lf_peak_macs(int32_t isa, double seconds);
// Bytes per second read from a buffer of `bytes` (choose it beyond the last-level cache for DRAM).
LF_API double lf_peak_read(size_t bytes, double seconds);

#ifdef __cplusplus
}
#endif
#endif
