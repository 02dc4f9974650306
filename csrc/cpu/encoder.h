// A network of two layers over each element of a set, and the largest of each of its features over
// the set: what a policy does with the agents, road points and lights that it sees. In one pass, so
// that nothing per element is written to memory; slots that hold nothing cost nothing.
//
//   out[f] = max over elements of max(0, b2 + W2 max(0, b1 + W1 x))[f],  0 without elements
//
// Only the element that gives a feature its largest value has a gradient, so the way back visits
// each feature once instead of each element.
#pragma once
#include <cstdint>

namespace alpagym::cpu {

// Sizes: N sets of K slots with C columns, of which `scaled` are multiplied by `scale` and clipped
// to -+ 5; with kinds, the column after them is a kind, and kinds first_kind .. + num_kinds - 1
// have a column of W1 each. F features, a multiple of eight.
struct Elements {
  int N, K, C, F;
  int scaled, first_kind, num_kinds;
  const float* rows;   // [N, K, C]
  const bool* mask;    // [N, K]
  const float* scale;  // [scaled]
  const float* w1;     // [F, scaled + num_kinds]
  const float* b1;     // [F]
  const float* w2;     // [F, F]
  const float* b2;     // [F]

  int inputs() const { return scaled + num_kinds; }
  int parameters() const { return F * (inputs() + 1) + F * (F + 1); }
};

constexpr int kMaxFeatures = 128, kMaxInputs = 32;
constexpr int kSetsPerPart = 128;  // gradients are summed over so many sets, then part by part

// `largest` [N, F] is the slot that gave each feature, -1 for none.
void encode(const Elements& e, float* out, int32_t* largest);

// Gradients of w1, b1, w2, b2, one after the other as in the struct, of each part of kSetsPerPart
// sets: [ceil(N / kSetsPerPart), parameters()], from those of `out` [N, F].
void encode_backward(const Elements& e, const int32_t* largest, const float* gradient,
                     float* parts);

}  // namespace alpagym::cpu
