// One function for several machines: ALPAGYM_FORMS(name, Work) defines name(form, work), which runs
// `run(work)` compiled for the form. `flatten` brings all that it calls into it, and so under its
// target.
#pragma once
#include "../sim.h"

#if defined(__x86_64__)
#define ALPAGYM_FORMS(NAME, WORK)                                                        \
  [[gnu::flatten]] void NAME##_vector(const WORK& work) { run(work); }                   \
  [[gnu::flatten, gnu::target("avx2,fma,bmi,bmi2,lzcnt,popcnt")]] void NAME##_avx2(      \
      const WORK& work) {                                                                \
    run(work);                                                                           \
  }                                                                                      \
  [[gnu::flatten, gnu::target("arch=x86-64-v4")]] void NAME##_avx512(const WORK& work) { \
    run(work);                                                                           \
  }                                                                                      \
  void NAME(Form form, const WORK& work) {                                               \
    if (form == Form::kAvx512) return NAME##_avx512(work);                               \
    if (form == Form::kAvx2) return NAME##_avx2(work);                                   \
    NAME##_vector(work);                                                                 \
  }
#else
#define ALPAGYM_FORMS(NAME, WORK)                                      \
  [[gnu::flatten]] void NAME##_vector(const WORK& work) { run(work); } \
  void NAME(Form, const WORK& work) { NAME##_vector(work); }
#endif
