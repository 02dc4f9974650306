// alpagym_tests NAME runs one test, without a name all of them.
#include <cstring>

#include "check.h"

int main(int argc, char** argv) {
  int run = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && std::strcmp(argv[1], test.name) != 0) continue;
    test.body();
    ++run;
  }
  std::printf("%d tests, %d failed checks\n", run, failures());
  return run > 0 && failures() == 0 ? 0 : 1;
}
