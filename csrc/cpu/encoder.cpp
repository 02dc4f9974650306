#include "encoder.h"

#include <algorithm>
#include <cmath>

#include "forms.h"
#include "simd.h"

namespace alpagym::cpu {
namespace {

using simd::Float8;
constexpr int kLanes = simd::kLanes;

// Weights with the features of a layer side by side.
struct Weights {
  alignas(32) float w1[kMaxInputs][kMaxFeatures], w2[kMaxFeatures][kMaxFeatures];

  explicit Weights(const Elements& e) {
    for (int f = 0; f < e.F; ++f) {
      for (int d = 0; d < e.inputs(); ++d) w1[d][f] = e.w1[f * e.inputs() + d];
      for (int j = 0; j < e.F; ++j) w2[j][f] = e.w2[f * e.F + j];
    }
  }
};

// The numbers of an element, and the input that stands for its kind, -1 for none.
struct Element {
  float number[kMaxInputs];
  int kind;
};
inline Element element_of(const Elements& e, const float* row) {
  Element x;
  for (int d = 0; d < e.scaled; ++d)
    x.number[d] = std::min(std::max(row[d] * e.scale[d], -5.f), 5.f);
  const float kind = e.num_kinds ? row[e.scaled] - static_cast<float>(e.first_kind) : -1.f;
  x.kind = kind >= 0.f && kind < static_cast<float>(e.num_kinds) ? e.scaled + static_cast<int>(kind)
                                                                 : -1;
  return x;
}

// The first layer of one element, F values.
template <int blocks>
inline void first_layer(const Elements& e, const Weights& w, const Element& x, float* out) {
  Float8 sum[blocks];
  for (int b = 0; b < blocks; ++b) sum[b] = simd::load(e.b1 + b * kLanes);
  if (x.kind >= 0)
    for (int b = 0; b < blocks; ++b) sum[b] += simd::load(w.w1[x.kind] + b * kLanes);
  for (int d = 0; d < e.scaled; ++d)
    for (int b = 0; b < blocks; ++b) sum[b] += x.number[d] * simd::load(w.w1[d] + b * kLanes);
  for (int b = 0; b < blocks; ++b)
    simd::store(out + b * kLanes, sum[b] < 0.f ? simd::splat(0.f) : sum[b]);  // NaN stays
}

// `count` elements at a time share the loads of weights.
template <int blocks, int count>
inline void visit(const Elements& e, const Weights& w, const float* rows, const int* slot,
                  Float8* best, simd::Int8* where) {
  alignas(32) float hidden[count][blocks * kLanes];
  for (int k = 0; k < count; ++k)
    first_layer<blocks>(e, w, element_of(e, rows + slot[k] * e.C), hidden[k]);
  Float8 sum[count][blocks];
  for (int k = 0; k < count; ++k)
    for (int b = 0; b < blocks; ++b) sum[k][b] = simd::load(e.b2 + b * kLanes);
  for (int j = 0; j < blocks * kLanes; ++j)
    for (int b = 0; b < blocks; ++b) {
      const Float8 weight = simd::load(w.w2[j] + b * kLanes);
      for (int k = 0; k < count; ++k) sum[k][b] += hidden[k][j] * weight;
    }
  for (int k = 0; k < count; ++k)
    for (int b = 0; b < blocks; ++b) {
      const simd::Int8 more = (sum[k][b] > best[b]) | (sum[k][b] != sum[k][b]);  // NaN wins
      best[b] = more ? sum[k][b] : best[b];
      where[b] = more ? simd::Int8{} + slot[k] : where[b];
    }
}

template <int blocks>
inline void encode_sets(const Elements& e, const Weights& w, int first, int last, float* out,
                        int32_t* largest) {
  for (int n = first; n < last; ++n) {
    const float* rows = e.rows + static_cast<int64_t>(n) * e.K * e.C;
    const bool* mask = e.mask + static_cast<int64_t>(n) * e.K;
    Float8 best[blocks];
    simd::Int8 where[blocks];
    for (int b = 0; b < blocks; ++b) {
      best[b] = simd::splat(0.f);
      where[b] = simd::Int8{} - 1;
    }
    int slot[4], held = 0;
    for (int k = 0; k < e.K; ++k) {
      if (!mask[k]) continue;
      slot[held++] = k;
      if (held < 4) continue;
      visit<blocks, 2>(e, w, rows, slot, best, where);
      visit<blocks, 2>(e, w, rows, slot + 2, best, where);
      held = 0;
    }
    for (int k = 0; k < held; ++k) visit<blocks, 1>(e, w, rows, slot + k, best, where);
    for (int b = 0; b < blocks; ++b) {
      simd::store(out + static_cast<int64_t>(n) * e.F + b * kLanes, best[b]);
      std::memcpy(largest + static_cast<int64_t>(n) * e.F + b * kLanes, &where[b], sizeof where[b]);
    }
  }
}

// y += factor * x over F values.
inline void add(float* y, float factor, const float* x, int n) {
  for (int k = 0; k < n; k += kLanes)
    simd::store(y + k, simd::load(y + k) + factor * simd::load(x + k));
}

template <int blocks>
inline void backward_sets(const Elements& e, const Weights& w, int first, int last,
                          const int32_t* largest, const float* gradient, float* part) {
  constexpr int F = blocks * kLanes;
  alignas(32) float d_w1[kMaxInputs][kMaxFeatures];
  alignas(32) float d_b1[F] = {}, d_hidden[F], hidden[F];
  for (int d = 0; d < e.inputs(); ++d) std::fill(d_w1[d], d_w1[d] + F, 0.f);
  float* const d_w2 = part + F * (e.inputs() + 1);
  float* const d_b2 = d_w2 + F * F;
  for (int n = first; n < last; ++n) {
    const float* rows = e.rows + static_cast<int64_t>(n) * e.K * e.C;
    const int32_t* where = largest + static_cast<int64_t>(n) * F;
    const float* given = gradient + static_cast<int64_t>(n) * F;
    uint64_t done[kMaxFeatures / 64] = {};
    for (int f = 0; f < F; ++f) {
      if (where[f] < 0 || (done[f / 64] >> (f % 64) & 1)) continue;
      const Element x = element_of(e, rows + static_cast<int64_t>(where[f]) * e.C);
      first_layer<blocks>(e, w, x, hidden);
      std::fill(d_hidden, d_hidden + F, 0.f);
      for (int g = f; g < F; ++g) {  // all features that this element gave
        if (where[g] != where[f]) continue;
        done[g / 64] |= uint64_t{1} << (g % 64);
        d_b2[g] += given[g];
        add(d_w2 + g * F, given[g], hidden, F);
        add(d_hidden, given[g], e.w2 + g * F, F);
      }
      for (int b = 0; b < F; b += kLanes) {
        const Float8 open =
            simd::load(hidden + b) > 0.f ? simd::load(d_hidden + b) : simd::splat(0.f);
        simd::store(d_hidden + b, open);
      }
      add(d_b1, 1.f, d_hidden, F);
      for (int d = 0; d < e.scaled; ++d) add(d_w1[d], x.number[d], d_hidden, F);
      if (x.kind >= 0) add(d_w1[x.kind], 1.f, d_hidden, F);
    }
  }
  for (int f = 0; f < F; ++f) {
    for (int d = 0; d < e.inputs(); ++d) part[f * e.inputs() + d] = d_w1[d][f];
    part[F * e.inputs() + f] = d_b1[f];
  }
}

struct Encode {
  const Elements& e;
  const Weights& w;
  int first, last;
  float* out;
  int32_t* largest;
};
struct Backward {
  const Elements& e;
  const Weights& w;
  int first, last;
  const int32_t* largest;
  const float* gradient;
  float* part;
};
template <int blocks>
inline void run(const Encode& o) {
  encode_sets<blocks>(o.e, o.w, o.first, o.last, o.out, o.largest);
}
template <int blocks>
inline void run(const Backward& o) {
  backward_sets<blocks>(o.e, o.w, o.first, o.last, o.largest, o.gradient, o.part);
}
template <class Work>
inline void run(const Work& work) {
  switch (work.e.F / kLanes) {
    case 1:
      return run<1>(work);
    case 2:
      return run<2>(work);
    case 4:
      return run<4>(work);
    case 8:
      return run<8>(work);
    case 16:
      return run<16>(work);
  }
}

ALPAGYM_FORMS(encode_form, Encode)
ALPAGYM_FORMS(backward_form, Backward)

}  // namespace

void encode(const Elements& e, float* out, int32_t* largest) {
  const Weights w(e);
  const int parts = (e.N + kSetsPerPart - 1) / kSetsPerPart;
#pragma omp parallel for schedule(static) if (parts > 1)
  for (int p = 0; p < parts; ++p)
    encode_form(form(), Encode{e, w, p * kSetsPerPart, std::min((p + 1) * kSetsPerPart, e.N), out,
                               largest});
}

void encode_backward(const Elements& e, const int32_t* largest, const float* gradient,
                     float* parts) {
  const Weights w(e);
  const int count = (e.N + kSetsPerPart - 1) / kSetsPerPart;
#pragma omp parallel for schedule(static) if (count > 1)
  for (int p = 0; p < count; ++p) {
    float* part = parts + static_cast<int64_t>(p) * e.parameters();
    std::fill(part, part + e.parameters(), 0.f);
    backward_form(form(), Backward{e, w, p * kSetsPerPart, std::min((p + 1) * kSetsPerPart, e.N),
                                   largest, gradient, part});
  }
}

}  // namespace alpagym::cpu
