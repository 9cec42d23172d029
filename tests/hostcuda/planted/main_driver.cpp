// Runs the cases of one main kernel: main_driver <operand> <tile> <variant> <most cases> <wrong ones to bear>. Ends
// with exit code 1 and a line on stdout once so many are wrong; a sanitizer ends the program its own way, and should
// have the chance to see why they are. planted.py builds it with a bug in the kernel.
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "hostcuda/planted/cases.h"

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  const auto operand = static_cast<main_pass::Operand>(std::atoi(argv[1]));
  const int tile = std::atoi(argv[2]);
  const auto variant = static_cast<main_pass::sm80::Variant>(std::atoi(argv[3]));
  const auto most = static_cast<size_t>(std::atoi(argv[4]));
  int patience = std::atoi(argv[5]);
  std::vector<main_pass::Case> cases = main_pass::cases_of(operand, tile, variant);
  if (variant == main_pass::sm80::Variant::kMixed) {
    const std::vector<main_pass::Case> tails = main_pass::tail_cases(operand, tile, 40);
    cases.insert(cases.end(), tails.begin(), tails.end());
  }
  // Spread over all cases where not all are run.
  const size_t step = cases.size() > most ? (cases.size() + most - 1) / most : 1;
  size_t turn = 0;
  bool failed = false;
  for (size_t i = 0; i < cases.size(); i += step) {
    hostcuda::Options options = hostcuda::options();
    options.schedule = hostcuda::kSchedules[turn++ % std::size(hostcuda::kSchedules)];
    options.seed = turn;
    options.quiet = true;
    hostcuda::set_options(options);
    const std::string wrong = main_pass::check(cases[i]);
    if (wrong.empty()) continue;
    if (!failed) std::printf("%s\n  %s\n", wrong.c_str(), main_pass::describe(cases[i]).c_str());
    failed = true;
    if (--patience <= 0) break;
  }
  if (!failed) std::printf("%zu cases are right\n", turn);
  return failed;
}
